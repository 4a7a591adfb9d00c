"""How well a fitted law is known: the law refitted to resamples of the training runs, and what follows from it.

The valley of the objective is flat, so that coefficients trade against each other: carry whole draws through a
calculation, never the interval of one coefficient.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import warn_missing
from idealized_runtime.lifetime.costs import LifetimeCosts
from idealized_runtime.lifetime.fitting import (
    HUBER_DELTA,
    MIN_DISTINCT,
    ScalingLawFit,
    coefficients_of,
    default_starts,
    law_of,
)
from idealized_runtime.lifetime.log_huber import NUM_COEFFICIENTS, LogHuber
from idealized_runtime.lifetime.optimum import minimize_lifetime_cost
from idealized_runtime.lifetime.scaling_law import COEFFICIENTS, MAX_SIZE, ScalingLaw, is_reachable
from idealized_runtime.statistics.intervals import percentile_interval

# Starts of every refit beside the law fitted to all runs. Of 120 resamples of the published runs at cutoffs of 20
# to 250, four ended above the best of 600 starts, by 0.2 % of the objective or less.
_NUM_EXTRA_STARTS = 16
_DRAWS_AT_A_TIME = 250
# Of the draws, that must reach a loss.
_MIN_SHARE = 0.5


def bootstrap_scaling_law(
    runs: pd.DataFrame,
    fit: ScalingLawFit,
    *,
    num_draws: int = 1000,
    delta: float = HUBER_DELTA,
    rng: int | np.random.Generator = 0,
) -> ScalingLaw:
    """The law refitted to training runs drawn with replacement, as many as there are.

    Parameters
    ----------
    runs : DataFrame
        As given to :func:`~idealized_runtime.lifetime.fitting.fit_scaling_law`.
    fit : ScalingLawFit
        Of these runs: where the refits start, beside some starts of the sweep.
    num_draws : int
    delta : float
        That of the fit.
    rng : numpy Generator, or a seed

    Returns
    -------
    ScalingLaw
        Its coefficients are arrays of shape (draws,), row by row of one refit.

    Raises
    ------
    ValueError
        ``num_draws`` is not positive, or no resample determines a law.

    Warns
    -----
    MissingValueWarning
        Some resamples hold fewer than five different runs, or fewer than three sizes or numbers of training
        tokens, or no law with positive finite coefficients fits them; these are left out.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1; got {num_draws}")
    rng = np.random.default_rng(rng)
    sweep = default_starts()
    starts = np.vstack([coefficients_of(fit.law), sweep[rng.choice(len(sweep), _NUM_EXTRA_STARTS, replace=False)]])
    counts = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=num_draws)
    # Enough different runs, of enough sizes and durations, for five coefficients.
    is_enough = (counts > 0).sum(axis=1) >= NUM_COEFFICIENTS
    for name in ("num_params", "num_training_tokens"):
        count_of_each = counts @ pd.get_dummies(runs[name]).to_numpy(int)
        is_enough &= (count_of_each > 0).sum(axis=1) >= MIN_DISTINCT
    counts = counts[
        _that_determine_a_law(
            is_enough,
            f"have runs of fewer than {MIN_DISTINCT} sizes or numbers of training tokens, or fewer than "
            f"{NUM_COEFFICIENTS} different runs, which determine no law",
        )
    ]
    coefficients = []
    for block in np.array_split(counts, -(-len(counts) // _DRAWS_AT_A_TIME)):
        objective = LogHuber(runs, delta, np.repeat(block, len(starts), axis=0))
        minima, values = objective.minimize(np.tile(starts, (len(block), 1)))
        best = values.reshape(-1, len(starts)).argmin(axis=1)
        coefficients.append(minima.reshape(-1, *starts.shape)[np.arange(len(block)), best])
    coefficients = np.vstack(coefficients)
    with np.errstate(over="ignore"):
        is_law = (coefficients[:, 3:] > 0).all(axis=1) & np.isfinite(np.exp(coefficients[:, :3])).all(axis=1)
    usable = _that_determine_a_law(is_law, "have no law with positive finite coefficients")
    return law_of(coefficients[usable], source=f"bootstrap: {fit.law.source}")


def _that_determine_a_law(is_usable, else_they) -> np.ndarray:
    warn_missing(~is_usable, f"of the bootstrap {else_they}, and are left out", stacklevel=3)
    if not is_usable.any():
        raise ValueError("no resample of the training runs determines a law: add runs of other sizes and durations")
    return is_usable


class UnreachableLossError(ValueError):
    """Too few of the drawn scaling laws reach the loss at all."""


def draws_that_reach(
    draws: ScalingLaw, loss: float, num_params: ArrayLike | None = None, num_training_tokens: ArrayLike | None = None
) -> ScalingLaw:
    """Those draws of a law that reach a loss, with this size or so many training tokens where one is given.

    Raises
    ------
    UnreachableLossError
        Less than half of them do: an interval over these would say little of what is not known.
    """
    reaches = is_reachable(draws, loss)
    # A steep exponent makes a power beyond 1e308, and its term rightly zero.
    with np.errstate(over="ignore"):
        if num_params is not None:
            reaches &= draws.loss(num_params, MAX_SIZE) < loss
        if num_training_tokens is not None:
            reaches &= draws.loss(MAX_SIZE, num_training_tokens) < loss
    if reaches.mean() < _MIN_SHARE:
        asked = f"loss {loss:g}"
        for value, unit in ((num_params, "parameters"), (num_training_tokens, "training tokens")):
            asked += "" if value is None else f" with {value:.4g} {unit}"
        raise UnreachableLossError(
            f"{asked} is reached by {100 * reaches.mean():.0f} % of the drawn scaling laws only: "
            f"give a higher loss; the median E is {np.median(draws.E):.3f}"
        )
    return replace(draws, **{name: getattr(draws, name)[reaches] for name in COEFFICIENTS})


def coefficient_intervals(draws: ScalingLaw, *, level: float = 0.95) -> pd.DataFrame:
    """Percentile interval of each coefficient.

    Returns
    -------
    DataFrame, one row a coefficient
        Columns ``lower, upper``.
    """
    return intervals_of({name: getattr(draws, name) for name in COEFFICIENTS}, level=level)


def optimum_intervals(draws: ScalingLaw, loss: float, costs: LifetimeCosts, *, level: float = 0.95) -> pd.DataFrame:
    """Percentile intervals of the cheapest size and its cost, each draw solved for itself.

    Parameters
    ----------
    draws : ScalingLaw
        Coefficients of shape (draws,), all of which reach the loss (:func:`draws_that_reach`).
    loss : float
    costs : LifetimeCosts
    level : float

    Returns
    -------
    DataFrame, one row a quantity
        ``num_params, num_training_tokens, cost, params_ratio, training_tokens_ratio, cost_ratio``; the ratios are
        to the Chinchilla size of the same draw. Columns ``lower, upper``.

    Raises
    ------
    ValueError
        A draw does not reach the loss.
    """
    optimum = minimize_lifetime_cost(draws, loss, costs)
    ratios = {name: getattr(optimum, name) for name in ("params_ratio", "training_tokens_ratio", "cost_ratio")}
    return intervals_of({**vars(optimum.optimal), "cost": optimum.optimal_cost, **ratios}, level=level)


def intervals_of(values: dict, *, level: float = 0.95) -> pd.DataFrame:
    """Percentile interval of each quantity over its draws.

    Parameters
    ----------
    values : dict of str to array of shape (draws,)
    level : float
        Between 0 and 1.

    Returns
    -------
    DataFrame, one row a quantity
        Columns ``lower, upper``.

    Raises
    ------
    ValueError
        ``level`` is out of range.
    """
    bounds = [percentile_interval(array, level) for array in values.values()]
    return pd.DataFrame(bounds, index=list(values), columns=["lower", "upper"])
