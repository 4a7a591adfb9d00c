"""Trials of a model behind an API, as records of a timing log and as a frame with one row a request."""

from collections import Counter

import numpy as np
import pandas as pd

from idealized_runtime.records import definitions
from idealized_runtime.records.common import LogFormatError, is_duration, is_integer, with_frame_dtypes

# Fields that a trial under load has beside those of every trial; they tell one trial from another.
LOAD_FIELDS = ("load", "num_parallel", "rate_per_s", "repetition")
_SIZES = ("num_prompt_tokens", "num_output_tokens")
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
    return (*(trial[name] for name in _SIZES), *(trial.get(name) for name in LOAD_FIELDS),
            bool(trial.get("is_warmup")), bool(trial.get("is_calibration")), trial["trial"])  # fmt: skip


def check_api_header(header: dict) -> dict:
    """The same header of a log of API trials.

    Raises
    ------
    ValueError
        It lacks what a reader needs; the message says what.
    """
    for name in ("model", "hardware", "base_url", "endpoint"):
        if not isinstance(header.get(name), str) or not header[name]:
            raise ValueError(f"the header's {name} must be a name; got {header.get(name)!r}")
    if not isinstance(header.get("software"), str):
        raise ValueError(f"the header's software must be a text; got {header.get('software')!r}")
    return header


def check_trial(where, trial: dict, seen: set[tuple]) -> dict:
    """The same record; ``seen`` holds the keys of the trials before it that did not fail.

    Raises
    ------
    LogFormatError
        A size or a duration is not one, or a trial is repeated; the message begins with ``where``.
    """
    for name, least in (*((size, 1) for size in _SIZES), ("trial", 0)):
        # Other tools do not tell what was asked for in a request that failed.
        if "error" in trial and name in _SIZES and trial.get(name) is None:
            continue
        if not is_integer(trial.get(name), least):
            raise LogFormatError(f"{where}: {name} must be an integer of at least {least}; got {trial.get(name)!r}")
    if not isinstance(trial.get("definitions"), str):
        raise LogFormatError(f"{where}: definitions must be a text; got {trial.get('definitions')!r}")
    # Other tools do not always tell when they sent a request: null says so.
    if not isinstance(trial.get("sent_at", 0), str | None):
        raise LogFormatError(f"{where}: sent_at must be a text or null; got {trial.get('sent_at')!r}")
    if "error" not in trial and not is_duration(trial.get("runtime_s")):
        raise LogFormatError(f"{where}: runtime_s must be positive seconds; got {trial.get('runtime_s')!r}")
    _check_chunks(where, trial.get("chunk_times_s", []))
    if trial_key(trial) in seen:
        raise LogFormatError(
            f"{where}: trial {trial['trial']} of p={trial['num_prompt_tokens']}, o={trial['num_output_tokens']} "
            "stands here a second time"
        )
    return trial


def check_sent(where, sent: dict) -> dict:
    """The same record of a request that was sent.

    Raises
    ------
    LogFormatError
        It does not say of which trial; the message begins with ``where``.
    """
    for name in (*_SIZES, "trial"):
        if not is_integer(sent.get(name), 0):
            raise LogFormatError(f"{where}: {name} must be an integer of at least 0; got {sent.get(name)!r}")
    cost_usd = sent.get("cost_usd")
    if cost_usd != 0 and not is_duration(cost_usd):
        raise LogFormatError(f"{where}: cost_usd must be US dollars; got {cost_usd!r}")
    return sent


def lost_requests(log) -> list[dict]:
    """Records of the requests that were sent and are in no trial, since the run that sent them was killed.

    Parameters
    ----------
    log : object with ``sent`` and ``trials``, lists of dict
    """
    num_kept = Counter()
    for trial in log.trials:
        num_kept[trial_key(trial)] += trial.get("num_requests", 1)
    lost = []
    for sent in log.sent:
        num_kept[trial_key(sent)] -= 1
        if num_kept[trial_key(sent)] < 0:
            lost.append(sent)
    return lost


def requests_frame(log) -> pd.DataFrame:
    """Rows of :func:`idealized_runtime.records.read_requests` for a parsed log."""
    rows = [_row(trial) for trial in log.trials]
    columns = list(_row({name: 1 for name in _SIZES}))
    frame = pd.DataFrame(rows, columns=columns)
    identity = {"model": log.header["model"], "hardware": log.header["hardware"], "software": log.header["software"]}
    for position, (name, value) in enumerate(identity.items()):
        frame.insert(position, name, value)
    for name in ("sent_at", "scheduled_at"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True)
    numbers = [*_DURATIONS, "time_per_output_token_s", "rate_per_s", "cost_usd"]
    frame[numbers] = frame[numbers].astype(float)
    return frame.astype({name: "Int64" for name in _NULLABLE_INTEGERS} | {"is_warmup": bool, "is_fit": bool})


def timings_frame(log) -> pd.DataFrame:
    """The trials of a log that a fit may use, with the columns of every timing frame.

    An API does not tell its parallelism: missing. None is called disturbed: the noise of an API is for the estimators
    of :mod:`idealized_runtime.fits.denoised`, not for a rule.
    """
    requests = requests_frame(log)
    is_loaded = requests["load"].notna()
    requests = requests[requests["is_fit"] & ~is_loaded].reset_index(drop=True)
    if requests.empty:
        held = f"{log.path}: holds no timing: none of its {len(log.trials)} trials can be used"
        under_load = f"; {is_loaded.sum()} of them are under load: a summary reads those" if is_loaded.any() else ""
        raise LogFormatError(held + under_load)
    frame = requests[["model", "hardware", "software", *_SIZES]].assign(
        batch_size=1,
        micro_batch_size=1,
        token_micro_batch_size=1,
        tensor_parallel_size=pd.NA,
        pipeline_parallel_size=pd.NA,
        num_layers_profiled=pd.NA,
        trial=requests["trial"].astype(int),
        runtime_s=requests["runtime_s"],
        # The time to the first token holds what the way and the queue took: it is no prompt encoding time.
        prompt_encoding_time_s=np.nan,
        generation_time_s=np.nan,
        energy_joules=np.nan,
        is_disturbed=False,
    )
    return with_frame_dtypes(frame)


def _row(trial: dict) -> dict:
    chunk_times_s = trial.get("chunk_times_s") or []
    error = trial.get("error") or {}
    usage = trial.get("usage")
    deviations = trial.get("deviations") or []
    # What asks how many tokens a prompt has is no timed trial either.
    is_warmup = bool(trial.get("is_warmup") or trial.get("is_calibration"))
    return {
        **{name: trial[name] for name in _SIZES},
        **{name: trial.get(name) for name in _COPIED},
        "is_warmup": is_warmup,
        "time_per_output_token_s": _time_per_output_token_s(trial, chunk_times_s),
        "inter_chunk_times_s": definitions.inter_chunk_times_s(chunk_times_s),
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


def _time_per_output_token_s(trial, chunk_times_s) -> float | None:
    """As another tool gave it, or from the chunks."""
    if trial.get("time_per_output_token_s") is not None or not chunk_times_s:
        return trial.get("time_per_output_token_s")
    num_output_tokens = reported_tokens(trial.get("usage"), "completion_tokens") or trial["num_output_tokens"]
    return definitions.time_per_output_token_s(chunk_times_s, num_output_tokens)


def reported_tokens(usage: dict | None, name: str) -> int | None:
    """A number of tokens that a server reports; None where it reports none, or something else."""
    value = (usage or {}).get(name)
    return value if is_integer(value, 0) else None


def cached_tokens(usage: dict | None) -> int | None:
    """Prompt tokens that a server says it had in a cache."""
    details = (usage or {}).get("prompt_tokens_details")
    return reported_tokens(details, "cached_tokens") if isinstance(details, dict) else None


def _check_chunks(where, times_s):
    if not isinstance(times_s, list) or not all(is_duration(time_s) for time_s in times_s):
        raise LogFormatError(f"{where}: chunk_times_s must be a list of positive seconds; got {times_s!r:.60}")
