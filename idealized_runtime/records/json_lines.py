"""Lines of a JSON Lines log, parsed: its header chooses the kind of log, whose records then are checked."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from idealized_runtime.checks import parse_json
from idealized_runtime.records.common import LogFormatError, NothingTimedError, excerpt
from idealized_runtime.records.log import Log
from idealized_runtime.records.requests import RequestsLog
from idealized_runtime.records.settings import SettingsLog

_RECORDS = ("header", "setting", "block", "guard", "sent", "trial", "stop", "resume", "footer")


def log_of(path: Path | None, header: dict) -> Log:
    """An empty log of the kind that a header announces.

    Raises
    ------
    ValueError
        The header lacks what a reader needs; the message says what.
    """
    return (RequestsLog if header.get("kind") == "api" else SettingsLog)(path, header)


def load_log(path: str | os.PathLike) -> Log:
    """Every record of a JSON Lines log, checked.

    Raises
    ------
    LogFormatError
        The message has file and line.
    """
    path = Path(path)
    with path.open("rb") as file:
        return parse_lines(path, file)


def parse_lines(path: Path, lines: Iterable[bytes]) -> Log:
    """Log of lines, each with its end; a last one that was cut is refused."""
    log, digest = None, hashlib.sha256()
    for line_number, line in enumerate(lines, start=1):
        where = f"{path}:{line_number}"
        if not line.endswith(b"\n"):
            remedy = f"run the same command again with --log {path} to resume"
            raise LogFormatError(f"{where}: cut line: {excerpt(line)}; {remedy}")
        try:
            record = parse_json(line.decode("utf-8"))
        except ValueError as error:
            raise LogFormatError(f"{where}: not JSON in UTF-8 ({error}): {excerpt(line)}") from error
        if not isinstance(record, dict) or record.get("record") not in _RECORDS:
            raise LogFormatError(f"{where}: not a {', '.join(_RECORDS[:-1])} or footer record: {excerpt(line)}")
        if log is not None:
            log.keep(log.check(where, record))
            if "sha256" in record:
                log.is_intact = record["sha256"] == digest.hexdigest()
            digest.update(line)
            continue
        digest.update(line)
        if record["record"] != "header":
            raise LogFormatError(f"{where}: a log begins with its header; got a {record['record']!r} record")
        try:
            log = log_of(path, record)
        except ValueError as error:
            raise LogFormatError(f"{where}: {error}") from error
    if log is None:
        # As a run leaves it that was killed before it timed anything.
        raise NothingTimedError(f"{path}:1: empty: a log begins with its header")
    return log
