"""The JSON Lines timing log of this project: read it, write it, go on with one that was cut off."""

import json
import os
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.records.common import (
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    LogMismatchError,
)

SCHEMA_VERSION = 1
# Fields of a header that may differ when a run goes on: when it was, how busy the machine, what is asked for.
_VOLATILE_FIELDS = {"sweep", "environment", "started_at"}


def runtime_sentence(setting: dict) -> str:
    """The sentence of 2023 for one ``setting`` record, which scripts of that time parse."""
    runtimes_s = np.asarray(setting["runtimes_s"])
    tokens = {"num_input_tokens": setting["num_prompt_tokens"], "num_output_tokens": setting["num_output_tokens"]}
    return f"Runtime for {tokens}: {runtimes_s.mean():.3f} seconds +- {_std(runtimes_s):.3f}"


def read_trials(path) -> pd.DataFrame:
    """Timings of one JSON Lines log, one row a trial.

    Returns
    -------
    DataFrame
        Columns as :func:`read_log`, with ``trial`` (from 0) and the ``runtime_s`` of that trial;
        warm-ups are left out.

    Raises, Warns
    -------------
    As :func:`read_log`.
    """
    log = load_log(path)
    _warn_if_partial(log)
    settings = [setting for setting in log.settings if "error" not in setting]
    if not settings:
        raise LogFormatError(f"{path}: holds no timing ({len(log.settings)} settings failed)")
    header = log.header
    num_trials = [len(setting["runtimes_s"]) for setting in settings]
    columns = {name: np.repeat([setting[name] for setting in settings], num_trials) for name in SETTING_COLUMNS}
    runtimes_s = np.concatenate([setting["runtimes_s"] for setting in settings]) * _depth_scale(header)
    return pd.DataFrame(
        {
            "model": header["model"],
            "hardware": header["hardware"],
            "software": software_name(header),
            **columns,
            **{name: header[name] for name in PARALLELISM_COLUMNS},
            "trial": np.concatenate([np.arange(count) for count in num_trials]),
            "runtime_s": runtimes_s,
        }
    )


def software_name(header: dict) -> str:
    """Software stack of a header, such as ``megatron-core 0.16.1 sdpa``."""
    return f"megatron-core {header['software']['megatron-core']} {header['engine']}"


@dataclass
class TimingLog:
    """The parsed lines of one JSON Lines log."""

    path: Path
    header: dict
    settings: list[dict] = field(default_factory=list)
    is_complete: bool = False

    def keys(self) -> set[tuple]:
        """``(num_prompt_tokens, num_output_tokens, batch_size)`` of every setting, failed ones included."""
        return {setting_key(setting) for setting in self.settings}


def setting_key(setting: dict) -> tuple:
    """What tells one setting of a log from another."""
    return tuple(setting[name] for name in SETTING_COLUMNS)


def load_log(path) -> TimingLog:
    """Every record of a JSON Lines log, checked.

    Raises
    ------
    LogFormatError
        The message has file and line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        raise LogFormatError(
            f"{path}:{len(lines)}: cut line: {lines[-1][:60]!r}; run generate_text.py again with --log {path} to resume"
        )
    return _parse_json_lines(path, lines[:-1])


def _parse_json_lines(path, lines) -> TimingLog:
    log = None
    for line_number, line in enumerate(lines, start=1):
        where = f"{path}:{line_number}"
        record = _parse_record(where, line)
        if (log is None) != (record["record"] == "header"):
            raise LogFormatError(f"{where}: a log begins with its one header; got a {record['record']!r} record")
        if log is None:
            log = TimingLog(path, _check_header(where, record))
        elif log.is_complete:
            raise LogFormatError(f"{where}: a {record['record']!r} record after the footer")
        elif record["record"] == "setting":
            log.settings.append(_check_setting(where, record, log.keys()))
        elif record["record"] == "footer":
            if record.get("num_settings") != len(log.settings):
                raise LogFormatError(
                    f"{where}: the footer counts {record.get('num_settings')} settings; "
                    f"the log holds {len(log.settings)}"
                )
            log.is_complete = True
    if log is None:
        raise LogFormatError(f"{path}: empty")
    return log


def _parse_record(where, line) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise LogFormatError(f"{where}: not JSON: {line[:60]!r}") from error
    if not isinstance(record, dict) or record.get("record") not in ("header", "setting", "resume", "footer"):
        raise LogFormatError(f"{where}: not a header, setting, resume or footer record: {line[:60]!r}")
    return record


def _check_header(where, header) -> dict:
    if header.get("schema_version") != SCHEMA_VERSION:
        raise LogFormatError(
            f"{where}: schema version {header.get('schema_version')!r}; this release reads version {SCHEMA_VERSION}"
        )
    needed = {"model", "hardware", "software", "engine", "architecture", "num_layers_profiled", *PARALLELISM_COLUMNS}
    if missing := sorted(needed - set(header)):
        raise LogFormatError(f"{where}: the header lacks {', '.join(missing)}")
    return header


def _check_setting(where, setting, seen) -> dict:
    for name in SETTING_COLUMNS:
        value = setting.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LogFormatError(f"{where}: {name} must be an integer of at least 1; got {value!r}")
    if setting_key(setting) in seen:
        raise LogFormatError(
            f"{where}: setting p={setting['num_prompt_tokens']}, o={setting['num_output_tokens']}, "
            f"batch size {setting['batch_size']} stands here a second time"
        )
    if "error" not in setting:
        runtimes_s = setting.get("runtimes_s")
        if not isinstance(runtimes_s, list) or not runtimes_s or not all(_is_runtime(t) for t in runtimes_s):
            raise LogFormatError(f"{where}: runtimes_s must be a list of positive seconds; got {runtimes_s!r:.60}")
    return setting


def _is_runtime(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) and value > 0


def _warn_if_partial(log: TimingLog):
    if not log.is_complete:
        warnings.warn(
            f"{log.path}: incomplete: no footer after {len(log.settings)} settings; run it again to resume",
            IncompleteLogWarning,
            stacklevel=3,
        )
    failed = [setting for setting in log.settings if "error" in setting]
    if failed:
        named = ", ".join(
            f"p={s['num_prompt_tokens']} o={s['num_output_tokens']} ({s['error']['type']})" for s in failed
        )
        warnings.warn(
            f"{log.path}: {len(failed)} settings failed and are left out: {named}", IncompleteLogWarning, stacklevel=3
        )


def _depth_scale(header) -> float:
    # Layers are identical, so time scales with depth.
    return header["architecture"]["num_layers"] / header["num_layers_profiled"]


class LogWriter:
    """Writes a timing log line by line, and goes on with one that was cut off.

    Parameters
    ----------
    path : path-like or None
        A new file, or the log of an earlier run of the same measurement; None keeps nothing.
    header : dict
        As described in this module; ``record``, ``schema_version`` and ``started_at`` are added.

    Attributes
    ----------
    completed : set of tuple
        Keys (see :func:`setting_key`) of the settings that the file already holds, failed ones included.
    num_failed : int
        How many of them failed.

    Raises
    ------
    LogMismatchError
        The file holds a measurement of something else; nothing is written.
    LogFormatError
        The file holds a malformed line other than a cut last one.
    """

    def __init__(self, path, header: dict):
        self.path = None if path is None else Path(path)
        self._header = {"record": "header", "schema_version": SCHEMA_VERSION, **header, "started_at": _now()}
        # JSON turns tuples into lists: compare what a reader would see.
        self._header = json.loads(json.dumps(self._header))
        self.completed: set[tuple] = set()
        self.num_failed = 0
        self._file = None
        # Bytes of the file to keep when this run writes its first line; a run with nothing to add writes none.
        self._kept_bytes = 0
        self._is_complete = False
        if self.path is not None and self.path.exists():
            self._read_earlier_run()

    def _read_earlier_run(self):
        text = self.path.read_text(encoding="utf-8")
        # A cut last line is what a killed run leaves behind: that setting is measured again.
        lines = text.split("\n")[:-1]
        if not lines:
            return
        log = _parse_json_lines(self.path, lines)
        self._refuse_other_measurement(log.header)
        self.completed = log.keys()
        self.num_failed = sum("error" in setting for setting in log.settings)
        self._is_complete = log.is_complete
        kept = lines[:-1] if log.is_complete else lines
        self._kept_bytes = sum(len(line.encode()) + 1 for line in kept)

    def _refuse_other_measurement(self, other):
        differing = [
            f"{key}: {other.get(key)!r} in the log, {self._header.get(key)!r} now"
            for key in sorted(set(other) | set(self._header))
            if key not in _VOLATILE_FIELDS and other.get(key) != self._header.get(key)
        ]
        if differing:
            raise LogMismatchError(
                f"{self.path} holds another measurement; give another --log, or remove it. " + "; ".join(differing)
            )

    def write_setting(self, setting: dict):
        """Append one setting: tokens, batch size, and its trials or its error."""
        self._write({"record": "setting", **setting})
        self.completed.add(setting_key(setting))
        self.num_failed += "error" in setting

    def finish(self):
        """Append the footer: the sweep is complete."""
        if self._file is not None or not self._is_complete:
            self._write({"record": "footer", "num_settings": len(self.completed), "finished_at": _now()})

    def close(self):
        """Close the file; without :meth:`finish` before it the log stays marked as incomplete."""
        if self._file is not None:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, record):
        if self.path is None:
            return
        if self._file is None:
            self._open()
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _open(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("r+" if self.path.exists() else "w", encoding="utf-8", newline="\n")
        self._file.truncate(self._kept_bytes)
        self._file.seek(self._kept_bytes)
        if not self._kept_bytes:
            self._write(self._header)
        else:
            again = {key: self._header[key] for key in ("sweep", "environment", "started_at") if key in self._header}
            self._write({"record": "resume", **again})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _std(runtimes_s) -> float:
    return float(np.std(runtimes_s, ddof=1)) if len(runtimes_s) > 1 else 0.0
