"""Files that were dropped into the page: kept in a folder of this machine for as long as the server runs."""

import os
import re
import tempfile
from hashlib import sha256
from pathlib import Path

# Set by the server; without it, a folder that goes with the process.
FOLDER_SETTING = "IDEALIZED_RUNTIME_PAGE_FILES"
_MOST_BYTES = 50_000_000


class DroppedFiles:
    """A folder of dropped files, each under a name that its content and its own name give."""

    def __init__(self):
        self._own = None
        folder = os.environ.get(FOLDER_SETTING)
        if not folder:
            self._own = tempfile.TemporaryDirectory(prefix="idealized-runtime-")
            folder = self._own.name
        self.folder = Path(folder).resolve()

    def keep(self, name: str, content: bytes) -> Path:
        """Write a file; its path.

        Raises
        ------
        ValueError
            It is empty, or larger than tables and configurations are.
        """
        if not content:
            raise ValueError(f"{name} is empty")
        if len(content) > _MOST_BYTES:
            most, size = (f"{number / 1e6:.0f} MB" for number in (_MOST_BYTES, len(content)))
            raise ValueError(f"{name} has {size}; files of up to {most} are read here: use the command")
        # Letters, digits, and what separates them: nothing that a path, a shell or a page would take for more.
        stem, suffix = os.path.splitext(os.path.basename(name))
        plain = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:80] or "file"
        suffix = re.sub(r"[^\w.]+", "", suffix)[:10]
        path = self.folder / sha256(content).hexdigest()[:12] / f"{plain}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def check(self, text: str) -> str:
        """A path of a link, if it is of this folder.

        Raises
        ------
        ValueError
            It is not: a link opens no other file.
        """
        path = Path(text)
        if not (path.resolve().is_relative_to(self.folder) and path.is_file()):
            raise ValueError(f"{path.name} is not among the files of this page any more: drop it in again")
        return text
