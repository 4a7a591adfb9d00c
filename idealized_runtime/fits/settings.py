"""From a frame of timings to one checked row a setting."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, numeric_columns
from idealized_runtime.records.common import BATCH_COLUMNS, IDENTITY_COLUMNS, PARALLELISM_COLUMNS, TOKEN_COLUMNS

_NEEDED = ("num_prompt_tokens", "num_output_tokens", "runtime_s")
_IDENTITY = (*IDENTITY_COLUMNS, *BATCH_COLUMNS, *PARALLELISM_COLUMNS)
_OPTIONAL = ("runtime_std_s", "num_trials", "runtime_resolution_s")
_OF_TRIALS = ("runtime_std_s", "runtime_min_s", "num_trials", "num_disturbed", "trial_runtimes_s", "trial_starts_s")
_MAX_NAMED = 5
# Decimal places to which trials may have been rounded, and the fewest trials that tell.
_DECIMALS, _FEWEST_ROUNDED = range(6), 10


@dataclass(frozen=True, eq=False)
class Trials:
    """Every trial of the settings that ``validate_settings`` makes of the same timings, in the order of time.

    ``setting`` (n,) is the number of the setting's row; ``runtime_s`` (n,).
    """

    setting: np.ndarray
    runtime_s: np.ndarray

    @property
    def is_interleaved(self) -> bool:
        """Whether settings took turns, so that whatever drifts meets all of them alike."""
        num_changes = np.count_nonzero(np.diff(self.setting))
        return num_changes >= 2 * (self.setting.max() + 1)

    @property
    def resolution_s(self) -> float:
        """The decimal place that all of them are rounded to; 0 where they are not."""
        for decimals in _DECIMALS if len(self.runtime_s) >= _FEWEST_ROUNDED else ():
            units = self.runtime_s * 10**decimals
            if np.all(np.abs(units - np.round(units)) < 1e-6):
                return 10.0**-decimals
        return 0.0


def trials_in_order(runtimes: pd.DataFrame) -> Trials | None:
    """The trials behind timings, in the order of time; None where the timings do not tell them, or only one of each.

    Parameters
    ----------
    runtimes : DataFrame
        One row a trial, as from ``read_trials``; their order is that of ``trial_start_s`` or, without it, of the rows.
        Or one row a setting, as from ``read_log``, with ``trial_runtimes_s`` and, where known, ``trial_starts_s``.
    """
    if "trial" in runtimes:
        trials = _undisturbed(runtimes)
    elif "trial_runtimes_s" in runtimes and runtimes["trial_runtimes_s"].notna().all():
        lists = ["trial_runtimes_s", *(["trial_starts_s"] if runtimes["trial_starts_s"].notna().all() else [])]
        trials = runtimes[[*TOKEN_COLUMNS, *lists]].explode(lists, ignore_index=True)
        trials = trials.rename(columns={"trial_runtimes_s": "runtime_s", "trial_starts_s": "trial_start_s"})
    else:
        return None
    if "trial_start_s" in trials and trials["trial_start_s"].notna().all():
        trials = trials.sort_values("trial_start_s", kind="stable")
    setting = trials.groupby(TOKEN_COLUMNS).ngroup().to_numpy()
    if np.bincount(setting).min() < 2:
        return None
    return Trials(setting, trials["runtime_s"].to_numpy(dtype=float))


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
    given = [*_NEEDED, *(name for name in _OPTIONAL if name in runtimes)]
    columns = dict(zip(given, numeric_columns(runtimes, given, name="runtimes"), strict=True))
    if runtimes.empty:
        raise ValueError("runtimes hold no rows; time at least two prompt sizes at two numbers of output tokens")
    check_one_identity(runtimes, _IDENTITY)
    _check_values(runtimes, columns)
    frame = runtimes.assign(**columns).astype(dict.fromkeys(TOKEN_COLUMNS, "int64"))
    settings = _aggregate_trials(frame) if "trial" in frame else _single_settings(frame)
    settings = settings.astype({"num_trials": float}).fillna({"runtime_resolution_s": 0.0})
    if not settings["runtime_resolution_s"].any() and (trials := trials_in_order(frame)) is not None:
        settings["runtime_resolution_s"] = trials.resolution_s
    settings = settings.sort_values(TOKEN_COLUMNS, ignore_index=True)
    check_design(settings, min_prompt_sizes)
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
    unknown = [name for name in _OF_TRIALS if name in singles]
    return pd.concat([settings, singles.assign(**dict.fromkeys(unknown, pd.NA))], ignore_index=True)


def check_one_identity(timings: pd.DataFrame, names):
    """Refuse timings of several models, machines or whatever else the columns of these names tell apart."""
    for name in names:
        if name in timings and len(values := timings[name].drop_duplicates()) > 1:
            found = ", ".join(map(str, values.head(_MAX_NAMED)))
            raise ValueError(f"one fit takes one {name}; the timings hold {len(values)}: {found}. Fit each by itself")


def _check_values(runtimes, columns):
    for name, values in columns.items():
        if name in TOKEN_COLUMNS:
            is_good = (values >= 1) & (values < np.inf) & (values == np.floor(values))
            allowed = "an integer of at least 1"
        elif name == "runtime_s":
            is_good, allowed = (values > 0) & (values < np.inf), "positive and finite"
        else:
            least = int(name == "num_trials")
            is_good = np.isnan(values) | (values >= least) & (values < np.inf)
            allowed = f"finite and at least {least}, or missing"
        if not is_good.all():
            rows = runtimes.loc[~is_good].head(_MAX_NAMED)
            named = "; ".join(
                f"row {index} (p={p}, o={o}): {value!r}"
                for index, p, o, value in zip(
                    rows.index, rows[TOKEN_COLUMNS[0]], rows[TOKEN_COLUMNS[1]], rows[name], strict=True
                )
            )
            raise ValueError(f"{name} must be {allowed}; {(~is_good).sum()} row(s) are not: {named}")


def _single_settings(frame):
    repeated = frame.duplicated(TOKEN_COLUMNS)
    if repeated.any():
        first = frame.loc[repeated, TOKEN_COLUMNS].head(_MAX_NAMED)
        named = ", ".join(f"p={p} o={o}" for p, o in first.itertuples(index=False))
        raise ValueError(
            f"{repeated.sum()} setting(s) repeat: {named}; give one row a setting, or a column 'trial' to average over"
        )
    return frame.reindex(columns=[*_NEEDED, *_OPTIONAL])


def _aggregate_trials(trials):
    repeated = trials.duplicated([*TOKEN_COLUMNS, "trial"])
    if repeated.any():
        p, o, trial = trials.loc[repeated, [*TOKEN_COLUMNS, "trial"]].iloc[0]
        raise ValueError(f"{repeated.sum()} trial(s) stand there twice, the first at p={p} o={o}: trial {trial}")
    resolution_s = trials["runtime_resolution_s"].max() if "runtime_resolution_s" in trials else 0.0
    settings = (
        _undisturbed(trials)
        .groupby(TOKEN_COLUMNS, as_index=False)
        .agg(runtime_s=("runtime_s", "mean"), runtime_std_s=("runtime_s", "std"), num_trials=("runtime_s", "size"))
    )
    return settings.assign(runtime_resolution_s=resolution_s)


def _undisturbed(trials):
    # As read_log does: both ways to read a log give one model.
    return trials[~trials["is_disturbed"].astype(bool)] if "is_disturbed" in trials else trials


def check_design(settings: pd.DataFrame, min_prompt_sizes: int = 2):
    """Refuse too few prompt sizes, and settings that do not tell output tokens from prompt encoding."""
    sizes = settings["num_prompt_tokens"].unique()
    if len(sizes) < min_prompt_sizes:
        raise ValueError(f"a fit needs at least 2 prompt sizes; the runtimes hold one, num_prompt_tokens = {sizes[0]}")
    if settings.groupby("num_prompt_tokens")["num_output_tokens"].nunique().max() < 2:
        found = ", ".join(map(str, sorted(settings["num_output_tokens"].unique())[:_MAX_NAMED]))
        raise ValueError(
            "no prompt size is timed at two numbers of output tokens (one of them above 1), so the time per output "
            f"token cannot be told from the prompt encoding time; num_output_tokens given: {found}"
        )
