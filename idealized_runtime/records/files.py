"""Files that are written, each replaced as a whole or not at all; and what they are recognised by."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def sha256_of(path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
    """Where to write what shall stand at ``path``: a file beside it, which takes its place at the end.

    A reader sees the old file or the new one, never a part; what fails leaves the old one and nothing beside it. Links
    are followed. A device or a pipe is written to as it is. The folder is made where it is missing.

    Raises
    ------
    OSError
        The file cannot be written; the message has ``path``.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file in it")
    # Asked of the path as given: what a link in /proc to a pipe resolves to is no path.
    is_replaced = path.is_file() or not path.exists()
    target = part = Path(os.path.realpath(path)) if is_replaced else path
    try:
        if is_replaced:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A name is at most 255 bytes long, of which a character may take four.
            part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
            # As readable as any other new file, or as the one that it replaces.
            part.touch(exist_ok=False)
            if target.exists():
                part.chmod(target.stat().st_mode & 0o7777)
        yield part
        if is_replaced:
            os.replace(part, target)
    except OSError as error:
        # A full disk names no file, and nobody knows the part's name.
        if error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    finally:
        if part != target:
            part.unlink(missing_ok=True)
