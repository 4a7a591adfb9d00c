"""How far runtimes lie from the curve that is expected of them, learned from other models on the same machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from idealized_runtime.prediction.left_out import LeftOutModel

# Below so many tokens, sizes hardly differ in what the device does.
_FEWEST_TOKENS = 32
# Prompt tokens over which a time per output token bends, as where reading the cache begins to tell.
TOKEN_LENGTH = 1024
# Of noise in runtimes: a share of them, the sum of independent tokens, and a constant number of seconds.
EXPONENTS = np.array([0.0, 0.25, 0.5, 1.0])
# How far hyperparameters may lie from UNKNOWN before anything was seen: a factor of e^1.5 is one standard deviation.
_PRIOR_SPREAD = 1.5
# Degrees of freedom of a variance whose logarithm spreads by this much over models: trigamma(dof / 2).
_FEWEST_DOF, _MOST_DOF = 1.0, 64.0


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of runtimes from their expected curve, relative to it.

    Parameters
    ----------
    level : float
        Of all prompt times together.
    smooth, smooth_octaves : float
        Of what bends slowly with the prompt size, and over so many doublings of it.
    near, near_tokens : float
        Of what neighbouring sizes share, and over so many tokens.
    single : float
        Of one size alone.
    shared_smooth, shared_near, shared_single : float
        As those without ``shared``, of what all models of the machine have in common.
    token, token_slope, token_smooth : float
        Of the time per output token, of its change from half of the longest prompt to all of it, and of what bends it
        over ``TOKEN_LENGTH`` prompt tokens.
    token_doubling : float
        Of its change with every doubling of the output tokens, at all prompt sizes alike.
    start : float
        Of a constant time that the first tokens after the prompt's take besides, in units of one token's; it bends as
        ``token_smooth`` does.
    trial, trial_dof : float
        Of one trial from the mean of its setting, for the shortest query; it differs from model to model as if it were
        known by so many degrees of freedom.
    trial_exponents : tuple of float
        Longer queries have less noise, relative to themselves: by their length to minus one of ``EXPONENTS``, which
        are as probable as this.
    setting : float
        Of the mean of one (p, o) from its curve, however often it is timed, in units of a trial's: in logs that timed
        each setting in one visit, what visits scatter by is in it.
    setting_least : float
        The same of queries so long that their trials hardly scatter, relative to their runtimes.
    setting_s : float
        The same in seconds, such as of runtimes that are printed rounded.
    """

    level: float
    smooth: float
    smooth_octaves: float
    near: float
    near_tokens: float
    single: float
    token: float
    token_slope: float
    token_smooth: float
    token_doubling: float
    start: float
    trial: float
    trial_dof: float
    trial_exponents: tuple[float, ...]
    setting: float
    setting_least: float = 0.003
    setting_s: float = 0.0
    shared_smooth: float = 0.0
    shared_near: float = 0.0
    shared_single: float = 0.0

    def own_covariance(self, sizes, others) -> np.ndarray:
        """Covariance of what a model has to itself at some prompt sizes, with that at others."""
        bent, near, single = self._shapes(sizes, others)
        return self.level**2 + self.smooth**2 * bent + self.near**2 * near + self.single**2 * single

    def shared_covariance(self, sizes, others) -> np.ndarray:
        """Covariance of what all models have in common at some prompt sizes, with that at others."""
        bent, near, single = self._shapes(sizes, others)
        return self.shared_smooth**2 * bent + self.shared_near**2 * near + self.shared_single**2 * single

    def token_covariance(self, sizes, others) -> np.ndarray:
        """Covariance of the time per output token at some prompt sizes, with that at others."""
        sizes, others = (np.asarray(values, dtype=float) for values in (sizes, others))
        middle = max(sizes.max(), others.max()) / 2
        trend = np.outer(sizes / middle - 1, others / middle - 1)
        bent = _matern(np.abs(sizes[:, None] - others) / TOKEN_LENGTH)
        return self.token**2 + self.token_slope**2 * trend + self.token_smooth**2 * bent

    def start_covariance(self, sizes, others) -> np.ndarray:
        """Covariance of the constant time at some prompt sizes, with that at others, in units of a token's."""
        distance = np.abs(np.asarray(sizes, dtype=float)[:, None] - np.asarray(others, dtype=float))
        return self.start**2 * _matern(distance / TOKEN_LENGTH)

    def _shapes(self, sizes, others):
        """Matern 3/2 in doublings, exponential in tokens, and the same size."""
        sizes, others = (np.asarray(values, dtype=float) for values in (sizes, others))
        octaves = np.log2(sizes + _FEWEST_TOKENS)[:, None] - np.log2(others + _FEWEST_TOKENS)
        tokens = np.abs(sizes[:, None] - others)
        return _matern(np.abs(octaves) / self.smooth_octaves), np.exp(-tokens / self.near_tokens), tokens == 0


def _matern(distance):
    """Correlation of smoothness 3/2 over distances in units of its length (Santner et al. 2018, Section 2.2)."""
    return (1 + np.sqrt(3) * distance) * np.exp(-np.sqrt(3) * distance)


# Where no log of the machine tells: chosen, not learned, to be wider than models of the published logs lie apart.
UNKNOWN = Deviations(
    level=0.5, smooth=0.1, smooth_octaves=2.0, near=0.02, near_tokens=128.0, single=0.01,
    token=0.5, token_slope=0.05, token_smooth=0.02, token_doubling=0.002, start=0.2, trial=0.02, trial_dof=2.0,
    trial_exponents=(0.25, 0.25, 0.25, 0.25), setting=0.0,
)  # fmt: skip
# Where the search for what other models show begins.
_START = replace(UNKNOWN, level=0.07, smooth=0.04, near=0.02, single=0.005, shared_smooth=0.02, shared_near=0.02,
                 shared_single=0.005)  # fmt: skip
_SEARCHED = ("level", "smooth", "smooth_octaves", "near", "near_tokens", "single", "shared_smooth", "shared_near",
             "shared_single")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pattern:
    """What the prompt times of other models have in common, relative to what was expected of each.

    ``sizes``, ``deviation`` and ``model`` are of all their prompt sizes, one after the other.
    """

    deviations: Deviations
    sizes: np.ndarray
    deviation: np.ndarray
    model: np.ndarray
    variance: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance of all deviations."""
        is_same = self.model[:, None] == self.model
        own = self.deviations.own_covariance(self.sizes, self.sizes) * is_same
        return own + self.deviations.shared_covariance(self.sizes, self.sizes) + np.diag(self.variance)

    def at(self, sizes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the common part at some prompt sizes, given all deviations."""
        across = self.deviations.shared_covariance(sizes, self.sizes)
        weights = np.linalg.solve(self.covariance, across.T).T
        known = self.deviations.shared_covariance(sizes, sizes) - weights @ across.T
        return weights @ self.deviation, (known + known.T) / 2


def learn_deviations(left_out: Mapping[str, LeftOutModel]) -> Pattern:
    """Deviations of models that were each predicted from the others: what to expect of one more.

    Prompt times by maximum likelihood of the Gaussian process, with a weak prior; the rest by moments over models.

    Parameters
    ----------
    left_out : mapping
        As ``RuntimePredictor.left_out``, of the machine and software in question.

    Raises
    ------
    ValueError
        Nothing was left out: too few models.
    """
    if not left_out:
        raise ValueError("at least three models of the machine are needed to see how far predictions are off")
    parts = [_prompt_deviations(model) for model in left_out.values()]
    sizes, deviation, variance = (np.concatenate(column) for column in zip(*parts, strict=True))
    model = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    found = _most_likely(sizes, deviation, model, variance)
    tokens = np.array([_token_deviations(model) for model in left_out.values()])
    noise = np.array([_noise(model.timed) for model in left_out.values()])
    trials = np.log(noise[:, 0] ** 2)
    counts = 1.0 + np.bincount([np.argmin(np.abs(EXPONENTS - it)) for it in noise[:, 1]], minlength=len(EXPONENTS))
    # Of slopes and bends, what is not known of any model counts as one model more: a first one that has them comes.
    unknown = UNKNOWN.token_slope, UNKNOWN.token_smooth, UNKNOWN.token_doubling, UNKNOWN.start
    slope, bend, doubling, start = np.sqrt(np.mean(np.vstack([tokens[:, 1:], unknown]) ** 2, axis=0)).tolist()
    found = replace(
        found,
        token=float(np.sqrt(np.mean(tokens[:, 0] ** 2))),
        token_slope=slope,
        token_smooth=bend,
        token_doubling=doubling,
        start=start,
        trial=float(np.exp(trials.mean() / 2)),
        trial_dof=_dof_of_log_variance(np.var(trials, ddof=1)),
        trial_exponents=tuple(counts / counts.sum()),
        setting=float(np.mean(noise[:, 2])),
        setting_least=float(np.median(noise[:, 3])),
        setting_s=float(
            np.median([model.timed.fit.settings["runtime_resolution_s"].max() for model in left_out.values()])
        )
        / np.sqrt(12),
    )
    return Pattern(found, sizes, deviation, model, variance)


def _prompt_deviations(model):
    """Prompt sizes, measured over predicted - 1, and its variance."""
    fit = model.timed.fit
    measured_s, sizes = fit.profiled_prompt_times_s, fit.num_prompt_tokens
    predicted_s = model.predicted.prompt_encoding_time_s(sizes)
    error_s = 0 * measured_s if fit.intervals is None else fit.intervals.prompt_standard_errors_s(sizes)
    return sizes, measured_s / predicted_s - 1, (error_s / predicted_s) ** 2


def _most_likely(sizes, deviation, model, variance) -> Deviations:
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    start = np.log([getattr(_START, name) for name in _SEARCHED])

    def deviations_of(logs):
        return replace(_START, **dict(zip(_SEARCHED, np.exp(logs).tolist(), strict=True)))

    def cost(logs):
        covariance = Pattern(deviations_of(logs), sizes, deviation, model, variance + 1e-8).covariance
        factor = cho_factor(covariance, lower=True)
        misfit = deviation @ cho_solve(factor, deviation)
        penalty = np.sum(((logs - start) / _PRIOR_SPREAD) ** 2)
        return (misfit + penalty) / 2 + np.log(np.diag(factor[0])).sum()

    return deviations_of(minimize(cost, start, method="L-BFGS-B", options={"maxiter": 40}).x)


def _token_deviations(model) -> tuple[float, float, float, float, float]:
    """Of times per output token, measured over predicted: mean - 1, change over half the prompts, size of the bend, and
    change with every doubling of the tokens; and the constant time that the first take besides, in units of one.
    """
    settings = model.timed.fit.settings
    rows = []
    for p, timed in settings.groupby("num_prompt_tokens"):
        decoded, runtime_s = (timed[name].to_numpy(dtype=float) for name in ("num_output_tokens", "runtime_s"))
        decoded = decoded - 1
        if len(timed) > 1:
            token_s = np.polyfit(decoded, runtime_s, 1, w=1 / runtime_s)[0]
            start = doubling = np.nan
            if len(timed) > 3 and decoded[0] == 0:
                later_s = np.polyfit(decoded[1:], runtime_s[1:], 1, w=1 / runtime_s[1:])
                start = (later_s[1] - runtime_s[0]) / token_s
            if np.sum(decoded > 0) > 3:
                known = decoded[decoded > 0]
                terms = np.column_stack([np.ones_like(known), known, known * np.log2(known)])
                observed_s = runtime_s[decoded > 0]
                doubling = np.linalg.lstsq(terms / observed_s[:, None], np.ones_like(known), rcond=None)[0][2] / token_s
            rows.append((p, token_s / model.predicted.output_token_s(p + decoded.max() / 2) - 1, doubling, start))
    p, deviation, doubling, start = np.array(rows).T
    start, doubling = start[~np.isnan(start)], doubling[~np.isnan(doubling)]
    doubling = float(np.mean(doubling)) if len(doubling) else 0.0
    if len(p) < 4:
        return float(deviation.mean()), 0.0, 0.0, doubling, float(np.mean(start)) if len(start) else 0.0
    slope, level = np.polyfit(2 * p / p.max() - 1, deviation, 1)
    bend = deviation - level - slope * (2 * p / p.max() - 1)
    return float(level), float(slope), _smooth_part(bend), doubling, _smooth_part(start)


def _smooth_part(values) -> float:
    """Root mean square of values along prompt sizes, less their noise.

    Second differences hold six times the variance of noise, and little of what is smooth.
    """
    if len(values) < 4:
        return 0.0
    return float(np.sqrt(max(np.mean(values**2) - np.mean(np.diff(values, 2) ** 2) / 6, 0)))


def _noise(timed) -> tuple[float, float, float, float]:
    """Of trials: relative standard deviation for the shortest query, and its exponent; that of means from the fit in
    units of it, and relative to the longest quarter of runtimes.
    """
    settings = timed.fit.settings
    runtime_s = settings["runtime_s"].to_numpy()
    rounding = settings["runtime_resolution_s"].to_numpy() ** 2 / 12 / runtime_s**2
    squares = (settings["runtime_std_s"] / runtime_s).to_numpy() ** 2 + rounding
    lengths = runtime_s / runtime_s.min()
    exponent = float(np.clip(-np.polyfit(np.log(lengths), np.log(squares), 1)[0] / 2, 0, 1))
    trial = np.mean(squares * lengths ** (2 * exponent))
    num_spare = max(len(settings) - len(timed.fit.num_prompt_tokens) - 1, 1)
    misfits = (settings["predicted_s"] / runtime_s - 1) ** 2 * len(settings) / num_spare - rounding
    setting = np.mean(misfits * lengths ** (2 * exponent))
    least = np.mean(np.maximum(misfits, 0)[runtime_s >= np.quantile(runtime_s, 0.75)])
    return float(np.sqrt(trial)), exponent, float(np.sqrt(max(setting, 0) / trial)), float(np.sqrt(least))


def _dof_of_log_variance(spread) -> float:
    """Degrees of freedom of a scaled chi-square whose logarithm has this variance."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    def excess(dof):
        return float(polygamma(1, dof / 2) - spread)

    if excess(_FEWEST_DOF) < 0:
        return _FEWEST_DOF
    return _MOST_DOF if excess(_MOST_DOF) > 0 else float(brentq(excess, _FEWEST_DOF, _MOST_DOF))
