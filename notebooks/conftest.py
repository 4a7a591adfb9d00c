"""Notebooks that need the published measurements are compared only where those are."""

import os
import tempfile
from pathlib import Path

import pytest

from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.notebooks.places import OUTPUTS_SETTING
from idealized_runtime.notebooks.runs import find_inputs, read_runs

HERE = Path(__file__).parent
ROOT = HERE.parent
# What compared notebooks write is thrown away.
_OUTPUTS = tempfile.TemporaryDirectory(prefix="notebooks-")
os.environ[OUTPUTS_SETTING] = _OUTPUTS.name


def pytest_collection_modifyitems(items):
    """Skip, with a sentence, what cannot run here; in continuous integration absence is an error."""
    for run in read_runs(HERE / "runs.yml"):
        if run.parameters or run.needs != "published":
            continue
        try:
            find_inputs(run, ROOT)
        except PublishedDataMissingError as error:
            if os.environ.get("CI") == "true":
                raise
            for item in items:
                if item.path == ROOT / run.notebook:
                    item.add_marker(pytest.mark.skip(reason=str(error)))
