import hashlib
import subprocess
import sys

import pytest

from idealized_runtime.measurements import fetch as fetch_module
from idealized_runtime.measurements.fetch import FetchError, fetch, fetch_all
from idealized_runtime.measurements.published import ROOT, PublishedSource

FILES = {"data/points.csv": "a,b\n1,2\n", "data/more.csv": "c\n3\n"}


def git(*arguments):
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """URL of a bare repository of two commits, of which the second changes a file; and the first one's hash."""
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    git("init", "--quiet", str(work))
    for name, text in (FILES | {"weights.bin": "x" * 100_000, "other/notes.md": "no data"}).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git("-C", str(work), "add", ".")
    git("-C", str(work), "commit", "--quiet", "-m", "as measured")
    first = git("-C", str(work), "rev-parse", "HEAD")
    (work / "data/more.csv").write_text("c\n4\n")
    git("-C", str(work), "commit", "--quiet", "-am", "another value")
    git("clone", "--quiet", "--bare", str(work), str(bare))
    # As public hosts do.
    git("-C", str(bare), "config", "uploadpack.allowFilter", "true")
    git("-C", str(bare), "config", "uploadpack.allowAnySHA1InWant", "true")
    return bare.as_uri(), first


def source_of(url, commit, **changed):
    sha256 = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    return PublishedSource("theirs", url, commit, "MIT", "two tables", sha256 | changed)


def test_only_the_files_of_the_manifest_are_checked_out(repository, tmp_path):
    url, first = repository
    said = fetch(source_of(url, first[:8]), tmp_path / "published/theirs")
    folder = tmp_path / "published/theirs"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(".git/")} == set(FILES)
    assert said.startswith(f"theirs: two tables; {url}, commit {first[:12]} of ")
    assert said.endswith("licence: MIT")


def test_named_commit_is_what_one_gets(repository, tmp_path):
    url, first = repository
    fetch(source_of(url, first[:8]), tmp_path / "theirs")
    assert (tmp_path / "theirs/data/more.csv").read_text() == FILES["data/more.csv"]


def test_other_bytes_in_a_named_commit_are_refused_and_nothing_is_left(repository, tmp_path):
    url, first = repository
    with pytest.raises(FetchError, match=r"other than what was read: data/points\.csv"):
        fetch(source_of(url, first, **{"data/points.csv": "0" * 64}), tmp_path / "published/theirs")
    assert list((tmp_path / "published").iterdir()) == []


def test_what_changed_since_in_the_newest_commit_is_named(repository, tmp_path, capsys):
    url, _ = repository
    fetch(source_of(url, None), tmp_path / "theirs")
    assert "1 of 2 files have changed since they were read" in capsys.readouterr().err
    assert (tmp_path / "theirs/data/more.csv").read_text() == "c\n4\n"


def test_repository_that_cannot_be_had_is_said_and_the_others_are_got(repository, tmp_path, monkeypatch, capsys):
    url, first = repository
    absent = PublishedSource("absent", (tmp_path / "nowhere").as_uri(), first, "MIT", "nothing", {})
    monkeypatch.setattr(fetch_module, "SOURCES", (absent, source_of(url, first)))
    assert fetch_all(tmp_path / "published") == 1
    assert "nowhere" in (said := capsys.readouterr()).err
    assert "check the network" in said.err
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["theirs"]


def test_what_is_there_is_not_fetched_again(repository, tmp_path, monkeypatch, capsys):
    url, first = repository
    monkeypatch.setattr(fetch_module, "SOURCES", (source_of(url, first),))
    assert [fetch_all(tmp_path / "published") for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out.count("theirs: ") == 1


def test_getting_needs_nothing_that_is_installed():
    code = "import sys, idealized_runtime.measurements.fetch; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"numpy", "pandas", "scipy", "msgspec"} & set(loaded)
