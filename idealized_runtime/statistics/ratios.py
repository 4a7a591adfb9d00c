"""Ratios of uncertain quantities, with their intervals."""

import numpy as np

from idealized_runtime.statistics.intervals import normal_half_width


def ratio_interval(numerator, denominator) -> tuple:
    """Ratio of two independent estimates with its interval, from theirs.

    Distances of the bounds from the estimates, in logarithms, add up in squares: the method of variance estimates
    recovery (Zou and Donner 2008, Statistics in Medicine 27:1693). A lower bound that is not positive stands for 0.

    Parameters
    ----------
    numerator, denominator : tuple of (estimate, lower, upper)
        Positive estimates; numbers or arrays.

    Returns
    -------
    ratio, lower, upper : number or array
    """
    with np.errstate(divide="ignore"):
        top, top_lower, top_upper = (np.log(np.maximum(value, 0.0)) for value in numerator)
        bottom, bottom_lower, bottom_upper = (np.log(np.maximum(value, 0.0)) for value in denominator)
    ratio = numerator[0] / denominator[0]
    lower = ratio * np.exp(-np.hypot(top - top_lower, bottom_upper - bottom))
    upper = ratio * np.exp(np.hypot(top_upper - top, bottom - bottom_lower))
    return ratio, lower, upper


def probabilities_to_be_least(estimates, *, level: float = 0.95, num_draws: int = 20_000, seed: int = 0) -> np.ndarray:
    """Probability of each of several independent estimates to be the least of them, from their intervals.

    Drawn as :func:`ratio_interval` has them: in logarithms, as far to each side as the bound there says; an estimate
    without bounds is taken as it is.

    Parameters
    ----------
    estimates : sequence of (estimate, lower, upper)
        Positive; bounds may be NaN.
    level : float
        Of the intervals.
    num_draws, seed : int

    Returns
    -------
    array, shape (len(estimates),)

    Examples
    --------
    >>> probabilities_to_be_least([(1.0, 0.9, 1.1), (1.02, 0.9, 1.15), (3.0, 2.9, 3.1)]).round(1).tolist()
    [0.6, 0.4, 0.0]
    """
    value, lower, upper = np.log(np.maximum(np.asarray(estimates, dtype=float), 1e-300)).T
    below, above = (np.nan_to_num(side / normal_half_width(level)) for side in (value - lower, upper - value))
    scores = np.random.default_rng(seed).standard_normal((num_draws, len(value)))
    least = np.argmin(value + np.where(scores < 0, below, above) * scores, axis=1)
    return np.bincount(least, minlength=len(value)) / num_draws


def log_normal_interval(estimates, relative_errors, level) -> tuple:
    """Estimates with their bounds, as far from them in logarithms on both sides as their relative errors say."""
    factors = np.exp(normal_half_width(level) * relative_errors)
    return estimates, estimates / factors, estimates * factors
