"""What every importer shares: fields that are checked, and the runs that a file tells of."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from idealized_runtime.checks import is_integer, is_number, parse_json
from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.records.requests import requests_frame

# Faster than any model writes: what came so was held back on its way, by a proxy or a compression.
_LEAST_TOKEN_S = 1e-4
# Of what a file gives twice, by which rounding may tell one from the other.
_MOST_DIFFERENCE = 0.005


class ImportFormatError(ValueError):
    """A file is not what the tool writes; the message names file and field."""


class UnknownFormatError(ImportFormatError):
    """A file is of none of the tools that are read."""


class ImportedDataWarning(UserWarning):
    """What a file tells of its own numbers: failures, a sample of the requests, totals that are not theirs."""


def parse(text: str | bytes, where):
    """What JSON says, as :func:`idealized_runtime.checks.parse_json`; a fault is of ``where``."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise ImportFormatError(f"{where}: not JSON in UTF-8 ({error})") from error


class Fields:
    """An object of a file, with the place it stands at.

    What is asked of it by name is refused, by an ImportFormatError that names it, where it is missing or not what it
    should be; of an optional one that is missing or null it is None.

    Parameters
    ----------
    values : mapping
    where : str or Fields
        File and place, the beginning of every message; or what it stands in, under ``name``.
    tool : str
        Whose format is expected.
    """

    __slots__ = ("_name", "_within", "tool", "values")

    def __init__(self, values: Mapping, where: "str | Fields", tool: str, name: str = ""):
        self.values, self.tool, self._within, self._name = values, tool, where, name

    @property
    def where(self) -> str:
        """File and place: put together where a message needs it, of some of a million."""
        return self._within.where + self._name if isinstance(self._within, Fields) else self._within + self._name

    def get(self, name: str, kind, *, is_optional: bool = False):
        """Value of a field, of type ``kind`` or of one of them."""
        value = self.values.get(name)
        if type(value) is kind:
            return value
        if value is None and is_optional:
            return None
        if name not in self.values:
            raise ImportFormatError(f"{self.where}: field {name!r} is missing; {self.tool} writes it")
        # True is an integer to Python.
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise self.refusal(name, f"of type {names}", value)
        return value

    def refusal(self, name: str, allowed: str, value) -> ImportFormatError:
        """The error of a field that is not what it must be."""
        return ImportFormatError(f"{self.where}: field {name!r} must be {allowed}; got {value!r:.60}")

    def name(self, name: str, *, is_optional: bool = False) -> str | None:
        """A text without what a terminal would obey."""
        value = self.get(name, str, is_optional=is_optional)
        if value is not None and not value.isprintable():
            raise self.refusal(name, "a name without control characters", value)
        return value

    def names(self, name: str) -> list[str]:
        """A list of such texts."""
        values = self.get(name, list)
        return [Fields({name: value}, self, self.tool).name(name) for value in values]

    def number(self, name: str, *, scale: float = 1, is_optional: bool = False) -> float | None:
        """A finite number, divided by ``scale``."""
        value = self.get(name, (int, float), is_optional=is_optional)
        if value is None:
            return None
        if not is_number(value):
            raise self.refusal(name, "finite", value)
        return value / scale

    def duration(self, name: str, *, scale: float = 1, is_optional: bool = False) -> float | None:
        """A number that is not negative, divided by ``scale``."""
        value = self.number(name, scale=scale, is_optional=is_optional)
        if value is not None and value < 0:
            raise self.refusal(name, "a duration, not negative", self.values[name])
        return value

    def durations(self, name: str) -> list[float]:
        """A list of numbers, none negative."""
        values = self.get(name, list)
        # The sum of what is no number is none, too.
        is_plain = set(map(type, values)) <= {int, float} and min(values, default=0) >= 0
        if is_plain and max(values, default=0) < 1e300 and sum(values) < math.inf:
            return values
        for index, value in enumerate(values):
            if not (is_number(value) and value >= 0):
                raise ImportFormatError(f"{self.where}: field {name!r}[{index}] must be a duration; got {value!r:.60}")
        return values

    def count(self, name: str, *, is_optional: bool = False) -> int | None:
        """A whole number, also where a tool writes it as 8.0."""
        value = self.get(name, (int, float), is_optional=is_optional)
        if value is None:
            return None
        if not (is_number(value) and value % 1 == 0 and is_integer(int(value), 0)):
            raise self.refusal(name, "an integer of at least 0", value)
        return int(value)

    def time(self, name: str, *, scale: float = 1, is_optional: bool = False) -> float | None:
        """Seconds since 1970, of this century or the end of the last."""
        value = self.number(name, scale=scale, is_optional=is_optional)
        if value is not None and not 0 <= value < 2**32:
            raise self.refusal(name, f"a time, {scale:g} a second since 1970", self.values[name])
        return value

    def inner(self, name: str, *, is_optional: bool = False) -> "Fields | None":
        """Object in a field."""
        values = self.get(name, dict, is_optional=is_optional)
        return None if values is None else Fields(values, self, self.tool, f".{name}")

    def items(self, name: str, *, is_optional: bool = False) -> list["Fields"]:
        """Objects of the list in a field."""
        values = self.get(name, list, is_optional=is_optional) or []
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise ImportFormatError(f"{self.where}.{name}[{index}]: must be an object; got {value!r:.60}")
        return [Fields(value, self, self.tool, f".{name}[{index}]") for index, value in enumerate(values)]


@dataclass(frozen=True)
class Run:
    """One run of a tool under one load, as far as a file tells of it.

    Parameters
    ----------
    where : str
        File and place.
    tool : str
    header : dict
        ``model, hardware, software, base_url, endpoint``: of a log of these requests.
    load : dict
        ``load, num_parallel, rate_per_s``, without those that are not told.
    trials : list of dict
        As in a log (:mod:`idealized_runtime.records`), with ``definitions`` of the tool; none where it kept totals.
    totals : list of dict
        What the tool itself wrote of a ``quantity`` over all requests: ``num_values, mean, std`` (ddof = 0), ``minimum,
        maximum``, percentiles such as ``p99``, in seconds.
    counts : dict
        What the tool counted: ``num_requests``, of them ``num_failed``; ``num_unfinished`` beside them; all
        ``num_prompt_tokens, num_output_tokens``; ``duration_s, requests_per_s, output_tokens_per_s``. None, or not
        there, where the file does not tell.
    """

    where: str
    tool: str
    header: dict
    load: dict
    trials: list[dict] = field(default_factory=list)
    totals: list[dict] = field(default_factory=list)
    counts: dict = field(default_factory=dict)

    def __post_init__(self):
        # No time is 0: so a tool writes that it has none.
        self.totals[:] = [row for row in self.totals if row.get("mean") != 0]
        self._check_times()
        for trial in self.trials:
            # Warm-ups may have another.
            trial.update({**self.load, **trial})
        if self.is_sample:
            said = f"one of {len(self.sent)} requests that the file keeps of {self.counts['num_requests']}"
            for trial in self.trials:
                # Sent so far apart, these would tell a throughput that the server never had.
                trial |= {"sent_at": None, "scheduled_at": None, "notes": [said]}

    @property
    def sent(self) -> list[dict]:
        """The trials that were no warm-up."""
        return [trial for trial in self.trials if not trial.get("is_warmup")]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was sent, as far as the file tells."""
        return not self.trials and not self.totals and not self.counts.get("num_requests")

    @property
    def is_sample(self) -> bool:
        """Whether the file holds some of the requests only."""
        return bool(self.trials) and len(self.sent) < (self.counts.get("num_requests") or 0)

    def _check_times(self):
        """Refuse times that cannot be seconds, by the run's own duration; find out that nothing ran at once."""
        timed = [trial for trial in self.sent if "error" not in trial]
        duration_s, limit = self.counts.get("duration_s"), self.load.get("num_parallel")
        runtimes_s = np.array([trial["runtime_s"] for trial in timed])
        is_whole = len(self.sent) <= (self.counts.get("num_requests") or 0)
        if duration_s and len(runtimes_s) and is_whole:
            num_in_flight = runtimes_s.sum() / duration_s
            is_too_much = limit is not None and num_in_flight > 1.5 * limit
            if is_too_much or runtimes_s.max() > 1.5 * duration_s + 1:
                raise ImportFormatError(
                    f"{self.where}: {len(runtimes_s)} requests took {runtimes_s.sum():.4g} s together in a run of "
                    f"{duration_s:.4g} s, so that {num_in_flight:.3g} were under way at a time"
                    + (f", with {limit} in parallel" if limit is not None else "")
                    + ": their times are no seconds; milliseconds?"
                )
        # AIPerf names no limit where it has the usual one, of one request at a time.
        is_unlimited = self.load.get("load") == "closed" and limit is None and self.sent
        if is_unlimited and (starts_s := self._starts_s()) is not None:
            ends_s = starts_s + [trial.get("runtime_s") or 0.0 for trial in self.sent]
            order = np.argsort(starts_s)
            if (ends_s[order][:-1] <= starts_s[order][1:]).all():
                self.load["num_parallel"] = 1

    def _starts_s(self) -> np.ndarray | None:
        """When each request was sent; None where one does not tell."""
        starts = [trial.get("sent_at") for trial in self.sent]
        return np.array([datetime.fromisoformat(it).timestamp() for it in starts]) if all(starts) else None

    def throughput(self) -> dict | None:
        """What the tool counted over the whole run, where the trials do not tell it; as a row of a throughput."""
        if (self.trials and not self.is_sample) or not self.counts:
            return None
        names = ("num_requests", "num_failed", "duration_s", "requests_per_s", "output_tokens_per_s")
        return {"model": self.header["model"], **self.load, **{name: self.counts.get(name) for name in names}}

    def findings(self) -> Iterator[tuple[str, str]]:
        """Name and message of what the file tells of its own numbers; of single requests a summary tells the rest."""
        num_requests, num_failed = self.counts.get("num_requests"), self.counts.get("num_failed")
        if self.is_empty:
            yield "empty", "a run without requests"
        if num_failed and (self.is_sample or not self.trials):
            yield "failures", f"{num_failed} of {num_requests} requests failed"
        if num_unfinished := self.counts.get("num_unfinished"):
            yield "unfinished", f"{num_unfinished} requests were under way when the run ended, and are left out"
        if self.is_sample:
            said = f"{len(self.sent)} of {num_requests} requests are here and tell no throughput"
            is_given = {"requests_per_s", "output_tokens_per_s"} & drop_missing(self.counts).keys()
            yield "sample", said + (f"; what is given is {self.tool}'s own" if is_given else ", nor does the file")
        reasons = [reason for trial in self.sent for reason in trial.get("deviations", ())]
        if not self.is_sample:
            if num_uncounted := sum(not trial["num_prompt_tokens"] for trial in self.sent if "error" not in trial):
                yield (
                    "odd_requests",
                    f"{num_uncounted} of {len(self.sent)} requests do not tell their prompt tokens: no fit",
                )
            for reason in dict.fromkeys(reasons):
                yield "odd_requests", f"{reasons.count(reason)} of {len(self.sent)} requests: {reason}"
            yield from self._disagreements()

    def _disagreements(self):
        timed = [trial for trial in self.sent if "error" not in trial]
        said = {"requests": self.counts.get("num_requests"), "failed requests": self.counts.get("num_failed")}
        found = {"requests": [len(self.sent)], "failed requests": [len(self.sent) - len(timed)]}
        for name in TOKEN_COLUMNS:
            said[name] = self.counts.get(name)
            found[name] = [sum(trial[name] or 0 for trial in timed)]
        for row in self.totals:
            name = f"mean {row['quantity']}"
            said[name], found[name] = (
                row["mean"],
                [trial[row["quantity"]] for trial in timed if row["quantity"] in trial],
            )
            if row["quantity"] == "inter_chunk_time_s":
                found[name] = np.concatenate([[], *(np.diff(trial.get("chunk_times_s", [])) for trial in timed)])
        for name, values in found.items() if timed else ():
            if len(values) and said[name] is not None:
                ours = float(np.mean([value for value in values if value is not None]))
                if abs(ours - said[name]) > _MOST_DIFFERENCE * said[name]:
                    by_totals = f"{name}: {said[name]:.4g} by the totals in the file"
                    yield "disagreement", f"{by_totals}, {ours:.4g} by its requests, which count here"
        runtimes_s = [trial.get("runtime_s") for trial in self.sent]
        # Beside no totals stands the window of a measurement, which need not end with a request.
        is_told = timed and self.totals and self.counts.get("duration_s") and all(runtimes_s)
        if is_told and (starts_s := self._starts_s()) is not None:
            span_s, by_totals_s = (starts_s + runtimes_s).max() - starts_s.min(), self.counts["duration_s"]
            if abs(span_s - by_totals_s) > 0.01 * span_s + 0.005:
                yield "disagreement", f"duration: {by_totals_s:.4g} s by the totals, {span_s:.4g} s by its requests"


@dataclass(frozen=True)
class Imported:
    """What a file or folder of another tool holds.

    Parameters
    ----------
    requests : DataFrame
        One row a request, with the columns of :func:`idealized_runtime.records.read_requests`; the sizes are those that
        the tool counted, missing where it did not. No row where it kept totals only.
    runs : list of Run
        None of HELM, which does not say when it sent a query.
    unused : list of Path
        Files of a folder that no tool's format knows.
    """

    requests: pd.DataFrame
    runs: list[Run]
    unused: list = field(default_factory=list)

    @classmethod
    def of(cls, runs: list[Run], unused=()) -> "Imported":
        """The requests of runs, each a repetition; refused where there are neither requests nor totals."""
        if all(run.is_empty for run in runs):
            raise ImportFormatError(f"{runs[0].where}: holds no requests, and no totals of them")
        frames = []
        for number, run in enumerate(runs):
            for trial in run.trials:
                trial["repetition"] = number
            frames.append(requests_frame(run.header, run.trials))
        full = [frame for frame in frames if len(frame)] or frames[:1]
        # A failed request may lack its sizes: missing integers stay integers.
        sizes = dict.fromkeys(TOKEN_COLUMNS, "Int64")
        return cls(pd.concat([frame.astype(sizes) for frame in full], ignore_index=True), runs, list(unused))

    @property
    def tools(self) -> list[str]:
        """Whose format it is."""
        return list(dict.fromkeys(run.tool for run in self.runs)) or ["HELM"]

    @property
    def totals(self) -> list[dict]:
        """Totals of the runs that keep no requests, a row a model, load and quantity."""
        return [
            {"model": run.header["model"], **run.load, **row}
            for run in self.runs
            if not run.trials
            for row in run.totals
        ]

    @property
    def throughput(self) -> list[dict]:
        """What the tool counted over runs whose requests are not all there, a row a model and load."""
        return [row for run in self.runs if (row := run.throughput()) is not None]

    @property
    def findings(self) -> list[dict]:
        """What the files tell of their numbers: ``check``, ``message`` a row and, of several runs, model and load."""
        rows = [
            {
                **({"model": run.header["model"], **run.load} if len(self.runs) > 1 else {}),
                "check": check,
                "message": message,
            }
            for run in self.runs
            for check, message in run.findings()
        ]
        if self.unused:
            said = f"{len(self.unused)} files are of no known format, the first is {self.unused[0]}"
            rows.append({"check": "unused", "message": said})
        return rows

    def log(self) -> tuple[dict, list[dict]]:
        """Header and trials of one log of all requests.

        Raises
        ------
        ImportFormatError
            There are none, or they are of several models, protocols or machines.
        """
        headers = [run.header for run in self.runs if run.trials]
        if not headers:
            raise ImportFormatError(
                "holds totals only, or runs of HELM, which do not say when a query was sent: they make no log, and are "
                "read by a summary"
            )
        if any(header != headers[0] for header in headers):
            raise ImportFormatError("holds runs of several models, protocols or hardware, and a log one: split it")
        return headers[0], [trial for run in self.runs for trial in run.trials]


def make_header(model: str, *, hardware: str | None, base_url=None, endpoint=None, software=None) -> dict:
    """Header of imported requests."""
    named = {"hardware": hardware, "software": software, "base_url": base_url, "endpoint": endpoint}
    return {"kind": "api", "model": model, **{name: value or "unknown" for name, value in named.items()}}


def measured(fields: Fields, *, p, o, runtime_s, ttft_s=None, tpot_s=None, chunk_times_s=None, usage=None) -> dict:
    """Sizes and times of a request that was answered, as a trial has them; what is odd of it is said there.

    Raises
    ------
    ImportFormatError
        Its first token, or the last, came after its end.
    """
    last_s = max(ttft_s or 0.0, chunk_times_s[-1] if chunk_times_s else 0.0)
    if last_s > 1.01 * runtime_s + 0.005:
        raise ImportFormatError(
            f"{fields.where}: text came {last_s:.4g} s after the request was sent, which had ended after "
            f"{runtime_s:.4g} s; are some times milliseconds?"
        )
    # No prompt is empty: its tokens were not counted.
    trial = {"num_prompt_tokens": p or None, "num_output_tokens": o}
    if not runtime_s:
        return trial | {"error": {"type": "NoTime", "message": "a runtime of 0 s, which no request takes"}}
    if not ttft_s:
        # A first token after no time at all is none that was timed.
        ttft_s = tpot_s = chunk_times_s = None
    elif chunk_times_s is None and (o or 0) > 1 and runtime_s - ttft_s < _LEAST_TOKEN_S * (o - 1):
        # As one event: where an answer came in one piece, no time is that of a token.
        chunk_times_s = [ttft_s]
    odd = [] if o else ["no output token counted"]
    if ttft_s and tpot_s and (o or 0) > 1:
        decoded_s, by_tokens_s = runtime_s - ttft_s, tpot_s * (o - 1)
        if abs(by_tokens_s - decoded_s) > 0.5 * max(by_tokens_s, decoded_s) + 0.005:
            odd.append("its time per output token is not what its other times give")
            tpot_s = None
    trial |= {"time_to_first_token_s": ttft_s, "runtime_s": runtime_s, "time_per_output_token_s": tpot_s or None,
              "chunk_times_s": chunk_times_s, "deviations": odd or None,
              "usage": usage or {"prompt_tokens": p, "completion_tokens": o}}  # fmt: skip
    return {name: value for name, value in trial.items() if value is not None or name in TOKEN_COLUMNS}


def utc_text(seconds: float | None) -> str | None:
    """Seconds since 1970 as a log writes a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def drop_missing(trial: dict) -> dict:
    """The same record without fields that are None."""
    return {name: value for name, value in trial.items() if value is not None}
