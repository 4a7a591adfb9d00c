"""Where the published measurements of others are: read from there, never copied into the project."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class PublishedSource:
    """Files of a public repository that are read here.

    ``files`` has the SHA-256 of each, by its path in the repository; ``commit`` is None where the newest was read;
    ``licence`` and ``what`` are for people.
    """

    folder: str
    repository: str
    commit: str | None
    licence: str
    what: str
    files: Mapping[str, str]


# What `make published` gets.
SOURCES = tuple(
    PublishedSource(**entry)
    for entry in json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
)
# Points read back from the drawings of a paper.
UNPUBLISHED_FOLDERS = ("paper_figures",)


class PublishedDataMissingError(FileNotFoundError):
    """The folder of published measurements, or a part of it, is not there."""


def published_data(part: str = "") -> Path:
    """Path of the published measurements, or of a part of them such as ``"helm-efficiency/logs/a100"``.

    The setting ``PUBLISHED_DATA`` names the folder; unset or empty, ``published/``. A relative name
    counts from the working directory or else from the repository root, since notebooks run elsewhere.

    Raises
    ------
    PublishedDataMissingError
        The folder, or ``part`` in it, does not exist; the message says how to get it.
    """
    folder = Path(os.environ.get("PUBLISHED_DATA") or "published").expanduser()
    # An absolute folder stays what it is when joined to a root.
    candidates = [root / folder / part for root in (Path(), ROOT)]
    for path in candidates:
        if path.exists():
            return path
    raise PublishedDataMissingError(f"published measurements not found at {candidates[-1]}: {how_to_get(part)}")


def how_to_get(part: str) -> str:
    """What to do where a part of the published measurements is missing."""
    first = Path(part).parts[:1]
    if first and first[0] in UNPUBLISHED_FOLDERS:
        return (
            f"no public repository holds {first[0]}/ (the committed notebooks show what it gives); "
            "set PUBLISHED_DATA to a folder that has it"
        )
    folders = ", ".join(f"{source.folder}/" for source in SOURCES)
    return f"run `make published`, or set PUBLISHED_DATA to the folder that holds {folders}"
