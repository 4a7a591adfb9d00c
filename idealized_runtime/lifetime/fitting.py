"""Fit of a scaling law to training runs: least Huber loss in log space, from many starts at once.

The objective is that of arXiv:2203.15556, section D.2, and of arXiv:2401.00448's code. Theirs minimises it start
by start with finite differences; here every step advances all starts together, with exact derivatives.
"""

import itertools
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_positive
from idealized_runtime.lifetime.fitted_range import FittedRange
from idealized_runtime.lifetime.log_huber import NUM_COEFFICIENTS, LogHuber
from idealized_runtime.lifetime.scaling_law import ScalingLaw

HUBER_DELTA = 1e-3
# Sizes, and numbers of training tokens, that tell an exponent and its factor from the constant.
MIN_DISTINCT = 3
# The sweep of arXiv:2401.00448's code: exponents, log E, log A = log B.
_EXPONENTS = (0, 0.5, 1, 1.5, 2)
_LOG_E = (-1, -0.5, 0, 0.5, 1)
_LOG_SCALES = (0, 5, 10, 15, 20, 25)
# Log of predicted over observed loss beyond which a run is no scatter: published runs lie within 0.07.
_MOST_OFF = 0.15
# Two starts have found the same minimum if their objectives agree so well.
_SAME_MINIMUM = 1e-6


class OutlyingRunsWarning(UserWarning):
    """Training runs that the law of the others does not describe: mistyped, or of another kind."""


@dataclass(frozen=True)
class ScalingLawFit:
    """A fitted law, and how it was found.

    Parameters
    ----------
    law : ScalingLaw
    objective : float
        Sum over runs of the Huber loss of the residuals.
    log_residuals : ndarray, one a run
        ln predicted loss - ln loss.
    num_starts, num_at_optimum : int
        How many starts there were, and how many of them ended at this minimum.
    """

    law: ScalingLaw
    objective: float
    log_residuals: np.ndarray
    num_starts: int
    num_at_optimum: int


def default_starts() -> np.ndarray:
    """The original's 4500 starts, rows of (ln A, ln B, ln E, alpha, beta)."""
    sweep = itertools.product(_LOG_SCALES, _LOG_SCALES, _LOG_E, _EXPONENTS, _EXPONENTS)
    return np.array(list(sweep), dtype=float)


def fit_scaling_law(
    runs: pd.DataFrame, *, delta: float = HUBER_DELTA, starts: ArrayLike | None = None
) -> ScalingLawFit:
    """Law of least Huber loss between predicted and observed log losses.

    Parameters
    ----------
    runs : DataFrame, one row a run
        Columns ``num_params, num_training_tokens, loss``, as :func:`read_training_runs` gives them.
    delta : float
        Residual beyond which the Huber loss grows linearly.
    starts : array of shape (S, 5), optional
        Rows of (ln A, ln B, ln E, alpha, beta); the 4500 of :func:`default_starts` without.

    Returns
    -------
    ScalingLawFit

    Raises
    ------
    ValueError
        Fewer runs than coefficients, too few distinct sizes or durations to tell the exponents, or runs that no
        law with positive exponents describes.
    """
    check_positive(delta=delta)
    if len(runs) <= NUM_COEFFICIENTS:
        raise ValueError(f"five coefficients need more than {NUM_COEFFICIENTS} runs; got {len(runs)}")
    for column, what in (("num_params", "sizes"), ("num_training_tokens", "numbers of training tokens")):
        check_positive(**{column: runs[column]})
        if runs[column].nunique() < MIN_DISTINCT:
            raise ValueError(f"an exponent needs runs of at least {MIN_DISTINCT} {what}; got {runs[column].nunique()}")
    check_positive(loss=runs["loss"])
    starts = default_starts() if starts is None else np.asarray(starts, dtype=float)
    objective = LogHuber(runs, delta)
    minima, values = objective.minimize(starts)
    best = np.argmin(values)
    try:
        law = law_of(minima[best], source=f"fitted to {len(runs)} training runs")
    except ValueError as error:
        raise ValueError(f"no law with positive coefficients describes these runs: {error}") from error
    residuals = objective.residuals(minima[best : best + 1])[0]
    _warn_of_outliers(runs, residuals)
    return ScalingLawFit(
        law=replace(law, fitted_range=FittedRange.of_runs(runs)),
        objective=float(values[best]),
        log_residuals=residuals,
        num_starts=len(starts),
        num_at_optimum=int(np.count_nonzero(values <= values[best] * (1 + _SAME_MINIMUM))),
    )


def _warn_of_outliers(runs, residuals):
    if (off := np.abs(residuals) > _MOST_OFF).any():
        run = runs[["num_params", "num_training_tokens", "loss"]].iloc[int(np.argmax(np.abs(residuals)))]
        warnings.warn(
            f"{off.sum()} of {len(runs)} training runs lie more than {100 * _MOST_OFF:g} % off the law that the others "
            f"follow: check them; the farthest has {run.iloc[0]:.3g} parameters, {run.iloc[1]:.3g} tokens and loss "
            f"{run.iloc[2]:.4g}",
            OutlyingRunsWarning,
            stacklevel=3,
        )


def law_of(coefficients, source="") -> ScalingLaw:
    """The law of (ln A, ln B, ln E, alpha, beta); an array of rows gives a law of arrays."""
    log_a, log_b, log_e, alpha, beta = np.moveaxis(coefficients, -1, 0)
    A, B, E = np.exp([log_a, log_b, log_e])  # noqa: N806
    return ScalingLaw(A, B, E, alpha, beta, source)


def coefficients_of(law: ScalingLaw) -> np.ndarray:
    """(ln A, ln B, ln E, alpha, beta) of a law: the inverse of :func:`law_of`."""
    log_e = np.log(np.maximum(law.E, np.finfo(float).tiny))
    return np.stack([np.log(law.A), np.log(law.B), log_e, law.alpha, law.beta], axis=-1)
