"""What is noticed between blocks of a measurement: whether what was timed last can be averaged with what came before.

Trials are compared with others of the same setting, so that no model of runtimes is needed. What a finished log tells
is in ``records.validity``; here there are few trials, and something can still be done. Rules are so strict that of 40
runs on a quiet machine no more than one is disturbed by them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from idealized_runtime.records.settings import is_disturbed, setting_key
from idealized_runtime.records.validity import mean_zero_p_value, two_populations

# By which two clocks may differ over a run: of its seconds, and beyond what a process may wait between two readings.
_CLOCK_SHARE, _CLOCK_S = 0.02, 0.01
_SIGNIFICANCE = 1e-3
_COLD, _SHIFT = 0.05, 0.03
_MIN_FIRST_TRIALS = 5
# Means of two visits to a setting on a quiet machine differ by more than their trials say: other caches, other pages.
_VISIT_STD = 0.015
# And so does a trial from the next; known by so many degrees of freedom before there are trials to tell it.
_KNOWN_STD, _KNOWN_DOF = 0.03, 8
# Of a change of level: there is one look a block.
_SHIFT_SIGNIFICANCE = 3e-5
# Share of the visits of a block that must show at least half of the change.
_MOST_VISITS = 0.75
# Part of a change of level that the last block must have brought for it to be a step.
_STEP_SHARE = 0.6

Name = Literal["below_floor", "clock", "held_up", "two_populations", "cold_start", "throttling", "drift"]


@dataclass(frozen=True)
class Visit:
    """Trials of one setting, timed one after the other.

    Parameters
    ----------
    number, block : int
        Of all visits, and the block that it is of, in the order of time.
    key : tuple
        Of its setting.
    runtimes_s, warmups_s, clock_gaps_s : tuple of float
        Trials and warm-ups, and by how much another clock differs for each of either.
    """

    number: int
    block: int
    key: tuple
    runtimes_s: tuple[float, ...]
    warmups_s: tuple[float, ...] = ()
    clock_gaps_s: tuple[float, ...] = ()

    @classmethod
    def of_record(cls, record: dict) -> "Visit":
        """Visit of a ``block`` record of a log."""
        lists = (record.get(name) or () for name in ("runtimes_s", "warmups_s", "clock_gaps_s"))
        return cls(record.get("visit", 0), record.get("block", 0), setting_key(record), *map(tuple, lists))


@dataclass(frozen=True)
class Noticed:
    """What speaks against averaging, and the numbers of the visits that are not to be averaged with the others."""

    name: Name
    message: str
    visits: tuple[int, ...]


def notice(visits: Sequence[Visit]) -> Noticed | None:
    """What the last block shows, the gravest first; None where all visits may be averaged.

    ``clock``: another clock tells other times. ``cold_start``: first trials of visits take over 5 % longer, or the
    first block over 3 % longer than the next. ``throttling``, ``drift``: the last block takes over 3 % longer, or less,
    than those before it; in a step, or little by little. ``held_up``: trials take over 1.25 times as
    long as others of their setting and stand far out; ``two_populations`` where they make a group of their own.

    Parameters
    ----------
    visits : sequence of Visit
        In the order of time; those that were set aside are not among them.
    """
    last = visits[-1].block
    checks = (_clock, _first_trials, _level, _held_up)
    return next((found for check in checks if (found := check(visits, last)) is not None), None)


def notice_level(visits: Sequence[Visit]) -> Noticed | None:
    """Of :func:`notice` what holds of a server, whose single requests are held up by others': a change of level."""
    return _level(visits, visits[-1].block)


def _clock(visits, last):
    wrong = {}
    for visit in (visit for visit in visits if visit.block == last):
        runs_s = (*visit.warmups_s, *visit.runtimes_s)
        for run_s, gap_s in zip(runs_s, visit.clock_gaps_s, strict=False):
            if abs(gap_s) > max(_CLOCK_S, _CLOCK_SHARE * run_s):
                wrong[visit.number] = run_s, gap_s
    if wrong:
        run_s, gap_s = max(wrong.values(), key=lambda pair: abs(pair[1]))
        return Noticed(
            "clock", f"a run that took {run_s:.3g} s took {run_s + gap_s:.3g} s by the system's clock: one of the two "
            "was set, or the machine was suspended", tuple(wrong),
        )  # fmt: skip
    return None


def _held_up(visits, last):
    numbers, relative, by_key = [], [], defaultdict(list)
    for visit in visits:
        by_key[visit.key] += [(visit, seconds) for seconds in visit.runtimes_s]
    for trials in by_key.values():
        times_s = np.array([seconds for _, seconds in trials])
        # A setting with one trial has its warm-ups to be compared with, which are hardly ever quicker.
        others = [np.delete(times_s, i) if len(times_s) > 1 else trials[0][0].warmups_s for i in range(len(times_s))]
        relative += [seconds / np.median(those) for seconds, those in zip(times_s, others, strict=True) if len(those)]
        numbers += [visit for (visit, _), those in zip(trials, others, strict=True) if len(those)]
    is_slow = is_disturbed(np.array(relative))
    # Also of an earlier block: that a trial was slow may show when its setting is timed again.
    slow = {visit.number for visit, it in zip(numbers, is_slow, strict=True) if it}
    # Two groups of trials, each of many, are no outliers: pooled over the settings they are two peaks. Of two trials
    # of a setting nobody can say which is of which.
    pooled = [(visit, value) for visit, value in zip(numbers, relative, strict=True) if len(by_key[visit.key]) > 2]
    if found := two_populations(np.log([value for _, value in pooled])):
        is_upper, times = found
        slow = {visit.number for (visit, _), it in zip(pooled, is_upper, strict=True) if it and visit.block == last}
        if slow:
            return Noticed(
                "two_populations", f"{is_upper.mean():.0%} of the trials take {times:.2f} times as long as the others "
                "of their settings", tuple(sorted(slow)),
            )  # fmt: skip
    if slow:
        most = max(value for visit, value in zip(numbers, relative, strict=True) if visit.number in slow)
        return Noticed(
            "held_up", f"trials of {len(slow)} visits take up to {most:.2f} times as long as others of their settings",
            tuple(sorted(slow)),
        )  # fmt: skip
    return None


def _first_trials(visits, _):
    several = [visit for visit in visits if len(visit.runtimes_s) > 1]
    if len(several) < _MIN_FIRST_TRIALS:
        return None
    first = np.array([np.log(visit.runtimes_s[0]) - np.log(visit.runtimes_s[1:]).mean() for visit in several])
    if np.expm1(np.median(first)) > _COLD and mean_zero_p_value(first) < _SIGNIFICANCE:
        return Noticed(
            "cold_start", f"the first trial of a visit takes {np.expm1(np.median(first)):.0%} longer than those after "
            "it: one warm-up is too few", tuple(visit.number for visit in several),
        )  # fmt: skip
    return None


def _level(visits, last):
    """The last block against all before it, setting by setting, in units of what such differences scatter by."""
    earlier = [visit for visit in visits if visit.block < last]
    found = _change(visits, earlier, [visit for visit in visits if visit.block == last])
    if found is None:
        return None
    change, is_clear = found
    if not is_clear or abs(np.expm1(change)) <= _SHIFT or not _is_shared(visits, last, change):
        return None
    blocks = sorted({visit.block for visit in earlier})
    size = f"{abs(np.expm1(change)):.0%}"
    if change < 0:
        # A machine is not quicker than itself: what came before was held up.
        what = f"block {last} takes {size} less than those before it, setting by setting"
        return Noticed("cold_start" if len(blocks) == 1 else "drift", what, tuple(visit.number for visit in earlier))
    before = [visit for visit in earlier if visit.block == blocks[-1]]
    step = _change(visits, before, [visit for visit in visits if visit.block == last])
    is_step = step is None or step[0] > _STEP_SHARE * change
    what = f"block {last} takes {size} longer than those before it, setting by setting"
    return Noticed(
        "throttling" if is_step else "drift", what, tuple(visit.number for visit in visits if visit.block == last)
    )


def _is_shared(visits, last, change) -> bool:
    """Whether most visits of the last block changed so: one that was held up is no change of level."""
    before = defaultdict(list)
    for visit in visits:
        if visit.block < last:
            before[visit.key] += visit.runtimes_s
    shares = [
        np.log(visit.runtimes_s).mean() - np.log(before[visit.key]).mean()
        for visit in visits
        if visit.block == last and visit.key in before
    ]
    return np.mean(np.array(shares) * np.sign(change) > abs(change) / 2) >= _MOST_VISITS


def _change(visits, before, after) -> tuple[float, bool] | None:
    """Change of log runtimes from some visits to others, and whether it is clear; None if they share no setting."""
    from scipy.special import stdtr

    groups = [defaultdict(list), defaultdict(list)]
    for group, those in zip(groups, (before, after), strict=True):
        for visit in those:
            group[visit.key].append(np.log(visit.runtimes_s))
    if not (common := groups[0].keys() & groups[1].keys()):
        return None
    variance, dof = _trial_variance(visits)
    differences, weights = [], []
    for key in sorted(common):
        means = [np.mean(np.concatenate(group[key])) for group in groups]
        trials = sum(1 / sum(map(len, group[key])) for group in groups)
        between = sum(1 / len(group[key]) for group in groups)
        differences.append(means[1] - means[0])
        weights.append(1 / (variance * trials + _VISIT_STD**2 * between))
    differences, weights = np.array(differences), np.array(weights)
    change = float(weights @ differences / weights.sum())
    # Where settings disagree, their own scatter counts.
    spread = float(weights @ (differences - change) ** 2 / max(len(differences) - 1, 1))
    p_value = 2 * stdtr(dof, -abs(change) * np.sqrt(weights.sum() / max(spread, 1.0)))
    return change, bool(p_value < _SHIFT_SIGNIFICANCE)


def _trial_variance(visits) -> tuple[float, int]:
    """Of the logarithm of a trial about the mean of its setting in its block; and its degrees of freedom."""
    groups = defaultdict(list)
    for visit in visits:
        groups[visit.block, visit.key] += visit.runtimes_s
    logs = [np.log(times_s) for times_s in groups.values()]
    squares = sum(float(np.sum((values - values.mean()) ** 2)) for values in logs)
    dof = sum(len(values) - 1 for values in logs)
    return (squares + _KNOWN_DOF * _KNOWN_STD**2) / (dof + _KNOWN_DOF), dof + _KNOWN_DOF
