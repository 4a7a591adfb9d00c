"""Whether an API has changed since last time: the same small sweep again, the difference tested and not eyeballed.

A sweep goes through all its settings once a block, in shuffled order, so that what disturbs an API for a while falls
on all settings alike. Trials of a block hang together; blocks are what the tests count.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, norm, t
from statsmodels.stats.multitest import multipletests

from idealized_runtime.fits.denoised import fit_frontier
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.statistics.intervals import normal_half_width

_MIN_EARLIER_SWEEPS = 3
_CHANGE = ["change_percent", "change_percent_lower", "change_percent_upper", "p_value"]


def compare_sweeps(earlier: pd.DataFrame, later: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Change of the typical runtime from one sweep to another, of all settings together and of each.

    Mann and Whitney's test with the shift of Hodges and Lehmann, on logarithms: blocks of the sweep, averaged over
    settings, for all together; trials for each setting, with Holm's adjustment for their number. It tells whether the
    two sweeps differ by more than their blocks scatter; how much sweeps of an unchanged API differ, only
    :func:`compare_with_history` knows.

    Parameters
    ----------
    earlier, later : DataFrame, one row a trial
        ``num_prompt_tokens, num_output_tokens, runtime_s, is_fit`` and ``block`` or ``trial``, of one model; settings
        of only one of the sweeps are left out.
    level : float
        Of the intervals; changes are called so at 1 - level.

    Returns
    -------
    DataFrame
        First a row for all settings, where the sizes are missing, then one a setting: ``num_prompt_tokens,
        num_output_tokens, num_earlier, num_later`` (blocks in the first row, else trials), ``change_percent`` with
        ``_lower`` and ``_upper`` (NaN where there are too few), ``p_value``, ``p_value_adjusted``, ``is_changed``.

    Raises
    ------
    ValueError
        The sweeps share no setting.
    """
    logs = _log_runtimes([earlier, later])
    scores = [_block_scores(logs[logs["sweep"] == sweep]) for sweep in (0, 1)]
    rows = [{**dict.fromkeys(TOKEN_COLUMNS, pd.NA), **_shift(*scores, level)}]
    for setting, trials in logs.groupby(TOKEN_COLUMNS):
        both = [trials.loc[trials["sweep"] == sweep, "log"].to_numpy() for sweep in (0, 1)]
        rows.append({**dict(zip(TOKEN_COLUMNS, setting, strict=True)), **_shift(*both, level)})
    table = pd.DataFrame(rows).astype(dict.fromkeys(TOKEN_COLUMNS, "Int64"))
    adjusted = np.concatenate([table["p_value"][:1], multipletests(table["p_value"][1:], method="holm")[1]])
    return table.assign(p_value_adjusted=adjusted, is_changed=adjusted < 1 - level)


def compare_with_history(sweeps: Sequence[pd.DataFrame], *, level: float = 0.95) -> pd.Series:
    """The newest of several sweeps against how the earlier ones scatter from time to time.

    A t test of the newest sweep's mean logarithmic runtime, over settings, as one more draw of those of the earlier
    ones: it knows of good and bad days, which the trials of two sweeps do not show.

    Parameters
    ----------
    sweeps : sequence of DataFrame, oldest first
        As for :func:`compare_sweeps`; one trial a setting, such as its minimum, is enough.

    Returns
    -------
    Series
        ``num_earlier``, ``change_percent`` of the newest from the mean of the earlier ones,
        ``unchanged_percent_lower`` and ``unchanged_percent_upper``, where it would lie with probability ``level`` had
        nothing changed, ``p_value``, ``is_changed``.

    Raises
    ------
    ValueError
        There are fewer than 3 earlier sweeps, or no setting that all share.
    """
    if (num_earlier := len(sweeps) - 1) < _MIN_EARLIER_SWEEPS:
        raise ValueError(f"a history takes {_MIN_EARLIER_SWEEPS} earlier sweeps at least; got {max(num_earlier, 0)}")
    logs = _log_runtimes(sweeps)
    scores = logs.groupby("sweep").apply(lambda sweep: np.median(_block_scores(sweep))).to_numpy()
    change = scores[-1] - scores[:-1].mean()
    error = scores[:-1].std(ddof=1) * np.sqrt(1 + 1 / num_earlier)
    reach = t.ppf((1 + level) / 2, num_earlier - 1) * error
    p_value = float(2 * t.sf(abs(change) / error, num_earlier - 1)) if error else float(change == 0)
    return pd.Series(
        {
            "num_earlier": num_earlier,
            "change_percent": _percent(change),
            "unchanged_percent_lower": _percent(-reach),
            "unchanged_percent_upper": _percent(reach),
            "p_value": p_value,
            "is_changed": p_value < 1 - level,
        }
    )


def compare_parameters(earlier: pd.DataFrame, later: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Change of the denoised parameters: the hardware and software behind an API, without its load.

    Both sweeps are fitted by :func:`~idealized_runtime.fits.denoised.fit_frontier`; normal tests of the differences,
    with Holm's adjustment. Where runtimes have changed and these have not, it is the load that did.

    Parameters
    ----------
    earlier, later : DataFrame
        As for :func:`compare_sweeps`, with what :func:`~idealized_runtime.fits.denoised.fit_frontier` needs.

    Returns
    -------
    DataFrame, by ``parameter``
        ``time_per_output_token_s`` and ``prompt_and_overhead_s``, the mean over prompt sizes of prompt encoding time
        plus overhead, which trials cannot tell apart: ``earlier_s``, ``later_s``, the columns of
        :func:`compare_sweeps` from ``change_percent`` on.
    """
    logs = _log_runtimes([earlier, later])
    fits = [fit_frontier(logs[logs["sweep"] == sweep]) for sweep in (0, 1)]
    num_sizes, rows = len(fits[0].sums_s), {}
    # Weights of the sums of prompt encoding time and overhead, and of the time per output token.
    all_weights = {
        "time_per_output_token_s": np.array([0.0] * num_sizes + [1.0]),
        "prompt_and_overhead_s": np.array([1 / num_sizes] * num_sizes + [0.0]),
    }
    for name, weights in all_weights.items():
        before_s, after_s = (float(weights @ [*fit.sums_s, fit.time_per_output_token_s]) for fit in fits)
        error_s = np.sqrt(sum(weights @ fit.covariance @ weights for fit in fits))
        reach_s = normal_half_width(level) * error_s
        shares = (np.array([0, -reach_s, reach_s]) + after_s - before_s) / before_s
        p_value = float(2 * norm.sf(abs(after_s - before_s) / error_s))
        changes = dict(zip(_CHANGE, [*100 * shares, p_value], strict=True))
        rows[name] = {"earlier_s": before_s, "later_s": after_s, **changes}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    adjusted = multipletests(table["p_value"], method="holm")[1]
    return table.assign(p_value_adjusted=adjusted, is_changed=adjusted < 1 - level)


def _log_runtimes(sweeps) -> pd.DataFrame:
    """Trials of the settings that all sweeps hold, with ``log``, of the runtime over the median of its setting."""
    frames = [sweep[sweep["is_fit"]] if "is_fit" in sweep else sweep for sweep in sweeps]
    trials = pd.concat([frame.assign(sweep=number) for number, frame in enumerate(frames)], ignore_index=True)
    if "model" in trials and len(models := trials["model"].unique()) > 1:
        raise ValueError(f"sweeps of one model are compared; got {', '.join(sorted(models))}")
    settings = trials.groupby(TOKEN_COLUMNS)
    trials = trials[settings["sweep"].transform("nunique") == len(sweeps)]
    if trials.empty:
        raise ValueError("the sweeps have no setting in common; repeat one with the same prompt and output sizes")
    medians_s = trials.groupby(TOKEN_COLUMNS)["runtime_s"].transform("median")
    # The pass through the settings: the block, or the trial where there are no blocks.
    numbers = trials["trial"] if "trial" in trials else pd.Series(0, index=trials.index)
    numbers = trials["block"].fillna(numbers) if "block" in trials else numbers
    return trials.assign(log=np.log(trials["runtime_s"] / medians_s), pass_number=numbers)


def _block_scores(logs) -> np.ndarray:
    return logs.groupby("pass_number")["log"].mean().to_numpy()


def _shift(before, after, level) -> dict:
    """Hodges and Lehmann's shift of logarithms as a percentage, its interval, and Mann and Whitney's p value."""
    shifts = np.sort(np.subtract.outer(after, before).ravel())
    count = len(shifts)
    deviation = np.sqrt(count * (len(before) + len(after) + 1) / 12)
    rank = int(np.floor(count / 2 - normal_half_width(level) * deviation))
    low, high = (shifts[rank - 1], shifts[count - rank]) if rank >= 1 else (np.nan, np.nan)
    p_value = float(mannwhitneyu(after, before).pvalue)
    percents = [_percent(shift) for shift in (np.median(shifts), low, high)]
    return {
        "num_earlier": len(before),
        "num_later": len(after),
        **dict(zip(_CHANGE, [*percents, p_value], strict=True)),
    }


def _percent(log_ratio) -> float:
    return float(100 * np.expm1(log_ratio))
