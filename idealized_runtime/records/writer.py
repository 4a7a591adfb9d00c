"""Writes the JSON Lines timing log, and goes on with one that was cut off."""

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from idealized_runtime.records.common import LogFormatError, LogMismatchError, excerpt
from idealized_runtime.records.json_lines import SCHEMA_VERSION, check_header, parse_lines
from idealized_runtime.records.requests import check_sent, check_trial, lost_requests, trial_key
from idealized_runtime.records.settings import check_setting, setting_key

# Fields of a header that may differ when a run goes on: when it was, how busy the machine, what is asked for.
_VOLATILE_FIELDS = ("sweep", "environment", "started_at")
# What of the environment changes timings all the same.
_MACHINE_FIELDS = ("cpu_model", "omp_wait_policy", "gomp_spincount")
# What an architecture carries for its readers; two that differ in nothing else are timed alike.
_DESCRIPTIVE_FIELDS = ("published_params", "published_log", "helm_names", "source")
_HEADER_BEGIN = b'{"record": "header"'


class LogWriter:
    """Writes a timing log line by line, and goes on with one that was cut off.

    Parameters
    ----------
    path : path-like or None
        A new file, or the log of an earlier run of the same measurement; None keeps nothing.
    header : dict
        What was timed, and on what: ``model, hardware, software, engine, architecture,
        num_layers_profiled, tensor_parallel_size, pipeline_parallel_size`` and what else tells one
        measurement from another. ``sweep`` and ``environment`` may differ when a run goes on.
        ``record``, ``schema_version`` and ``started_at`` are added. The header of a log of API trials has
        ``kind="api"`` and needs ``model, hardware, software, base_url, endpoint`` only.

    Attributes
    ----------
    completed : set of tuple
        Keys (see :func:`setting_key`) of the settings that the file already holds, failed ones included:
        what did not fit the memory would not fit it again. Of API trials (see :func:`trial_key`) only those
        that did not fail: they are tried again.
    num_failed : int
        How many settings or trials failed.
    trials : list of dict
        All trials of an API that the file holds.
    num_kills : int
        Earlier runs that were killed.
    lost : list of dict
        Requests that these had under way: sent, and in no trial.

    Raises
    ------
    LogMismatchError
        The file holds a measurement of something else; nothing is written.
    LogFormatError
        The file is no log, or holds a malformed line other than a cut last one; nothing is written.
    ValueError
        ``header`` lacks what a reader needs.
    """

    def __init__(self, path, header: dict):
        self.path = None if path is None else Path(path)
        header = {"record": "header", "schema_version": SCHEMA_VERSION, **header, "started_at": _now()}
        # JSON turns tuples into lists: compare what a reader would see.
        self._header = check_header(json.loads(json.dumps(header, allow_nan=False)))
        self.completed: set[tuple] = set()
        self.num_failed = 0
        self.trials: list[dict] = []
        self.num_kills = 0
        self.lost: list[dict] = []
        self._is_after_kill = False
        self._file = None
        # Requests are noted by the thread that sends them, trials perhaps by another.
        self._lock = threading.Lock()
        # Bytes of the file to keep when this run writes its first line; a run with nothing to add writes none.
        self._kept_bytes = 0
        self._seen_bytes = 0
        self._is_complete = False
        if self.path is not None and self.path.exists():
            self._read_earlier_run()

    def _read_earlier_run(self):
        # A cut last line is what a killed run leaves behind: that setting is measured again.
        contents = self.path.read_bytes()
        self._seen_bytes = len(contents)
        *lines, cut = contents.split(b"\n")
        if not lines:
            self._refuse_other_file(cut)
            return
        log = parse_lines(self.path, lines)
        self._refuse_other_measurement(log.header)
        self.completed = log.keys()
        self.trials = list(log.trials)
        self._is_after_kill = log.is_api and not log.is_complete and log.last_record != "stop"
        self.num_kills = log.num_kills + self._is_after_kill
        self.lost = lost_requests(log)
        self.num_failed = sum("error" in held for held in (*log.settings, *log.trials))
        # A footer stays only until there is something to add.
        kept = lines[:-1] if log.is_complete else lines
        self._kept_bytes = sum(len(line) + 1 for line in kept)
        self._is_complete = log.is_complete and not cut

    def _refuse_other_file(self, cut: bytes):
        if not (cut.startswith(_HEADER_BEGIN) or _HEADER_BEGIN.startswith(cut)):
            raise LogFormatError(f"{self.path}:1: not a timing log, left as it is: {excerpt(cut)}; give another --log")

    def _refuse_other_measurement(self, other):
        if differing := differing_fields(other, self._header):
            raise LogMismatchError(
                f"{self.path} holds another measurement; give another --log, or remove it. " + "; ".join(differing)
            )

    def update_environment(self, **found):
        """Add what became known of the machine to the header or, once that is written, to a ``resume`` record."""
        self._header["environment"] = {**(self._header.get("environment") or {}), **found}
        if self._file is not None:
            self._append(json.dumps(self._resume_record(), allow_nan=False) + "\n")

    def write_setting(self, setting: dict):
        """Append one setting: tokens, batch sizes, slice, and its trials or its error.

        Raises
        ------
        LogFormatError
            The setting is malformed or already in the log; nothing is written.
        LogMismatchError
            Another run has written to the file since this one began; nothing is written.
        """
        record = {"record": "setting", **setting}
        checked = check_setting(f"{self.path}: new setting", record, self.completed, self._header)
        self._write(record)
        self.completed.add(setting_key(checked))
        self.num_failed += "error" in setting

    def start(self):
        """Write the header, or that the run goes on, before the first trial: so it shows if one is lost to a kill."""
        if self.path is not None and self._file is None:
            self._open()

    def write_sent(self, trial: dict, cost_usd: float):
        """Append that a request of a trial is about to be sent, and what it costs at most: so it counts if killed."""
        record = {"record": "sent", **trial, "cost_usd": cost_usd}
        check_sent(f"{self.path}: new request", record)
        # A killed process takes no line back; to wait for the disk would delay what is timed.
        self._write(record, is_waiting=False)

    def write_trial(self, trial: dict):
        """Append one trial of an API, or its error.

        Raises
        ------
        LogFormatError
            The trial is malformed or already in the log; nothing is written.
        LogMismatchError
            Another run has written to the file since this one began; nothing is written.
        """
        record = {"record": "trial", **trial}
        check_trial(f"{self.path}: new trial", record, self.completed)
        self._write(record)
        self.trials.append(record)
        if "error" in trial:
            self.num_failed += 1
        else:
            self.completed.add(trial_key(trial))

    def stop(self, reason: str):
        """Append why the run ends before its sweep is complete; no request is under way."""
        if self._file is not None:
            self._write({"record": "stop", "reason": reason, "stopped_at": _now()})

    def finish(self):
        """Append the footer: the sweep is complete. A complete log with nothing to add stays as it is."""
        if not self._is_complete:
            is_api = self._header.get("kind") == "api"
            count = {"num_trials": len(self.trials)} if is_api else {"num_settings": len(self.completed)}
            self._write({"record": "footer", **count, "finished_at": _now()})
            self._is_complete = True

    def close(self):
        """Close the file; without :meth:`finish` before it the log stays marked as incomplete."""
        if self._file is not None:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, record, *, is_waiting=True):
        line = json.dumps(record, allow_nan=False) + "\n"
        if self.path is None:
            return
        if self._file is None:
            self._open()
        elif self._is_complete:
            raise ValueError(f"{self.path} is finished: open it again to add settings")
        self._append(line, is_waiting=is_waiting)

    def _open(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        num_bytes = self.path.stat().st_size if self.path.exists() else 0
        if num_bytes != self._seen_bytes:
            raise LogMismatchError(f"{self.path} changed since this run began: another run writes to it; run it again")
        self._file = self.path.open("r+" if self.path.exists() else "w", encoding="utf-8", newline="\n")
        self._file.truncate(self._kept_bytes)
        self._file.seek(self._kept_bytes)
        self._is_complete = False
        first = self._header
        if self._kept_bytes:
            first = self._resume_record()
            if self._is_after_kill:
                first["is_after_kill"] = True
        self._append(json.dumps(first) + "\n")

    def _resume_record(self) -> dict:
        return {"record": "resume", **{key: self._header[key] for key in _VOLATILE_FIELDS if key in self._header}}

    def _append(self, line, *, is_waiting=True):
        """Write a line, and wait for the disk unless told otherwise."""
        with self._lock:
            self._file.write(line)
            self._file.flush()
        if is_waiting:
            os.fsync(self._file.fileno())


def differing_fields(theirs: dict, ours: dict) -> list[str]:
    """What keeps two headers from being of one measurement, a sentence a field; of what a run may change, nothing."""
    return [
        f"{name}: {their_value!r} in the log, {our_value!r} now"
        for name, their_value, our_value in _differences(_identity(theirs), _identity(ours))
    ]


def _identity(header: dict) -> dict:
    """What must be the same for two runs to be one measurement."""
    environment = header.get("environment") or {}
    return {
        **{name: value for name, value in header.items() if name not in _VOLATILE_FIELDS},
        "architecture": {k: v for k, v in header.get("architecture", {}).items() if k not in _DESCRIPTIVE_FIELDS},
        "environment": {name: environment.get(name) for name in _MACHINE_FIELDS},
    }


def _differences(theirs: dict, ours: dict, prefix=""):
    """Dotted name and both values of every field that differs."""
    for name in sorted(set(theirs) | set(ours)):
        their_value, our_value = theirs.get(name), ours.get(name)
        if isinstance(their_value, dict) and isinstance(our_value, dict):
            yield from _differences(their_value, our_value, f"{prefix}{name}.")
        elif their_value != our_value:
            yield f"{prefix}{name}", their_value, our_value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
