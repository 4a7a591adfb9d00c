"""Trials that depend on those before them: a test in the order of time, and the covariance of means over such trials.

The noise of a trial is taken as the sum of an independent part and of one that fades from trial to trial, an
autoregressive process of first order. Slow ones stand for a machine that drifts, or has a busy neighbour for a while.
"""

from dataclasses import dataclass

import numpy as np

# A process slower than this share of the sweep is a level of the machine, which one sweep does not tell from the truth.
_SLOWEST_SHARE = 0.25
_NUM_TIMES = 7
_FADING_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.9, 1.0)
# Noise models that are less likely than the best by more than this are left out.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class MeansCovariance:
    """Covariance of the settings' means (s^2) under each noise model that the trials leave possible.

    ``weights`` (G,) are the models' restricted likelihoods, of sum 1; ``covariances_s2`` is (G, settings, settings);
    ``dof`` are degrees of freedom of the scale of each. ``correlation_trials`` says after how many trials the fading
    part has fallen to 1 / e, in the mean over the models.
    """

    weights: np.ndarray
    covariances_s2: np.ndarray
    dof: float
    correlation_trials: float

    @property
    def mean_s2(self) -> np.ndarray:
        """Mean over the noise models."""
        return np.tensordot(self.weights, self.covariances_s2, 1)

    def spread(self, of_each) -> np.ndarray:
        """Squared variance over its degrees of freedom, from the variance under each model, on the first axis."""
        return np.tensordot(self.weights, of_each, 1) ** 2 / self.dof


def dependence_p_value(values, group) -> float:
    """One-sided p value of the hypothesis that trials are independent of the one timed just before them.

    Parameters
    ----------
    values : array, shape (n,)
        In the order of time.
    group : int array, shape (n,)
        Settings, numbered from 0; each has a mean and a scatter of its own.

    Returns
    -------
    float
        By the sum of the products of neighbours, each the distance from the mean of its group, in its scatters. Its
        expectation among the trials of a group is that of their permutations; 1 where nothing scatters.
    """
    from scipy.special import ndtr

    counts = np.bincount(group)
    deviations = values - (np.bincount(group, values) / counts)[group]
    scatter = np.sqrt(np.bincount(group, deviations**2) / counts)[group]
    # The last digits of equal values are no scatter.
    z = np.where(scatter > 1e-12 * np.abs(values), deviations / np.where(scatter > 0, scatter, 1), 0.0)
    products = z[1:] * z[:-1]
    is_same = group[1:] == group[:-1]
    expected = np.where(is_same, -1 / np.maximum(counts[group[1:]] - 1, 1), 0.0) * (z[1:] != 0)
    variance = np.sum((products - expected) ** 2)
    return float(ndtr(-np.sum(products - expected) / np.sqrt(variance))) if variance > 0 else 1.0


def means_covariance(values, scales, group) -> MeansCovariance:
    """Covariance of the means over dependent trials, by restricted likelihood over a grid of noise models.

    The trials of a group tell it among themselves: whatever model the means obey, they need not.

    Parameters
    ----------
    values : array, shape (n,)
        Seconds of the trials, in the order of time.
    scales : array, shape (n,)
        Standard deviation of the noise of each, up to one factor.
    group : int array, shape (n,)
        Settings, numbered from 0: whose means are meant.
    """
    num_trials, is_of_group = len(values), np.eye(group.max() + 1)[group]
    dof = num_trials - is_of_group.shape[1]
    design, values = is_of_group / scales[:, None], values / scales
    # Settings' means as sums over scaled trials.
    averages = is_of_group * (scales / np.bincount(group)[group])[:, None]
    times = np.geomspace(1.0, max(_SLOWEST_SHARE * num_trials, 2.0), _NUM_TIMES)
    models = [(share, np.exp(-1 / time)) for share in _FADING_SHARES for time in times]
    fits = [_restricted_fit(values, design, _Noise(*model), dof) for model in models]
    likelihoods = np.array([likelihood for likelihood, _ in fits])
    weights = np.exp(likelihoods - likelihoods.max())
    kept = np.flatnonzero(weights > _LEAST_WEIGHT)
    weights = weights[kept] / weights[kept].sum()
    covariances = [fits[k][1] * _Noise(*models[k]).covariance_of(averages) for k in kept]
    faded = weights @ np.array([-1 / np.log(models[k][1]) for k in kept])
    return MeansCovariance(weights, np.array(covariances), float(dof), float(faded))


@dataclass(frozen=True)
class _Noise:
    """Correlation (1 - share) I + share A of trials, A[i, j] = fading^|i - j|; the inverse of A has three diagonals."""

    share: float
    fading: float

    def _inverse_of_fading(self, num_trials) -> np.ndarray:
        """A^-1 as its main diagonal below the one above it, as ``solveh_banded`` takes it."""
        bands = np.empty((2, num_trials))
        bands[0], bands[1] = -self.fading, 1 + self.fading**2
        bands[1, [0, -1]] = 1.0
        return bands / (1 - self.fading**2)

    def whiten(self, columns) -> tuple[np.ndarray, float]:
        """Inverse of the correlation times columns, and the logarithm of its determinant."""
        from scipy.linalg import cho_solve_banded, cholesky_banded

        inverse = self._inverse_of_fading(len(columns))
        bands = (1 - self.share) * inverse
        bands[1] += self.share
        factor = cholesky_banded(bands)
        solved = cho_solve_banded((factor, False), columns)
        product = inverse[1][:, None] * solved
        product[1:] += inverse[0, 1:, None] * solved[:-1]
        product[:-1] += inverse[0, 1:, None] * solved[1:]
        log_determinant = 2 * np.log(factor[1]).sum() + (len(columns) - 1) * np.log(1 - self.fading**2)
        return product, float(log_determinant)

    def covariance_of(self, columns) -> np.ndarray:
        """Covariance of sums over trials, whose coefficients are the columns."""
        from scipy.linalg import solveh_banded

        faded = solveh_banded(self._inverse_of_fading(len(columns)), columns)
        return (1 - self.share) * columns.T @ columns + self.share * columns.T @ faded


def _restricted_fit(values, design, noise, dof) -> tuple[float, float]:
    """Restricted log-likelihood and the scale, a variance, of one noise model."""
    columns = np.column_stack([design, values])
    whitened, log_determinant = noise.whiten(columns)
    information = columns.T @ whitened
    inner, cross = information[:-1, :-1], information[:-1, -1]
    scale = max((information[-1, -1] - cross @ np.linalg.solve(inner, cross)) / dof, np.finfo(float).tiny)
    log_information = np.linalg.slogdet(inner)[1]
    return -0.5 * (dof * np.log(scale) + log_determinant + log_information), scale
