import hashlib
from pathlib import Path

import pytest

from idealized_runtime.measurements import published as published_module
from idealized_runtime.measurements.published import SOURCES, PublishedDataMissingError, published_data


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A stand-in for the repository root; the working directory is its ``notebooks`` folder."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(published_module, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_unset_or_empty_setting_means_published_in_the_repository(repository, monkeypatch, value):
    monkeypatch.delenv("PUBLISHED_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("PUBLISHED_DATA", value)
    (repository / "published" / "part").mkdir(parents=True)
    assert published_data("part") == repository / "published" / "part"


def test_relative_setting_counts_from_the_working_directory_first(repository, monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "data")
    (repository / "data").mkdir()
    assert published_data() == repository / "data"
    (repository / "notebooks" / "data").mkdir()
    assert published_data().resolve() == repository / "notebooks" / "data"


def test_part_is_sought_in_both_places(repository, monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "data")
    (repository / "data" / "part").mkdir(parents=True)
    (repository / "notebooks" / "data").mkdir()
    assert published_data("part") == repository / "data" / "part"


def test_absolute_setting_is_taken_as_it_is(repository, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("PUBLISHED_DATA", str(folder))
    assert published_data() == folder


def test_home_is_expanded(repository, monkeypatch):
    monkeypatch.setenv("HOME", str(repository))
    monkeypatch.setenv("PUBLISHED_DATA", "~/notebooks")
    assert published_data() == Path(repository / "notebooks")


def test_missing_folder_says_how_to_get_it(repository, monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "nowhere")
    with pytest.raises(PublishedDataMissingError, match=r"not found at .*nowhere.logs: run `make published`, or set"):
        published_data("logs")


def test_data_of_no_public_repository_are_not_to_be_had_by_make(repository, monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "nowhere")
    with pytest.raises(PublishedDataMissingError, match="no public repository holds paper_figures/") as error:
        published_data("paper_figures/figure9_points.csv")
    assert "make published" not in str(error.value)


def test_every_source_names_its_repository_licence_and_files():
    assert [source.folder for source in SOURCES] == [
        "helm-efficiency", "beyond-chinchilla", "ml-energy-leaderboard", "aiconfigurator", "LLMServingSim",
        "AzurePublicDataset",
    ]  # fmt: skip
    for source in SOURCES:
        assert source.repository.startswith("https://github.com/")
        assert source.licence
        assert all(len(sha256) == 64 for sha256 in source.files.values())


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.folder)
def test_files_of_a_source_are_those_that_the_manifest_names(source):
    folder = published_data(source.folder)
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in source.files} == source.files
