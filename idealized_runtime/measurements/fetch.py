"""Getting the published measurements of others, each from its public repository: ``make published`` runs this file.

Needs git and Python, and nothing that is installed: a clean clone has no more.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from idealized_runtime.measurements.published import ROOT, SOURCES, PublishedSource


class FetchError(Exception):
    """A repository cannot be had, or holds other files than those that were read."""


def fetch(source: PublishedSource, folder: Path, *, url: str | None = None) -> str:
    """Put the files of one source into a folder that does not exist yet; nothing is left of what fails.

    Only its files are checked out, of the commit that is named. Commits come without their files, and files when they
    are checked out, so that little is sent of a large repository.

    Parameters
    ----------
    source : PublishedSource
    folder : Path
    url : str, optional
        Of a copy of the repository.

    Returns
    -------
    str
        One line: folder, repository, commit, licence.

    Raises
    ------
    FetchError
        Git fails, or a file of a named commit has another SHA-256.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _git("clone", "--quiet", "--filter=tree:0", "--no-checkout", url or source.repository, str(part))
        patterns = "".join(f"/{name}\n" for name in source.files)
        _git("-C", str(part), "sparse-checkout", "set", "--no-cone", "--stdin", given=patterns)
        _git("-C", str(part), "checkout", "--quiet", "--detach", source.commit or "HEAD")
        differing = [name for name, sha256 in source.files.items() if _sha256(part / name) != sha256]
        if differing and source.commit:
            raise FetchError(
                f"{source.repository} at {source.commit}: other than what was read: {', '.join(differing)}"
            )
        if differing:
            print(
                f"{folder.name}: {len(differing)} of {len(source.files)} files have changed since they were read, so "
                f"numbers may differ: {', '.join(differing)}",
                file=sys.stderr,
            )
        commit, date = _git("-C", str(part), "log", "-1", "--format=%H %cs").split()
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return (
        f"{folder.name}: {source.what}; {source.repository}, commit {commit[:12]} of {date}, licence: {source.licence}"
    )


def fetch_all(folder: Path) -> int:
    """Get what is not there yet of ``SOURCES``, whatever fails of the others; 1 where one cannot be had, else 0."""
    failed = 0
    for source in SOURCES:
        if (folder / source.folder).exists():
            continue
        try:
            print(fetch(source, folder / source.folder), flush=True)
        except FetchError as error:
            print(f"published: {error}", file=sys.stderr, flush=True)
            failed = 1
    return failed


def _git(*arguments, given=None) -> str:
    # A repository that is gone would ask for a name and a password.
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    ended = subprocess.run(
        ["git", *arguments], input=given, capture_output=True, text=True, check=False, env=environment
    )
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
        raise FetchError(f"git {' '.join(arguments)}: {said}: check the network, or put a copy in its place")
    return ended.stdout


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(fetch_all(ROOT / "published"))
