"""Quantiles of estimates whose error is partly noise, with an estimated variance, and partly rounding."""

import numpy as np

_NUM_BISECTIONS = 50
_SHARES = np.linspace(0, 1, 201)


def half_width(level, dof, rounding_share) -> np.ndarray:
    """Half width of a two-sided interval, in standard errors.

    Parameters
    ----------
    level : float
        Between 0 and 1.
    dof : array
        Degrees of freedom of the variance: Student's t.
    rounding_share : array
        Share of the variance that is one rounding, uniform and so without tails. It narrows the interval
        by the factor by which it would narrow a normal one; 0 gives Student's quantile.

    Raises
    ------
    ValueError
        ``level`` does not lie between 0 and 1.
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")
    student = stdtrit(np.minimum(dof, 1e9), (1 + level) / 2)
    if not np.any(rounding_share):
        return student
    quantiles = uniform_plus_normal_quantiles(level, _SHARES)
    return student * np.interp(rounding_share, _SHARES, quantiles / quantiles[0])


def uniform_plus_normal_quantiles(level, uniform_share) -> np.ndarray:
    """q with P(|X| <= q) = level, X of variance 1 and the sum of a uniform and a normal variable, by bisection."""
    from scipy.special import ndtr

    half_range = np.sqrt(3 * uniform_share)
    # A sliver of each keeps the formula finite where the sum is all uniform or all normal.
    half_range = np.maximum(half_range, 1e-3)
    sigma = np.sqrt(np.maximum(1 - uniform_share, 1e-6))

    def integrated_cdf(z):
        return z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    low, high = np.zeros_like(sigma), np.full_like(sigma, 40.0)
    for _ in range(_NUM_BISECTIONS):
        middle = (low + high) / 2
        ends = integrated_cdf((middle + half_range) / sigma) - integrated_cdf((middle - half_range) / sigma)
        is_low = 2 * ends * sigma / (2 * half_range) - 1 < level
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return (low + high) / 2
