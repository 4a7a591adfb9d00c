"""nbval executes these notebooks; those of published data are skipped, with a sentence, where the data are absent."""

import os
from pathlib import Path

import pytest

from idealized_runtime.notebooks import read_runs
from idealized_runtime.published import PublishedDataMissingError, published_data


def pytest_collection_modifyitems(items):
    try:
        published_data()
    except PublishedDataMissingError as error:
        if os.environ.get("CI") == "true":
            # The cells that read the data then fail with this error.
            return
        skip = pytest.mark.skip(reason=str(error))
        folder = Path(__file__).parent
        needing = {
            folder.parent / run.notebook
            for run in read_runs(folder / "runs.yml")
            if run.needs == "published" and not run.parameters
        }
        for item in items:
            if item.path in needing:
                item.add_marker(skip)
