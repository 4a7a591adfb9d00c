import pytest

from idealized_runtime.page.files import FOLDER_SETTING, DroppedFiles


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_SETTING, str(tmp_path))
    return DroppedFiles()


@pytest.mark.parametrize("name", ["config.json", "../../etc/x.json", "<script>alert(1)</script>.json", "a b;rm -rf.csv",
                                  "$(id).csv", "..", "é中.json", "x" * 300 + ".json"])  # fmt: skip
def test_file_is_kept_under_a_plain_name_in_its_folder(files, tmp_path, name):
    path = files.keep(name, b"{}")
    assert path.read_bytes() == b"{}"
    assert path.parent.parent == tmp_path.resolve()
    assert not set(path.name) & set("<>/;$() '\"&")
    assert files.check(str(path)) == str(path)


def test_files_of_one_name_are_told_apart(files):
    assert files.keep("a.csv", b"1") != files.keep("a.csv", b"2")


def test_empty_and_huge_files_are_refused(files):
    with pytest.raises(ValueError, match=r"a\.csv is empty"):
        files.keep("a.csv", b"")
    with pytest.raises(ValueError, match="files of up to 50 MB are read here"):
        files.keep("a.csv", bytes(50_000_001))


@pytest.mark.parametrize("path", ["/etc/hostname", "../x.json", "{folder}/../x.json", "{folder}/none.json"])
def test_link_opens_no_other_file(files, tmp_path, path):
    (tmp_path.parent / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not among the files of this page"):
        files.check(path.format(folder=tmp_path))


def test_folder_without_a_server_goes_with_the_process(monkeypatch):
    monkeypatch.delenv(FOLDER_SETTING, raising=False)
    files = DroppedFiles()
    path = files.keep("a.csv", b"1")
    assert path.is_file()
    files._own.cleanup()
    assert not path.exists()
