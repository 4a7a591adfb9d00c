"""Denoised fit of arXiv:2305.02440: the least runtime over trials of each setting, fitted with an overhead."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from idealized_runtime.checks import numeric_columns
from idealized_runtime.fits.denoised.frontier import fit_frontier
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.published import PublishedRuntimeModel
from idealized_runtime.records import TOKEN_COLUMNS

ESTIMATORS = ("minimum", "second_smallest", "quantile", "frontier")


def floor_runtimes(trials: pd.DataFrame, *, estimator: str = "minimum", quantile: float = 0.1) -> pd.DataFrame:
    """One runtime a setting, low among its trials.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``num_prompt_tokens``, ``num_output_tokens`` and ``runtime_s``. One row a setting, already a minimum, is
        allowed for the minimum; its column may be called ``minimum_runtime_s``.
    estimator : {"minimum", "second_smallest", "quantile"}
        The paper takes the minimum; the authors' later notebook takes the second smallest, against outliers
        below. All three depend on how many trials there were: the minimum falls with every further one.
    quantile : float
        For ``"quantile"``, interpolated between trials.

    Returns
    -------
    DataFrame, one row a setting
        ``num_prompt_tokens, num_output_tokens, runtime_s, num_trials``.

    Raises
    ------
    ValueError
        A column is missing, a runtime is missing, the estimator is unknown, or a setting has one trial only where
        two are needed.
    """
    trials = _as_trials(trials)
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1]; got {quantile!r}")
    settings = trials.groupby(TOKEN_COLUMNS)["runtime_s"]
    num_trials = settings.size()
    floors = {
        "minimum": settings.min,
        "second_smallest": lambda: settings.apply(lambda runtime_s: np.sort(runtime_s)[1]),
        "quantile": lambda: settings.quantile(quantile),
    }
    if estimator not in floors:
        raise ValueError(f"estimator must be one of {', '.join(floors)}; got {estimator!r}")
    if estimator != "minimum" and (lonely := num_trials.index[num_trials < 2]).size:
        p, o = lonely[0]
        raise ValueError(
            f"estimator {estimator!r} needs at least 2 trials a setting; {lonely.size} setting(s) have one, the first "
            f"at p={p} o={o}. Time more trials, or use estimator='minimum'"
        )
    return pd.DataFrame({"runtime_s": floors[estimator](), "num_trials": num_trials}).reset_index()


def fit_denoised(
    trials: pd.DataFrame,
    *,
    estimator: str = "minimum",
    fit: Callable[[pd.DataFrame], RuntimeModel] = PublishedRuntimeModel.fit,
    quantile: float = 0.1,
) -> RuntimeModel:
    """Runtime model of an API without its noise, t(p, o) = prompt time(p) + (o - 1) g + overhead.

    Parameters
    ----------
    trials : DataFrame
        As for :func:`floor_runtimes`, of one model.
    estimator : {"minimum", "second_smallest", "quantile", "frontier"}
        How one runtime a setting is had from its trials, or, ``"frontier"``, all trials fitted at once by
        :func:`~idealized_runtime.fits.denoised.frontier.fit_frontier`.
    fit : callable
        From the floors to a model: :meth:`RuntimeModel.fit`, or the authors' with its roundings. Not used by
        ``"frontier"``, which has a likelihood of its own.
    quantile : float
        For ``estimator="quantile"``.

    Returns
    -------
    RuntimeModel
        With ``overhead_s``. Intervals are of the sum of prompt time and overhead; they do not know of the bias
        of a minimum, and the authors' fit has none.

    Raises
    ------
    ValueError
        As :func:`floor_runtimes` and the fit.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}")
    if estimator == "frontier":
        return fit_frontier(_as_trials(trials)).to_model()
    floors = floor_runtimes(trials, estimator=estimator, quantile=quantile)
    # num_trials would be read as that of a mean.
    return fit(floors.drop(columns="num_trials")).with_overhead()


def _as_trials(trials: pd.DataFrame) -> pd.DataFrame:
    if "runtime_s" not in trials and "minimum_runtime_s" in trials:
        trials = trials.rename(columns={"minimum_runtime_s": "runtime_s"})
    columns = [*TOKEN_COLUMNS, "runtime_s"]
    *_, runtime_s = numeric_columns(trials, columns, name="trials")
    if "model" in trials and len(models := trials["model"].unique()) > 1:
        raise ValueError(f"one fit takes one model; the trials hold {len(models)}: {', '.join(map(str, models[:5]))}")
    if bad := int((~(np.isfinite(runtime_s) & (runtime_s > 0))).sum()):
        raise ValueError(f"runtime_s must be positive and finite; {bad} of {len(runtime_s)} trials are not")
    return trials[columns]
