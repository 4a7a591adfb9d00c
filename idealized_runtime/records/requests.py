"""Trials of a model behind an API, as records of a timing log and as a frame with one row a request."""

from collections import Counter

import numpy as np
import pandas as pd

from idealized_runtime.records.common import (
    TOKEN_COLUMNS,
    LogFormatError,
    NothingTimedError,
    check_error,
    check_integers,
    check_names,
    is_duration,
    is_integer,
    with_frame_dtypes,
)
from idealized_runtime.records.definitions import IMPORTED
from idealized_runtime.records.log import Log, means_frame

# Fields that a trial under load has beside those of every trial; they tell one trial from another.
LOAD_FIELDS = ("load", "num_parallel", "rate_per_s", "repetition")
_DURATIONS = ("time_to_connect_s", "time_to_headers_s", "time_to_first_token_s", "runtime_s")
# Copied from record to row as they are; missing where a record lacks them.
_COPIED = (
    "trial", "is_warmup", "block", *LOAD_FIELDS, "scheduled_at", "sent_at", *_DURATIONS,
    "status", "finish_reason", "model_reported", "cost_usd", "definitions",
)  # fmt: skip
_COUNTS = ("num_prompt_tokens_reported", "num_output_tokens_reported", "num_cached_prompt_tokens")
_NULLABLE_INTEGERS = ("block", "num_parallel", "repetition", "status", *_COUNTS)


def trial_key(trial: dict) -> tuple:
    """What tells one trial of a log from another: sizes, load, number, and whether it warms up or calibrates."""
    return (*(trial[name] for name in TOKEN_COLUMNS), *(trial.get(name) for name in LOAD_FIELDS),
            bool(trial.get("is_warmup")), bool(trial.get("is_calibration")), trial["trial"])  # fmt: skip


class RequestsLog(Log):
    """A log of single requests to an API, and before each that it was sent."""

    measured = "trial"
    beside = ("sent",)
    key = staticmethod(trial_key)

    @property
    def trials(self) -> list[dict]:
        """Every trial, failed ones included."""
        return self.records

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
        num_kept = Counter()
        for trial in self.records:
            num_kept[trial_key(trial)] += trial.get("num_requests", 1)
        lost = []
        for sent in self.kept["sent"]:
            num_kept[trial_key(sent)] -= 1
            if num_kept[trial_key(sent)] < 0:
                lost.append(sent)
        return lost

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
        if record["record"] == "sent":
            check_integers(f"{where}:", record, (*TOKEN_COLUMNS, "trial"), 0)
            cost_usd = record.get("cost_usd")
            if cost_usd != 0 and not is_duration(cost_usd):
                raise LogFormatError(f"{where}: cost_usd must be US dollars; got {cost_usd!r}")
            return record
        has_failed = "error" in record
        # Other tools do not always tell sizes, and an answer of no token deviates.
        sizes = [n for n in TOKEN_COLUMNS if record.get(n) is not None or record.get("definitions") not in IMPORTED]
        check_integers(f"{where}:", record, sizes, 0 if has_failed or record.get("deviations") else 1)
        check_integers(f"{where}:", record, ["trial"], 0)
        chunk_times_s = record.get("chunk_times_s", [])
        is_allowed = {
            ("definitions", "a text"): isinstance(record.get("definitions"), str),
            # Other tools do not always tell when they sent a request: null says so.
            ("sent_at", "a text or null"): isinstance(record.get("sent_at", ""), str | None),
            ("runtime_s", "positive seconds"): has_failed or is_duration(record.get("runtime_s")),
            ("chunk_times_s", "a list of positive seconds"): isinstance(chunk_times_s, list)
            and all(map(is_duration, chunk_times_s)),
        }
        for (name, allowed), is_good in is_allowed.items():
            if not is_good:
                raise LogFormatError(f"{where}: {name} must be {allowed}; got {record.get(name)!r:.60}")
        check_error(where, record)
        if trial_key(record) in self.completed:
            raise LogFormatError(
                f"{where}: trial {record['trial']} of p={record['num_prompt_tokens']}, "
                f"o={record['num_output_tokens']} stands here a second time"
            )
        return record

    def architecture(self):
        """Refused: an API does not tell it."""
        model = self.header["model"]
        raise LogFormatError(f"{self.path}: a log of an API, which does not tell the architecture of {model}")

    def requests_frame(self) -> pd.DataFrame:
        """One row a request."""
        return requests_frame(self.header, self.records)

    def trials_frame(self) -> pd.DataFrame:
        """The trials that a fit may use, with the columns of every timing frame.

        An API does not tell its parallelism: missing. None is called disturbed: the noise of an API is for the
        estimators of :mod:`idealized_runtime.fits.denoised`, not for a rule.
        """
        requests = self.requests_frame()
        # One at a time is how a sweep sends its queries, too.
        is_loaded = requests["load"].notna() & ~requests["num_parallel"].eq(1).fillna(False)
        is_sized = requests[TOKEN_COLUMNS].notna().all(axis=1)
        requests = requests[requests["is_fit"] & ~is_loaded & is_sized].reset_index(drop=True)
        if requests.empty:
            held = f"{self.path}: holds no timing: none of its {len(self.records)} trials can be used"
            under_load = f"; {is_loaded.sum()} of them are under load: a summary reads those" if is_loaded.any() else ""
            raise NothingTimedError(held + under_load)
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
        return means_frame(self.trials_frame()).assign(is_extrapolated=False)


def requests_frame(header: dict, trials: list[dict]) -> pd.DataFrame:
    """Trials as rows of :func:`idealized_runtime.records.read_requests`."""
    rows = [_row(trial) for trial in trials]
    columns = list(_row({name: 1 for name in TOKEN_COLUMNS}))
    frame = pd.DataFrame(rows, columns=columns)
    for position, name in enumerate(("model", "hardware", "software")):
        frame.insert(position, name, header[name])
    for name in ("sent_at", "scheduled_at"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True)
    numbers = [*_DURATIONS, "time_per_output_token_s", "rate_per_s", "cost_usd"]
    frame[numbers] = frame[numbers].astype(float)
    return frame.astype({name: "Int64" for name in _NULLABLE_INTEGERS} | {"is_warmup": bool, "is_fit": bool})


def _row(trial: dict) -> dict:
    chunk_times_s = trial.get("chunk_times_s") or []
    error = trial.get("error") or {}
    usage = trial.get("usage")
    deviations = trial.get("deviations") or []
    per_token_s = trial.get("time_per_output_token_s")
    num_output_tokens = reported_tokens(usage, "completion_tokens") or trial["num_output_tokens"]
    if per_token_s is None and len(chunk_times_s) > 1 and (num_output_tokens or 0) > 1:
        per_token_s = (chunk_times_s[-1] - chunk_times_s[0]) / (num_output_tokens - 1)
    # What asks how many tokens a prompt has is no timed trial either.
    is_warmup = bool(trial.get("is_warmup") or trial.get("is_calibration"))
    return {
        **{name: trial[name] for name in TOKEN_COLUMNS},
        **{name: trial.get(name) for name in _COPIED},
        "is_warmup": is_warmup,
        "time_per_output_token_s": per_token_s,
        "inter_chunk_times_s": np.diff(np.asarray(chunk_times_s, dtype=float)),
        "num_chunks": len(chunk_times_s),
        "num_prompt_tokens_reported": reported_tokens(usage, "prompt_tokens"),
        "num_output_tokens_reported": reported_tokens(usage, "completion_tokens"),
        "num_cached_prompt_tokens": cached_tokens(usage),
        "num_requests": trial.get("num_requests", 1),
        "deviations": ", ".join(deviations),
        "notes": ", ".join(trial.get("notes") or []),
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "is_fit": not (is_warmup or error or deviations),
    }


def reported_tokens(usage: dict | None, name: str) -> int | None:
    """A number of tokens that a server reports; None where it reports none, or something else."""
    value = (usage or {}).get(name)
    return value if is_integer(value, 0) else None


def cached_tokens(usage: dict | None) -> int | None:
    """Prompt tokens that a server says it had in a cache."""
    details = (usage or {}).get("prompt_tokens_details")
    return reported_tokens(details, "cached_tokens") if isinstance(details, dict) else None
