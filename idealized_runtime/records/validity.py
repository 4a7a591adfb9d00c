"""Whether a log can be true: findings on its trials, their order, its header and the physics of the machine.

A finding that makes numbers wrong by a factor is severe, and refuses the log unless it is accepted by name; one that
widens errors, or says that something is missing, is warned of. What takes a fit to see is in ``fits.findings``. Tests
of chance are at a level of 0.1 % each, and say nothing of effects that would not change a number by a few percent.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from idealized_runtime.hardware.rates import MachineRates, best_rates, device_rates
from idealized_runtime.hardware.roofline import Roofline
from idealized_runtime.records.common import (
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    TOKEN_COLUMNS,
    Keys,
    LogFormatError,
    setting_name,
)
from idealized_runtime.records.log import Log
from idealized_runtime.records.megatron_text import TextLog
from idealized_runtime.records.requests import RequestsLog
from idealized_runtime.records.settings import Settings, is_disturbed, least_energy_window_s, setting_key
from idealized_runtime.statistics.ragged import Ragged
from idealized_runtime.statistics.trends import change_point
from idealized_runtime.statistics.unimodality import has_two_peaks, upper_group

SEVERE = (
    "checksum", "out_of_range", "below_floor", "far_above_floor", "contradiction", "parts", "energy", "output_tokens",
    "repeated_trials", "warmups", "clock",
)  # fmt: skip
_SIGNIFICANCE = 1e-3
_MAX_NAMED = 3
# No clock of a computer tells less, and nobody waits for longer than eleven days.
_LEAST_S, _MOST_S = 1e-6, 1e6
# Machines that nobody measured: more than any accelerator and any host has, and less than any that runs a model.
_FAST = {True: MachineRates(1e13, 1e16, 128e6, False), False: MachineRates(2e12, 2e14, 2e9, False)}
_SLOW = {True: MachineRates(3e11, 5e12, 0.0, False), False: MachineRates(1e10, 5e10, 0.0, False)}
# What a program adds to the machine's own time: a query, and a layer of each pass. Together, times this factor, is what
# no software takes: milliseconds read as seconds are 1000 times as long.
_QUERY_OVERHEAD_S, _LAYER_OVERHEAD_S, _MOST_TIMES_RATES = 0.05, 2e-4, 100
# What two settings of one log may differ by beyond what their sizes explain, and four of their own relative errors, of
# which no more than so much counts: thousandfold is another unit, however trials scatter. Then, what a look is due at.
_CONTRADICTION, _MOST_RELATIVE_ERROR, _SUSPICIOUS_FALL = 3.0, 0.25, 0.1
_QUICK_TRIAL = 10.0
# Of its two parts a runtime may differ by the time between the clocks.
_PARTS_TOLERANCE = 0.01
# By which trials may take longer than the quickest of their warm-ups, in the median of so many settings.
_WARMUP_SHARE, _MIN_WARMED_UP = 1.5, 3
_MOST_WATTS, _LEAST_WATTS = 2000.0, 1.0
_MIN_TRIALS, _MIN_SETTINGS = 5, 8
_HELD_UP_SHARE, _PEAK_DISTANCE, _PEAK_SHARE = 0.1, 0.15, 0.1
_FIRST_TRIAL, _LATER_TRIALS, _DRIFT = 0.05, 0.05, 0.02


class ImplausibleLogError(LogFormatError):
    """A log cannot be true, or its numbers are wrong by a factor."""


class SuspiciousLogWarning(UserWarning):
    """What a log measured was disturbed, or it lacks what its header announces."""


@dataclass(frozen=True)
class Finding:
    """What speaks against a log.

    Parameters
    ----------
    name : str
        By which it is accepted.
    is_severe : bool
        It makes numbers wrong by a factor.
    message : str
        Numbers and remedy, one line.
    """

    name: str
    is_severe: bool
    message: str


def log_findings(log: Log | TextLog) -> list[Finding]:
    """What speaks against a log, severe findings first; empty for nearly all logs of an undisturbed machine.

    Severe: ``checksum`` (the file was changed after it was finished), ``out_of_range`` (no clock tells such a time),
    ``below_floor`` and ``far_above_floor`` (of the machine's rates, or of any machine's; over 100 times what they and
    the launches take), ``contradiction`` (of two settings or trials one takes what the other rules out, as milliseconds
    among seconds), ``parts`` (prompt and generation are not the runtime), ``energy`` (watts that no device draws),
    ``output_tokens`` (fewer or more were generated than asked for), ``repeated_trials`` (to the last digit),
    ``warmups`` (trials take over 1.5 times as long), ``clock`` (requests that were sent one at a time overlap).

    Others: ``num_trials``, ``num_warmup``, ``sweep`` (not what the header announces), ``longer_is_faster`` (more tokens
    take over 10 % less), ``held_up`` (over 10 % of trials), ``two_populations``, ``first_trial`` and ``later_trials``
    (of each setting: by more than 5 %), ``drift`` (over the sweep, by more than 2 %; where a log tells when trials
    began), ``guard`` (what a run noticed while it timed, and could not mend), ``energy_window`` (settings over before
    the counter of energy moved ten times; their joules are not used).
    """
    timed = _Timed.of(log)
    checks = _CHECKS if timed.is_in_process else (_checksum, _out_of_range, _repeated_trials, _clock, _guards)
    findings = [finding for check in checks for finding in check(timed)]
    return sorted(findings, key=lambda finding: not finding.is_severe)


def check_log(log: Log | TextLog, *, accept: Iterable[str] = (), stacklevel: int = 3) -> None:
    """Refuse a log that cannot be true, and warn of what else speaks against it.

    Parameters
    ----------
    log : Log or TextLog
    accept : iterable of str
        Names of severe findings that are warned of only.

    Raises
    ------
    ImplausibleLogError
        A severe finding that is not accepted; the message has all of them.
    ValueError
        ``accept`` holds a name that no severe finding has.

    Warns
    -----
    SuspiciousLogWarning
        Of each other finding.
    """
    accept = set(accept)
    if unknown := accept.difference(SEVERE):
        raise ValueError(f"accept takes names of findings: {', '.join(SEVERE)}; got {', '.join(sorted(unknown))}")
    findings = log_findings(log)
    if refused := [finding for finding in findings if finding.is_severe and finding.name not in accept]:
        said = "; ".join(f"{finding.name}: {finding.message}" for finding in refused)
        names = " ".join(dict.fromkeys(finding.name for finding in refused))
        raise ImplausibleLogError(f"{log.path}: {said}. To read it all the same, accept it by name: --accept {names}")
    for finding in findings:
        warnings.warn(f"{log.path}: {finding.name}: {finding.message}", SuspiciousLogWarning, stacklevel=stacklevel)


@dataclass(frozen=True)
class _Timed:
    """What the checks look at: one row a setting as it was timed, in the order of the log, and the trials of each.

    ``rows`` has the columns of a setting and ``num_layers_profiled``, ``runtime_s`` (the median), ``quickest_s``,
    ``error_s`` (standard error, 0 where unknown) and ``resolution_s``; of an API there is none, and all trials are one
    row of ``trials``. ``settings`` are those of a log of settings.
    """

    log: Log | TextLog
    rows: pd.DataFrame
    trials: Ragged
    settings: Settings | None = None

    @classmethod
    def of(cls, log) -> "_Timed":
        none = Ragged(np.zeros(0), np.zeros(0, dtype=int))
        if isinstance(log, TextLog):
            frame = log.settings_frame()
            resolution_s = frame["runtime_resolution_s"]
            rows = frame[SETTING_COLUMNS].fillna(1).astype(int).assign(
                num_layers_profiled=None, runtime_s=frame["runtime_s"], quickest_s=frame["runtime_s"],
                error_s=0.0, resolution_s=resolution_s,
            )  # fmt: skip
            return cls(log, rows, none)
        if isinstance(log, RequestsLog):
            runtimes_s = log.records.runtimes_s()
            return cls(
                log, pd.DataFrame(), Ragged.of_counts(runtimes_s, [len(runtimes_s)]) if len(runtimes_s) else none
            )
        trials = log.records.timed_lists("runtimes_s")
        rows = log.records.timed_rows().assign(
            runtime_s=trials.reduce(np.median),
            quickest_s=trials.reduce(np.min),
            error_s=np.nan_to_num(trials.reduce(partial(np.std, ddof=1), least=2) / np.sqrt(trials.counts)),
            resolution_s=0.0,
        )
        return cls(log, rows, trials, log.records if len(rows) else None)

    @property
    def is_in_process(self) -> bool:
        return not self.rows.empty

    def rooflines(self, rates: MachineRates | None = None) -> Iterator[tuple[pd.DataFrame, Roofline]]:
        """Rows of each slice of the layers with its roofline: by the machine's best known rates, or by others."""
        log = self.log
        with suppress(LogFormatError):
            architecture, dtype = log.architecture(), log.dtype
            if rates is None and (rates := self.known_rates()) is None:
                return
            for num_layers, rows in self.rows.groupby("num_layers_profiled", dropna=False, sort=False):
                depth = architecture.num_layers if pd.isna(num_layers) else int(num_layers)
                timed = replace(architecture, num_layers=depth, num_layers_profiled=None)
                yield rows, Roofline(timed, rates, dtype or "float16", *log.parallelism)

    def known_rates(self) -> MachineRates | None:
        log = self.log
        try:
            measured = best_rates(log.machine_rates)
        except ValueError as error:
            raise LogFormatError(f"{log.path}: {error}") from error
        return device_rates(measured, hardware=log.hardware, dtype=log.dtype, is_cuda=log.is_cuda)


def _named(rows: pd.DataFrame, *columns) -> str:
    """The first few settings, with times."""
    named = [
        f"{setting_name(row)} {', '.join(f'{row[column]:.3g} s' for column in columns)}"
        for row in rows.head(_MAX_NAMED).to_dict("records")
    ]
    return "; ".join(named) + ("; ..." if len(rows) > _MAX_NAMED else "")


def _sizes(rows: pd.DataFrame) -> str:
    """The first few settings."""
    return ", ".join(map(setting_name, rows.head(_MAX_NAMED).to_dict("records")))


# What the file says of itself


def _checksum(timed):
    if timed.log.is_intact is False:
        yield Finding(
            "checksum", True,
            "its lines are not those that the checksum in its footer was taken of: somebody changed it, or the disk "
            "did; take the file as it was written",
        )  # fmt: skip


def _trials_of_header(timed):
    # Where settings are chosen as a sweep goes, so are their trials.
    header = timed.log.header if timed.settings and not timed.log.is_sequential else {}
    for name, listed in (("num_trials", "runtimes_s"), ("num_warmup", "warmups_s")):
        asked = header.get(name)
        if not isinstance(asked, int):
            continue
        counts = timed.settings.timed_counts(listed)
        counts = counts[counts >= 0]
        if len(odd := counts[counts != asked]):
            yield Finding(
                name, False,
                f"{len(odd)} of {len(counts)} settings have {_span(odd)}; the header says "
                f"{asked}. Time them again, or mind that their errors are not what the log claims",
            )  # fmt: skip


def _span(numbers) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def _sweep_of_header(timed):
    log = timed.log
    headers = (log.header, *log.kept["resume"]) if timed.settings else ()
    sweeps = [Keys(log.place_in_key, _swept(header, log)) for header in headers]
    if not sweeps or not all(sweeps):
        return
    failed = set(map(setting_key, log.failed))
    # A run that goes on with a log may ask for other settings than the one before it.
    asked = sweeps[-1]
    is_asked_for_all = log.is_complete and not log.is_sequential
    missing = [key for key in asked if key not in log.completed and key not in failed] if is_asked_for_all else []
    if missing:
        named = ", ".join(f"p={p} o={o}" for p, o, *_ in sorted(missing)[:_MAX_NAMED])
        yield Finding(
            "sweep", False,
            f"a footer ends it, and {len(missing)} of the {len(asked)} settings that the header asks for are in no "
            f"line: {named}. Time them in another log, or mind that they are not there",
        )  # fmt: skip
    if extra := [number for number, key in enumerate(log.records.keys()) if not any(key in sweep for sweep in sweeps)]:
        named = ", ".join(setting_name(log.records[number]) for number in extra[:_MAX_NAMED])
        yield Finding(
            "sweep", False, f"{len(extra)} of {len(log.records)} settings are none of the header's: {named}"
        )  # fmt: skip


def _guards(timed):
    """What the run itself noticed, and could not mend by timing again."""
    marks = timed.log.kept["guard"] if isinstance(timed.log, Log) else []
    for mark in (record for record in marks if record["action"] == "marked"):
        yield Finding("guard", False, f"noticed while it was timed: {mark['finding']}: {mark['message']}")


def _grid_of_text(timed):
    """A text log has no header that says which settings were asked for: they are a grid, as all sweeps of it were."""
    if not isinstance(timed.log, TextLog):
        return
    held = set(timed.rows[TOKEN_COLUMNS].itertuples(index=False, name=None))
    prompt_sizes, output_sizes = (dict.fromkeys(sizes) for sizes in zip(*held, strict=True))
    if missing := [(p, o) for p in prompt_sizes for o in output_sizes if (p, o) not in held]:
        # A size that is mistyped is alone.
        lone = [f"p={p}" for p in prompt_sizes if sum((p, o) in held for o in output_sizes) == 1 < len(output_sizes)]
        lone += [f"o={o}" for o in output_sizes if sum((p, o) in held for p in prompt_sizes) == 1 < len(prompt_sizes)]
        named = f"; {', '.join(lone[:_MAX_NAMED])} stand in one setting alone" if lone else ""
        yield Finding(
            "sweep", False, f"{len(missing)} of the {len(missing) + len(held)} pairs of its prompt and output sizes "
            f"are not there{named}. See whether lines are lost or a size is mistyped",
        )  # fmt: skip


def _swept(header, log) -> Iterator[tuple]:
    """Keys of the settings that a header asks for; none where it does not say."""
    sweep = header.get("sweep")
    with suppress(AttributeError, KeyError, TypeError):
        batch_size = sweep.get("batch_size", 1)
        batchings = sweep.get("batchings") or [dict.fromkeys(SETTING_COLUMNS[2:], batch_size)]
        for batching in batchings:
            batch = tuple(batching[name] for name in SETTING_COLUMNS[2:])
            for p in sweep["all_num_prompt_tokens"]:
                for o in sweep["all_num_output_tokens"]:
                    yield from ((p, o, *batch, num_layers) for num_layers in log.slices)


def _output_tokens(timed):
    counts = timed.settings.timed_counts("output_token_ids") if timed.settings else np.full(len(timed.rows), -1)
    wrong = timed.rows.assign(counts=counts)[(counts >= 0) & (counts != timed.rows["num_output_tokens"])]
    if len(wrong):
        named = ", ".join(f"{setting_name(it)} has {it['counts']}" for it in wrong.head(_MAX_NAMED).to_dict("records"))
        yield Finding(
            "output_tokens", True,
            f"{len(wrong)} of {len(counts)} settings generated another number of tokens than they say: {named}. "
            "Let generation go on behind an end-of-text token, and time them again",
        )  # fmt: skip


def _parts(timed):
    if not timed.settings:
        return
    parts = (timed.settings.trial_lists(name).flat for name in ("prompt_encoding_times_s", "generation_times_s"))
    off = replace(timed.trials, flat=np.abs(np.nan_to_num(sum(parts) / timed.trials.flat, nan=1.0) - 1))
    off = off.reduce(np.max)
    wrong = timed.rows[off > _PARTS_TOLERANCE]
    if len(wrong):
        yield Finding(
            "parts", True,
            f"runtimes_s of {len(wrong)} settings are not prompt_encoding_times_s + generation_times_s, by up to "
            f"{off.max():.0%} ({_sizes(wrong)}): one of the three is in another unit or of other trials",
        )  # fmt: skip


def _warmups(timed):
    """A warm-up may take as long as it likes, but not less than what comes after it."""
    if not timed.settings:
        return
    shares = (timed.rows["runtime_s"] / timed.settings.timed_lists("warmups_s").reduce(np.min)).dropna()
    if len(shares) >= _MIN_WARMED_UP and (share := shares.median()) > _WARMUP_SHARE:
        yield Finding(
            "warmups", True,
            f"trials take {share:.3g} times as long as the warm-ups before them, which run the same query: one of the "
            "two is in another unit, or of another query",
        )  # fmt: skip


def _energy(timed):
    if not timed.settings:
        return
    joules = timed.settings.trial_lists("energies_joules").reduce(np.sum)
    seconds = timed.trials.reduce(np.sum) * np.prod([timed.log.header[name] for name in PARALLELISM_COLUMNS])
    with_energy = timed.rows.assign(watts=joules / seconds)[~np.isnan(joules)]
    if with_energy.empty:
        return
    most = with_energy.loc[with_energy["watts"].idxmax()]
    if most["watts"] > _MOST_WATTS:
        yield Finding(
            "energy", True,
            f"{_sizes(with_energy.loc[[most.name]])} draws {most['watts']:.3g} W a device, more than any accelerator: "
            "joules or seconds are in another unit",
        )  # fmt: skip
    elif 0 < (watts := np.nansum(joules) / seconds[~np.isnan(joules)].sum()) < _LEAST_WATTS:
        yield Finding(
            "energy", True,
            f"all settings together draw {watts:.3g} W a device, less than any that computes: joules or seconds are in "
            "another unit",
        )  # fmt: skip


def _energy_window(timed):
    """Settings that were over before their counter of energy had moved often enough."""
    if not timed.settings:
        return
    has_joules = ~np.isnan(timed.settings.trial_lists("energies_joules").reduce(np.sum))
    least_s = least_energy_window_s(timed.log.header)
    is_short = has_joules & (timed.trials.reduce(np.sum) < least_s)
    if is_short.any():
        yield Finding(
            "energy_window", False,
            f"{is_short.sum()} of {has_joules.sum()} settings with joules lasted less than {least_s:.3g} s, ten "
            f"updates of the counter: their joules are not used. Time more trials of {_sizes(timed.rows[is_short])}",
        )  # fmt: skip


def _repeated_trials(timed):
    """Values that clocks of nanoseconds do not tell twice; what was rounded may well be equal."""
    if not len(timed.trials):
        return
    times_s, counts = timed.trials.flat, timed.trials.counts
    digits = 10.0 ** (5 - np.floor(np.log10(times_s)))
    is_rounded = np.abs(np.round(times_s * digits) / digits - times_s) <= 1e-12 * times_s
    _, first = np.unique(times_s, return_index=True)
    is_repeat = ~is_rounded
    is_repeat[first] = False
    repeats = timed.trials.where(is_repeat).counts
    # By chance a pair of trials may agree to the nanosecond.
    wholly = np.flatnonzero((repeats >= counts / 2) & (repeats >= 1) & (counts >= 2))
    if len(wholly) or (is_repeat.sum() >= max(3, 0.05 * len(times_s))):
        named = _sizes(timed.rows.iloc[wholly]) if timed.settings else ""
        yield Finding(
            "repeated_trials", True,
            f"{int(is_repeat.sum())} of {len(times_s)} trials repeat others to the last digit"
            f"{f' ({named})' if named else ''}: they were copied, not measured. Remove the copies, or time again",
        )  # fmt: skip


def _clock(timed):
    """Of an API: a client that sends one request at a time."""
    if not isinstance(timed.log, RequestsLog):
        return
    num_beyond, num_trials, most_s = timed.log.records.beyond_the_clock()
    if num_beyond:
        yield Finding(
            "clock", num_beyond > max(1, 0.01 * num_trials),
            f"{num_beyond} of {num_trials} trials that were sent one after the other end after the next one was sent, "
            f"by {most_s:.3g} s at most: they are not in seconds or were changed, or the clock was set meanwhile",
        )  # fmt: skip


# What machines can do


def _out_of_range(timed):
    times_s = timed.trials.flat if len(timed.trials) else timed.rows.get("runtime_s", pd.Series()).to_numpy(float)
    odd = times_s[(times_s < _LEAST_S) | (times_s > _MOST_S)]
    if len(odd):
        yield Finding(
            "out_of_range", True,
            f"{len(odd)} of {len(times_s)} runtimes are ones that no clock told, such as {odd[0]:.3g} s; seconds lie "
            f"between {_LEAST_S:g} and {_MOST_S:g}. Time these settings again",
        )  # fmt: skip


def _floors(timed):
    known = timed.known_rates()
    of = "the machine's rates" if known is not None else "any machine"
    for rows, roofline in timed.rooflines(known or _FAST[timed.log.is_cuda]):
        sizes = rows["num_prompt_tokens"].to_numpy(float), rows["num_output_tokens"].to_numpy(float)
        floor_s = roofline.possible_s(*sizes, batch_size=rows["batch_size"].to_numpy(float))
        quickest_s = rows["quickest_s"] + rows["resolution_s"] / 2
        below = rows.assign(quickest_s=quickest_s, floor_s=floor_s)[quickest_s < floor_s]
        if len(below):
            yield Finding(
                "below_floor", True,
                f"{len(below)} of {len(rows)} settings are faster than {of} can be (quickest trial, floor: "
                f"{_named(below, 'quickest_s', 'floor_s')}). Check the unit, that the clock waits for the device, and "
                "that the header's architecture and data type are what ran; rates that were measured while the machine "
                "was busy are too low: run the same command again, which measures them anew, and the best count",
            )  # fmt: skip


def _far_above_floors(timed):
    slow, known = _SLOW[timed.log.is_cuda], timed.known_rates()
    if known is not None:
        slow = replace(known, matmul_flops_per_s=known.matmul_flops_per_s or slow.matmul_flops_per_s)
    for rows, roofline in timed.rooflines(slow):
        p, o, batch, m, k = (rows[name].to_numpy(float) for name in SETTING_COLUMNS)
        layers_s = _LAYER_OVERHEAD_S * roofline.architecture.num_layers * roofline.pipeline_parallel_size
        machine_s = roofline.query_s(p, o, batch_size=batch) * batch / np.minimum(m, k)
        most_s = _MOST_TIMES_RATES * (
            machine_s + _QUERY_OVERHEAD_S * batch + layers_s * (batch / m + (o - 1) * batch / k)
        )
        above = rows.assign(most_s=most_s)[rows["runtime_s"] > most_s]
        if len(above):
            yield Finding(
                "far_above_floor", True,
                f"{len(above)} of {len(rows)} settings take more than {_MOST_TIMES_RATES} times what "
                f"{'the machine' if known is not None else 'a slow machine'} takes (measured, at most: "
                f"{_named(above, 'runtime_s', 'most_s')}); they may be milliseconds",
            )  # fmt: skip


def _contradictions(timed):
    """Settings that differ in one size only: more tokens take longer, but no longer than each token the first time."""
    rows, columns = timed.rows, ["batch_size", "micro_batch_size", "token_micro_batch_size", "num_layers_profiled"]
    fixed = [np.unique(rows[name].to_numpy(float), return_inverse=True)[1] for name in columns]
    runtime_s, error_s, resolution_s = (rows[name].to_numpy(float) for name in ("runtime_s", "error_s", "resolution_s"))
    relative_error = np.minimum((error_s + resolution_s / 2) / runtime_s, _MOST_RELATIVE_ERROR)
    wrong, falls = [], []
    for name, other in (TOKEN_COLUMNS, TOKEN_COLUMNS[::-1]):
        size, keys = rows[name].to_numpy(float), [rows[other].to_numpy(float), *fixed]
        order = np.lexsort([size, *keys])
        first, later = order[:-1], order[1:]
        is_pair = np.all([key[first] == key[later] for key in keys], axis=0)
        first, later = first[is_pair], later[is_pair]
        share, times = runtime_s[later] / runtime_s[first], size[later] / size[first]
        # A prompt's work may grow with its square; of a batch, tokens may be made in smaller parts than prompts.
        parts = (rows["micro_batch_size"] / rows["token_micro_batch_size"]).to_numpy(float)[first]
        most = times**2 if name == "num_prompt_tokens" else times * np.maximum(1, parts)
        allowed = _CONTRADICTION * np.exp(4 * np.hypot(relative_error[first], relative_error[later]))
        is_wrong = (share < 1 / allowed) | (share > allowed * most)
        noise_s = 4 * np.hypot(error_s[first], error_s[later]) + 2 * resolution_s[first]
        is_fall = (share < 1 - _SUSPICIOUS_FALL) & (runtime_s[first] - runtime_s[later] > noise_s) & ~is_wrong
        letter = "p" if name == TOKEN_COLUMNS[0] else "o"
        for found, is_found in ((wrong, is_wrong), (falls, is_fall)):
            found += [(first[i], f"{letter}={size[later[i]]:.0f}", later[i]) for i in np.flatnonzero(is_found)]

    def pairs(found):
        return "; ".join(
            f"{_named(rows.iloc[[i]], 'runtime_s')}, {size} {runtime_s[j]:.3g} s" for i, size, j in found[:_MAX_NAMED]
        )

    if wrong:
        yield Finding(
            "contradiction", True,
            f"settings rule each other out, {len(wrong)} times: {pairs(wrong)}. Milliseconds? Time them again, or "
            "leave them out",
        )  # fmt: skip
    if falls:
        yield Finding(
            "longer_is_faster", False,
            f"more tokens take over {_SUSPICIOUS_FALL:.0%} less, {len(falls)} times: {pairs(falls)}. Something held "
            "the machine up: time the slower ones again, or leave them out (rows of read_log)",
        )  # fmt: skip


# Trials and their order


def _quick_trials(timed):
    """A trial may be held up, all the others of its setting hardly, and not tenfold."""
    if not timed.settings:
        return
    quickest_s = timed.trials.reduce(np.min, least=3)
    others_s = timed.trials.reduce(lambda times_s, axis: np.partition(times_s, 1, axis=axis)[:, 1], least=3)
    wrong = timed.rows.assign(quickest_s=quickest_s, others_s=others_s)[others_s > _QUICK_TRIAL * quickest_s]
    if len(wrong):
        yield Finding(
            "contradiction", True,
            f"{len(wrong)} settings have a trial that takes less than a tenth of all their others (it, the next: "
            f"{_named(wrong, 'quickest_s', 'others_s')}): it is in another unit or was changed. Time them again, or "
            "leave them out",
        )  # fmt: skip


def _populations(timed):
    trials = timed.trials.where(np.repeat(timed.trials.counts >= _MIN_TRIALS, timed.trials.counts))
    if not len(trials.flat):
        return
    # From the fast side, where both populations of a setting have a member in nearly all cases.
    relative = trials.map(lambda times_s: np.log(times_s / _fast_side(times_s)))
    if found := two_populations(relative):
        is_slow, times = found
        yield Finding(
            "two_populations", False,
            f"{is_slow.mean():.0%} of the trials take {times:.2f} times as long as the others: a mean describes "
            "neither. Find what differs (clock, core, memory, neighbours), and time again",
        )  # fmt: skip
        return
    num_held_up = int(trials.map(is_disturbed).sum())
    if num_held_up > _HELD_UP_SHARE * len(relative):
        yield Finding(
            "held_up", False,
            f"{num_held_up} of {len(relative)} trials took over 1.25 times the median of their setting and are left "
            "out: something else ran on the machine; time it when it is idle",
        )  # fmt: skip


def two_populations(relative: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Which trials are of the slower of two groups, and how many times as long they take; None where there is one.

    Parameters
    ----------
    relative : array
        Logarithms of the trials over what is quick in their settings, of all settings together. Fewer than 30 are not
        judged; nor are groups of a tenth or less, or that lie within 15 %.
    """
    if len(relative) < 2:
        return None
    is_slow = upper_group(relative)
    is_shared = _PEAK_SHARE < is_slow.mean() < 1 - _PEAK_SHARE
    distance = np.expm1(np.median(relative[is_slow]) - np.median(relative[~is_slow])) if is_shared else 0.0
    return (is_slow, 1 + distance) if distance > _PEAK_DISTANCE and has_two_peaks(relative) else None


def _fast_side(times_s) -> np.ndarray:
    quickest_s = np.sort(times_s)[..., : max(2, times_s.shape[-1] // 4)]
    return np.exp(np.mean(np.log(quickest_s), axis=-1, keepdims=True))


def _trial_order(timed):
    if not timed.settings or (num_trials := np.bincount(timed.trials.counts).argmax()) < _MIN_TRIALS:
        return
    _, times_s = timed.trials.of_length(num_trials)
    if len(times_s) < _MIN_SETTINGS:
        return
    # One trial that is held up must not stand for an order.
    relative = np.clip(np.log(times_s / np.median(times_s, axis=1, keepdims=True)), -0.5, 0.5)
    first = relative[:, 0] - relative[:, 1:].mean(axis=1)
    if np.expm1(np.median(first)) > _FIRST_TRIAL and mean_zero_p_value(first) < _SIGNIFICANCE:
        yield Finding(
            "first_trial", False,
            f"the first trial of a setting takes {np.median(np.exp(first)) - 1:.0%} longer than the others: warm up "
            "more (--num-warmup)",
        )  # fmt: skip
    splits = np.arange(3, num_trials - 1)
    contrasts = [relative[:, split:].mean(axis=1) - relative[:, 1:split].mean(axis=1) for split in splits]
    p_values = [mean_zero_p_value(contrast) for contrast in contrasts]
    best = int(np.argmin(p_values))
    change = np.expm1(np.median(contrasts[best]))
    if abs(change) > _LATER_TRIALS and p_values[best] * len(splits) < _SIGNIFICANCE:
        yield Finding(
            "later_trials", False,
            f"from trial {splits[best] + 1} on, settings take {abs(change):.0%} {'longer' if change > 0 else 'less'}: "
            "the machine is not in a steady state (heat, clock); time it when it is, or let it rest between trials",
        )  # fmt: skip


def mean_zero_p_value(contrast: np.ndarray) -> float:
    """Two-sided, of a mean of zero, one value a setting or a visit: trials of one may hang on each other."""
    from scipy.special import stdtr

    spread = contrast.std(ddof=1)
    if spread == 0:
        return 0.0 if contrast[0] else 1.0
    return float(2 * stdtr(len(contrast) - 1, -abs(contrast.mean()) / spread * np.sqrt(len(contrast))))


def _drift(timed):
    if not timed.settings:
        return
    starts_s, counts = timed.settings.trial_lists("trial_starts_s").flat, timed.trials.counts
    is_started = ~np.isnan(starts_s) & np.repeat(counts > 1, counts)
    if not is_started.any():
        return
    relative = timed.trials.map(lambda times_s: np.log(times_s / np.median(times_s, axis=-1, keepdims=True)))
    found = change_point(relative[is_started][np.argsort(starts_s[is_started])])
    if found is not None and found.p_value < _SIGNIFICANCE and abs(np.expm1(found.change)) > _DRIFT:
        change = np.expm1(found.change)
        yield Finding(
            "drift", False,
            f"runtimes {'rise' if change > 0 else 'fall'} by {abs(change):.0%} over the sweep, from "
            f"{found.position:.0%} of its trials on (p = {found.p_value:.2g}): the machine was not in a steady state; "
            "its intervals are too narrow",
        )  # fmt: skip


_CHECKS = (
    _checksum, _out_of_range, _floors, _far_above_floors, _contradictions, _parts, _warmups, _energy, _energy_window,
    _output_tokens, _repeated_trials, _trials_of_header, _sweep_of_header, _guards, _grid_of_text, _quick_trials,
    _populations, _trial_order, _drift,
)  # fmt: skip
