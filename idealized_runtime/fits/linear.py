"""Weighted least squares for t(p, o) = P(p) + (o - 1) g(p), one P for each group of prompt sizes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

# Weights need a first guess of the runtimes (the measured ones), and settle within two more rounds.
_NUM_REWEIGHTINGS = 2


@dataclass(frozen=True)
class LinearFit:
    """Estimates that are linear in the runtimes: ``level_rows @ runtime_s`` and ``slope_rows @ runtime_s``.

    ``levels`` are weighted mean runtimes of the groups; the prompt time of group k is
    ``levels[k] - mean_regressors[k] @ slopes``: the weighted mean, led back to one output token.
    """

    group: np.ndarray  # of each setting
    regressors: np.ndarray  # (settings, slopes): (o - 1) and, for g linear in p, (o - 1) (p - reference)
    weights: np.ndarray  # 1 / fitted runtime squared, so that relative errors count alike
    levels: np.ndarray
    slopes: np.ndarray
    mean_regressors: np.ndarray
    level_rows: np.ndarray  # (groups, settings)
    slope_rows: np.ndarray  # (slopes, settings)

    @property
    def prompt_times_s(self) -> np.ndarray:
        return self.levels - self.mean_regressors @ self.slopes

    @property
    def fitted_s(self) -> np.ndarray:
        return self.prompt_times_s[self.group] + self.regressors @ self.slopes

    @property
    def num_parameters(self) -> int:
        return len(self.levels) + len(self.slopes)

    def residual_maker(self) -> np.ndarray:
        """Matrix that turns runtimes into residuals."""
        centred = self.regressors - self.mean_regressors[self.group]
        return np.eye(len(self.group)) - self.level_rows[self.group] - centred @ self.slope_rows


def reference_prompt_size(settings: pd.DataFrame) -> int:
    """Prompt size at which level and slope of a linear g are uncorrelated: g is known best there.

    A constant and a linear g agree there, so that the one number of a parameter file does not hang on the choice.
    """
    p, decoded, weights = _columns(settings)
    group = np.unique(p, return_inverse=True)[1]
    centred = decoded - (_group_means(decoded[:, None], weights, group))[group, 0]
    information = weights * centred**2
    return round(float(np.average(p, weights=information)))


def fit_linear(settings: pd.DataFrame, group, *, reference, is_linear_in_p) -> LinearFit:
    """Least squares of relative errors.

    Parameters
    ----------
    settings : DataFrame
        As from ``validate_settings``.
    group : int array, one a setting
        0 to groups - 1: settings of one group share their prompt encoding time.
    reference : float
        Prompt tokens at which the first slope is g.
    is_linear_in_p : bool
        Whether g has a second slope, in seconds per output token and prompt token.
    """
    p, decoded, weights = _columns(settings)
    runtime_s = settings["runtime_s"].to_numpy()
    columns = [decoded, decoded * (p - reference)] if is_linear_in_p else [decoded]
    regressors = np.column_stack(columns)
    for _ in range(_NUM_REWEIGHTINGS + 1):
        fit = _fit_weighted(runtime_s, regressors, weights, group)
        # A wild runtime must not turn a fitted one negative and so into an outsized weight.
        weights = 1 / np.maximum(fit.fitted_s, 0.1 * runtime_s) ** 2
    return fit


def _columns(settings):
    p = settings["num_prompt_tokens"].to_numpy(dtype=float)
    decoded = settings["num_output_tokens"].to_numpy(dtype=float) - 1
    return p, decoded, 1 / settings["runtime_s"].to_numpy() ** 2


def _group_means(values, weights, group):
    totals = np.bincount(group, weights)
    return np.column_stack([np.bincount(group, weights * column) / totals for column in values.T])


def _fit_weighted(runtime_s, regressors, weights, group):
    mean_regressors = _group_means(regressors, weights, group)
    centred = regressors - mean_regressors[group]
    # Scaled to unit size: p - reference is a thousand times 1.
    scale = np.sqrt(np.einsum("i,ij,ij->j", weights, centred, centred))
    scaled = centred / scale
    slope_rows = np.linalg.solve(scaled.T * weights @ scaled, scaled.T * weights) / scale[:, None]
    level_rows = np.zeros((len(mean_regressors), len(group)))
    level_rows[group, np.arange(len(group))] = weights / np.bincount(group, weights)[group]
    return LinearFit(
        group=group,
        regressors=regressors,
        weights=weights,
        levels=level_rows @ runtime_s,
        slopes=slope_rows @ runtime_s,
        mean_regressors=mean_regressors,
        level_rows=level_rows,
        slope_rows=slope_rows,
    )
