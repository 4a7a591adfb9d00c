"""The three notebooks that take an analyst's formula, executed with one."""

import json
from functools import partial

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell

from idealized_runtime.fits import FormulaModel
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.measurements.timed_models import fit_models, read_timed_models
from idealized_runtime.notebooks.places import EXECUTED_FOLDER, RUNS_FILE
from idealized_runtime.notebooks.runs import execute_with, read_runs
from idealized_runtime.reproductions.paper.models import by_printed_name
from idealized_runtime.reproductions.paper.tradeoffs import idealized_points, with_relative_errors

FORMULA = "runtime_s ~ num_prompt_tokens * I(num_output_tokens - 1)"


def run_with_formula(name, root, table):
    """Execute the notebook of a run with ``FORMULA`` in a repository of its own.

    Returns
    -------
    DataFrame
        What the expression ``table`` is at its end.
    folder : Path
        With ``figures`` and ``processed_jsons``.
    """
    run = next(run for run in read_runs(ROOT / RUNS_FILE) if run.name == name)
    notebook = nbformat.read(ROOT / run.notebook, as_version=4)
    notebook.cells.append(new_code_cell(f"{table}.to_csv('table.csv')", id="table"))
    (root / "notebooks").mkdir()
    nbformat.write(notebook, root / run.notebook)
    execute_with(run, root, {"formula": FORMULA})
    (folder,) = (root / EXECUTED_FOLDER / "own" / name).iterdir()
    return pd.read_csv(root / "notebooks" / "table.csv"), folder


@pytest.fixture(scope="module")
def published_fits(published):
    fit = partial(FormulaModel, FORMULA)
    with pytest.warns(match="9 settings stand there more than once"):
        return {name: by_printed_name(fit_models(read_timed_models(name), fit)) for name in ("a100", "v100")}


@pytest.fixture(scope="module")
def queries(published):
    return pd.read_csv(published / "paper_figures" / "figure9_query_sizes.csv")


def test_own_fit_is_of_every_model_and_leaves_the_parameter_file_as_it_is(tmp_path):
    residuals = "pd.concat({name: model.residuals for name, model in own_fits.items()}, names=['model'])"
    table, folder = run_with_formula("cpu/fit_runtimes", tmp_path, residuals)
    fits = fit_models(read_timed_models("cpu"), partial(FormulaModel, FORMULA))
    names = list(dict.fromkeys(table["model"]))
    assert sorted(names) == sorted(fits)
    errors = pd.concat([fits[name].residuals["relative_error"] for name in names])
    np.testing.assert_allclose(table["relative_error"], errors)
    assert (folder / "figures" / "fit_runtimes" / "cpu_own_residuals.png").is_file()
    written, committed = (json.loads((root / "processed_jsons/cpu.json").read_text()) for root in (folder, ROOT))
    assert written.keys() == committed.keys()
    for name, entry in committed.items():
        assert written[name]["fit"]["method"] == entry["fit"]["method"]
        # The last digits are those of the processor.
        ours, theirs = (one["runtime_for_prompt_tokens"] | one["fit"]["residuals"] for one in (written[name], entry))
        assert ours == pytest.approx(theirs, rel=1e-8)


def test_points_of_the_frontiers_are_those_of_the_formula(tmp_path, published_fits, queries):
    committed = {path: path.read_bytes() for path in ROOT.glob("figures/efficiency_vs_capability/*.png")}
    table, folder = run_with_formula("published/efficiency_vs_capability", tmp_path, "fitted")
    names = ["metric", "task", "model"]
    ours = idealized_points(queries, published_fits).set_index(names).loc[list(table.set_index(names).index)]
    np.testing.assert_allclose(table["value"], ours["value"])
    np.testing.assert_allclose(table["standard_error"], ours["standard_error"])
    figures = {path.name for path in folder.glob("figures/efficiency_vs_capability/*.png")}
    assert figures == {path.name for path in committed}
    assert all(path.read_bytes() == before for path, before in committed.items())


def test_bars_and_ranks_are_those_of_the_formula(tmp_path, published_fits, queries):
    table, _ = run_with_formula("published/efficiency_vs_capability_ranks", tmp_path, "points")
    columns = ["task", "model", "metric", "value", "accuracy"]
    ours = with_relative_errors(table[columns], queries, published_fits["a100"])
    np.testing.assert_allclose(table["fitted_s"], ours["fitted_s"])
    np.testing.assert_allclose(table["standard_error"], ours["standard_error"])
