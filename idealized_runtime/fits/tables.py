"""Tables of fitted runtime models, one column or row a model. Unrounded; a notebook rounds what it shows."""

import contextlib
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from idealized_runtime.fits.knee import PromptEncodingKnee
from idealized_runtime.fits.protocol import NoIntervalError
from idealized_runtime.statistics import errors as summaries


def time_per_output_token_table(fits: Mapping, *, level: float = 0.95) -> pd.DataFrame:
    """Time per output token of each model, with the prompt size at which it holds.

    Parameters
    ----------
    fits : mapping of RuntimeModel, by model name
    level : float
        Confidence level of the interval.

    Returns
    -------
    DataFrame, by model
        ``at_prompt_size`` (tokens), ``time_per_output_token_ms`` with ``_lower`` and ``_upper`` (missing where
        the fit knows no intervals), ``r_squared`` (of the model that predicts).
    """
    rows = {}
    for name, fit in fits.items():
        lower_s = upper_s = np.nan
        with contextlib.suppress(NoIntervalError):
            lower_s, upper_s = fit.time_per_output_token_interval_s(level)
        rows[name] = {
            "at_prompt_size": fit.reference_num_prompt_tokens,
            "time_per_output_token_ms": 1e3 * fit.time_per_output_token_s,
            "time_per_output_token_ms_lower": 1e3 * lower_s,
            "time_per_output_token_ms_upper": 1e3 * upper_s,
            "r_squared": fit.r_squared,
        }
    return _by_model(rows)


def prompt_encoding_table(
    fits: Mapping, *, prompt_sizes: Iterable[int] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Prompt encoding times at profiled sizes, as text ``milliseconds [lower, upper]``.

    Parameters
    ----------
    fits : mapping of RuntimeModel, by model name
    prompt_sizes : iterable of int, optional
        Tokens; every profiled size where it is not given. Empty where a model was not profiled at a size.

    Returns
    -------
    DataFrame of str, by prompt size, one column a model
    """
    wanted = None if prompt_sizes is None else set(prompt_sizes)
    columns = {}
    for name, fit in fits.items():
        sizes = [int(size) for size in fit.num_prompt_tokens if wanted is None or size in wanted]
        columns[name] = {size: _prompt_time_text(fit, size, level) for size in sizes}
    return pd.DataFrame(columns).sort_index().rename_axis("prompt_size").fillna("")


def error_table(fits: Mapping) -> pd.DataFrame:
    """Relative errors of the predictions over the settings each model was fitted to, and over all of them.

    Returns
    -------
    DataFrame, by model and ``all``
        ``num_settings``; ``median_percent``, ``p95_percent``, ``max_percent`` of the absolute relative error.
    """
    errors = {name: fit.residuals["relative_error"] for name, fit in fits.items()}
    errors["all"] = pd.concat(errors.values())
    return summaries.error_table(errors).rename_axis("model")


def line_r_squared_table(logs: Mapping[str, pd.DataFrame], fits: Mapping) -> pd.DataFrame:
    """R² of straight lines through the runtimes of one prompt size, and of the model that predicts them all.

    Parameters
    ----------
    logs : mapping of DataFrame, by model name
        ``num_prompt_tokens``, ``num_output_tokens``, ``runtime_s``.
    fits : mapping of RuntimeModel, by model name

    Returns
    -------
    DataFrame, by model
        ``lowest_line_r_squared`` and ``median_line_r_squared`` over prompt sizes (a line of its own, with
        a constant, for each), ``model_r_squared``.
    """
    rows = {}
    for name, runtimes in logs.items():
        lines = line_r_squared(runtimes)
        rows[name] = {
            "lowest_line_r_squared": lines.min(),
            "median_line_r_squared": lines.median(),
            "model_r_squared": fits[name].r_squared,
        }
    return _by_model(rows)


def line_r_squared(runtimes: pd.DataFrame) -> pd.Series:
    """Centred R² of the least-squares line of runtime on output tokens, for each prompt size (Section 3.2).

    Prompt sizes with fewer than three numbers of output tokens are left out: a line through two points says nothing.
    """
    by_size = {}
    for size, group in runtimes.groupby("num_prompt_tokens"):
        if group["num_output_tokens"].nunique() > 2:
            by_size[size] = np.corrcoef(group["num_output_tokens"], group["runtime_s"])[0, 1] ** 2
    return pd.Series(by_size, dtype=float).rename_axis("num_prompt_tokens")


def knee_table(knees: Mapping[str, PromptEncodingKnee], fits: Mapping) -> pd.DataFrame:
    """Knee of prompt encoding of each model, and how its floor compares with one output token.

    Returns
    -------
    DataFrame, by model
        ``knee_tokens`` with ``_lower`` and ``_upper``; ``floor_ms``; ``floor_in_output_tokens`` (the floor
        in units of the time per output token); ``prompt_tokens_per_s`` on the line.
    """
    rows = {
        name: {
            "knee_tokens": knee.num_prompt_tokens,
            "knee_tokens_lower": knee.interval[0],
            "knee_tokens_upper": knee.interval[1],
            "floor_ms": 1e3 * knee.floor_s,
            "floor_in_output_tokens": knee.floor_s / fits[name].time_per_output_token_s,
            "prompt_tokens_per_s": knee.prompt_tokens_per_s,
        }
        for name, knee in knees.items()
    }
    return _by_model(rows)


def note_lines(fits: Mapping) -> list[str]:
    """Notes of fits, each once, with the models it holds for where it is not all of them."""
    models = {}
    for name, fit in fits.items():
        for note in getattr(fit, "notes", ()):
            models.setdefault(note, []).append(name)
    return [note if len(names) == len(fits) else f"{', '.join(names)}: {note}" for note, names in models.items()]


def _by_model(rows) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _prompt_time_text(fit, size, level) -> str:
    time_ms = 1e3 * fit.prompt_encoding_time_s(size)
    try:
        lower_ms, upper_ms = (1e3 * bound_s for bound_s in fit.prompt_encoding_interval_s(size, level))
    except NoIntervalError:
        return f"{time_ms:.3f}"
    # Two digits of the interval's half width, but never more than the microsecond.
    half_width_ms = max((upper_ms - lower_ms) / 2, 1e-3)
    decimals = int(np.clip(1 - np.floor(np.log10(half_width_ms)), 0, 3))
    return f"{time_ms:.{decimals}f} [{lower_ms:.{decimals}f}, {upper_ms:.{decimals}f}]"
