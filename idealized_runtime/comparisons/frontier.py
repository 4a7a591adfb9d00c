"""Efficiency against capability: who is on the Pareto frontier, and how models rank."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import numeric_columns, warn_missing
from idealized_runtime.statistics.intervals import percentile_interval

OBJECTIVES = ("ratio", "ratio_log", "ratio_log1p")


def pareto_frontier(frame: pd.DataFrame, cost: str = "value", quality: str = "accuracy") -> pd.Series:
    """Whether each row is on the Pareto frontier: no other is both strictly cheaper and strictly better.

    Rows of equal cost, or of equal quality, do not push each other off, as in the squares of the paper's
    Figure 9. Takes O(n log n).

    Parameters
    ----------
    frame : DataFrame, one row a model, of one task
    cost, quality : str
        Numeric columns: less cost is better, more quality is better.

    Returns
    -------
    Series of bool
        With the index of ``frame``. Rows without cost or quality are False, and named in a warning.

    Raises
    ------
    ValueError
        A column is absent or not numeric.

    Warns
    -----
    MissingValueWarning
        Rows lack a value.

    Examples
    --------
    >>> models = pd.DataFrame({"value": [1.0, 2.0, 3.0], "accuracy": [0.5, 0.8, 0.7]}, index=["small", "good", "large"])
    >>> pareto_frontier(models).to_dict()
    {'small': True, 'good': True, 'large': False}
    """
    costs, qualities = numeric_columns(frame, [cost, quality], name="models")
    is_known = _known_rows(frame, cost, costs, quality, qualities, "are not on the frontier")
    on_frontier = np.zeros(len(frame), dtype=bool)
    on_frontier[is_known] = _on_frontier(costs[is_known][None], qualities[is_known][None])[0]
    return pd.Series(on_frontier, index=frame.index, name="on_frontier")


def rank(frame: pd.DataFrame, cost: str = "value", quality: str = "accuracy", objective: str = "ratio") -> pd.Series:
    """Rank of each row by an objective that joins quality and cost: 1 is the best, equal ones share the better rank.

    Parameters
    ----------
    frame : DataFrame, one row a model, of one task
    cost, quality : str
        Numeric columns; costs are positive.
    objective : {"ratio", "ratio_log", "ratio_log1p"}
        Quality / cost; quality / ln(cost) as printed (arXiv:2305.02440, section 5.4), whose sign depends on
        the unit: with seconds, all that takes longer than 1 s comes before all that takes less; and
        quality / ln(1 + cost), which weighs cost as little but does not change sign.

    Returns
    -------
    Series of Int64
        With the index of ``frame``. Missing, with a warning, where cost or quality is missing, or where
        ``"ratio_log"`` has no value (a cost of exactly 1).

    Raises
    ------
    ValueError
        A column is absent or not numeric, a cost is not positive, or the objective is unknown.

    Examples
    --------
    >>> models = pd.DataFrame({"value": [1.0, 2.0, 3.0], "accuracy": [0.5, 0.8, 0.7]}, index=["small", "good", "large"])
    >>> rank(models).to_dict()
    {'small': 1, 'good': 2, 'large': 3}
    """
    costs, qualities = numeric_columns(frame, [cost, quality], name="models")
    is_known = _known_rows(frame, cost, costs, quality, qualities, "have no rank")
    scores = objective_values(costs, qualities, objective)
    warn_missing(is_known & np.isnan(scores), "have no rank: ln(cost) is 0", labels=_labels(frame))
    return pd.Series(scores, index=frame.index, name="rank").rank(method="min", ascending=False).astype("Int64")


def objective_values(costs: ArrayLike, qualities: ArrayLike, objective: str = "ratio") -> np.ndarray:
    """The objective of :func:`rank`: more is better.

    Parameters
    ----------
    costs, qualities : array
        They broadcast. NaN where missing.
    objective : {"ratio", "ratio_log", "ratio_log1p"}

    Returns
    -------
    ndarray of float
        NaN where an input is missing or the objective has no value.

    Raises
    ------
    ValueError
        A cost is not positive, or the objective is unknown.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}; got {objective!r}")
    costs = np.asarray(costs, dtype=float)
    if np.any(costs <= 0):
        raise ValueError(f"costs must be positive; got {costs[costs <= 0][:3].tolist()}")
    denominators = {"ratio": lambda x: x, "ratio_log": np.log, "ratio_log1p": np.log1p}[objective](costs)
    return np.asarray(qualities, dtype=float) / np.where(denominators == 0, np.nan, denominators)


def frontier_probability(
    frame: pd.DataFrame, draws: np.ndarray, *, quality: str = "accuracy", quality_draws: np.ndarray | None = None
) -> pd.Series:
    """Probability that each row is on the Pareto frontier, given how uncertain costs are.

    Parameters
    ----------
    frame : DataFrame, one row a model, of one task
    draws : array, shape (number of draws, rows)
        Costs: predictions of refitted models, or :func:`~idealized_runtime.statistics.intervals.draw_log_normal`.
    quality : str
        Column of qualities, taken as certain unless ``quality_draws``, of the shape of ``draws``, is given.

    Returns
    -------
    Series of float
        With the index of ``frame``; the share of draws in which the row is on the frontier. NaN, with a
        warning, where a cost or quality is missing; the others are compared without it.

    Raises
    ------
    ValueError
        A column is absent or not numeric, or draws have another shape.
    """
    draws, qualities, is_known = _known_draws(frame, draws, quality, quality_draws, "have no probability")
    probabilities = np.full(len(frame), np.nan)
    probabilities[is_known] = _on_frontier(draws[:, is_known], qualities[:, is_known]).mean(axis=0)
    return pd.Series(probabilities, index=frame.index, name="frontier_probability")


def rank_probabilities(
    frame: pd.DataFrame, draws: np.ndarray, *, quality: str = "accuracy", objective: str = "ratio"
) -> pd.DataFrame:
    """Distribution of each row's rank, given how uncertain costs are.

    Parameters
    ----------
    frame, draws, quality
        As in :func:`frontier_probability`.
    objective : {"ratio", "ratio_log", "ratio_log1p"}
        As in :func:`rank`.

    Returns
    -------
    DataFrame
        One row a row of ``frame``, one column a rank from 1; each row adds up to 1, or is NaN, with a
        warning, where a value is missing. Equal objectives share the better rank.
    """
    from scipy.stats import rankdata

    draws, qualities, is_known = _known_draws(frame, draws, quality, None, "have no ranks")
    scores = objective_values(draws[:, is_known], qualities[:, is_known], objective)
    columns = pd.RangeIndex(1, scores.shape[1] + 1, name="rank")
    probabilities = np.full((len(frame), len(columns)), np.nan)
    ranks = rankdata(-scores, method="min", axis=1)
    probabilities[is_known] = (ranks[:, :, None] == columns.to_numpy()).mean(axis=0)
    return pd.DataFrame(probabilities, index=frame.index, columns=columns)


def rank_agreement(
    ranks: pd.DataFrame, *, level: float = 0.95, num_resamples: int = 2000, rng: int | np.random.Generator = 0
) -> pd.DataFrame:
    """Kendall's tau between a ranking and each of several others, with its interval over models.

    1 where both order all pairs of models alike, -1 where they order all of them the other way round, 0 where they
    have nothing in common; pairs that share a rank count as in tau-b.

    Parameters
    ----------
    ranks : DataFrame, one row a model
        As from :func:`rank`; the first column is compared with each of the others.
    level : float
        Of the interval, from models drawn with replacement: how far it would move with other models.
    num_resamples : int
    rng : Generator or seed

    Returns
    -------
    DataFrame, by column
        ``kendall_tau, kendall_tau_lower, kendall_tau_upper, num_models``, those that both rank.

    Raises
    ------
    ValueError
        There is one column alone, or fewer than three models are in both rankings.
    """
    first, *others = ranks
    if not others:
        raise ValueError(f"two rankings are needed to compare them; there is {first} alone")
    rows, rng = {}, np.random.default_rng(rng)
    for name in others:
        known = ranks[[first, name]].dropna().to_numpy(dtype=float).T
        number = known.shape[1]
        if number < 3:
            raise ValueError(f"{number} models have a rank by both {first} and {name}; at least 3 are needed")
        times_drawn = rng.multinomial(number, np.full(number, 1 / number), size=num_resamples)
        resampled = _kendall_tau_b(known, times_drawn)
        # Of draws of one model, or of ties alone, there is no pair to order.
        lower, upper = percentile_interval(resampled[~np.isnan(resampled)], level)
        rows[name] = {
            "kendall_tau": _kendall_tau_b(known, np.ones((1, number)))[0],
            "kendall_tau_lower": lower,
            "kendall_tau_upper": upper,
            "num_models": number,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("ranked_by")


def _kendall_tau_b(values, times_drawn) -> np.ndarray:
    """Kendall's tau-b of two rows of values, each model of which stands there so many times: one a row of those."""
    first, second = np.sign(values[:, :, None] - values[:, None, :])

    def num_pairs(signs):
        return np.einsum("ri,ri->r", times_drawn @ signs, times_drawn)

    with np.errstate(invalid="ignore"):
        return num_pairs(first * second) / np.sqrt(num_pairs(first**2) * num_pairs(second**2))


def _on_frontier(costs, qualities):
    """For each row of costs (draws, models): whether no strictly cheaper model is strictly better."""
    if costs.shape[1] == 0:
        return np.zeros(costs.shape, dtype=bool)
    order = np.argsort(costs, axis=1, kind="stable")
    costs = np.take_along_axis(costs, order, axis=1)
    qualities = np.take_along_axis(np.broadcast_to(qualities, costs.shape), order, axis=1)
    best_so_far = np.maximum.accumulate(qualities, axis=1)
    # Position of the first model of equal cost: only those before it are strictly cheaper.
    is_first = np.concatenate([np.ones((len(costs), 1), dtype=bool), costs[:, 1:] > costs[:, :-1]], axis=1)
    first = np.maximum.accumulate(np.where(is_first, np.arange(costs.shape[1]), 0), axis=1)
    best_cheaper = np.take_along_axis(best_so_far, np.maximum(first - 1, 0), axis=1)
    on_frontier = np.empty(costs.shape, dtype=bool)
    np.put_along_axis(on_frontier, order, (first == 0) | (qualities >= best_cheaper), axis=1)
    return on_frontier


def _known_draws(frame, draws, quality, quality_draws, consequence):
    # Known qualities are one draw.
    qualities = numeric_columns(frame, [quality], name="models") if quality_draws is None else quality_draws
    draws, qualities = np.asarray(draws, dtype=float), np.asarray(qualities, dtype=float)
    for given in (draws, qualities):
        if given.ndim != 2 or given.shape[1] != len(frame) or not len(given):
            raise ValueError(f"draws must have the shape (number of draws, {len(frame)} rows); got {given.shape}")
    is_known = ~(np.isnan(draws).any(axis=0) | np.isnan(qualities).any(axis=0))
    warn_missing(~is_known, f"lack draws of a cost or {quality} and {consequence}", labels=_labels(frame), stacklevel=3)
    return draws, np.broadcast_to(qualities, draws.shape), is_known


def _known_rows(frame, cost, costs, quality, qualities, consequence):
    is_known = ~(np.isnan(costs) | np.isnan(qualities))
    warn_missing(~is_known, f"lack {cost} or {quality} and {consequence}", labels=_labels(frame), stacklevel=3)
    return is_known


def _labels(frame):
    return frame.get("model", frame.index)
