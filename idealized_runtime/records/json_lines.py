"""The JSON Lines timing log of this project, and its reader."""

import json
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import requests
from idealized_runtime.records.common import (
    BATCH_COLUMNS,
    FRAME_COLUMNS,
    IDENTITY_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.records.slices import combine_slices

SCHEMA_VERSION = 1
# What is known of each trial next to its runtime: its two parts, which add up to it, and its energy.
_TRIAL_LISTS = {
    "prompt_encoding_time_s": "prompt_encoding_times_s",
    "generation_time_s": "generation_times_s",
    "energy_joules": "energies_joules",
}
_RECORDS = ("header", "setting", "sent", "trial", "stop", "resume", "footer")
# A trial that something else on the machine held up: see `_is_disturbed`.
_DISTURBED_FACTOR, _DISTURBED_DEVIATIONS, _DISTURBED_MIN_TRIALS = 1.25, 5.0, 5


def runtime_sentence(setting: dict) -> str:
    """The sentence of 2023 for one ``setting`` record, which scripts of that time parse."""
    runtimes_s = np.asarray(setting["runtimes_s"])
    std_s = runtimes_s.std(ddof=1) if len(runtimes_s) > 1 else 0.0
    tokens = {"num_input_tokens": setting["num_prompt_tokens"], "num_output_tokens": setting["num_output_tokens"]}
    return f"Runtime for {tokens}: {runtimes_s.mean():.3f} seconds +- {std_s:.3f}"


def setting_key(setting: dict) -> tuple:
    """What tells one setting of a log from another: the values of ``SETTING_COLUMNS``, and the slice of the layers."""
    return tuple(setting[name] for name in (*SETTING_COLUMNS, "num_layers_profiled"))


def is_api_header(header: dict) -> bool:
    """Whether a header announces single trials of an API."""
    return header.get("kind") == "api"


def software_name(header: dict) -> str:
    """Software stack and data type of a header, such as ``megatron-core 0.16.1 sdpa, torch 2.13.0, float32``."""
    software = header["software"]
    torch_version = f"torch {software.get('torch', 'of unknown version')}"
    return f"megatron-core {software['megatron-core']} {header['engine']}, {torch_version}, {header.get('dtype')}"


@dataclass
class TimingLog:
    """The parsed lines of one JSON Lines log; what old settings lack is filled in (see :func:`complete_setting`)."""

    path: Path
    header: dict
    settings: list[dict] = field(default_factory=list)
    resumes: list[dict] = field(default_factory=list)
    is_complete: bool = False
    trials: list[dict] = field(default_factory=list)
    # Requests of an API as they were sent: those that a killed run had under way are not among the trials.
    sent: list[dict] = field(default_factory=list)
    num_kills: int = 0
    last_record: str = "header"

    @property
    def is_api(self) -> bool:
        """Whether it holds single trials of an API instead of settings."""
        return is_api_header(self.header)

    def keys(self) -> set[tuple]:
        """:func:`setting_key` of every setting, failed ones included; of every trial of an API that did not fail.

        What does not fit the memory will not fit it again; what an API refuses it may answer later.
        """
        if self.is_api:
            return {requests.trial_key(trial) for trial in self.trials if "error" not in trial}
        return {setting_key(setting) for setting in self.settings}


def read_trials(path) -> pd.DataFrame:
    """Timings of one JSON Lines log, one row a trial.

    Returns
    -------
    DataFrame
        ``model, hardware, software, num_prompt_tokens, num_output_tokens, batch_size, micro_batch_size,
        token_micro_batch_size, tensor_parallel_size, pipeline_parallel_size, num_layers_profiled, trial`` (from
        0), the ``runtime_s`` of that trial, of the whole model, its parts ``prompt_encoding_time_s`` and
        ``generation_time_s`` and its ``energy_joules`` (NaN where not recorded), and ``is_disturbed``: slower
        than 1.25 times the median of its setting and more than 5 standard deviations (from the median absolute
        deviation) above it, judged where there are 5 trials or more. Warm-ups are left out.

    Raises
    ------
    LogFormatError
        A line is cut or malformed, or no setting was timed; the message has the file, and the line.
    ValueError
        The log timed several slices of the layers: no trial tells the runtime of the whole model.

    Warns
    -----
    IncompleteLogWarning
        No footer, or settings that failed.
    """
    log = load_log(path)
    warn_if_partial(log)
    if log.is_api:
        return requests.timings_frame(log)
    trials = _trials_frame(log)
    if len(slices := trials["num_layers_profiled"].unique()) > 1:
        raise ValueError(
            f"{log.path}: timed slices of {', '.join(map(str, slices))} layers, no trial of which tells the runtime of "
            "the whole model; read_log draws the line through them, load_log has the trials of each"
        )
    # Layers are identical, so time scales with depth.
    scale = log.header["architecture"]["num_layers"] / slices[0]
    scaled = ["runtime_s", *_TRIAL_LISTS]
    return with_frame_dtypes(trials.assign(**{name: trials[name] * scale for name in scaled}))


def read_settings(path) -> pd.DataFrame:
    """Rows of :func:`idealized_runtime.records.read_log` for a JSON Lines log."""
    log = load_log(path)
    warn_if_partial(log, stacklevel=4)
    if log.is_api:
        settings = _means_frame(requests.timings_frame(log)).assign(is_extrapolated=False)
        return with_frame_dtypes(settings.assign(runtime_resolution_s=0.0)[FRAME_COLUMNS])
    settings = combine_slices(
        log.path,
        _means_frame(_trials_frame(log)),
        log.header["architecture"]["num_layers"],
        num_slices=np.size(log.header["num_layers_profiled"]),
    )
    return with_frame_dtypes(settings.assign(runtime_resolution_s=0.0)[FRAME_COLUMNS])


def read_failures(path) -> pd.DataFrame:
    """Settings of one JSON Lines log that failed, such as those that ran out of memory; one row each.

    Returns
    -------
    DataFrame
        ``model``, the columns of a setting, ``num_layers_profiled, error_type, error_message``; no row where
        nothing failed.

    Raises
    ------
    LogFormatError
        A line is cut or malformed; the message has the file, and the line.
    """
    log = load_log(path)
    columns = ["model", *SETTING_COLUMNS, "num_layers_profiled", "error_type", "error_message"]
    rows = [
        (log.header["model"], *setting_key(setting), setting["error"]["type"], setting["error"].get("message"))
        for setting in log.settings
        if "error" in setting
    ]
    return with_frame_dtypes(pd.DataFrame(rows, columns=columns))


def read_architecture(path) -> Architecture:
    """The architecture in the header of a JSON Lines log."""
    header = load_log(path).header
    if "architecture" not in header:
        raise LogFormatError(f"{path}: a log of an API, which does not tell the architecture of {header['model']}")
    return Architecture.from_dict(header["architecture"])


def _trials_frame(log: TimingLog) -> pd.DataFrame:
    """One row a trial, as timed: of the slice, where only some layers were."""
    settings = [setting for setting in log.settings if "error" not in setting]
    if not settings:
        raise LogFormatError(f"{log.path}: holds no timing: {len(log.settings)} settings, all of which failed")
    num_trials = [len(setting["runtimes_s"]) for setting in settings]
    columns = [*SETTING_COLUMNS, "num_layers_profiled"]
    return pd.DataFrame(
        {
            "model": log.header["model"],
            "hardware": log.header["hardware"],
            "software": software_name(log.header),
            **{name: np.repeat([setting[name] for setting in settings], num_trials) for name in columns},
            **{name: log.header[name] for name in PARALLELISM_COLUMNS},
            "trial": np.concatenate([np.arange(count) for count in num_trials]),
            "runtime_s": np.concatenate([setting["runtimes_s"] for setting in settings]),
            **{name: _listed(settings, listed) for name, listed in _TRIAL_LISTS.items()},
            "is_disturbed": np.concatenate([_is_disturbed(np.array(setting["runtimes_s"])) for setting in settings]),
        }
    )


def _listed(settings, name) -> np.ndarray:
    """One value of every trial; NaN where the log does not have it."""
    return np.concatenate(
        [
            np.full(len(setting["runtimes_s"]), np.nan) if setting.get(name) is None else setting[name]
            for setting in settings
        ]
    )


def _means_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a setting and slice."""
    keys = [*IDENTITY_COLUMNS, *SETTING_COLUMNS, *PARALLELISM_COLUMNS, "num_layers_profiled"]
    # What an API does not tell is missing, and a key all the same.
    num_disturbed = trials.groupby(keys, sort=False, dropna=False)["is_disturbed"].sum().to_numpy()
    # A neighbour on the machine slows a few trials several times over: they say nothing about the model.
    kept = trials[~trials["is_disturbed"]].groupby(keys, sort=False, dropna=False)
    frame = kept["runtime_s"].agg(runtime_s="mean", runtime_std_s="std", runtime_min_s="min", num_trials="size")
    return frame.assign(num_disturbed=num_disturbed).join(kept[list(_TRIAL_LISTS)].mean()).reset_index()


def _is_disturbed(runtimes_s: np.ndarray) -> np.ndarray:
    """Which trials of one setting were held up, by a rule that ordinary noise does not meet."""
    if len(runtimes_s) < _DISTURBED_MIN_TRIALS:
        return np.zeros(len(runtimes_s), dtype=bool)
    excess_s = runtimes_s - np.median(runtimes_s)
    # 1.4826 turns the median absolute deviation of normal noise into its standard deviation.
    std_s = 1.4826 * np.median(np.abs(excess_s))
    return (runtimes_s > _DISTURBED_FACTOR * np.median(runtimes_s)) & (excess_s > _DISTURBED_DEVIATIONS * std_s)


def warn_if_partial(log: TimingLog, *, stacklevel=3):
    """Warn of a log without footer, and of what failed in it."""
    if not log.is_complete:
        warnings.warn(
            f"{log.path}: incomplete: no footer after {_count_text(log)}; run it again to resume",
            IncompleteLogWarning,
            stacklevel=stacklevel,
        )
    failed = [setting for setting in (*log.settings, *log.trials) if "error" in setting]
    if failed:
        # A trial of an API is a batch of one.
        single = dict.fromkeys(BATCH_COLUMNS, 1)
        names = (f"{setting_name({**single, **record})} ({record['error']['type']})" for record in failed)
        named = ", ".join(dict.fromkeys(names))
        warnings.warn(
            f"{log.path}: {len(failed)} {'trials' if log.is_api else 'settings'} failed and are left out: {named}",
            IncompleteLogWarning,
            stacklevel=stacklevel,
        )


def _count_text(log) -> str:
    return f"{len(log.trials)} trials" if log.is_api else f"{len(log.settings)} settings"


def load_log(path) -> TimingLog:
    """Every record of a JSON Lines log, checked.

    Raises
    ------
    LogFormatError
        The message has file and line.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        raise LogFormatError(
            f"{path}:{len(lines)}: cut line: {excerpt(lines[-1])}; "
            f"run the same command again with --log {path} to resume"
        )
    return parse_lines(path, lines[:-1])


def parse_lines(path: Path, lines: list[bytes]) -> TimingLog:
    """Log of whole lines; a last one that was cut is for the caller to refuse or to drop."""
    if not lines:
        raise LogFormatError(f"{path}:1: empty: a log begins with its header")
    log = TimingLog(path, _check_header(f"{path}:1", _parse_record(f"{path}:1", lines[0])))
    seen = set()
    for line_number, line in enumerate(lines[1:], start=2):
        _add_record(log, f"{path}:{line_number}", line, seen)
    return log


def _add_record(log, where, line, seen):
    record = _parse_record(where, line)
    if record["record"] == "header":
        raise LogFormatError(f"{where}: a second header; a log holds one measurement")
    if log.is_complete:
        raise LogFormatError(f"{where}: a {record['record']!r} record after the footer")
    log.num_kills += bool(record["record"] == "resume" and record.get("is_after_kill"))
    log.last_record = record["record"]
    if record["record"] in (("setting",) if log.is_api else ("sent", "trial")):
        raise LogFormatError(f"{where}: a {record['record']!r} record; its header announces the other kind of log")
    if record["record"] == "trial":
        log.trials.append(requests.check_trial(where, record, seen))
        if "error" not in record:
            seen.add(requests.trial_key(record))
    elif record["record"] == "sent":
        log.sent.append(requests.check_sent(where, record))
    elif record["record"] == "setting":
        log.settings.append(check_setting(where, record, seen, log.header))
        seen.add(setting_key(log.settings[-1]))
    elif record["record"] == "resume":
        log.resumes.append(record)
    elif record["record"] == "footer":
        _check_footer(log, where, record)
        log.is_complete = True


def _check_footer(log, where, footer):
    unit, held = ("trials", log.trials) if log.is_api else ("settings", log.settings)
    if footer.get(f"num_{unit}") != len(held):
        raise LogFormatError(
            f"{where}: the footer counts {footer.get(f'num_{unit}')} {unit}; the log holds {len(held)}"
        )


def _parse_record(where, line: bytes) -> dict:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise LogFormatError(f"{where}: not JSON in UTF-8: {excerpt(line)}") from error
    if not isinstance(record, dict) or record.get("record") not in _RECORDS:
        raise LogFormatError(
            f"{where}: not a header, setting, sent, trial, stop, resume or footer record: {excerpt(line)}"
        )
    return record


def _check_header(where, record) -> dict:
    if record["record"] != "header":
        raise LogFormatError(f"{where}: a log begins with its header; got a {record['record']!r} record")
    try:
        return check_header(record)
    except ValueError as error:
        raise LogFormatError(f"{where}: {error}") from error


def check_header(header: dict) -> dict:
    """The same header.

    Raises
    ------
    ValueError
        It is of another schema version, or lacks what a reader needs; the message says what.
    """
    if header.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"schema version {header.get('schema_version')!r}; this release reads version {SCHEMA_VERSION}"
        )
    if is_api_header(header):
        return requests.check_api_header(header)
    for name in ("model", "hardware", "engine"):
        if not isinstance(header.get(name), str) or not header[name]:
            raise ValueError(f"the header's {name} must be a name; got {header.get(name)!r}")
    for name in PARALLELISM_COLUMNS:
        if not _is_positive_integer(header.get(name)):
            raise ValueError(f"the header's {name} must be an integer of at least 1; got {header.get(name)!r}")
    for name, needed in (("software", ["megatron-core"]), ("architecture", [])):
        if not isinstance(header.get(name), dict) or any(key not in header[name] for key in needed):
            raise ValueError(f"the header's {name} must be an object {needed or ''}; got {header.get(name)!r:.60}")
    _check_slices(header["num_layers_profiled"], Architecture.from_dict(header["architecture"]).num_layers)
    return header


def _check_slices(profiled, num_layers):
    slices = profiled if isinstance(profiled, list) else [profiled]
    if not slices or not all(_is_positive_integer(size) for size in slices):
        allowed = "an integer of at least 1, or a list of them"
        raise ValueError(f"the header's num_layers_profiled must be {allowed}; got {profiled!r:.60}")
    if len(set(slices)) < len(slices):
        raise ValueError(f"the header's num_layers_profiled has a slice twice: {profiled!r:.60}")
    if max(slices) > num_layers:
        raise ValueError(f"{max(slices)} layers profiled; the architecture has {num_layers}")


def complete_setting(setting: dict, header: dict) -> dict:
    """The same setting, with what records lacked before there were micro-batches and slices.

    Without ``micro_batch_size`` or ``token_micro_batch_size`` the whole batch went together; without
    ``num_layers_profiled`` the header's one slice was timed.
    """
    batch_size, profiled = setting.get("batch_size"), header["num_layers_profiled"]
    if isinstance(profiled, list):
        profiled = profiled[0] if len(profiled) == 1 else None
    return {
        "micro_batch_size": batch_size,
        "token_micro_batch_size": batch_size,
        "num_layers_profiled": profiled,
        **setting,
    }


def check_setting(where, setting: dict, seen: set[tuple], header: dict) -> dict:
    """The setting in full (:func:`complete_setting`); ``seen`` holds the keys that stand before it.

    Raises
    ------
    LogFormatError
        A size or a runtime is not one, or the setting is repeated; the message begins with ``where``.
    """
    setting = complete_setting(setting, header)
    _check_sizes(where, setting, header)
    if setting_key(setting) in seen:
        named = f"{setting_name(setting)} on {setting['num_layers_profiled']} layers"
        raise LogFormatError(f"{where}: setting {named} stands here a second time")
    if "error" in setting:
        if not isinstance(setting["error"], dict) or "type" not in setting["error"]:
            raise LogFormatError(f"{where}: error must be an object with a type; got {setting['error']!r:.60}")
        return setting
    _check_times(where, setting)
    return setting


def _check_sizes(where, setting, header):
    for name in (*SETTING_COLUMNS, "num_layers_profiled"):
        if not _is_positive_integer(setting.get(name)):
            raise LogFormatError(f"{where}: {name} must be an integer of at least 1; got {setting.get(name)!r}")
    for name in BATCH_COLUMNS[1:]:
        if setting["batch_size"] % setting[name]:
            raise LogFormatError(
                f"{where}: {name} must divide the batch size, {setting['batch_size']}; got {setting[name]}"
            )
    profiled = header["num_layers_profiled"]
    slices = profiled if isinstance(profiled, list) else [profiled]
    if setting["num_layers_profiled"] not in slices:
        raise LogFormatError(
            f"{where}: num_layers_profiled must be one of the header's, {slices}; got {setting['num_layers_profiled']}"
        )


def _check_times(where, setting):
    runtimes_s = setting.get("runtimes_s")
    if not isinstance(runtimes_s, list) or not runtimes_s or not all(_is_runtime(t) for t in runtimes_s):
        raise LogFormatError(f"{where}: runtimes_s must be a list of positive seconds; got {runtimes_s!r:.60}")
    for listed in _TRIAL_LISTS.values():
        values = setting.get(listed)
        if values is None:
            continue
        # A query of one output token generates none after its prompt: 0 s. A counter may not have moved: 0 J.
        if not isinstance(values, list) or not all(_is_runtime(value) or value == 0 for value in values):
            unit = "joules" if listed == "energies_joules" else "seconds"
            raise LogFormatError(f"{where}: {listed} must be a list of {unit}; got {values!r:.60}")
        if len(values) != len(runtimes_s):
            raise LogFormatError(f"{where}: {listed} has {len(values)} trials, runtimes_s {len(runtimes_s)}")


def excerpt(line: bytes) -> str:
    """The beginning of a line, to be shown in a message."""
    return repr(line[:60].decode("utf-8", errors="replace"))


def _is_positive_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_runtime(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
