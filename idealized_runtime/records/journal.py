"""The journal of a measurement: a log that is only ever appended to, by one run at a time, and gone on with if cut."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from idealized_runtime.records.common import LogFormatError, LogMismatchError, excerpt
from idealized_runtime.records.json_lines import log_of, parse_lines
from idealized_runtime.records.log import SCHEMA_VERSION

# Fields of a header that may differ when a run goes on: when it was, how busy the machine, what is asked for.
_VOLATILE_FIELDS = ("sweep", "environment", "started_at")
# What of the environment changes timings all the same.
_MACHINE_FIELDS = ("cpu_model", "omp_wait_policy", "gomp_spincount")
# What an architecture carries for its readers; two that differ in nothing else are timed alike.
_DESCRIPTIVE_FIELDS = ("published_params", "published_log", "helm_names", "source")
_HEADER_BEGIN = b'{"record": "header"'


class Journal:
    """Writes a timing log line by line, and goes on with one that was cut off.

    A second run on the same log is refused as long as the first has it open. Where a file system knows no locks, the
    size of the file tells before every write whether something else has written to it.

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
    log : Log
        What the file holds, this run's records included; of the kind that the header announces.

    Raises
    ------
    LogMismatchError
        The file holds a measurement of something else, or another run writes to it; nothing is written.
    LogFormatError
        The file is no log, or holds a malformed line other than a cut last one; nothing is written.
    ValueError
        ``header`` lacks what a reader needs.
    """

    def __init__(self, path, header: dict):
        self.path = None if path is None else Path(path)
        header = {"record": "header", "schema_version": SCHEMA_VERSION, **header, "started_at": _now()}
        # JSON turns tuples into lists: compare what a reader would see. It is also this run's first line.
        self._first = json.loads(json.dumps(header, allow_nan=False))
        self.log = log_of(self.path, self._first)
        self._has_begun = False
        # A complete log with nothing to add stays as it is.
        self._is_complete = False
        # Bytes that the file must hold, and those of them to keep when this run writes its first line.
        self._num_bytes = self._num_kept = 0
        # Requests are noted by the thread that sends them, trials perhaps by another.
        self._lock = threading.Lock()
        self._file = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._is_new = not self.path.exists()
            if not self._is_new and not self.path.is_file():
                raise LogFormatError(f"{self.path}: not a file that can be gone on with; give another --log")
            self._file = _open_locked(self.path)
            try:
                self._read_earlier_run()
                self._check_room()
            except BaseException:
                self.close()
                raise

    def _read_earlier_run(self):
        # A cut last line is what a killed run leaves behind: that record is measured again.
        contents = self._file.read()
        self._num_bytes = len(contents)
        *lines, cut = contents.split(b"\n")
        if not lines:
            if not (cut.startswith(_HEADER_BEGIN) or _HEADER_BEGIN.startswith(cut)):
                said = f"not a timing log, left as it is: {excerpt(cut)}; give another --log"
                raise LogFormatError(f"{self.path}:1: {said}")
            return
        log = parse_lines(self.path, (line + b"\n" for line in lines))
        if differing := differing_fields(log.header, self.log.header):
            named = "; ".join(differing)
            raise LogMismatchError(f"{self.path} holds another measurement; give another --log, or remove it. {named}")
        # A footer stays only until there is something to add.
        self._num_kept = sum(len(line) + 1 for line in (lines[:-1] if log.is_complete else lines))
        self._is_complete = log.is_complete and not cut
        self._first = {name: self._first[name] for name in _VOLATILE_FIELDS if name in self._first}
        self._first = {"record": "resume", **self._first, **({"is_after_kill": True} if log.was_killed else {})}
        self.log = log
        log.keep(self._first)

    def _check_room(self):
        """Fail before anything is timed where a line cannot be written; if this is cut short, it is a cut line."""
        try:
            self._file.seek(self._num_bytes)
            self._file.write(_line(self._first)[:-1])
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            self._file.truncate(self._num_bytes)

    def update_environment(self, **found) -> None:
        """Add what became known of the machine to this run's first line or, once that is written, in a line after."""
        self._first["environment"] = {**(self._first.get("environment") or {}), **found}
        if self._has_begun:
            again = {name: self._first[name] for name in _VOLATILE_FIELDS if name in self._first}
            self.append("resume", again)

    def start(self) -> None:
        """Write this run's first line: before the first request, so that it shows if that one is lost to a kill."""
        if self._file is None or self._has_begun:
            return
        line = _line(self._first)
        with self._lock:
            self._refuse_other_writer()
            self._file.truncate(self._num_kept)
            self._file.seek(self._num_kept)
            self._num_bytes = self._num_kept
            self._has_begun, self._is_complete = True, False
        self._write(line)

    def append(self, kind: str, fields: dict, *, is_waiting: bool = True, where: str | None = None) -> None:
        """Append a record.

        Parameters
        ----------
        kind : str
            ``setting``, with tokens, batch sizes, slice, and its trials or its error; ``block`` or ``guard`` of it;
            ``trial`` of an API, or ``sent``.
        fields : dict
        is_waiting : bool
            For the disk, which delays what is timed. What was written is not lost with the process, only with the
            machine.
        where : str, optional
            What a message begins with.

        Raises
        ------
        LogFormatError
            It is malformed, or stands in the log already; nothing is written.
        LogMismatchError
            Something else has written to the file since this run began; nothing is written.
        """
        if self._is_complete and self._has_begun:
            raise ValueError(f"{self.path} is finished: open it again to add to it")
        record = {"record": kind, **fields}
        checked = self.log.check(where or f"{self.path}: new {kind}", record)
        line = _line(record)
        self.start()
        self._write(line, is_waiting=is_waiting)
        self.log.keep(checked)

    def stop(self, reason: str) -> None:
        """Append why the run ends before its sweep is complete; no request is under way."""
        if self._has_begun:
            self.append("stop", {"reason": reason, "stopped_at": _now()})

    def finish(self, **found) -> None:
        """Append the footer: the sweep is complete. A complete log with nothing to add stays as it is.

        Its ``sha256`` is that of all lines before it; ``found`` is what else it says.
        """
        if not self._is_complete:
            footer = {f"num_{self.log.measured}s": len(self.log.records), "finished_at": _now(), **found}
            self.start()
            if self._file is not None:
                self._file.seek(0)
                footer["sha256"] = hashlib.file_digest(self._file, "sha256").hexdigest()
            self.append("footer", footer)
            self._is_complete = True

    def close(self) -> None:
        """Close the file; without :meth:`finish` before it the log stays marked as incomplete."""
        if self._file is not None:
            # What was made only to be held is no log.
            if self._is_new and not self._has_begun and self._num_bytes == 0:
                self.path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, line: bytes, *, is_waiting=True):
        if self._file is None:
            return
        with self._lock:
            self._refuse_other_writer()
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                # A full disk names no file.
                error.filename = str(self.path)
                raise
            self._num_bytes += len(line)
        if is_waiting:
            os.fsync(self._file.fileno())

    def _refuse_other_writer(self):
        if not self.path.exists() or self.path.stat().st_size != self._num_bytes:
            raise LogMismatchError(f"{self.path} changed since this run began: another run writes to it; run it again")


def _open_locked(path: Path):
    """A file, made where it is missing, that no other journal has open.

    Raises
    ------
    LogMismatchError
        Another run has it open; the message says which and since when, if that is known.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(file)
            file.close()
            raise LogMismatchError(f"{path}: another run writes to it{holder}; let it end, or stop it") from error
        except OSError as error:
            # Some network file systems have no locks: sizes are all there is.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        # A run that was ending may have removed the file between opening and locking it.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _holder(file) -> str:
    """Process that has locked a file, and when it began, in words; empty where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = str(os.fstat(file.fileno()).st_ino)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid, *_ = (words[4] for words in locks if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode)
        # The 22nd field, behind a name that may hold spaces: clock ticks from boot to the start of the process.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        age_s = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return f", process {pid}, since {(datetime.now() - timedelta(seconds=age_s)).isoformat(' ', 'seconds')}"
    return ""


def _line(record: dict) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


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
