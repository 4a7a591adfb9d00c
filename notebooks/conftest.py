"""Notebooks that need the published measurements are compared only where those are."""

import os
from pathlib import Path

import pytest

from idealized_runtime.notebooks import read_runs
from idealized_runtime.published import PublishedDataMissingError, published_data

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Skip, with a sentence, what cannot run here; in continuous integration absence is an error."""
    try:
        published_data()
    except PublishedDataMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        committed = {run.notebook: run.needs for run in read_runs(HERE / "runs.yml") if not run.parameters}
        needing = {HERE.parent / notebook for notebook, needs in committed.items() if needs == "published"}
        for item in items:
            if item.path in needing:
                item.add_marker(pytest.mark.skip(reason=str(error)))
