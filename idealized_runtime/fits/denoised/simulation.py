"""Estimators of the denoised runtime compared where the truth is known: bias, error and coverage against trials."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.denoised.order_statistics import ESTIMATORS, fit_denoised

# Of the logarithm of a heavy-tailed delay.
_LOG_DEVIATION = 1.0
_GAMMA_SHAPE = 2.0


@dataclass(frozen=True)
class ApiNoise:
    """What an API adds to the undisturbed runtime of a trial.

    Parameters
    ----------
    jitter_s : float
        Standard deviation of what scatters every trial.
    delay_probability : float
        Of a trial that waits.
    delay_s : float
        Mean wait of such a trial.
    is_one_sided : bool
        Jitter only adds (gamma of shape 2) and the undisturbed runtime is the least possible one, as the paper has
        it; else jitter is normal about the undisturbed runtime, as where round trips differ.
    is_heavy_tailed : bool
        Delays are log-normal instead of exponential.
    is_proportional : bool
        ``jitter_s`` and ``delay_s`` are for one second of runtime and grow with it.
    """

    jitter_s: float = 0.04
    delay_probability: float = 0.3
    delay_s: float = 0.4
    is_one_sided: bool = False
    is_heavy_tailed: bool = False
    is_proportional: bool = False

    def draw(self, runtime_s: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Noise in seconds for an array of undisturbed runtimes, independent from trial to trial."""
        shape = np.shape(runtime_s)
        if self.is_one_sided:
            jitter_s = rng.gamma(_GAMMA_SHAPE, self.jitter_s / np.sqrt(_GAMMA_SHAPE), shape)
        else:
            jitter_s = rng.normal(0, self.jitter_s, shape)
        if self.is_heavy_tailed:
            delay_s = self.delay_s * rng.lognormal(-(_LOG_DEVIATION**2) / 2, _LOG_DEVIATION, shape)
        else:
            delay_s = rng.exponential(self.delay_s, shape)
        noise_s = jitter_s + delay_s * (rng.random(shape) < self.delay_probability)
        return noise_s * runtime_s if self.is_proportional else noise_s


def simulate_trials(
    truth: RuntimeModel, settings: pd.DataFrame, noise: ApiNoise, *, num_trials: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Trials of an API whose undisturbed runtime is known.

    Parameters
    ----------
    truth : RuntimeModel
    settings : DataFrame, one row a setting
        ``num_prompt_tokens``, ``num_output_tokens``.
    num_trials : int
        Of each setting.

    Returns
    -------
    DataFrame, one row a trial
        ``num_prompt_tokens, num_output_tokens, runtime_s``. A normal jitter is cut off at a tenth of the runtime.
    """
    columns = ["num_prompt_tokens", "num_output_tokens"]
    trials = settings[columns].loc[settings.index.repeat(num_trials)].reset_index(drop=True)
    undisturbed_s = truth.predict(trials["num_prompt_tokens"].to_numpy(), trials["num_output_tokens"].to_numpy())
    runtime_s = np.maximum(undisturbed_s + noise.draw(undisturbed_s, rng), undisturbed_s / 10)
    return trials.assign(runtime_s=runtime_s)


def compare_estimators(
    truth: RuntimeModel,
    settings: pd.DataFrame,
    *,
    noise: ApiNoise | None = None,
    num_trials: Sequence[int] = (3, 5, 10, 20, 50),
    estimators: Sequence[str] = ESTIMATORS,
    num_simulations: int = 100,
    level: float = 0.95,
    rng: np.random.Generator | int,
) -> pd.DataFrame:
    """Bias, error and interval coverage of each estimator against the number of trials.

    Every simulation draws the largest number of trials once; estimators and smaller numbers share them. Floors are
    fitted by ``RuntimeModel.fit``, whose intervals come from their residuals.

    Parameters
    ----------
    truth, settings
        As for :func:`simulate_trials`.
    noise : ApiNoise, optional
    num_trials : sequence of int
        Numbers of trials a setting.
    estimators : sequence of str
        As for :func:`~idealized_runtime.fits.denoised.order_statistics.fit_denoised`.
    num_simulations : int
    level : float
        Nominal coverage of the intervals.
    rng : Generator or seed

    Returns
    -------
    DataFrame, one row an estimator, number of trials and quantity
        ``estimator, num_trials, quantity`` (``"time_per_output_token"`` or ``"runtime"``, over all settings),
        ``bias_percent`` and ``rmse_percent`` of the truth, ``coverage`` (share of intervals that hold it),
        ``num_fits``, and ``num_failed``, fits refused, which count in nothing else.
    """
    rng = np.random.default_rng(rng)
    noise = ApiNoise() if noise is None else noise
    outcomes = []
    for _ in range(num_simulations):
        trials = simulate_trials(truth, settings, noise, num_trials=max(num_trials), rng=rng)
        number = trials.groupby(["num_prompt_tokens", "num_output_tokens"]).cumcount()
        for few in num_trials:
            for estimator in estimators:
                found = _judge(trials[number < few], estimator, truth, settings, level)
                outcomes += [{"estimator": estimator, "num_trials": few, **row} for row in found]
    return _summarise(pd.DataFrame(outcomes))


def _judge(trials, estimator, truth, settings, level) -> list[dict]:
    """Relative errors and coverage of one fit, one row a quantity."""
    try:
        model = fit_denoised(trials, estimator=estimator, fit=RuntimeModel.fit, is_tested=False)
    except ValueError:
        return [{"quantity": quantity, "failed": True} for quantity in ("time_per_output_token", "runtime")]
    p, o = settings["num_prompt_tokens"].to_numpy(), settings["num_output_tokens"].to_numpy()
    runtime_s, g_s = truth.predict(p, o), truth.time_per_output_token_s
    return [
        {
            "quantity": "time_per_output_token",
            **_errors(model.time_per_output_token_s, model.time_per_output_token_interval_s(level), g_s),
        },
        {"quantity": "runtime", **_errors(model.predict(p, o), model.predict_interval(p, o, level=level), runtime_s)},
    ]


def _errors(estimate, interval, truth) -> dict:
    error = np.asarray(estimate) / truth - 1
    is_covered = (interval[0] <= truth) & (truth <= interval[1])
    return {"error": np.mean(error), "square": np.mean(error**2), "coverage": np.mean(is_covered), "failed": False}


def _summarise(outcomes) -> pd.DataFrame:
    # Groups in the order of the arguments.
    groups = outcomes.groupby(["estimator", "num_trials", "quantity"], sort=False)
    table = pd.DataFrame(
        {
            "bias_percent": 100 * groups["error"].mean(),
            "rmse_percent": 100 * np.sqrt(groups["square"].mean()),
            "coverage": groups["coverage"].mean(),
            "num_fits": groups.size() - groups["failed"].sum(),
            "num_failed": groups["failed"].sum(),
        }
    )
    return table.reset_index()
