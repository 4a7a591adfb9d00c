"""What every importer shares: fields that are checked, and the frame that records become."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from idealized_runtime.records.requests import requests_frame


class ImportFormatError(ValueError):
    """A file is not what the tool writes; the message names file and field."""


@dataclass(frozen=True)
class Fields:
    """An object of a file, with the place it stands at.

    Parameters
    ----------
    values : mapping
    where : str
        File and place, the beginning of every message.
    tool : str
        Whose format is expected.
    """

    values: Mapping
    where: str
    tool: str

    def get(self, name: str, kind, *, is_optional: bool = False):
        """Value of a field, of type ``kind`` or of one of them; None where an optional one is missing or null.

        Raises
        ------
        ImportFormatError
            It is missing or of another type.
        """
        value = self.values.get(name)
        if value is None and is_optional:
            return None
        if name not in self.values:
            raise ImportFormatError(f"{self.where}: field {name!r} is missing; {self.tool} writes it")
        # True is an integer to Python.
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise ImportFormatError(f"{self.where}: field {name!r} must be of type {names}; got {value!r:.60}")
        return value

    def number(self, name: str, *, scale: float = 1, is_optional: bool = False) -> float | None:
        """Value of a numeric field, divided by ``scale``; finite, though Python writes NaN into JSON."""
        value = self.get(name, (int, float), is_optional=is_optional)
        if value is None:
            return None
        if not math.isfinite(value):
            raise ImportFormatError(f"{self.where}: field {name!r} must be finite; got {value!r}")
        return value / scale

    def durations(self, name: str) -> list[float]:
        """Numbers of the list in a field, none negative."""
        values = self.get(name, list)
        for index, value in enumerate(values):
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ImportFormatError(f"{self.where}: field {name!r}[{index}] must be a duration; got {value!r:.60}")
        return values

    def inner(self, name: str, *, is_optional: bool = False) -> "Fields | None":
        """Object in a field."""
        values = self.get(name, dict, is_optional=is_optional)
        return None if values is None else Fields(values, f"{self.where}.{name}", self.tool)

    def items(self, name: str, *, is_optional: bool = False) -> list["Fields"]:
        """Objects of the list in a field."""
        values = self.get(name, list, is_optional=is_optional) or []
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise ImportFormatError(f"{self.where}.{name}[{index}]: must be an object; got {value!r:.60}")
        return [Fields(value, f"{self.where}.{name}[{index}]", self.tool) for index, value in enumerate(values)]


@dataclass(frozen=True)
class Imported:
    """Requests of one file: the header and the trials that a log of this project would hold.

    Parameters
    ----------
    header : dict
        ``model, hardware, software, base_url, endpoint``.
    trials : list of dict
        As in a log (:mod:`idealized_runtime.records`), with ``definitions`` of the tool.
    """

    header: dict
    trials: list[dict]

    def frame(self) -> pd.DataFrame:
        """One row a request, with the columns of :func:`idealized_runtime.records.read_requests`."""
        frame = requests_frame(self.header, self.trials)
        # A failed request may lack its sizes: missing integers stay integers.
        return frame.astype(dict.fromkeys(("num_prompt_tokens", "num_output_tokens"), "Int64"))


def make_header(
    model: str, *, hardware: str | None, base_url="unknown", endpoint="unknown", software="unknown"
) -> dict:
    """Header of imported requests."""
    return {
        "kind": "api",
        "model": model,
        "hardware": hardware or "unknown",
        "software": software,
        "base_url": base_url,
        "endpoint": endpoint,
    }


def utc_text(seconds: float | None) -> str | None:
    """Seconds since 1970 as a log writes a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def drop_missing(trial: dict) -> dict:
    """The same record without fields that are None."""
    return {name: value for name, value in trial.items() if value is not None}
