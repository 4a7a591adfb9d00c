"""How well a fit is known: variance of each mean runtime, lack of fit, covariance and degrees of freedom."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from idealized_runtime.fits.linear import LinearFit
from idealized_runtime.fits.settings import Trials
from idealized_runtime.statistics.dependence import MeansCovariance, dependence_p_value, means_covariance
from idealized_runtime.statistics.intervals import satterthwaite_dof

# Level of every test here: trials that depend on their neighbours, lack of fit, g linear in p, a prompt time that falls
# with the prompt size.
SIGNIFICANCE = 0.01
# Shares of proportional noise tried where nothing but the residuals tells how noise grows with runtime.
# Spaced by their odds: a hundredth of constant noise already rules the shortest runtimes.
_PROPORTIONAL_SHARES = np.array([0, *(1 / (1 + 10.0 ** np.arange(-3, 2))), 1])


@dataclass(frozen=True)
class MeanVariances:
    """Variance of each setting's mean runtime (s^2), and how well it is itself known.

    ``trial_s2`` are variances of means over trials, with ``trial_dof`` degrees of freedom each; ``rounding_s2``
    are known. Where ``residual_dof`` is given, ``trial_s2`` is one estimate from residuals. Where trials depend on each
    other ``dependence`` has the covariance of their means, and ``trial_s2`` is 0.
    """

    trial_s2: np.ndarray
    trial_dof: np.ndarray
    rounding_s2: np.ndarray
    lack_of_fit: float = 0.0  # variance of the model's relative error
    lack_of_fit_dof: float = np.inf
    residual_dof: float | None = None
    dependence: MeansCovariance | None = None

    def covariance_of(self, rows, others, fitted_s) -> np.ndarray:
        """Covariance of linear combinations of means, which are the rows, with others."""
        own_s2 = self.trial_s2 + self.rounding_s2 + self.lack_of_fit * fitted_s**2
        independent = (rows * own_s2) @ others.T
        return independent if self.dependence is None else independent + rows @ self.dependence.mean_s2 @ others.T

    def dof(self, rows, fitted_s) -> np.ndarray:
        """Degrees of freedom of the variance of each row of linear combinations of means."""
        if self.residual_dof is not None:
            return np.full(len(rows), self.residual_dof)
        squares = rows**2
        variance = np.diag(self.covariance_of(rows, rows, fitted_s))
        spread = squares**2 @ (self.trial_s2**2 / self.trial_dof)
        spread += (squares @ (self.lack_of_fit * fitted_s**2)) ** 2 / self.lack_of_fit_dof
        if self.dependence is not None:
            spread += self.dependence.spread(np.einsum("ki,gij,kj->gk", rows, self.dependence.covariances_s2, rows))
        return satterthwaite_dof(variance, spread)


def mean_variances(settings: pd.DataFrame, fit: LinearFit) -> MeanVariances | None:
    """Variances of the mean runtimes: from trials where every setting has them, else from the residuals.

    None where there are neither trials nor residual degrees of freedom.
    """
    std_s = settings["runtime_std_s"].to_numpy()
    num_trials = settings["num_trials"].to_numpy()
    rounding_s2 = settings["runtime_resolution_s"].to_numpy() ** 2 / 12
    if np.isnan(std_s).any() or (num_trials < 2).any():
        return _variances_from_residuals(settings["runtime_s"].to_numpy(), rounding_s2, fit)
    # The printed deviation is rounded as well as the mean.
    # Runtimes without any noise must not divide by zero.
    trial_s2 = std_s**2 + rounding_s2 + (1e-12 * fit.fitted_s) ** 2
    runtime_s = settings["runtime_s"].to_numpy()
    if np.isnan(num_trials).any():
        variances = _with_estimated_trials(trial_s2, rounding_s2, runtime_s, fit)
    else:
        variances = MeanVariances(trial_s2 / num_trials, num_trials - 1, rounding_s2)
    return _with_lack_of_fit(variances, runtime_s, fit)


def dependent_variances(settings: pd.DataFrame, fit: LinearFit, trials: Trials) -> MeanVariances | None:
    """Variances of the mean runtimes over trials that depend on each other; None where a test does not say so."""
    if dependence_p_value(trials.runtime_s, trials.setting) >= SIGNIFICANCE:
        return None
    rounding_s2, zeros = settings["runtime_resolution_s"].to_numpy() ** 2 / 12, np.zeros(len(settings))
    trial_s2 = settings["runtime_std_s"].to_numpy() ** 2 + rounding_s2 + (1e-12 * fit.fitted_s) ** 2
    scales = _noise_profile(trial_s2, settings["num_trials"].to_numpy() - 1, fit.fitted_s)[trials.setting]
    dependence = means_covariance(trials.runtime_s, scales, trials.setting)
    variances = MeanVariances(zeros, zeros + np.inf, rounding_s2, dependence=dependence)
    return _with_lack_of_fit(variances, settings["runtime_s"].to_numpy(), fit)


def _noise_profile(trial_s2, dof, fitted_s) -> np.ndarray:
    """Standard deviations of the trials, but for a factor: between constant and proportional, as is most likely."""
    profiles = (1 - _PROPORTIONAL_SHARES[:, None]) * np.mean(fitted_s**2) + _PROPORTIONAL_SHARES[:, None] * fitted_s**2
    scales = (trial_s2 / profiles) @ dof / dof.sum()
    costs = np.log(scales[:, None] * profiles) @ dof
    return np.sqrt(profiles[np.argmin(costs)])


@dataclass(frozen=True)
class _ResidualForm:
    """The weighted residual sum of squares, and its moments were the mean runtimes to vary as said."""

    observed: float
    shares: np.ndarray  # of each setting's variance in the expectation
    expected: float
    dof: float  # matches the first two moments
    matrix: np.ndarray  # of the sum of squares as a quadratic form of the runtimes


def _residual_form(runtime_s, covariance_s2, fit) -> _ResidualForm:
    maker = fit.residual_maker() * np.sqrt(fit.weights)[:, None]
    form = maker.T @ maker
    scaled = form @ covariance_s2
    expected = float(np.trace(scaled))
    observed = float(np.sum((maker @ runtime_s) ** 2))
    return _ResidualForm(observed, np.diag(form), expected, expected**2 / np.sum(scaled * scaled.T), form)


def _with_estimated_trials(trial_s2, rounding_s2, runtime_s, fit):
    """Variances from deviations over an unknown number of trials: the residuals say how many, at least one.

    Where there are no spare settings it is taken as one, which can only widen intervals.
    """
    if len(runtime_s) <= fit.num_parameters:
        return MeanVariances(trial_s2, np.full(len(trial_s2), np.inf), rounding_s2)
    form = _residual_form(runtime_s, np.diag(trial_s2), fit)
    one_over_trials = np.clip((form.observed - form.shares @ rounding_s2) / form.expected, 0, 1)
    # One estimated scale stands in all of them: its degrees of freedom are shared, not added up.
    zeros = np.zeros(len(trial_s2))
    return MeanVariances(one_over_trials * trial_s2, zeros, rounding_s2, residual_dof=form.dof)


def _with_lack_of_fit(variances, runtime_s, fit):
    """Add a relative model error if residuals exceed what the trials explain (F test, method of moments).

    The statistic is the weighted residual sum of squares over its expectation; its degrees of freedom
    match its first two moments. The added variance is that of DerSimonian and Laird (1986).
    """
    from scipy.special import fdtrc

    if len(runtime_s) <= fit.num_parameters:
        return variances
    each = np.eye(len(runtime_s))
    form = _residual_form(runtime_s, variances.covariance_of(each, each, fit.fitted_s), fit)
    denominator_dof = np.inf
    if variances.residual_dof is None:
        spread = np.sum((form.shares * variances.trial_s2) ** 2 / variances.trial_dof)
        if (dependence := variances.dependence) is not None:
            spread += dependence.spread(np.einsum("ij,gij->g", form.matrix, dependence.covariances_s2))
        denominator_dof = satterthwaite_dof(form.expected, spread)
    if fdtrc(form.dof, min(denominator_dof, 1e9), form.observed / form.expected) >= SIGNIFICANCE:
        return variances
    excess = (form.observed - form.expected) / (form.shares @ fit.fitted_s**2)
    return replace(variances, lack_of_fit=float(excess), lack_of_fit_dof=float(form.dof))


def _variances_from_residuals(runtime_s, rounding_s2, fit):
    """Noise between constant and proportional to runtime, each mixture weighed by its restricted likelihood.

    With some 50 settings this covers as it should. With a dozen, means alone hardly tell how noisy the shortest
    runtimes are: nominal 95 % intervals of prompt times then hold 87 % (constant noise) to 100 % (proportional).
    """
    dof = len(runtime_s) - fit.num_parameters
    if dof < 1:
        return None
    design = np.column_stack([np.eye(len(fit.levels))[fit.group], fit.regressors])
    design = design / np.linalg.norm(design, axis=0)
    relative_s2 = fit.fitted_s**2 / np.exp(np.mean(np.log(fit.fitted_s**2)))
    candidates, log_likelihoods = [], []
    for share in _PROPORTIONAL_SHARES:
        profile = (1 - share) + share * relative_s2
        scaled = design / np.sqrt(profile)[:, None]
        orthogonal, triangular = np.linalg.qr(scaled)
        scaled_runtime = runtime_s / np.sqrt(profile)
        residual = scaled_runtime - orthogonal @ (orthogonal.T @ scaled_runtime)
        scale_s2 = max(residual @ residual / dof, np.finfo(float).tiny)
        log_determinant = 2 * np.sum(np.log(np.abs(np.diag(triangular))))
        candidates.append(scale_s2 * profile)
        log_likelihoods.append(-0.5 * (dof * np.log(scale_s2) + np.log(profile).sum() + log_determinant))
    weights = np.exp(np.array(log_likelihoods) - max(log_likelihoods))
    variance_s2 = weights @ np.array(candidates) / weights.sum()
    zeros = np.zeros(len(runtime_s))
    return MeanVariances(np.maximum(variance_s2, rounding_s2), zeros, zeros, residual_dof=float(dof))


@dataclass(frozen=True)
class Covariance:
    """Covariance of levels and slopes, which is all an interval needs.

    Arrays over groups (K) and slopes (S): where trials are independent so are the levels of each other, since no
    setting belongs to two groups, and they correlate with the slopes only.
    """

    levels_s: np.ndarray  # (K,)
    mean_regressors: np.ndarray  # (K, S)
    slopes: np.ndarray  # (S,)
    level_variance: np.ndarray  # (K,)
    level_slope_covariance: np.ndarray  # (K, S)
    slope_covariance: np.ndarray  # (S, S)
    level_dof: np.ndarray  # (K,)
    level_rounding_variance: np.ndarray  # (K,); its part that acts like one uniform rounding
    slope_dof: float
    lack_of_fit: float  # variance of the relative error of the model at a setting
    lack_of_fit_dof: float
    is_from_residuals: bool
    # Largest correlation of two neighbouring levels.
    level_correlation: float = 0.0


def covariance(fit: LinearFit, variances: MeanVariances) -> Covariance:
    """Sandwich covariance of a fit, given the variances of the mean runtimes."""
    levels = variances.covariance_of(fit.level_rows, fit.level_rows, fit.fitted_s)
    correlations = np.diag(levels, 1) / np.sqrt(np.diag(levels)[1:] * np.diag(levels)[:-1])
    return Covariance(
        levels_s=fit.levels,
        mean_regressors=fit.mean_regressors,
        slopes=fit.slopes,
        level_variance=np.diag(levels),
        level_slope_covariance=variances.covariance_of(fit.level_rows, fit.slope_rows, fit.fitted_s),
        slope_covariance=variances.covariance_of(fit.slope_rows, fit.slope_rows, fit.fitted_s),
        level_dof=variances.dof(fit.level_rows, fit.fitted_s),
        # The one uniform variable that has the kurtosis of the sum of all of them.
        level_rounding_variance=np.sqrt(fit.level_rows**4 @ variances.rounding_s2**2),
        slope_dof=float(variances.dof(fit.slope_rows, fit.fitted_s).min()),
        lack_of_fit=variances.lack_of_fit,
        lack_of_fit_dof=variances.lack_of_fit_dof,
        is_from_residuals=variances.residual_dof is not None,
        level_correlation=float(np.clip(correlations.max(initial=0.0), 0, 1)),
    )
