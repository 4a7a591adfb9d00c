"""On which side the trials of an API scatter, and so which estimator of its undisturbed runtime holds.

Where disturbances only add, trials pile up at a least runtime, which the minimum finds and the more surely the more
trials there are; where runtimes also scatter to below, the minimum falls with their number, and a frontier holds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.fits.denoised.stochastic_frontier import FrontierFit, fit_frontier
from idealized_runtime.records import TOKEN_COLUMNS

SIGNIFICANCE = 0.01
_NUM_SIMULATIONS = 400
# The least of a gamma of this shape is as far from its middle as in any noise that only adds and is not piled up.
_ADDED_SHAPE = 2.0
_FEWEST_TRIALS = 5


@dataclass(frozen=True)
class ScatterFinding:
    """Which estimator holds for some trials, and why.

    ``side`` is ``"above"`` (disturbances only add), ``"both"``, ``"far below"`` (a few trials are much too short) or
    ``"unclear"``; ``estimator`` the one that holds, None where the trials do not tell. ``minimum_bias_s`` is how far
    the minimum lies below the undisturbed runtime, by the frontier's noise, in the mean over settings.
    """

    side: str
    estimator: str | None
    minimum_bias_s: float
    num_trials: int

    @property
    def message(self) -> str:
        """A sentence with numbers."""
        trials = f"{self.num_trials} trials a setting"
        return {
            "above": f"disturbances only add to these runtimes ({trials}): 'minimum' holds; 'frontier' lies above",
            "both": f"runtimes scatter to both sides ({trials}): 'frontier' holds; a minimum falls with the number of "
            f"trials, here by about {1e3 * self.minimum_bias_s:.3g} ms",
            "far below": f"a few trials are much shorter than the others ({trials}): a minimum or a second smallest is "
            "theirs; 'quantile' holds. Look at them",
            "unclear": f"{trials} do not tell whether disturbances only add ('minimum' holds) or runtimes scatter to "
            "both sides ('frontier' holds); time 30 or more",
        }[self.side]


def find_scatter(trials: pd.DataFrame) -> ScatterFinding | None:
    """Test on which side trials scatter; None where too few settings have ``5`` trials for a frontier to be fitted.

    How far the least trial of a setting lies from its lowest third, in the third's mean, is compared with simulations:
    of the noise that the frontier finds, which has jitter on both sides, and of one that only adds.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``num_prompt_tokens``, ``num_output_tokens``, ``runtime_s``.
    """
    counts = trials.groupby(TOKEN_COLUMNS)["runtime_s"].transform("size")
    if not (counts >= _FEWEST_TRIALS).all():
        return None
    try:
        fit = fit_frontier(trials)
    except ValueError:
        return None
    runtimes_s = [group.to_numpy() for _, group in trials.groupby(TOKEN_COLUMNS)["runtime_s"]]
    rng = np.random.default_rng(0)
    counts = np.array([len(group) for group in runtimes_s])
    reach = np.mean([_reach(group) for group in runtimes_s])
    both, added = (
        np.mean([_reach(draw(fit, rng, (_NUM_SIMULATIONS, count))) for count in counts], axis=0)
        for draw in (_two_sided, _one_sided)
    )
    count = int(np.median(counts))
    scale_s = np.mean([np.median(group) for group in runtimes_s]) if fit.is_proportional else 1.0
    bias_s = -scale_s * float(_two_sided(fit, rng, (_NUM_SIMULATIONS, count)).min(axis=1).mean())
    if np.mean(both >= reach) < SIGNIFICANCE:
        side, estimator = "far below", "quantile"
    elif np.mean(both <= reach) < SIGNIFICANCE:
        side, estimator = "above", "minimum"
    elif np.mean(added >= reach) < SIGNIFICANCE:
        side, estimator = "both", "frontier"
    else:
        side, estimator = "unclear", None
    return ScatterFinding(side, estimator, bias_s, count)


def _reach(runtimes) -> np.ndarray:
    """Of trials along the last axis: how far the least lies below the lowest third, in the third's mean distance."""
    ordered = np.sort(runtimes, axis=-1)
    top = max(ordered.shape[-1] // 3, 2)
    distances = ordered[..., top : top + 1] - ordered[..., :top]
    mean = distances.mean(axis=-1)
    return np.where(mean > 0, distances[..., 0] / np.where(mean > 0, mean, 1), 1.0)


def _two_sided(fit: FrontierFit, rng, shape):
    return rng.normal(0, fit.jitter, shape) + _delays(fit, rng, shape)


def _one_sided(fit: FrontierFit, rng, shape):
    return rng.gamma(_ADDED_SHAPE, fit.jitter / np.sqrt(_ADDED_SHAPE), shape) + _delays(fit, rng, shape)


def _delays(fit: FrontierFit, rng, shape):
    return rng.exponential(fit.delay, shape) * (rng.random(shape) < fit.delay_probability)
