"""Tables of models behind APIs: R² (Table 2), parameters (Table 3), noise; unrounded, a notebook rounds."""

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from idealized_runtime.fits import ModelOfRuntimes, RuntimeModel
from idealized_runtime.fits.denoised import ESTIMATORS, fit_denoised, fit_frontier, floor_runtimes
from idealized_runtime.fits.published import fit_published
from idealized_runtime.reproductions.paper.api_runtimes import printed_name

# Prompt sizes of Table 3.
TABLE_3_SIZES = (512, 1024, 1536)


def fit_apis(runtimes: pd.DataFrame, **options) -> dict[str, ModelOfRuntimes]:
    """Denoised model of each API, by HELM's name; one that cannot be fitted is left out with a warning.

    Parameters
    ----------
    runtimes : DataFrame
        ``model`` and what :func:`~idealized_runtime.fits.denoised.fit_denoised` takes.
    **options
        Of :func:`~idealized_runtime.fits.denoised.fit_denoised`.
    """
    fits = {}
    for name, frame in runtimes.groupby("model"):
        try:
            fits[name] = fit_denoised(frame, **options)
        except ValueError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
    return fits


def generation_r_squared(trials: pd.DataFrame) -> float:
    """R² of the authors' last regression: decode time on o - 1, with a constant, over all settings (Table 2).

    Decode time is the least runtime of a setting less the rounded prompt time of its prompt size. The constant is
    thrown away for the estimate, so this is not the R² of the model that predicts (``r_squared``).
    """
    floors = floor_runtimes(trials)
    _, prompt_times_s = fit_published(floors)
    decode_s = floors["runtime_s"] - floors["num_prompt_tokens"].map(prompt_times_s)
    return float(np.corrcoef(floors["num_output_tokens"] - 1, decode_s)[0, 1] ** 2)


def r_squared_table(runtimes: pd.DataFrame) -> pd.DataFrame:
    """R² of denoised fits by the published procedure (Table 2).

    Returns
    -------
    DataFrame, by printed model name
        ``r_squared``, of the authors' regression of decode time (what the paper prints), and ``model_r_squared``,
        centred, of the model that predicts.
    """
    rows = {
        printed_name(name): (generation_r_squared(frame), fit_denoised(frame).r_squared)
        for name, frame in runtimes.groupby("model")
    }
    return _by_model(rows, ["r_squared", "model_r_squared"])


def parameter_table(fits: Mapping[str, Mapping[str, ModelOfRuntimes]], models: Iterable[str]) -> pd.DataFrame:
    """Prompt encoding times and time per output token, one row a model and metric (Table 3).

    Parameters
    ----------
    fits : mapping of metric to mapping of ModelOfRuntimes, by HELM's name
        Such as ``{"idealized": ..., "denoised": ...}``.
    models : iterable of str
        HELM's names.

    Returns
    -------
    DataFrame, by printed model name and metric
        A column in seconds for each prompt size, ``time_per_output_token_s``, and ``overhead_s`` (NaN without).
    """
    rows = {}
    for name in models:
        for metric, by_name in fits.items():
            fit = by_name[name]
            times_s = {f"p = {size}": fit.prompt_encoding_time_s(size) for size in TABLE_3_SIZES}
            times_s |= {"time_per_output_token_s": fit.time_per_output_token_s, "overhead_s": fit.overhead_s}
            rows[printed_name(name), metric] = times_s
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).rename_axis(["model", "metric"])


def entry_table(fits: Mapping[str, ModelOfRuntimes], entries: Mapping[str, Mapping]) -> pd.DataFrame:
    """Which fits equal the entries of a published parameter file, in all its rounded milliseconds.

    Parameters
    ----------
    fits : mapping of ModelOfRuntimes, by HELM's name
        By the published procedure, with overhead.
    entries : mapping
        A parameter file as read from JSON.

    Returns
    -------
    DataFrame, by HELM's name, for fits that have an entry
        ``is_equal``, of everything; ``are_sums_equal``, of prompt time plus overhead at every size that was
        fitted; ``g_s`` and ``published_g_s``; ``sizes_missing``, sizes of the entry that were not fitted.
    """
    rows = {name: _compare(fit, entries[name]) for name, fit in fits.items() if name in entries}
    return _by_model(rows)


def equals_entry(fit: ModelOfRuntimes, entry: Mapping) -> bool:
    """Whether a fit has the milliseconds of an entry of a parameter file, the overhead included where there is one."""
    ours = fit.to_json()
    keys = ("runtime_per_output_token", "runtime_for_prompt_tokens", "overhead")
    return all(_milliseconds(ours.get(key)) == _milliseconds(entry.get(key)) for key in keys)


def estimator_table(trials: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Denoised parameters of one API by every estimator, with their intervals.

    Prompt encoding time and overhead are given as their sum, which is what timings tell.

    Parameters
    ----------
    trials : DataFrame
        As for :func:`~idealized_runtime.fits.denoised.fit_denoised`.
    level : float

    Returns
    -------
    DataFrame, by parameter and estimator
        ``estimate_s, estimate_s_lower, estimate_s_upper``, of ``time per output token`` and of ``prompt of p tokens +
        overhead``.
    """
    fits = {name: fit_denoised(trials, estimator=name, fit=RuntimeModel.fit) for name in ESTIMATORS}
    rows = [
        ("time per output token", name, fit.time_per_output_token_s, *fit.time_per_output_token_interval_s(level))
        for name, fit in fits.items()
    ]
    for size in sorted(trials["num_prompt_tokens"].unique()):
        parameter = f"prompt of {size} tokens + overhead"
        for name, fit in fits.items():
            rows.append((parameter, name, fit.predict(size, 1), *fit.predict_interval(size, 1, level=level)))
    table = pd.DataFrame(rows, columns=["parameter", "estimator", "estimate_s", "estimate_s_lower", "estimate_s_upper"])
    return table.set_index(["parameter", "estimator"]).astype(float)


def noise_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Noise of each API by the frontier of :func:`~idealized_runtime.fits.denoised.fit_frontier`.

    Returns
    -------
    DataFrame, by printed model name
        ``time_per_output_token_s`` with its standard error ``error_s``; ``jitter`` and ``delay`` in ``unit``
        (``"s"`` or ``"share of runtime"``); ``delay_probability``.
    """
    rows = {}
    for name, frame in trials.groupby("model"):
        fit = fit_frontier(frame)
        rows[printed_name(name)] = {
            "time_per_output_token_s": fit.time_per_output_token_s,
            "error_s": fit.covariance[-1, -1] ** 0.5,
            "jitter": fit.jitter,
            "delay_probability": fit.delay_probability,
            "delay": fit.delay,
            "unit": "share of runtime" if fit.is_proportional else "s",
        }
    return _by_model(rows)


def _by_model(rows, columns=None) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")


def _compare(fit, entry) -> dict:
    ours, theirs = fit.to_json(), entry["runtime_for_prompt_tokens"]
    fitted, more_s = ours["runtime_for_prompt_tokens"], entry["overhead"] - ours["overhead"]
    return {
        "is_equal": equals_entry(fit, entry),
        "are_sums_equal": all(
            _milliseconds(time_s) == _milliseconds(theirs[size] + more_s) for size, time_s in fitted.items()
        ),
        "g_s": ours["runtime_per_output_token"],
        "published_g_s": entry["runtime_per_output_token"],
        "sizes_missing": ", ".join(size for size in theirs if size not in fitted),
    }


def _milliseconds(value):
    if isinstance(value, dict):
        return {size: round(1e3 * time_s) for size, time_s in value.items()}
    return None if value is None else round(1e3 * value)
