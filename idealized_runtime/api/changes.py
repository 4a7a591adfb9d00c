"""Whether an API has changed since last time: the same small sweep again, the difference tested and not eyeballed.

A sweep goes through all its settings once a block, in shuffled order, so that what disturbs an API for a while falls
on all settings alike. Trials of a block hang together; blocks are what the tests count.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, norm, t

from idealized_runtime.fits.settings import check_design
from idealized_runtime.records import TOKEN_COLUMNS, setting_name
from idealized_runtime.records.requests import describe_deviations
from idealized_runtime.statistics.intervals import normal_half_width
from idealized_runtime.statistics.multiplicity import holm

_MIN_EARLIER_SWEEPS = 3
_MAX_NAMED = 8
# Drawn with a seed: equal sweeps give equal tables.
_NUM_PERMUTATIONS = 999
# Probability with which a difference is told.
_POWER = 0.8
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
    adjusted = np.concatenate([table["p_value"][:1], holm(table["p_value"][1:])])
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

    The least runtimes of the settings are fitted, sweep by sweep; where runtimes have changed and these have not, it is
    the load that did. What disturbs a machine does so for whole blocks: blocks are dealt to the two sweeps at random
    again and again, and the change is held against those of such sweeps (a permutation test, with Holm's adjustment).
    Intervals are those of the logarithm, from blocks dealt after each sweep was divided by its own fit.

    Parameters
    ----------
    earlier, later : DataFrame
        As for :func:`compare_sweeps`: two prompt sizes or more, each at two numbers of output tokens, and two blocks.

    Returns
    -------
    DataFrame, by ``parameter``
        ``time_per_output_token_s`` and ``prompt_and_overhead_s``, the mean over prompt sizes of prompt encoding time
        plus overhead, which trials cannot tell apart: ``earlier_s``, ``later_s``, the columns of
        :func:`compare_sweeps` from ``change_percent`` on.

    Raises
    ------
    ValueError
        The sweeps share too few settings, a sweep has a single block, or a parameter is not positive.
    """
    logs = _log_runtimes([earlier, later])
    check_design(logs)
    blocks = logs.pivot_table(index=["sweep", "pass_number"], columns=TOKEN_COLUMNS, values="runtime_s", aggfunc="min")
    runtimes_s, is_later = blocks.to_numpy(), blocks.index.get_level_values("sweep") == 1
    if min(is_later.sum(), (~is_later).sum()) < 2:
        raise ValueError("a change of parameters takes two blocks of each sweep")
    p, o = (blocks.columns.get_level_values(name).to_numpy() for name in TOKEN_COLUMNS)
    sizes, group = np.unique(p, return_inverse=True)
    design = np.column_stack([np.eye(len(sizes))[group], o - 1.0])
    # Runtimes scatter in proportion to themselves.
    scale_s = np.nanmin(runtimes_s, axis=0)
    solve = np.linalg.pinv(design / scale_s[:, None])
    names = ("time_per_output_token_s", "prompt_and_overhead_s")
    weights = np.array([[0.0] * len(sizes) + [1.0], [1 / len(sizes)] * len(sizes) + [0.0]])

    def fit(ratios, is_later, scales=(1.0, 1.0)):
        """Coefficients of both sweeps from their least ratios to ``scale_s``, as often as blocks are dealt."""
        return [
            np.nan_to_num(np.fmin.reduce(np.where(is_own[..., None], ratios, np.nan), axis=-2), nan=1.0)
            * scale
            @ solve.T
            for is_own, scale in zip((~is_later, is_later), scales, strict=True)
        ]

    def logs_of(coefficients):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(coefficients @ weights.T)

    ratios = runtimes_s / scale_s
    fits = fit(ratios, is_later)
    estimates = [coefficients @ weights.T for coefficients in fits]
    if min(map(np.min, estimates)) <= 0:
        raise ValueError(f"a fitted {' or '.join(names)} is not positive: {np.round(estimates, 9).tolist()}")
    change = np.log(estimates[1] / estimates[0])
    dealt = np.random.default_rng(0).permuted(np.tile(is_later, (_NUM_PERMUTATIONS, 1)), axis=1)
    before, after = map(logs_of, fit(ratios, dealt))
    # A parameter that is not positive in such a sweep is as far off as any.
    by_chance = np.nan_to_num(np.abs(after - before), nan=np.inf)
    p_values = (1 + (by_chance >= np.abs(change) - 1e-12).sum(axis=0)) / (1 + _NUM_PERMUTATIONS)
    # Each sweep over its own medians, fitted alike: what is left is noise, whichever sweep it came from.
    typical = [np.nanmedian(ratios[is_own], axis=0) @ solve.T for is_own in (~is_later, is_later)]
    shift = np.subtract(*map(logs_of, typical[::-1]))
    typical = [np.maximum(design @ coefficients / scale_s, 1e-3) for coefficients in typical]
    noise = fit(ratios / np.where(is_later[:, None], typical[1], typical[0]), dealt, typical)
    by_chance = np.nan_to_num(np.abs(np.subtract(*map(logs_of, noise[::-1])) - shift), nan=np.inf)
    reach = np.quantile(by_chance, level, axis=0, method="higher")
    percents = 100 * np.expm1([change, change - reach, change + reach])
    table = pd.DataFrame({"earlier_s": estimates[0], "later_s": estimates[1]}, index=pd.Index(names, name="parameter"))
    table[_CHANGE] = np.column_stack([*percents, p_values])
    adjusted = holm(p_values)
    return table.assign(p_value_adjusted=adjusted, is_changed=adjusted < 1 - level)


def power_of_sweeps(
    earlier: pd.DataFrame, later: pd.DataFrame, *, difference_percent: float | None = None, level: float = 0.95
) -> dict:
    """Which differences two sweeps tell, by how much their blocks scatter, and how many blocks a difference takes.

    By the normal approximation of Mann and Whitney's test (its efficiency against normal errors is 3 / pi), with
    probability 0.8 to tell.

    Returns
    -------
    dict
        ``block_scatter_percent`` (standard deviation of a block's mean logarithm, as a percentage),
        ``smallest_difference_percent`` that as many blocks as the smaller sweep has tell; and where a difference is
        given ``num_blocks`` of each sweep that it takes. NaN where no sweep has two blocks.

    Raises
    ------
    ValueError
        The sweeps share no setting, or the difference is 0 or below -100 %.
    """
    if difference_percent is not None and not (difference_percent > -100 and difference_percent != 0):
        raise ValueError(f"a difference is in per cent, above -100 and not 0; got {difference_percent:g}")
    logs = _log_runtimes([earlier, later])
    scores = [_block_scores(logs[logs["sweep"] == sweep]) for sweep in (0, 1)]
    dof = sum(len(each) - 1 for each in scores)
    squares = sum(np.sum((each - each.mean()) ** 2) for each in scores)
    scatter = float(np.sqrt(squares / dof)) if dof else np.nan
    reach = (normal_half_width(level) + norm.ppf(_POWER)) * scatter * np.sqrt(2 * np.pi / 3)
    found = {
        "block_scatter_percent": _percent(scatter),
        "smallest_difference_percent": _percent(reach / np.sqrt(min(map(len, scores)))),
    }
    if difference_percent is not None:
        num_blocks = (reach / np.log1p(difference_percent / 100)) ** 2
        found["num_blocks"] = int(np.ceil(num_blocks)) if np.isfinite(num_blocks) else None
    return found


def _log_runtimes(sweeps) -> pd.DataFrame:
    """Trials of the settings that all sweeps hold, with ``log``, of the runtime over the median of its setting."""
    frames = [sweep[sweep["is_fit"]] if "is_fit" in sweep else sweep for sweep in sweeps]
    trials = pd.concat([frame.assign(sweep=number) for number, frame in enumerate(frames)], ignore_index=True)
    if "model" in trials and len(models := trials["model"].unique()) > 1:
        raise ValueError(f"sweeps of one model are compared; got {', '.join(sorted(models))}")
    settings = trials.groupby(TOKEN_COLUMNS)
    trials = trials[settings["sweep"].transform("nunique") == len(sweeps)]
    if trials.empty:
        held = "; ".join(f"sweep {number}: {_held(sweep)}" for number, sweep in enumerate(sweeps, start=1))
        raise ValueError(
            f"the sweeps have no setting in common: {held}; repeat one with the same prompt and output sizes"
        )
    medians_s = trials.groupby(TOKEN_COLUMNS)["runtime_s"].transform("median")
    # The pass through the settings: the block, or the trial where there are no blocks.
    numbers = trials["trial"] if "trial" in trials else pd.Series(0, index=trials.index)
    numbers = trials["block"].fillna(numbers) if "block" in trials else numbers
    return trials.assign(log=np.log(trials["runtime_s"] / medians_s), pass_number=numbers)


def _held(sweep) -> str:
    """Settings that a sweep holds, and why it holds no others, in words."""
    used = sweep[sweep["is_fit"]] if "is_fit" in sweep else sweep
    names = [setting_name(setting) for setting in used[TOKEN_COLUMNS].drop_duplicates().to_dict("records")]
    held = ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
    counted = sweep[~sweep["is_warmup"]] if "is_warmup" in sweep else sweep
    said = [describe_deviations(counted.to_dict("records"))] if "deviations" in sweep else []
    num_failed = int(counted["error_type"].notna().sum()) if "error_type" in sweep else 0
    said += [f"{num_failed} trials failed"] if num_failed else []
    return "; ".join([held or "none", *filter(None, said)])


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
