"""Widths of intervals, standard errors won back from them, degrees of freedom, draws."""

from functools import lru_cache

import numpy as np
from numpy.polynomial.chebyshev import chebinterpolate, chebval

# Of Student's quantiles, more than so many are not computed one by one; the polynomial holds from this one on.
_MANY_DOF, _LEAST_DOF = 4096, 3
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
    _check_level(level)
    student = _student_quantiles(np.minimum(dof, 1e9), (1 + level) / 2)
    if not np.any(rounding_share):
        return student
    return student * np.interp(rounding_share, _SHARES, _rounding_factors(level))


def _check_level(level):
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")


def _student_quantiles(dof, probability) -> np.ndarray:
    """Student's t; of many degrees of freedom by a polynomial in 1 / dof, exact to 1e-12 and twenty times as fast."""
    from scipy.special import stdtrit

    if np.size(dof) < _MANY_DOF or probability > 1 - 1e-6:
        return stdtrit(dof, probability)
    coefficients = chebinterpolate(lambda x: stdtrit(2 * _LEAST_DOF / np.maximum(x + 1, 1e-9), probability), 20)
    quantiles = chebval(2 * _LEAST_DOF / dof - 1, coefficients)
    is_less = dof < _LEAST_DOF
    quantiles[is_less] = stdtrit(dof[is_less], probability)
    return quantiles


@lru_cache
def _rounding_factors(level) -> np.ndarray:
    quantiles = uniform_plus_normal_quantiles(level, _SHARES)
    return quantiles / quantiles[0]


def satterthwaite_dof(variance, spread):
    """Degrees of freedom of a variance that is a sum of independent estimates (Satterthwaite 1946).

    Parameters
    ----------
    variance : float or array
        The sum.
    spread : float or array
        Sum of the squares of its parts, each over the part's degrees of freedom.
    """
    return variance**2 / np.maximum(spread, np.finfo(float).tiny)


def normal_half_width(level) -> float:
    """Half width of a two-sided interval of a normal distribution, in standard errors."""
    from scipy.special import ndtri

    return ndtri((1 + level) / 2)


def standard_error_of_interval(lower, upper, level):
    """Standard error of the normal distribution whose interval of this level is as wide as the one given."""
    return (upper - lower) / (2 * normal_half_width(level))


def percentile_interval(draws, level) -> np.ndarray:
    """Lower and upper bound of the middle of the draws, which are along the first axis; shape (2, ...).

    Raises
    ------
    ValueError
        ``level`` does not lie between 0 and 1.
    """
    _check_level(level)
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def exchangeable_quantile(scores, level) -> float:
    """Bound that a further score stays below with this probability, where it is exchangeable with these (conformal).

    NaN where there are none; the largest where they are too few for the level, n of them for more than n / (n + 1).

    Raises
    ------
    ValueError
        ``level`` does not lie between 0 and 1.
    """
    _check_level(level)
    if len(scores) == 0:
        return np.nan
    # Of n + 1 exchangeable scores each place of the last one is as likely; the sliver is for rounding.
    place = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return float(np.sort(scores)[min(place, len(scores)) - 1])


def draw_log_normal(means, standard_errors, *, num_draws: int = 10_000, rng, groups=None) -> np.ndarray:
    """Draws of uncertain positive values: log-normal with these means and standard errors.

    Parameters
    ----------
    means, standard_errors : array, one a value
        Positive means, and standard errors that are not negative.
    num_draws : int
    rng : Generator, seed or None
    groups : int array, optional
        Numbers from 0 of the errors that the values have: those of one group share theirs and move together, as
        estimates from one regression do. Without it values are drawn independently.

    Returns
    -------
    ndarray, shape (num_draws, number of values)
        A missing mean or standard error gives a column of NaN.

    Raises
    ------
    ValueError
        A mean is not positive, or a standard error is negative.
    """
    means, standard_errors = np.asarray(means, dtype=float), np.asarray(standard_errors, dtype=float)
    if np.any(means <= 0) or np.any(standard_errors < 0):
        raise ValueError("means must be positive and their standard errors not negative")
    groups = np.arange(len(means)) if groups is None else np.asarray(groups)
    normal = np.random.default_rng(rng).standard_normal((num_draws, groups.max(initial=-1) + 1))[:, groups]
    # Mean and standard deviation of a log-normal, solved for those of its logarithm.
    variances = np.log1p((standard_errors / means) ** 2)
    return means * np.exp(normal * np.sqrt(variances) - variances / 2)


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
