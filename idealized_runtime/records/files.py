"""Files that are written: each replaced as a whole, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give the name of a file in it")
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
    try:
        # As readable as any other new file, and as the one that it replaces.
        part.touch()
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        yield part
        os.replace(part, target)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
