"""Trials of a model behind an API, as records of a timing log and as a frame with one row a request."""

import itertools
import re
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from idealized_runtime.checks import is_integer, is_number
from idealized_runtime.records import definitions
from idealized_runtime.records.common import (
    IDENTITY_COLUMNS,
    TOKEN_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    NothingTimedError,
    check_error,
    check_integers,
    check_names,
    checked_guard,
    is_duration,
    repeated,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.records.log import TRIAL_MEANS, Log, means_frame
from idealized_runtime.statistics.ragged import Ragged

# Fields that a trial under load has beside those of every trial; they tell one trial from another.
LOAD_FIELDS = ("load", "num_parallel", "rate_per_s", "repetition")
_DURATIONS = ("time_to_connect_s", "time_to_headers_s", "time_to_first_token_s", "runtime_s")
_COUNTS = ("num_prompt_tokens_reported", "num_output_tokens_reported", "num_cached_prompt_tokens")
# Columns of numbers, NaN where there is none; of integers, -1; of texts, None.
_NUMBERS = (*_DURATIONS, "time_per_output_token_s", "rate_per_s", "cost_usd")
_INTEGERS = (*TOKEN_COLUMNS, "trial", "num_requests", "block", "num_parallel", "repetition", "status", *_COUNTS)
_TEXTS = ("load", "definitions", "finish_reason", "model_reported", "deviations", "notes")
_TIMES = ("scheduled_at", "sent_at")
_NULLABLE_INTEGERS = ("block", "num_parallel", "repetition", "status", *_COUNTS)
_COLUMNS = (
    *TOKEN_COLUMNS, "trial", "is_warmup", "block", *LOAD_FIELDS, *_TIMES, *_DURATIONS, "status", "finish_reason",
    "model_reported", "cost_usd", "definitions", "time_per_output_token_s", "inter_chunk_times_s", "num_chunks",
    *_COUNTS, "num_requests", "deviations", "notes", "error_type", "error_message", "is_held_back", "is_fit",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_TIME = np.iinfo(np.int64).min
# Of two times that are to agree, as a share: what rounding and sums of floats change.
_TOLERANCE = 1e-3
# A prompt of which a server had more than this in its cache was not encoded whole. Two tokens may be alike by chance.
_ALLOWED_CACHED_TOKENS, _ALLOWED_CACHED_SHARE = 2, 0.02
# How servers name the prompt tokens that they had in a cache; and what they write to one, or did not find.
_CACHED = re.compile(r"cache.*(read|hit)|cached.*tok|tok.*cached|^cache(_?n|d)$", re.IGNORECASE)
_NOT_CACHED = re.compile(r"miss|creat|writ|detail|output|completion|rate|ratio|percent", re.IGNORECASE)
_OURS = (definitions.STREAMED, definitions.WHOLE)
# How a note of a stream begins whose events do not tell when a token was.
HELD_BACK = "held back on the way"
# Events that are less apart came together: no server generates 5000 tokens a second of one sequence.
_LEAST_GAP_S, _LEAST_GAP_SHARE = 2e-4, 0.1
# Settings whose deviations are named.
_MOST_NAMED = 8
# Tokens that come together at most where nothing holds them back: a step of speculative decoding has a few.
_MOST_TOGETHER = 4
# Events that a client with other things to do reads together now and then, in the mean of an answer.
_MOST_OF_A_BUSY_CLIENT = 3
# An answer of which so much had passed before its first token, and then less than this for each further one.
_WAITING_SHARE, _HELD_BACK_S = 0.95, 5e-4
# How far a request may outlast the next one of a client that sends one at a time: the clock's own steps.
_MAX_OVERLAP_S, _MAX_OVERLAP_SHARE = 0.05, 0.02


def trial_key(trial: dict) -> tuple:
    """What tells one trial of a log from another: sizes, load, number, and whether it warms up or calibrates."""
    return (*(trial[name] for name in TOKEN_COLUMNS), *(trial.get(name) for name in LOAD_FIELDS),
            bool(trial.get("is_warmup")), bool(trial.get("is_calibration")), trial["trial"])  # fmt: skip


class Trials(Sequence):
    """Trials in columns of numbers: a million of them in some hundred megabytes.

    As a sequence, a record each, of what else than a frame is made of them: what tells one trial from another, what it
    cost and reported, and its error.
    """

    def __init__(self):
        self._numbers = {name: array("d") for name in _NUMBERS}
        self._integers = {name: array("q") for name in (*_INTEGERS, *_TIMES)}
        self._texts: dict[str, list] = {name: [] for name in _TEXTS}
        self._is_warmup, self._is_calibration = array("b"), array("b")
        self._chunk_times_s, self._ends = array("d"), array("q")
        # Of equal texts one is kept; and what only a few trials have.
        self._known: dict[str, str] = {}
        self._others: dict[int, dict] = {}
        self.failed: list[int] = []

    def append(self, trial: dict):
        """Take in a record that was checked."""
        usage, integers = trial.get("usage"), self._integers
        reported = (reported_tokens(usage, "prompt_tokens"), reported_tokens(usage, "completion_tokens"))
        counts = dict(zip(_COUNTS, (*reported, cached_tokens(usage)), strict=True))
        for name, column in self._numbers.items():
            value = trial.get(name)
            column.append(np.nan if value is None else value)
        for name in _INTEGERS:
            value = counts[name] if name in counts else trial.get(name, 1 if name == "num_requests" else None)
            integers[name].append(-1 if value is None else value)
        for name in _TIMES:
            text = trial.get(name)
            integers[name].append(_NO_TIME if text is None else _microseconds(text))
        deviations = list(dict.fromkeys([*(trial.get("deviations") or ()), *deviations_of(trial)]))
        joined = {"deviations": ", ".join(deviations), "notes": ", ".join(trial.get("notes") or ())}
        for name, column in self._texts.items():
            text = joined[name] if name in joined else trial.get(name)
            column.append(self._known.setdefault(text, text))
        self._is_calibration.append(bool(trial.get("is_calibration")))
        self._is_warmup.append(bool(trial.get("is_warmup")))
        if "error" in trial:
            self.failed.append(len(self._ends))
        if "error" in trial or trial.get("is_calibration"):
            self._others[len(self._ends)] = {k: trial[k] for k in ("error", "prompt_sha256") if k in trial}
        self._chunk_times_s.extend(trial.get("chunk_times_s") or ())
        self._ends.append(len(self._chunk_times_s))

    def set_aside(self, number: int, why: str):
        """Leave a trial out of what is fitted."""
        texts = self._texts["deviations"]
        texts[number] = ", ".join(filter(None, (texts[number], why)))

    @property
    def has_deviations(self) -> bool:
        """Whether any trial deviates, one that calibrates included."""
        return any(self._texts["deviations"])

    def runtimes_s(self) -> np.ndarray:
        """Those of trials that did not fail."""
        return np.delete(np.array(self._numbers["runtime_s"]), self.failed)

    def beyond_the_clock(self) -> tuple[int, int, float]:
        """Trials that end after their client, which sends one at a time, had sent the next one.

        Returns
        -------
        num_beyond, num_trials : int
            Of those that our client sent under no load.
        most_s : float
            By how much at most.
        """
        sent, runtimes_s = np.array(self._integers["sent_at"]), np.array(self._numbers["runtime_s"])
        is_ours = np.array(
            [
                load is None and of in _OURS
                for load, of in zip(self._texts["load"], self._texts["definitions"], strict=True)
            ],
            dtype=bool,
        )
        order = np.flatnonzero(is_ours & (sent != _NO_TIME))
        order = order[np.argsort(sent[order], kind="stable")]
        sent, runtimes_s = sent[order], runtimes_s[order]
        following = np.searchsorted(sent, sent, side="right")
        gaps_s = np.append(sent, np.iinfo(np.int64).max)[following] / 1e6 - sent / 1e6
        overlaps_s = np.nan_to_num(runtimes_s - gaps_s, nan=-np.inf)
        is_beyond = overlaps_s > _MAX_OVERLAP_S + _MAX_OVERLAP_SHARE * runtimes_s
        return int(is_beyond.sum()), len(order), float(overlaps_s.max(initial=0.0))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> dict:
        trial = {name: column[number] for name, column in self._texts.items() if column[number]}
        trial |= {name: self._integers[name][number] for name in _INTEGERS if self._integers[name][number] >= 0}
        trial |= {name: column[number] for name, column in self._numbers.items() if column[number] == column[number]}
        # Other tools do not tell what was asked for in a request that failed.
        trial = dict.fromkeys(TOKEN_COLUMNS) | trial
        trial["is_warmup"] = bool(self._is_warmup[number])
        if self._is_calibration[number]:
            trial["is_calibration"] = True
        reported = zip(("prompt_tokens", "completion_tokens"), _COUNTS, strict=False)
        trial["usage"] = {theirs: trial[ours] for theirs, ours in reported if ours in trial}
        return {"record": "trial", **trial, **self._others.get(number, {})}

    def __iter__(self) -> Iterator[dict]:
        return map(self.__getitem__, range(len(self)))

    def frame(self, header: dict) -> pd.DataFrame:
        """One row a trial, as :func:`idealized_runtime.records.read_requests` gives it.

        It holds the same numbers, not copies: as long as it is there no trial can be added.
        """
        columns = {name: np.asarray(column) for name, column in self._numbers.items()}
        for name in _INTEGERS:
            values = np.asarray(self._integers[name])
            is_missing = values < 0
            is_nullable = name in _NULLABLE_INTEGERS or is_missing.any()
            columns[name] = pd.arrays.IntegerArray(values, is_missing) if is_nullable else values
        for name in _TIMES:
            columns[name] = pd.to_datetime(np.asarray(self._integers[name]).view("datetime64[us]"), utc=True)
        columns |= {
            name: pd.Series(column, dtype=None if len(column) else object) for name, column in self._texts.items()
        }
        errors = [self._others.get(number, {}).get("error") or {} for number in range(len(self))] if self.failed else []
        for field in ("type", "message"):
            texts = [error.get(field) for error in errors] or [None] * len(self)
            columns[f"error_{field}"] = pd.Series(texts, dtype=None if errors else object)
        # What asks how many tokens a prompt has is no timed trial either.
        columns["is_warmup"] = np.array(self._is_warmup, dtype=bool) | np.array(self._is_calibration, dtype=bool)
        has_failed = np.zeros(len(self), dtype=bool)
        has_failed[self.failed] = True
        has_deviated = np.array([bool(text) for text in self._texts["deviations"]], dtype=bool)
        columns["is_fit"] = ~(columns["is_warmup"] | has_failed | has_deviated)
        self._add_chunks(columns)
        identity = {name: repeated(header[name], len(self)) for name in IDENTITY_COLUMNS}
        # Each column by itself: a million rows are not copied once more.
        return pd.DataFrame({**identity, **{name: columns.pop(name) for name in _COLUMNS}}, copy=False)

    def _add_chunks(self, columns):
        """Columns that come from the times of events with text; where these were held back there is none."""
        times_s, ends = np.asarray(self._chunk_times_s), np.asarray(self._ends)
        starts = ends - np.diff(ends, prepend=0)
        reported, asked = (np.array(self._integers[name]) for name in (_COUNTS[1], TOKEN_COLUMNS[1]))
        num_tokens = np.where(reported > 0, reported, asked)
        num_bunches, is_held_back = held_back(times_s, ends, num_tokens, columns["runtime_s"])
        columns["num_chunks"], columns["is_held_back"] = ends - starts, is_held_back
        last_s, first_s = (np.where(ends > starts, times_s[np.maximum(at, 0)] if len(times_s) else 0.0, np.nan)
                           for at in (ends - 1, np.minimum(starts, max(len(times_s) - 1, 0))))  # fmt: skip
        # A tool may have told it.
        is_known = ~np.isnan(columns["time_per_output_token_s"]) | (ends - starts < 2) | (num_tokens < 2)
        per_token_s = (last_s - first_s) / np.maximum(num_tokens - 1, 1)
        columns["time_per_output_token_s"] = np.where(is_known, columns["time_per_output_token_s"], per_token_s)
        for name in ("time_per_output_token_s", "time_to_first_token_s"):
            columns[name] = np.where(is_held_back, np.nan, columns[name])
        gaps_s, none = np.diff(times_s), np.empty(0)
        pieces = zip(starts.tolist(), ends.tolist(), is_held_back.tolist(), strict=True)
        # An object column, also where all rows have the same number.
        columns["inter_chunk_times_s"] = pd.Series(
            [none if is_held else gaps_s[start : max(start, end - 1)] for start, end, is_held in pieces], dtype=object
        )
        notes = columns["notes"].astype(object).to_numpy(copy=True)
        for number in np.flatnonzero(is_held_back):
            said = held_back_note(num_tokens[number], num_bunches[number])
            notes[number] = notes[number] if said in notes[number] else ", ".join(filter(None, (notes[number], said)))
        columns["notes"] = pd.Series(notes)


class RequestsLog(Log):
    """A log of single requests to an API, and before each that it was sent."""

    measured = "trial"
    beside = ("sent", "guard")
    key, place_in_key = staticmethod(trial_key), len(TOKEN_COLUMNS) + len(LOAD_FIELDS) + 2
    columns = Trials

    def __init__(self, path, header):
        super().__init__(path, header)
        # Requests that were sent and are in no trial yet, by their trials.
        self._under_way: dict[tuple, list[dict]] = defaultdict(list)

    def keep(self, record: dict):
        """Take in a record that was checked."""
        super().keep(record)
        if record["record"] == "sent":
            self._under_way[trial_key(record)].append(record)
        elif record["record"] == "guard":
            self.kept["guard"].append(record)
            for number in record["visits"]:
                self.records.set_aside(number, f"set aside: {record['finding']}")
        elif record["record"] == "trial" and (left := self._under_way.get(key := trial_key(record))):
            del left[: record.get("num_requests", 1)]
            if not left:
                del self._under_way[key]

    @property
    def was_killed(self) -> bool:
        """Whether its last run ended without saying so."""
        return not self.is_complete and self.last_record != "stop"

    @property
    def num_kills(self) -> int:
        """Runs that were killed, as the runs after them say."""
        return sum(bool(resume.get("is_after_kill")) for resume in self.kept["resume"])

    @property
    def lost(self) -> list[dict]:
        """Requests that were sent and are in no trial, since the run that sent them was killed."""
        return [sent for left in self._under_way.values() for sent in left]

    def check_header(self):
        """Refuse a header that lacks what a reader needs, by a ValueError that says what."""
        check_names(self.header, ("model", "hardware", "base_url", "endpoint"))
        if not isinstance(self.header.get("software"), str):
            raise ValueError(f"the header's software must be a text; got {self.header.get('software')!r}")

    def check_record(self, where: str, record: dict) -> dict:
        """The same trial, or request that was sent.

        Raises
        ------
        LogFormatError
            A size or a duration is not one, or a trial is repeated; the message begins with ``where``.
        """
        if record["record"] == "guard":
            checked_guard(where, record)
            if beyond := [number for number in record["visits"] if number >= len(self.records)]:
                raise LogFormatError(f"{where}: visits must be below {len(self.records)}; got {beyond[0]}")
            return record
        if record["record"] == "sent":
            check_integers(f"{where}:", record, (*TOKEN_COLUMNS, "trial"), 0)
            cost_usd = record.get("cost_usd")
            if cost_usd != 0 and not is_duration(cost_usd):
                raise LogFormatError(f"{where}: cost_usd must be US dollars; got {cost_usd!r}")
            return record
        has_failed = "error" in record
        # Other tools do not always tell sizes, and an answer of no token deviates.
        is_optional = record.get("definitions") in definitions.IMPORTED
        sizes = [name for name in TOKEN_COLUMNS if not (is_optional and record.get(name) is None)]
        check_integers(f"{where}:", record, sizes, 0 if has_failed or record.get("deviations") else 1)
        check_integers(f"{where}:", record, ["trial"], 0)
        for name, allowed, is_allowed in _FIELDS:
            if name in record and not is_allowed(record[name]):
                raise LogFormatError(f"{where}: {name} must be {allowed}; got {record[name]!r:.60}")
        if not isinstance(record.get("definitions"), str):
            raise LogFormatError(f"{where}: definitions must be a text; got {record.get('definitions')!r:.60}")
        if not has_failed and not is_duration(record.get("runtime_s")):
            raise LogFormatError(f"{where}: runtime_s must be positive seconds; got {record.get('runtime_s')!r:.60}")
        _check_order(where, record)
        check_error(where, record)
        if trial_key(record) in self.completed:
            raise LogFormatError(
                f"{where}: trial {record['trial']} of p={record['num_prompt_tokens']}, "
                f"o={record['num_output_tokens']} stands here a second time"
            )
        return record

    def warn_if_partial(self, *, stacklevel: int = 3):
        """Warn of a log without footer, and of what in it failed or deviates."""
        if not self.is_complete:
            said = f"{self.path}: incomplete: no footer after {len(self.records)} trials; run it again to resume"
            warnings.warn(said, IncompleteLogWarning, stacklevel=stacklevel)
        for cause in self._left_out():
            warnings.warn(f"{self.path}: {cause}", IncompleteLogWarning, stacklevel=stacklevel)

    def _left_out(self) -> Iterator[str]:
        if failed := self.failed:
            named = dict.fromkeys(f"{setting_name(record)} ({record['error']['type']})" for record in failed)
            yield f"{len(failed)} trials failed and are left out: {', '.join(named)}"
        if self.records.has_deviations:
            said = describe_deviations(trial for trial in self.records if not trial.get("is_warmup"))
            yield from [f"{said}; they are left out"] if said else []

    def architecture(self):
        """Refused: an API does not tell it."""
        model = self.header["model"]
        raise LogFormatError(f"{self.path}: a log of an API, which does not tell the architecture of {model}")

    def requests_frame(self) -> pd.DataFrame:
        """One row a request."""
        return self.records.frame(self.header)

    def trials_frame(self) -> pd.DataFrame:
        """The trials that a fit may use, with the columns of every timing frame.

        An API does not tell its parallelism: missing. None is called disturbed: the noise of an API is for the
        estimators of :mod:`idealized_runtime.fits.denoised`, not for a rule.
        """
        requests = self.requests_frame()
        # One at a time is how a sweep sends its queries, too.
        is_loaded = requests["load"].notna() & ~requests["num_parallel"].eq(1).fillna(False)
        p, num_cached = (
            requests[name].to_numpy(float, na_value=np.nan) for name in (TOKEN_COLUMNS[0], "num_cached_prompt_tokens")
        )
        # Our own deviate; of other tools' requests it is no fault, and keeps them from a fit alone.
        is_cached = ~requests["definitions"].isin(_OURS) & (num_cached > _allowed_cached_tokens(p))
        causes = [
            f"{(number := is_left_out.sum())} of them {'is' if number == 1 else 'are'} {what}"
            for is_left_out, what in (
                (is_loaded, "under load: a summary reads those"),
                (is_cached, "of cached prompts"),
            )
            if is_left_out.any()
        ]
        is_fit = requests["is_fit"] & ~is_loaded & ~is_cached & requests[TOKEN_COLUMNS].notna().all(axis=1)
        if not is_fit.any():
            held = f"{self.path}: holds no timing: none of its {len(self.records)} trials can be used"
            raise NothingTimedError("; ".join([held, *causes, *self._left_out()]))
        if causes:
            said = f"{self.path}: {len(requests)} requests, {', '.join(causes)}; those sent one at a time are fitted"
            warnings.warn(said, IncompleteLogWarning, stacklevel=3)
        requests = requests[is_fit].reset_index(drop=True)
        frame = requests[["model", "hardware", "software", *TOKEN_COLUMNS]].astype(dict.fromkeys(TOKEN_COLUMNS, int))
        frame = frame.assign(
            batch_size=1,
            micro_batch_size=1,
            token_micro_batch_size=1,
            tensor_parallel_size=pd.NA,
            pipeline_parallel_size=pd.NA,
            num_layers_profiled=pd.NA,
            trial=requests["trial"].astype(int),
            runtime_s=requests["runtime_s"],
            trial_start_s=(requests["sent_at"] - requests["sent_at"].min()).dt.total_seconds(),
            # The time to the first token holds what the way and the queue took: it is no prompt encoding time.
            prompt_encoding_time_s=np.nan,
            generation_time_s=np.nan,
            energy_joules=np.nan,
            is_disturbed=False,
        )
        return with_frame_dtypes(frame)

    def settings_frame(self) -> pd.DataFrame:
        """One row a setting."""
        trials = self.trials_frame()
        setting = trials.groupby(TOKEN_COLUMNS, sort=False).ngroup().to_numpy()
        order, counts = np.argsort(setting, kind="stable"), np.bincount(setting)
        settings = trials.iloc[np.unique(setting, return_index=True)[1]].reset_index(drop=True)
        measured = ("runtime_s", "trial_start_s", *TRIAL_MEANS)
        lists = {name: Ragged.of_counts(trials[name].to_numpy(float)[order], counts) for name in measured}
        return means_frame(settings, lists, trials["is_disturbed"].to_numpy()).assign(is_extrapolated=False)


def describe_deviations(trials: Iterable[dict]) -> str:
    """Settings whose trials deviate, each with how many do and the commonest way, in words; empty where none does.

    Parameters
    ----------
    trials : iterable of dict
        Records, or rows of :func:`idealized_runtime.records.read_requests` as dicts; those that failed or calibrate do
        not count.
    """
    counts, totals = defaultdict(Counter), Counter()
    for trial in trials:
        if not trial.get("is_calibration") and not trial.get("error") and not trial.get("error_type"):
            given = trial.get("deviations") or ""
            totals[setting_name(trial)] += 1
            if given:
                counts[setting_name(trial)][given if isinstance(given, str) else ", ".join(given)] += 1
    if not counts:
        return ""
    named = [
        f"{setting} ({ways.total()} of {totals[setting]}: {ways.most_common(1)[0][0]})"
        for setting, ways in itertools.islice(counts.items(), _MOST_NAMED)
    ]
    rest = f" and {len(counts) - _MOST_NAMED} settings more" if len(counts) > _MOST_NAMED else ""
    num_deviating = sum(ways.total() for ways in counts.values())
    return f"{num_deviating} of {totals.total()} trials deviate from what was asked for: {', '.join(named)}{rest}"


def requests_frame(header: dict, trials: Sequence[dict]) -> pd.DataFrame:
    """Trials as rows of :func:`idealized_runtime.records.read_requests`."""
    columns = Trials()
    for trial in trials:
        columns.append(trial)
    return columns.frame(header)


def held_back(times_s, ends, num_tokens, runtimes_s) -> tuple[np.ndarray, np.ndarray]:
    """Streams that something between the server and this client held back, so that no event tells when its token was.

    Tokens come one by one, or a few together. Where all come at once, or the first ones do and so does what follows,
    or nearly all of the answer had passed before the first, a proxy or a compression collected them.

    Parameters
    ----------
    times_s : array
        Of events with text, ascending, of one answer behind the other.
    ends : int array, one an answer
        Where its events end.
    num_tokens : int array, one an answer
    runtimes_s : array, one an answer

    Returns
    -------
    num_bunches : int array, one an answer
        Of events that are further apart than those that came together.
    is_held_back : bool array
    """
    ends, num_tokens, runtimes_s = (np.asarray(values) for values in (ends, num_tokens, runtimes_s))
    num_events = np.diff(ends, prepend=0)
    starts, owner = ends - num_events, np.repeat(np.arange(len(ends)), num_events)
    first_s, last_s = np.full(len(ends), np.nan), np.full(len(ends), np.nan)
    has_events = num_events > 0
    first_s[has_events], last_s[has_events] = times_s[starts[has_events]], times_s[ends[has_events] - 1]
    span_s = last_s - first_s
    least_s = np.maximum(_LEAST_GAP_S, _LEAST_GAP_SHARE * span_s / np.maximum(num_events - 1, 1))
    # An event begins a bunch where it is far from the one before it, in the same answer.
    is_first = np.zeros(len(times_s), dtype=bool)
    is_first[starts[has_events]] = True
    is_new = ~is_first & (np.diff(times_s, prepend=-np.inf) > least_s[owner])
    num_bunches = has_events + np.bincount(owner[is_new], minlength=len(ends))
    # Where the second bunch begins, or the answer ends.
    second = ends.copy()
    np.minimum.at(second, owner[is_new], np.flatnonzero(is_new))
    num_together = num_tokens / np.maximum(num_bunches, 1)
    is_waiting = first_s > _WAITING_SHARE * runtimes_s
    is_held_back = (
        ((num_bunches == 1) & ((num_events > 1) | is_waiting))
        | ((second - starts > 1) & (num_together > _MOST_OF_A_BUSY_CLIENT))
        | ((num_events < num_tokens) & (num_together > _MOST_TOGETHER) & (num_bunches > 0) & (num_events > 1))
        | (is_waiting & (span_s < _HELD_BACK_S * (num_tokens - 1)))
    )
    return num_bunches, is_held_back & (num_tokens > 1) & has_events


def held_back_note(num_tokens: int, num_bunches: int) -> str:
    """What a trial says of a stream that was held back."""
    return f"{HELD_BACK}: {num_tokens} tokens came in {num_bunches} piece{'' if num_bunches == 1 else 's'}"


def deviations_of(trial: dict) -> list[str]:
    """How the server's usage contradicts what a trial asked for: each keeps the trial from a fit.

    It encoded another prompt (of another size, or a part of it came from a cache), or generated another number of
    tokens.
    """
    if "error" in trial or trial.get("is_calibration") or trial.get("definitions") not in _OURS:
        return []
    usage, found = trial.get("usage"), []
    for what, theirs in (("prompt", "prompt_tokens"), ("output", "completion_tokens")):
        count = reported_tokens(usage, theirs)
        if count not in (None, trial[f"num_{what}_tokens"]):
            found.append(f"{count} {what} tokens reported")
    num_cached, num_prompt_tokens = cached_tokens(usage) or 0, trial["num_prompt_tokens"]
    allowed = trial.get("num_shared_tokens", 0) + _allowed_cached_tokens(num_prompt_tokens)
    return [*found, f"{num_cached} prompt tokens cached"] if num_cached > allowed else found


def _allowed_cached_tokens(num_prompt_tokens):
    return np.maximum(_ALLOWED_CACHED_TOKENS, _ALLOWED_CACHED_SHARE * num_prompt_tokens)


def reported_tokens(usage: dict | None, name: str) -> int | None:
    """A number of tokens that a server reports; None where it reports none, or something else."""
    value = (usage or {}).get(name)
    return value if is_integer(value, 0) else None


def cached_tokens(usage: dict | None) -> int | None:
    """Prompt tokens that a server says it had in a cache, under whatever name and however deep; the most of several."""
    found = []
    for name, value in (usage or {}).items():
        if isinstance(value, dict):
            found.append(cached_tokens(value))
        elif _CACHED.search(name) and not _NOT_CACHED.search(name):
            whole = isinstance(value, float) and value.is_integer()
            found.append(reported_tokens({name: int(value) if whole else value}, name))
    return max((count for count in found if count is not None), default=None)


def _microseconds(text) -> int:
    """Microseconds since 1970 of a time in ISO 8601, UTC where it names no zone."""
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (time - _EPOCH) // _MICROSECOND


def _is_time(value) -> bool:
    with suppress(ValueError, TypeError, OverflowError):
        return value is None or _microseconds(value) is not None
    return False


def _is_seconds(value) -> bool:
    return value is None or (is_number(value) and value >= 0)


def _is_text(value) -> bool:
    return isinstance(value, str | None)


def _is_count(value) -> bool:
    return value is None or is_integer(value, 0)


def _is_text_list(value) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(text, str) for text in value))


# Fields of a trial: what they may be where they are there. Other tools do not tell all: null says so.
_FIELDS = (
    *((name, "seconds or null", _is_seconds) for name in (*_DURATIONS, "time_per_output_token_s")),
    ("chunk_times_s", "a list of positive seconds",
     lambda value: value is None or (isinstance(value, list) and all(map(is_duration, value)))),
    *((name, "a time or null", _is_time) for name in _TIMES),
    *((name, "a text or null", _is_text) for name in ("finish_reason", "model_reported", "prompt_sha256")),
    *((name, "a list of texts", _is_text_list) for name in ("deviations", "notes")),
    *((name, "a count or null", _is_count)
      for name in ("block", "num_parallel", "repetition", "status", "num_requests", "num_shared_tokens")),
    ("cost_usd", "US dollars or null", _is_seconds),
    ("usage", "an object or null", lambda value: isinstance(value, dict | None)),
    ("load", "closed, open or null", lambda value: value in ("closed", "open", None)),
    ("rate_per_s", "a positive number or null", lambda value: value is None or is_duration(value)),
    *((name, "true, false or null", lambda value: isinstance(value, bool | None))
      for name in ("is_warmup", "is_calibration")),
)  # fmt: skip


def _check_order(where, record):
    """Refuse a record whose times contradict each other: what comes first must not be later."""
    times_s, runtime_s = record.get("chunk_times_s") or [], record.get("runtime_s")
    tolerance_s = 1e-6 + _TOLERANCE * (runtime_s or (times_s[-1] if times_s else 0.0))
    if any(later < earlier for earlier, later in itertools.pairwise(times_s)):
        raise LogFormatError(f"{where}: chunk_times_s must ascend; got {times_s!r:.60}")
    first_s = record.get("time_to_first_token_s")
    if times_s and first_s is not None and abs(first_s - times_s[0]) > tolerance_s:
        said = f"time_to_first_token_s is {first_s:g} s, its first event with text came after {times_s[0]:g} s"
        raise LogFormatError(f"{where}: {said}")
    order = {
        "connected": record.get("time_to_connect_s"),
        "sent headers": record.get("time_to_headers_s"),
        "sent its first token": times_s[0] if times_s else first_s,
        "sent its last": times_s[-1] if times_s else None,
        "ended, by runtime_s,": runtime_s,
    }
    known = [(name, time_s) for name, time_s in order.items() if time_s is not None]
    for (before, earlier_s), (after, later_s) in itertools.pairwise(known):
        if later_s < earlier_s - tolerance_s:
            raise LogFormatError(f"{where}: the answer {after} after {later_s:g} s, and {before} after {earlier_s:g} s")
