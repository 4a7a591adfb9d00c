"""Hartigan's dip: how far a sample is from having one peak (Hartigan and Hartigan, Annals of Statistics 13, 1985)."""

import numpy as np

_MIN_VALUES = 30
# 99 % points of sqrt(n) dip for n values drawn from a uniform distribution, the hardest of those with one peak:
# 20000 samples each, numpy's default_rng(0).
_SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000)
_SCALED_CRITICAL_DIPS = (0.504, 0.537, 0.568, 0.589, 0.607, 0.616, 0.616, 0.624)


def dip_statistic(values) -> float:
    """Largest distance between the sample's distribution and the nearest one with a single peak.

    Parameters
    ----------
    values : array, shape (n,)
        Unrounded: many equal values are peaks of their own.

    Returns
    -------
    float
        Between 1 / (2 n) and 1 / 4; about 1 / 4 for two far groups of equal size.
    """
    x, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    upper = np.cumsum(counts) / counts.sum()
    lower = upper - counts / counts.sum()
    low, high, dip = 0, len(x) - 1, 1 / counts.sum()
    while high > low:
        part = slice(low, high + 1)
        convex, concave = low + _knots(x[part], lower[part]), low + _knots(x[part], -upper[part])
        below, above = np.interp(x[part], x[convex], lower[convex]), np.interp(x[part], x[concave], upper[concave])
        widest = low + int(np.argmax(above - below))
        if (above - below)[widest - low] <= dip:
            break
        left, right = convex[convex <= widest].max(), concave[concave >= widest].min()
        left_gap = (upper[low : left + 1] - below[: left + 1 - low]).max()
        right_gap = (above[right - low :] - lower[right : high + 1]).max()
        dip = max(dip, left_gap, right_gap)
        if (left, right) == (low, high):
            break
        low, high = left, right
    return float(dip / 2)


def critical_dip(num_values: int) -> float:
    """Dip that 1 % of samples with one flat peak exceed; others with one peak exceed it more rarely."""
    scaled = np.interp(np.log(num_values), np.log(_SIZES), _SCALED_CRITICAL_DIPS)
    return float(scaled / np.sqrt(num_values))


def has_two_peaks(values) -> bool:
    """Whether a sample has more than one peak, at a level of 1 %; samples of fewer than 30 values are not judged."""
    return len(values) >= _MIN_VALUES and dip_statistic(values) > critical_dip(len(values))


def upper_group(values) -> np.ndarray:
    """Which values make the upper one of two groups, split where the squares within them are least."""
    ordered = np.sort(np.asarray(values, dtype=float))
    counts, sums = np.arange(1, len(ordered)), np.cumsum(ordered)[:-1]
    between = sums**2 / counts + (ordered.sum() - sums) ** 2 / (len(ordered) - counts)
    return np.asarray(values) > ordered[np.argmax(between)]


def _knots(x, y) -> np.ndarray:
    """Places of the knots of the greatest convex function below the points, x ascending: its slopes only rise."""
    from scipy.optimize import isotonic_regression

    return isotonic_regression(np.diff(y) / np.diff(x), weights=np.diff(x)).blocks
