import os
import stat
import threading

import pytest

from idealized_runtime.records.files import replacing


def write(path, text="new"):
    with replacing(path) as part:
        part.write_text(text)


def test_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path):
    path = tmp_path / "a" / "b.json"
    write(path, "old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~os.umask(os.umask(0o022))
    path.chmod(0o640)
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "b.json"
    write(path, "old")
    with pytest.raises(error), replacing(path) as part:  # noqa: PT012
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["b" * 255, "ü" * 127, "𝛼" * 63, ".hidden"])
def test_any_name_a_file_may_have_can_be_written(tmp_path, name):
    write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_are_followed_even_to_what_is_not_there_yet(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "away" / "file")
    for text in ("new", "newer"):
        write(link, text)
        assert link.is_symlink()
        assert (tmp_path / "away" / "file").read_text() == text


def test_device_and_pipe_are_written_to_as_they_are(tmp_path):
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write, args=[pipe])
    writer.start()
    assert pipe.read_text() == "new"
    writer.join()
    assert list(tmp_path.iterdir()) == [pipe]


def test_link_to_an_open_pipe_is_written_to():
    reading, writing = os.pipe()
    write(f"/dev/fd/{writing}")
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "new"


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
        write(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file"):
        write(tmp_path / "file" / "b.json")
    with pytest.raises(OSError, match=r"No space left on device: .*b\.json'"), replacing(tmp_path / "b.json"):
        raise OSError(28, "No space left on device")


def test_full_device_is_named():
    with pytest.raises(OSError, match="No space left on device") as raised:
        write("/dev/full")
    assert raised.value.filename == "/dev/full"
