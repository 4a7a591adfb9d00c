"""One batch size out of a log of several, as settings to fit."""

import pandas as pd

from idealized_runtime.checks import check_columns


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
