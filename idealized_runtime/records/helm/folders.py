"""Where HELM's run folders are, whatever suites and links stand around them."""

import os
import re
from pathlib import Path

RUN_SPEC = "run_spec.json"
PER_INSTANCE_STATS = "per_instance_stats.json"

_NUMBER = re.compile(r"([0-9]+)")


class NoRunsError(FileNotFoundError):
    """A folder holds no HELM run, or none that could be read."""


def find_run_folders(folder) -> tuple[list[Path], dict[Path, str]]:
    """Run folders at and below ``folder``, each real folder once.

    HELM makes a run's folder before it writes into it, so an empty folder that is named like a run
    (``scenario:...,model=...``) counts as a run, and so does a dangling link of such a name.

    Returns
    -------
    list of Path
        In natural order (``v0.9.0`` before ``v0.10.0``). Links are followed; a folder that is
        reached by its own path and by a link stands under its own path.
    dict
        Folders that could not be listed, with the reason.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        ``folder`` is not there, or is not a folder.
    """
    runs, unreadable, seen = [], {}, set()
    pending, links = [os.fspath(folder)], []
    os.stat(os.path.join(folder, ""))
    while pending or links:
        directory = pending.pop() if pending else links.pop(0)
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            children = list(os.scandir(directory))
        except OSError as error:
            unreadable[Path(directory)] = error.strerror
            continue
        # os.path.isdir of a link: one that leads to itself is no folder, where DirEntry.is_dir raises.
        subfolders = [c for c in children if (os.path.isdir(c.path) if c.is_symlink() else c.is_dir())]
        is_empty_run = "model=" in os.path.basename(directory) and not subfolders
        if is_empty_run or any(child.name in (RUN_SPEC, PER_INSTANCE_STATS) for child in children):
            runs.append(directory)
            continue
        pending += [child.path for child in subfolders if not child.is_symlink()]
        links += sorted(child.path for child in subfolders if child.is_symlink())
        runs += [c.path for c in children if c.is_symlink() and "model=" in c.name and not os.path.exists(c.path)]
    return [Path(run) for run in sorted(runs, key=natural_order)], unreadable


def natural_order(path: str) -> list:
    """Sorting key of a path in which numbers count as numbers."""
    # Text and numbers alternate; a separator comes before any other character, so that a folder's
    # runs stay together.
    parts = _NUMBER.split(path.replace(os.sep, "\0"))
    parts[1::2] = map(int, parts[1::2])
    return parts
