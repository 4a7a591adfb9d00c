"""What every timing log shares: the columns of its frame, and its faults."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set

import numpy as np
import pandas as pd

from idealized_runtime.checks import is_integer, is_number

# p prompt tokens and o output tokens.
TOKEN_COLUMNS = ["num_prompt_tokens", "num_output_tokens"]
IDENTITY_COLUMNS = ["model", "hardware", "software"]
# B sequences of them, prompts encoded m at a time, output tokens generated k sequences at a time.
BATCH_COLUMNS = ["batch_size", "micro_batch_size", "token_micro_batch_size"]
SETTING_COLUMNS = [*TOKEN_COLUMNS, *BATCH_COLUMNS]
PARALLELISM_COLUMNS = ["tensor_parallel_size", "pipeline_parallel_size"]
FRAME_COLUMNS = [
    *IDENTITY_COLUMNS, *SETTING_COLUMNS, *PARALLELISM_COLUMNS,
    "runtime_s", "runtime_std_s", "runtime_min_s", "num_trials", "num_disturbed", "runtime_resolution_s",
    "prompt_encoding_time_s", "generation_time_s", "energy_joules", "num_layers_profiled", "is_extrapolated",
    "trial_runtimes_s", "trial_starts_s",
]  # fmt: skip
# Integers that a text log may lack: nullable, and so of one type whatever a frame was read from.
_NULLABLE_COLUMNS = (*BATCH_COLUMNS, *PARALLELISM_COLUMNS, "num_layers_profiled", "num_trials", "num_disturbed")


class LogFormatError(ValueError):
    """A line of a log is cut, or is not what it claims to be."""


class NothingTimedError(LogFormatError):
    """A log holds no timing that a fit may use: everything in it failed, or is under load."""


class LogMismatchError(ValueError):
    """A log holds another architecture, engine or machine than the run that wants to go on with it."""


class IncompleteLogWarning(UserWarning):
    """A log is partial: no footer, or settings that failed."""


class SliceWarning(UserWarning):
    """Slices of the layers do not lie on the line that is drawn through them."""


class RepeatedSettingWarning(UserWarning):
    """A setting stands in a 2023 text log more than once; the last one counts."""


class Keys(Set):
    """A set of tuples that differ mostly in the entry at one place: a million of them in some sixty megabytes."""

    def __init__(self, place: int, keys: Iterable[tuple] = ()):
        self._place = place
        self._others: dict[tuple, set] = defaultdict(set)
        # Of equal entries one is kept.
        self._entries: dict = {}
        for key in keys:
            self.add(key)

    def add(self, key: tuple):
        entry = key[self._place]
        self._others[self._without_place(key)].add(self._entries.setdefault(entry, entry))

    def discard(self, key: tuple):
        self._others[self._without_place(key)].discard(key[self._place])

    def _without_place(self, key):
        return key[: self._place] + key[self._place + 1 :]

    def __contains__(self, key) -> bool:
        return key[self._place] in self._others.get(self._without_place(key), ())

    def __iter__(self) -> Iterator[tuple]:
        at = self._place
        return ((*rest[:at], value, *rest[at:]) for rest, values in self._others.items() for value in values)

    def __len__(self) -> int:
        return sum(map(len, self._others.values()))


def setting_name(setting: dict) -> str:
    """Sizes of a setting or a trial, to be shown in a message; those of its batch only where it is more than one."""
    name = f"p={setting['num_prompt_tokens']} o={setting['num_output_tokens']}"
    if setting.get("batch_size", 1) == 1:
        return name
    return f"{name} B={setting['batch_size']} m={setting['micro_batch_size']} k={setting['token_micro_batch_size']}"


def excerpt(data: bytes) -> str:
    """The beginning of a line or of an answer, to be shown in a message."""
    return repr(data[:60].decode("utf-8", errors="replace"))


def with_frame_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, in the types that every reader gives: missing integers stay integers."""
    return frame.astype({name: "Int64" for name in _NULLABLE_COLUMNS if name in frame})


def repeated(text: str, number: int) -> pd.Series:
    """A column of equal texts, without a Python object for each."""
    return pd.Series(pd.array([text], dtype=str).take(np.zeros(number, dtype=int)))


def is_duration(value) -> bool:
    """Whether a value of a record is positive seconds."""
    return is_number(value) and value > 0


def check_integers(where: str, record: dict, names, least: int):
    """Refuse a record in which a field is no integer of at least ``least``, by a message that begins with ``where``."""
    for name in names:
        if not is_integer(record.get(name), least):
            raise LogFormatError(f"{where} {name} must be an integer of at least {least}; got {record.get(name)!r}")


def check_names(header: dict, names):
    """Refuse a header in which a field is no name."""
    for name in names:
        if not isinstance(header.get(name), str) or not header[name]:
            raise LogFormatError(f"the header's {name} must be a name; got {header.get(name)!r}")


def check_error(where: str, record: dict):
    """Refuse a record of a failure that does not say what failed."""
    error = record.get("error", {"type": None})
    if not isinstance(error, dict) or "type" not in error:
        raise LogFormatError(f"{where}: error must be an object with a type; got {error!r:.60}")


def checked_guard(where: str, record: dict) -> dict:
    """A record of what was noticed while a log was written, and of which visits or trials are set aside for it."""
    for name in ("finding", "action", "message"):
        if not isinstance(record.get(name), str):
            raise LogFormatError(f"{where}: {name} must be a text; got {record.get(name)!r:.60}")
    visits = record.get("visits")
    if not isinstance(visits, list) or not all(is_integer(visit, 0) for visit in visits):
        raise LogFormatError(f"{where}: visits must be a list of numbers; got {visits!r:.60}")
    return record
