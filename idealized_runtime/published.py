"""Where the published measurements of others are: read from there, never copied into the project."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class PublishedDataMissingError(FileNotFoundError):
    """The folder of published measurements, or a part of it, is not there."""


def published_data(part: str = "") -> Path:
    """Path of the published measurements, or of a part of them such as ``"helm-efficiency/logs/a100"``.

    The setting ``PUBLISHED_DATA`` names the folder; without it, ``published/``. A relative name
    counts from the working directory or else from the repository root, since notebooks run elsewhere.

    Raises
    ------
    PublishedDataMissingError
        The folder, or ``part`` in it, does not exist; the message says how to get it.
    """
    folder = Path(os.environ.get("PUBLISHED_DATA", "published"))
    path = (folder if folder.exists() else ROOT / folder) / part
    if not path.exists():
        raise PublishedDataMissingError(
            f"published measurements not found at {path}: run `make published`, "
            "or set PUBLISHED_DATA to the folder that holds helm-efficiency/, beyond-chinchilla/ and paper_figures/"
        )
    return path
