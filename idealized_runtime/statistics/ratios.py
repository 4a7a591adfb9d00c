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


def log_normal_interval(estimates, relative_errors, level) -> tuple:
    """Estimates with their bounds, as far from them in logarithms on both sides as their relative errors say."""
    factors = np.exp(normal_half_width(level) * relative_errors)
    return estimates, estimates / factors, estimates * factors
