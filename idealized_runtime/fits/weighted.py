"""The weighted fit: relative errors, g linear in p where a test says so, prompt times that do not fall."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.fits.linear import LinearFit, fit_linear, reference_prompt_size
from idealized_runtime.fits.settings import Trials
from idealized_runtime.fits.uncertainty import (
    SIGNIFICANCE,
    Covariance,
    MeanVariances,
    covariance,
    dependent_variances,
    mean_variances,
)


@dataclass(frozen=True)
class WeightedFit:
    """Estimates of one model. ``slope`` is the change of g (s) for each prompt token; 0 where g is constant.

    ``covariance`` is that of the wide model, every size with a prompt time of its own and g linear in p: an
    interval from it holds whichever way the tests went. None where the settings leave nothing to judge by.
    ``correlation_trials``: after how many trials noise has faded, where trials were found to depend on each other.
    """

    sizes: np.ndarray
    prompt_times_s: np.ndarray
    reference: int
    time_per_output_token_s: float
    slope: float
    covariance: Covariance | None
    correlation_trials: float | None = None


def fit_weighted(settings: pd.DataFrame, trials: Trials | None = None) -> WeightedFit:
    """Least squares of relative errors, with the tests at level ``SIGNIFICANCE``.

    Raises
    ------
    ValueError
        A fitted prompt time or time per output token is not positive; the message names the prompt size.
    """
    sizes, own_group = np.unique(settings["num_prompt_tokens"], return_inverse=True)
    reference = reference_prompt_size(settings)
    wide, variances = _fit_wide_model(settings, own_group, reference)
    known = None if variances is None else covariance(wide, variances)
    # A line of g that does not stay positive at every profiled size is noise.
    is_linear_in_p = (
        known is not None
        and _slope_is_significant(known)
        and bool(np.all(wide.slopes[0] + wide.slopes[1] * (sizes - reference) > 0))
    )
    size_group, fit = _pool_insignificant_decreases(settings, own_group, reference, is_linear_in_p, variances)
    slope = float(fit.slopes[1]) if is_linear_in_p else 0.0
    faded = None
    # Estimates stay what they are; what is known of them changes where trials depend on each other.
    if trials is not None and (dependent := dependent_variances(settings, wide, trials)) is not None:
        known, faded = covariance(wide, dependent), dependent.dependence.correlation_trials
    result = WeightedFit(sizes, fit.prompt_times_s[size_group], reference, float(fit.slopes[0]), slope, known, faded)
    _check_positive(result)
    return result


def _fit_wide_model(settings, group, reference) -> tuple[LinearFit, MeanVariances | None]:
    # A prompt size tells of g only if it was timed at two numbers of output tokens.
    if (np.bincount(group) > 1).sum() > 1:
        wide = fit_linear(settings, group, reference=reference, is_linear_in_p=True)
        if (variances := mean_variances(settings, wide)) is not None:
            return wide, variances
    wide = fit_linear(settings, group, reference=reference, is_linear_in_p=False)
    return wide, mean_variances(settings, wide)


def _slope_is_significant(known: Covariance) -> bool:
    """Two-sided t test of g constant in p."""
    from scipy.special import stdtr

    if len(known.slopes) < 2:
        return False
    statistic = abs(known.slopes[1]) / np.sqrt(known.slope_covariance[1, 1])
    return bool(2 * stdtr(known.slope_dof, -statistic) < SIGNIFICANCE)


def _pool_insignificant_decreases(settings, own_group, reference, is_linear_in_p, variances):
    """Let neighbouring prompt sizes share a prompt time where it falls, unless the fall is significant.

    Pools the least significant decrease first and fits again, until none is left (one-sided t test).
    """
    size_group = np.arange(own_group.max() + 1)
    while True:
        fit = fit_linear(settings, size_group[own_group], reference=reference, is_linear_in_p=is_linear_in_p)
        probabilities = _decrease_probabilities(fit, variances)
        if not len(probabilities) or probabilities.max() < SIGNIFICANCE:
            return size_group, fit
        first = int(np.argmax(probabilities))
        size_group = size_group - (size_group > first)


def _decrease_probabilities(fit: LinearFit, variances) -> np.ndarray:
    """P value of each step from one group to the next, 1 - p if upwards being of no interest: -1 there."""
    from scipy.special import stdtr

    decrease_s = -np.diff(fit.prompt_times_s)
    if variances is None:
        return np.where(decrease_s > 0, 1.0, -1.0)
    rows = fit.level_rows - fit.mean_regressors @ fit.slope_rows
    step_rows = rows[:-1] - rows[1:]
    spread_s = np.sqrt(np.diag(variances.covariance_of(step_rows, step_rows, fit.fitted_s)))
    dof = variances.dof(step_rows, fit.fitted_s)
    return np.where(decrease_s > 0, stdtr(dof, -decrease_s / spread_s), -1.0)


def _check_positive(fit: WeightedFit):
    per_token_s = fit.time_per_output_token_s + fit.slope * (fit.sizes - fit.reference)
    for name, values in (("prompt encoding time", fit.prompt_times_s), ("time per output token", per_token_s)):
        if (values <= 0).any():
            worst = int(np.argmin(values))
            raise ValueError(
                f"the fitted {name} at p = {fit.sizes[worst]} is {values[worst]:.3g} s; times must be positive. "
                "Check the runtimes, or time more output tokens (one run with o = 1 at each p) and more trials"
            )
