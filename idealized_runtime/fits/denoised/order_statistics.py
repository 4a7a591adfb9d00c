"""Denoised fit of arXiv:2305.02440: the least runtime over trials of each setting, fitted with an overhead."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from idealized_runtime.checks import numeric_columns
from idealized_runtime.fits.denoised.noise import find_scatter
from idealized_runtime.fits.denoised.stochastic_frontier import fit_frontier
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.published import PublishedRuntimeModel
from idealized_runtime.records import TOKEN_COLUMNS

ESTIMATORS = ("minimum", "second_smallest", "quantile", "frontier")
# Place, from the least, among the trials of a setting.
_PLACES = {"minimum": 1, "second_smallest": 2}
# Fewer trials in a setting than this share of the most are not what the others are reduced to.
_LEAST_SHARE = 0.5


class UnequalTrialsWarning(UserWarning):
    """Settings have different numbers of trials, on which a floor depends."""


def floor_runtimes(trials: pd.DataFrame, *, estimator: str = "minimum", quantile: float = 0.1) -> pd.DataFrame:
    """One runtime a setting, low among its trials.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``num_prompt_tokens``, ``num_output_tokens`` and ``runtime_s``. One row a setting, already a minimum, is
        allowed for the minimum; its column may be called ``minimum_runtime_s``.
    estimator : {"minimum", "second_smallest", "quantile"}
        The paper takes the minimum, which holds where disturbances only add to a least runtime; the authors' later
        notebook takes the second smallest, against one outlier below. Where runtimes scatter to below as well, both
        fall with the number of trials. A quantile does not, but lies as far above the least as the noise does; it
        stands a few outliers below. :func:`~idealized_runtime.fits.denoised.noise.find_scatter` tells which holds.
        Where settings have different numbers of trials, the first two are those expected of as many as the fewest.
    quantile : float
        For ``"quantile"``, interpolated between trials.

    Returns
    -------
    DataFrame, one row a setting
        ``num_prompt_tokens, num_output_tokens, runtime_s, num_trials`` (that the runtime stands for).

    Raises
    ------
    ValueError
        A column is missing, a runtime is missing, the estimator is unknown, or a setting has one trial only where
        two are needed.

    Warns
    -----
    UnequalTrialsWarning
        Settings have different numbers of trials. Where the fewest are less than half of the most, floors stay those
        of all trials, and where there are more trials they are lower.
    """
    trials = _as_trials(trials)
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1]; got {quantile!r}")
    settings = trials.groupby(TOKEN_COLUMNS)["runtime_s"]
    num_trials = settings.size()
    if estimator not in (floors := [*_PLACES, "quantile"]):
        raise ValueError(f"estimator must be one of {', '.join(floors)}; got {estimator!r}")
    if estimator != "minimum" and (lonely := num_trials.index[num_trials < 2]).size:
        p, o = lonely[0]
        raise ValueError(
            f"estimator {estimator!r} needs at least 2 trials a setting; {lonely.size} setting(s) have one, the first "
            f"at p={p} o={o}. Time more trials, or use estimator='minimum'"
        )
    if estimator == "quantile":
        return pd.DataFrame({"runtime_s": settings.quantile(quantile), "num_trials": num_trials}).reset_index()
    fewest, most = num_trials.min(), num_trials.max()
    if fewest < most:
        p, o = num_trials.idxmin()
        remedy = f"each {estimator} is that expected of {fewest} trials"
        if fewest < _LEAST_SHARE * most:
            remedy = "where there are more, floors are lower: time the missing trials, or use estimator='frontier'"
        else:
            num_trials = num_trials.clip(upper=fewest)
        counted = f"settings have {fewest} (p={p} o={o}) to {most} trials"
        warnings.warn(f"{counted}; {remedy}", UnequalTrialsWarning, stacklevel=2)
    floors_s = [
        _expected_place(np.sort(group), _PLACES[estimator], count)
        for (_, group), count in zip(settings, num_trials, strict=True)
    ]
    return pd.DataFrame({"runtime_s": floors_s, "num_trials": num_trials}).reset_index()


def fit_denoised(
    trials: pd.DataFrame,
    *,
    estimator: str = "minimum",
    fit: Callable[[pd.DataFrame], RuntimeModel] = PublishedRuntimeModel.fit,
    quantile: float = 0.1,
    is_tested: bool = True,
) -> RuntimeModel:
    """Runtime model of an API without its noise, t(p, o) = prompt time(p) + (o - 1) g + overhead.

    Parameters
    ----------
    trials : DataFrame
        As for :func:`floor_runtimes`, of one model.
    estimator : {"minimum", "second_smallest", "quantile", "frontier"}
        How one runtime a setting is had from its trials, or, ``"frontier"``, all trials fitted at once by
        :func:`~idealized_runtime.fits.denoised.stochastic_frontier.fit_frontier`.
    fit : callable
        From the floors to a model: :meth:`RuntimeModel.fit`, or the authors' with its roundings. Not used by
        ``"frontier"``, which has a likelihood of its own.
    quantile : float
        For ``estimator="quantile"``.
    is_tested : bool
        Whether to test which estimator the noise of these trials asks for.

    Returns
    -------
    RuntimeModel
        With ``overhead_s``, and with ``notes`` that say which estimator holds for these trials and what the overhead
        may hold. Intervals are of the sum of prompt time and overhead; they do not know of the bias of a minimum, nor
        of that of a frontier where disturbances only add, and the authors' fit has none.

    Raises
    ------
    ValueError
        As :func:`floor_runtimes` and the fit.

    Examples
    --------
    >>> from idealized_runtime import read_requests
    >>> requests = read_requests("logs/api/llama-4m-mlx-lm-server.jsonl")
    >>> model = fit_denoised(requests[requests["is_fit"]], fit=RuntimeModel.fit)
    >>> round(model.time_per_output_token_s, 5)  # seconds
    0.00422
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}")
    trials = _as_trials(trials)
    if estimator == "frontier":
        model = fit_frontier(trials).to_model()
    else:
        floors = floor_runtimes(trials, estimator=estimator, quantile=quantile)
        # num_trials would be read as that of a mean.
        with warnings.catch_warnings():
            # Floors stand in the order of sizes, which is none of time.
            warnings.filterwarnings("ignore", "(.*: )?sweep_order: ")
            model = fit(floors.drop(columns="num_trials")).with_overhead()
    finding = find_scatter(trials) if is_tested else None
    notes = () if finding is None else (finding.message,)
    return replace(model, notes=(*notes, _overhead_note(model)))


def _overhead_note(model) -> str:
    """What the convention that tells an overhead from prompt times makes of these."""
    sizes, times_s = model.num_prompt_tokens, model.profiled_prompt_times_s
    note = (
        f"by convention a prompt of {sizes[0]} tokens, the smallest, takes as long as one output token; the rest of "
        f"its {1e3 * (times_s[0] + model.overhead_s):.3g} ms is overhead"
    )
    if len(sizes) > 1:
        # On the line through the two smallest sizes.
        moved_s = sizes[0] * (times_s[1] - times_s[0]) / (sizes[1] - sizes[0]) - times_s[0]
        if moved_s > 0:
            note += f"; by the next size about {1e3 * min(moved_s, model.overhead_s):.3g} ms of it are prompt time"
    return note


def _expected_place(ordered, place, count) -> float:
    """Expectation of the trial in some place, from the least, among ``count`` of these drawn without replacement."""
    from scipy.special import comb

    number = np.arange(1, len(ordered) + 1)
    chances = comb(number - 1, place - 1) * comb(len(ordered) - number, count - place) / comb(len(ordered), count)
    return float(chances @ ordered)


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
