"""From a frame of timings to one checked row a setting."""

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, numeric_columns
from idealized_runtime.records.common import BATCH_COLUMNS, IDENTITY_COLUMNS, PARALLELISM_COLUMNS

_NEEDED = ("num_prompt_tokens", "num_output_tokens", "runtime_s")
_IDENTITY = (*IDENTITY_COLUMNS, *BATCH_COLUMNS, *PARALLELISM_COLUMNS)
_SETTING = ["num_prompt_tokens", "num_output_tokens"]
_MAX_NAMED = 5


def validate_settings(runtimes: pd.DataFrame, *, min_prompt_sizes: int = 2) -> pd.DataFrame:
    """One row a setting, sorted: what every fit starts from.

    Parameters
    ----------
    runtimes : DataFrame
        ``num_prompt_tokens``, ``num_output_tokens`` and ``runtime_s``, one row a setting, or one row
        a trial where there is a column ``trial``. Optional: ``runtime_std_s`` (over trials, ddof = 1),
        ``num_trials``, ``runtime_resolution_s`` (printed times are rounded to it), and the columns that
        say what was timed, which must not vary.
    min_prompt_sizes : int
        Fewer are refused.

    Returns
    -------
    DataFrame
        ``num_prompt_tokens, num_output_tokens`` (int64), ``runtime_s`` (mean over trials),
        ``runtime_std_s, num_trials, runtime_resolution_s`` (float64, NaN where unknown; resolution 0).

    Raises
    ------
    ValueError
        A column or a value cannot be fitted; the message names the column, the rows and the values.
    """
    check_columns(runtimes, _NEEDED, name="runtimes")
    if runtimes.empty:
        raise ValueError("runtimes hold no rows; time at least two prompt sizes at two numbers of output tokens")
    _check_one_identity(runtimes)
    _check_values(runtimes)
    settings = _aggregate_trials(runtimes) if "trial" in runtimes else _single_settings(runtimes)
    settings = settings.sort_values(_SETTING, ignore_index=True)
    _check_design(settings, min_prompt_sizes)
    return settings


def batch_size_of(runtimes: pd.DataFrame) -> int | None:
    """Queries that ran together in these timings of one batch size; None where it is not known."""
    known = runtimes["batch_size"].dropna() if "batch_size" in runtimes else []
    return int(known.iloc[0]) if len(known) else None


def settings_of_batch(timings: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """Settings of one batch size, with the one-token runs that their prompt encoding times are.

    Encoding its prompts gives a batch its first output tokens. So a setting whose two parts were timed holds that
    of a single output token, too, and one number of output tokens is enough to tell prompts from tokens.

    Parameters
    ----------
    timings : DataFrame, one row a setting
        As from ``read_log``.
    batch_size : int

    Returns
    -------
    DataFrame
        The rows of that batch size, then one of one output token for each prompt size that lacks it and has
        ``prompt_encoding_time_s``: the mean of these. Its trials are not known.

    Raises
    ------
    ValueError
        The batch size was not timed; the message lists those that were.
    """
    check_columns(timings, ["batch_size"])
    settings = timings[(timings["batch_size"] == batch_size).fillna(False)]
    if settings.empty:
        known = ", ".join(map(str, sorted(timings["batch_size"].dropna().unique()))) or "none that is known"
        raise ValueError(f"batch_size must be one that was timed: {known}; got {batch_size!r}")
    if "prompt_encoding_time_s" not in settings:
        return settings
    has_single = settings.loc[settings["num_output_tokens"] == 1, "num_prompt_tokens"]
    parts = settings[settings["prompt_encoding_time_s"].notna() & ~settings["num_prompt_tokens"].isin(has_single)]
    means_s = parts.groupby("num_prompt_tokens")["prompt_encoding_time_s"].mean()
    singles = parts.drop_duplicates("num_prompt_tokens")
    singles = singles.assign(num_output_tokens=1, runtime_s=singles["num_prompt_tokens"].map(means_s))
    unknown = [name for name in ("runtime_std_s", "runtime_min_s", "num_trials", "num_disturbed") if name in singles]
    return pd.concat([settings, singles.assign(**dict.fromkeys(unknown, pd.NA))], ignore_index=True)


def _check_one_identity(runtimes):
    for name in _IDENTITY:
        if name in runtimes and len(values := runtimes[name].drop_duplicates()) > 1:
            found = ", ".join(map(str, values.head(_MAX_NAMED)))
            raise ValueError(f"one fit takes one {name}; the runtimes hold {len(values)}: {found}. Fit each by itself")


def _floats(runtimes, name) -> np.ndarray:
    return numeric_columns(runtimes, [name], name="runtimes")[0]


def _check_values(runtimes):
    for name in _SETTING:
        tokens = _floats(runtimes, name)
        valid = np.isfinite(tokens) & (tokens >= 1) & (tokens == np.floor(tokens))
        _refuse(runtimes, ~valid, name, "an integer of at least 1")
    runtime_s = _floats(runtimes, "runtime_s")
    _refuse(runtimes, ~(np.isfinite(runtime_s) & (runtime_s > 0)), "runtime_s", "positive and finite")
    for name, lowest in (("runtime_std_s", 0), ("runtime_resolution_s", 0), ("num_trials", 1)):
        if name in runtimes:
            given = _floats(runtimes, name)
            _refuse(runtimes, (given < lowest) | np.isinf(given), name, f"finite and at least {lowest}, or missing")


def _refuse(runtimes, is_bad, name, allowed):
    if not is_bad.any():
        return
    rows = runtimes.loc[is_bad].head(_MAX_NAMED)
    named = "; ".join(
        f"row {index} (p={p}, o={o}): {value!r}"
        for index, p, o, value in zip(rows.index, rows[_SETTING[0]], rows[_SETTING[1]], rows[name], strict=True)
    )
    raise ValueError(f"{name} must be {allowed}; {is_bad.sum()} row(s) are not: {named}")


def _single_settings(runtimes):
    repeated = runtimes.duplicated(_SETTING)
    if repeated.any():
        first = runtimes.loc[repeated, _SETTING].head(_MAX_NAMED)
        named = ", ".join(f"p={p} o={o}" for p, o in first.itertuples(index=False))
        raise ValueError(
            f"{repeated.sum()} setting(s) repeat: {named}; give one row a setting, or a column 'trial' to average over"
        )
    optional = {"runtime_std_s": np.nan, "num_trials": np.nan, "runtime_resolution_s": 0.0}
    columns = {name: _floats(runtimes, name) if name in runtimes else default for name, default in optional.items()}
    settings = runtimes[_SETTING].astype("int64").assign(runtime_s=_floats(runtimes, "runtime_s"), **columns)
    return settings.fillna({"runtime_resolution_s": 0.0})


def _aggregate_trials(runtimes):
    repeated = runtimes.duplicated([*_SETTING, "trial"])
    if repeated.any():
        p, o, trial = runtimes.loc[repeated, [*_SETTING, "trial"]].iloc[0]
        raise ValueError(f"{repeated.sum()} trial(s) stand there twice, the first at p={p} o={o}: trial {trial}")
    resolution_s = _floats(runtimes, "runtime_resolution_s").max() if "runtime_resolution_s" in runtimes else 0.0
    if "is_disturbed" in runtimes:
        # As read_log does: both ways to read a log give one model.
        runtimes = runtimes[~runtimes["is_disturbed"].astype(bool)]
    trials = runtimes[_SETTING].astype("int64").assign(runtime_s=_floats(runtimes, "runtime_s"))
    settings = trials.groupby(_SETTING, as_index=False).agg(
        runtime_s=("runtime_s", "mean"), runtime_std_s=("runtime_s", "std"), num_trials=("runtime_s", "size")
    )
    return settings.astype({"num_trials": float}).assign(runtime_resolution_s=np.nan_to_num(resolution_s))


def _check_design(settings, min_prompt_sizes):
    sizes = settings["num_prompt_tokens"].unique()
    if len(sizes) < min_prompt_sizes:
        raise ValueError(f"a fit needs at least 2 prompt sizes; the runtimes hold one, num_prompt_tokens = {sizes[0]}")
    num_outputs = settings.groupby("num_prompt_tokens")["num_output_tokens"].nunique()
    if num_outputs.max() < 2:
        found = ", ".join(map(str, sorted(settings["num_output_tokens"].unique())[:_MAX_NAMED]))
        raise ValueError(
            "no prompt size is timed at two numbers of output tokens (one of them above 1), so the time per output "
            f"token cannot be told from the prompt encoding time; num_output_tokens given: {found}"
        )
