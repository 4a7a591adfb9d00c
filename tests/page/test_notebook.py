import nbformat
import pytest
from makers import committed_notebook_faults

from idealized_runtime.measurements.published import ROOT
from idealized_runtime.notebooks.execution import declared_parameters, run_notebook
from idealized_runtime.page.queries import answer_queries
from idealized_runtime.page.server import NOTEBOOK
from idealized_runtime.page.state import State


def test_notebook_is_thin_and_executed():
    assert committed_notebook_faults(NOTEBOOK) == []
    assert (ROOT / "page" / "planner.ipynb").samefile(NOTEBOOK)
    assert declared_parameters(NOTEBOOK) == {"link": "", "machines": None}


@pytest.mark.parametrize(
    ("link", "machines"),
    [("model=gpt-j&logs=a100&num_output_tokens=64", None), ("model=gpt2-small&logs=cpu_eager", ["cpu_eager"])],
)
def test_notebook_runs_with_other_parameters(link, machines, tmp_path):
    run_notebook(NOTEBOOK, {"link": link, "machines": machines}, output=tmp_path / "out.ipynb", outputs_folder=tmp_path)
    cells = {cell.id: cell for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells}
    (printed,) = cells["sentence"].outputs
    assert printed["text"].strip() == answer_queries(State.from_link(link)[0]).sentence
