"""The JSON Lines timing log of this project, and its reader."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import requests
from idealized_runtime.records.common import (
    FRAME_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    excerpt,
    is_integer,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.records.settings import TRIAL_LISTS, check_setting, means_frame, setting_key, trials_frame
from idealized_runtime.records.slices import combine_slices

SCHEMA_VERSION = 1
_RECORDS = ("header", "setting", "sent", "trial", "stop", "resume", "footer")


def is_api_header(header: dict) -> bool:
    """Whether a header announces single trials of an API."""
    return header.get("kind") == "api"


@dataclass
class TimingLog:
    """The parsed lines of one JSON Lines log; what old settings lack is filled in when they are read."""

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
        """The key of every setting, failed ones included; of every trial of an API that did not fail.

        What does not fit the memory will not fit it again; what an API refuses it may answer later.
        """
        if self.is_api:
            return {requests.trial_key(trial) for trial in self.trials if "error" not in trial}
        return {setting_key(setting) for setting in self.settings}

    def frame(self) -> pd.DataFrame:
        """One row a setting, as :func:`idealized_runtime.records.read_log` gives it."""
        warn_if_partial(self, stacklevel=4)
        if self.is_api:
            settings = means_frame(requests.timings_frame(self)).assign(is_extrapolated=False)
        else:
            settings = combine_slices(
                self.path,
                means_frame(trials_frame(self)),
                self.header["architecture"]["num_layers"],
                num_slices=np.size(self.header["num_layers_profiled"]),
            )
        return with_frame_dtypes(settings.assign(runtime_resolution_s=0.0)[FRAME_COLUMNS])

    def architecture(self) -> Architecture:
        """The architecture in its header."""
        if "architecture" not in self.header:
            model = self.header["model"]
            raise LogFormatError(f"{self.path}: a log of an API, which does not tell the architecture of {model}")
        return Architecture.from_dict(self.header["architecture"])

    @property
    def dtype(self) -> str | None:
        """Data type of weights and activations; None where it is not told, as of an API."""
        return None if self.is_api else self.header.get("dtype") or "float32"

    @property
    def is_cuda(self) -> bool:
        """Whether kernels ran on a GPU."""
        return (self.header.get("software") or {}).get("cuda") is not None

    @property
    def num_layers_scaled(self) -> int | None:
        """Layers whose time was multiplied to that of the whole model: all, where it comes from a line through slices.

        The line counts once what does not grow with depth, as the whole model does.
        """
        if self.is_api:
            return None
        slices = np.atleast_1d(self.header["num_layers_profiled"])
        return int(slices[0]) if len(slices) == 1 else self.header["architecture"]["num_layers"]

    @property
    def machine_rates(self) -> list:
        """Rates of the machine, once for each time that the driver measured them."""
        environments = [record.get("environment") for record in (self.header, *self.resumes)]
        measured = [environment.get("machine_rates") for environment in environments if isinstance(environment, dict)]
        return [rates for rates in measured if rates is not None]


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
    trials = trials_frame(log)
    if len(slices := trials["num_layers_profiled"].unique()) > 1:
        raise ValueError(
            f"{log.path}: timed slices of {', '.join(map(str, slices))} layers, no trial of which tells the runtime of "
            "the whole model; read_log draws the line through them, load_log has the trials of each"
        )
    # Layers are identical, so time scales with depth.
    scale = log.header["architecture"]["num_layers"] / slices[0]
    scaled = ["runtime_s", *TRIAL_LISTS]
    return with_frame_dtypes(trials.assign(**{name: trials[name] * scale for name in scaled}))


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
        names = (f"{setting_name(record)} ({record['error']['type']})" for record in failed)
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
        _check_count(where, record, log)
        log.is_complete = True


def _check_count(where, footer, log):
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
        if not is_integer(header.get(name), 1):
            raise ValueError(f"the header's {name} must be an integer of at least 1; got {header.get(name)!r}")
    for name, needed in (("software", ["megatron-core"]), ("architecture", [])):
        if not isinstance(header.get(name), dict) or any(key not in header[name] for key in needed):
            named = "".join(f" with {key}" for key in needed)
            raise ValueError(f"the header's {name} must be an object{named}; got {header.get(name)!r:.60}")
    _check_slices(header["num_layers_profiled"], Architecture.from_dict(header["architecture"]).num_layers)
    return header


def _check_slices(profiled, num_layers):
    slices = profiled if isinstance(profiled, list) else [profiled]
    if not slices or not all(is_integer(size, 1) for size in slices):
        allowed = "an integer of at least 1, or a list of them"
        raise ValueError(f"the header's num_layers_profiled must be {allowed}; got {profiled!r:.60}")
    if len(set(slices)) < len(slices):
        raise ValueError(f"the header's num_layers_profiled has a slice twice: {profiled!r:.60}")
    if max(slices) > num_layers:
        raise ValueError(f"{max(slices)} layers profiled; the architecture has {num_layers}")
