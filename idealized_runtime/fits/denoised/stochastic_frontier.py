"""Stochastic frontier with a spike and a slab: trials scatter about the undisturbed runtime, and some are delayed.

A trial takes f + jitter + delay. f = sum(p) + (o - 1) g is the undisturbed runtime, a sum of prompt time and
overhead and the output tokens; the jitter is normal; the delay is zero for some trials (the spike) and exponential for
the others (the slab). Jitter and delay are in seconds, or in shares of the runtime, whichever has the greater
likelihood. Were every trial delayed, this would be the normal-exponential stochastic frontier (Aigner, Lovell and
Schmidt 1977; Meeusen and van den Broeck 1977). All trials of a model are fitted at once, so that few trials a setting
suffice, and unlike a minimum the estimate does not drift with their number. Where disturbances only add, so that there
is a least runtime and no jitter about it, the jitter that is found lies around a runtime above the least, and intervals
hold the least in few cases; the time per output token holds as long as disturbances do not grow with the runtime.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.intervals import Intervals, choose_rule
from idealized_runtime.fits.settings import check_design
from idealized_runtime.fits.uncertainty import Covariance

# The likelihood has no bound where the jitter vanishes around a few trials. A penalty worth this many trials
# keeps it away from there (Chen, Tan and Zhang 2008) and fades as trials are added.
_PENALTY_TRIALS = 1.0
# Quantiles of the trials of a setting that the search starts from: the likelihood can have two hills.
_START_QUANTILES = (0.1, 0.4)
# How far the search may move each noise parameter (ln or logit) from its start; 7 is a thousandth or all but that.
_NOISE_REACH = 7.0
_INFORMATION_STEP = 1e-4


@dataclass(frozen=True)
class FrontierFit:
    """Undisturbed runtime and the noise around it; made by :func:`fit_frontier`.

    Parameters
    ----------
    num_prompt_tokens : int array, shape (K,)
    sums_s : float array, shape (K,)
        Prompt encoding time plus overhead at each size.
    time_per_output_token_s : float
        g, in seconds.
    covariance : float array, shape (K + 1, K + 1)
        Of the sums and g, from the observed information.
    jitter : float
        Standard deviation, in seconds, or in shares of the runtime where ``is_proportional``.
    delay_probability : float
    delay : float
        Mean of the delayed trials, in the unit of ``jitter``.
    is_proportional : bool
    log_likelihood : float
        Of the trials in seconds.
    """

    num_prompt_tokens: np.ndarray
    sums_s: np.ndarray
    time_per_output_token_s: float
    covariance: np.ndarray
    jitter: float
    delay_probability: float
    delay: float
    is_proportional: bool
    log_likelihood: float

    def to_model(self) -> RuntimeModel:
        """RuntimeModel with overhead and intervals; the overhead is the smallest size's sum less g, but not below 0."""
        g_s = self.time_per_output_token_s
        overhead_s = float(np.clip(self.sums_s[0] - g_s, 0, self.sums_s.min()))
        tile_share, rule_error = choose_rule(self.num_prompt_tokens, self.sums_s)
        reference = int(self.num_prompt_tokens[0])
        return RuntimeModel(
            num_prompt_tokens=self.num_prompt_tokens,
            profiled_prompt_times_s=self.sums_s - overhead_s,
            time_per_output_token_s=g_s,
            reference_num_prompt_tokens=reference,
            tile_share=tile_share,
            overhead_s=overhead_s,
            intervals=Intervals(self._level_covariance(), reference, rule_error),
        )

    def _level_covariance(self) -> Covariance:
        """A level is the part of a sum that does not hang on g; levels share no trials, only the noise."""
        with_slope, slope_variance = self.covariance[:-1, -1], self.covariance[-1, -1]
        mean_regressors = -with_slope / slope_variance
        unlimited = np.full(len(self.sums_s), np.inf)
        return Covariance(
            levels_s=self.sums_s + mean_regressors * self.time_per_output_token_s,
            mean_regressors=mean_regressors[:, None],
            slopes=np.array([self.time_per_output_token_s]),
            level_variance=np.diag(self.covariance)[:-1] - with_slope**2 / slope_variance,
            level_slope_covariance=np.zeros((len(self.sums_s), 1)),
            slope_covariance=np.array([[slope_variance]]),
            level_dof=unlimited,
            level_rounding_variance=np.zeros(len(self.sums_s)),
            slope_dof=np.inf,
            lack_of_fit=0.0,
            lack_of_fit_dof=np.inf,
            is_from_residuals=False,
        )


def fit_frontier(trials: pd.DataFrame) -> FrontierFit:
    """Maximum likelihood of the frontier over the trials of one model.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``num_prompt_tokens``, ``num_output_tokens``, ``runtime_s``: two prompt sizes or more, two numbers of output
        tokens, and two trials a setting on average, since a single one does not show the noise.

    Raises
    ------
    ValueError
        There are too few sizes or trials, or a fitted time is not positive; the message says which.
    """
    p, o, runtime_s = (
        trials[name].to_numpy(dtype=float) for name in ("num_prompt_tokens", "num_output_tokens", "runtime_s")
    )
    sizes, group = np.unique(p, return_inverse=True)
    check_design(trials)
    settings = trials.groupby(["num_prompt_tokens", "num_output_tokens"])["runtime_s"]
    if len(trials) < 2 * settings.ngroups:
        raise ValueError(
            f"a frontier needs 2 trials a setting on average; {len(trials)} trials of {settings.ngroups} settings. "
            "Time more trials, or use estimator='minimum'"
        )
    design = np.column_stack([np.eye(len(sizes))[group], o - 1])
    quantiles_s = [settings.transform("quantile", quantile).to_numpy() for quantile in _START_QUANTILES]
    starts = [np.linalg.lstsq(design, quantile_s, rcond=None)[0] for quantile_s in quantiles_s]
    # A floor is positive at each setting where the fit to the floors need not be.
    runtime_scale_s = np.maximum(design @ starts[0], 0.1 * runtime_s)
    fits = []
    for is_proportional, scale_s in ((False, np.ones(len(p))), (True, runtime_scale_s)):
        likelihood = _Likelihood(design / scale_s[:, None], runtime_s / scale_s)
        best = max((likelihood.maximise(start) for start in starts), key=lambda fit: fit[0])
        fits.append((best[0] - np.log(scale_s).sum(), best[1], is_proportional, likelihood))
    return _as_fit(*max(fits, key=lambda fit: fit[0]), sizes=sizes.astype(int))


@dataclass(frozen=True)
class _Likelihood:
    """Penalised log-likelihood; parameters are coefficients, ln jitter, logit of the delay's probability, ln delay."""

    design: np.ndarray
    runtimes: np.ndarray

    def maximise(self, start) -> tuple[float, np.ndarray]:
        """Log-likelihood, without the penalty, and parameters, from the coefficients in ``start``."""
        from scipy.optimize import minimize

        residual = self.runtimes - self.design @ start
        spread = _spread(residual)
        # Searched in units in which every parameter moves by about 1.
        units = np.concatenate([spread / np.abs(self.design).max(axis=0), np.ones(3)])
        delay = np.mean(np.maximum(residual, 0)) + spread
        first = np.concatenate([start, [np.log(spread), 0.0, np.log(delay)]])
        limits = [(None, None)] * len(start) + [(-_NOISE_REACH, _NOISE_REACH)] * 3

        def cost(step):
            value, score = self.evaluate(first + units * step, spread)
            return -value, -score * units

        # Tight enough that results print alike on any machine.
        options = {"ftol": 1e-13, "gtol": 1e-5, "maxiter": 1000}
        found = minimize(cost, np.zeros(len(first)), jac=True, method="L-BFGS-B", bounds=limits, options=options)
        parameters = first + units * found.x
        return -found.fun - _penalty(parameters[-3], spread)[0], parameters

    def evaluate(self, parameters, spread) -> tuple[float, np.ndarray]:
        """Penalised log-likelihood and its gradient, by the expected delay of each trial (Fisher's identity)."""
        coefficients, (log_jitter, logit, log_delay) = parameters[:-3], parameters[-3:]
        jitter, delay = np.exp(log_jitter), np.exp(log_delay)
        residual = self.runtimes - self.design @ coefficients
        log_density, delayed, first_moment, second_moment = _expect_delays(residual, jitter, logit, delay)
        penalty, penalty_slope = _penalty(log_jitter, spread)
        expected = delayed * first_moment
        squares = residual**2 - 2 * residual * expected + delayed * second_moment
        score = np.concatenate(
            [
                self.design.T @ (residual - expected) / jitter**2,
                [np.sum(squares / jitter**2 - 1) + penalty_slope],
                [np.sum(delayed - 1 / (1 + np.exp(-logit)))],
                [np.sum(expected / delay - delayed)],
            ]
        )
        return float(log_density.sum() + penalty), score

    def covariance(self, parameters) -> np.ndarray:
        """Inverse of the observed information, of the coefficients; given the noise where that is not identified."""
        spread = _spread(self.runtimes - self.design @ parameters[:-3])
        steps = np.full(len(parameters), _INFORMATION_STEP)
        steps[:-3] *= np.exp(parameters[-3]) / np.abs(self.design).max(axis=0)
        columns = [
            (self.evaluate(parameters - step, spread)[1] - self.evaluate(parameters + step, spread)[1])
            for step in np.diag(steps)
        ]
        information = np.array(columns) / (2 * steps[:, None])
        information = (information + information.T) / 2
        for part in (information, information[:-3, :-3]):
            scale = np.sqrt(np.abs(np.diag(part)))
            if scale.all() and np.linalg.eigvalsh(part / np.outer(scale, scale)).min() > 1e-8:
                num_coefficients = len(parameters) - 3
                return np.linalg.inv(part)[:num_coefficients, :num_coefficients]
        raise ValueError("the trials do not tell prompt times and time per output token apart; time more trials")


def _expect_delays(residual, jitter, logit, delay):
    """Of each trial: log density, probability that it was delayed, and then the delay's first two moments."""
    from scipy.special import log_ndtr

    log_spike = -np.logaddexp(0, logit) - 0.5 * (residual / jitter) ** 2 - np.log(jitter * np.sqrt(2 * np.pi))
    # Given that there was a delay, it is normal about this mean, and cut off below 0.
    standardized = residual / jitter - jitter / delay
    log_tail = log_ndtr(standardized)
    log_slab = -np.logaddexp(0, -logit) - np.log(delay) + 0.5 * (jitter / delay) ** 2 - residual / delay + log_tail
    log_density = np.logaddexp(log_spike, log_slab)
    hazard = np.exp(-0.5 * standardized**2 - log_tail) / np.sqrt(2 * np.pi)
    first_moment = jitter * (standardized + hazard)
    second_moment = jitter**2 * (standardized**2 + 1 + standardized * hazard)
    return log_density, np.exp(log_slab - log_density), first_moment, second_moment


def _penalty(log_jitter, spread) -> tuple[float, float]:
    """Penalty of a jitter far below ``spread``, 0 at its best, and the slope in ln jitter."""
    ratio = np.exp(2 * (np.log(spread) - log_jitter))
    return _PENALTY_TRIALS * (1 + np.log(ratio) - ratio), 2 * _PENALTY_TRIALS * (ratio - 1)


def _spread(residual) -> float:
    """Median absolute deviation; not zero even where more than half of the trials are equal."""
    deviation = np.abs(residual - np.median(residual))
    return float(max(np.median(deviation), 0.1 * deviation.mean(), np.finfo(float).tiny))


def _as_fit(log_likelihood, parameters, is_proportional, likelihood, *, sizes) -> FrontierFit:
    coefficients, (log_jitter, logit, log_delay) = parameters[:-3], parameters[-3:]
    if coefficients.min() <= 0:
        raise ValueError(f"the fitted sums of prompt time and overhead, and g, must be positive; got {coefficients}")
    return FrontierFit(
        num_prompt_tokens=sizes,
        sums_s=coefficients[:-1],
        time_per_output_token_s=float(coefficients[-1]),
        covariance=likelihood.covariance(parameters),
        jitter=float(np.exp(log_jitter)),
        delay_probability=float(1 / (1 + np.exp(-logit))),
        delay=float(np.exp(log_delay)),
        is_proportional=is_proportional,
        log_likelihood=float(log_likelihood),
    )
