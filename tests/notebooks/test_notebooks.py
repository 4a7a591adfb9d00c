import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from makers import committed_notebook_faults
from nbformat.v4 import new_code_cell, new_notebook

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.notebooks import runs as notebook_runs
from idealized_runtime.notebooks.execution import NotebookError, ParameterError, declared_parameters, run_notebook
from idealized_runtime.notebooks.places import OUTPUTS_SETTING, RUNS_FILE, in_repository, output_path
from idealized_runtime.notebooks.runs import find_inputs, read_runs

RUN = {"name": "default/shout", "outputs": ["out/default.txt"]}
COMMITTED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def write_notebook(path, *sources, tags=("parameters",)):
    """A notebook with these code cells, the first of them tagged."""
    cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    cells[0].metadata["tags"] = list(tags)
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def repository(tmp_path):
    """A repository of one notebook that copies data/in.txt, shouted, to out/<name>.txt."""
    for folder in ("notebooks", "data", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "in.txt").write_text("word")
    write_notebook(
        tmp_path / "notebooks" / "shout.ipynb",
        "name = 'default'\nfails = False",
        "from idealized_runtime.notebooks.places import in_repository, output_path",
        "text = in_repository('data/in.txt').read_text().upper()\nassert not fails, text\n"
        "output_path(f'out/{name}.txt').write_text(text)",
    )
    write_runs(tmp_path, RUN)
    return tmp_path


def write_runs(repository, *runs):
    common = {"notebook": "notebooks/shout.ipynb", "inputs": ["data/*.txt"]}
    # YAML reads JSON.
    (repository / "notebooks" / "runs.yml").write_text(json.dumps([{**common, **run} for run in runs]))


def run_main(repository, *arguments):
    return main(["notebooks", "--runs", str(repository / "notebooks" / "runs.yml"), *arguments])


def test_parameters_are_declared_by_the_tagged_cell(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "hardware = 'cpu'  # a folder\nsizes = [1, 2]\nmodels = None", "x = 1")
    assert declared_parameters(path) == {"hardware": "cpu", "sizes": [1, 2], "models": None}


@pytest.mark.parametrize("source", ["a = b = 1", "a = len('x')", "import os", "a, b = 1, 2"])
def test_parameters_cell_takes_plain_literals_only(tmp_path, source):
    with pytest.raises(ParameterError, match="`name = literal`"):
        declared_parameters(write_notebook(tmp_path / "n.ipynb", source))


def test_notebook_without_parameters_cell_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="0 cells have the tag 'parameters'"):
        run_notebook(
            write_notebook(tmp_path / "n.ipynb", "a = 1", tags=()),
            {},
            output=tmp_path / "out.ipynb",
            outputs_folder=tmp_path,
        )


def test_unknown_parameter_is_refused_before_anything_runs(repository):
    with pytest.raises(ParameterError, match=r"no parameter 'nam' \(did you mean name\?\); it declares name, fails"):
        run_notebook(repository / "notebooks" / "shout.ipynb", {"nam": 1}, output=repository / "out" / "x.ipynb",
                     outputs_folder=repository)  # fmt: skip
    assert not list((repository / "out").iterdir())


def test_parameters_reach_a_notebook_that_runs_in_its_own_folder(repository):
    output = run_notebook(
        repository / "notebooks" / "shout.ipynb", {"name": "given"}, output=repository / "deep" / "er" / "x.ipynb",
        outputs_folder=repository,
    )  # fmt: skip
    assert (repository / "out" / "given.txt").read_text() == "WORD"
    assert "injected-parameters" in str(nbformat.read(output, as_version=4).cells)


def test_failed_notebook_is_left_with_its_error(repository):
    output = repository / "x.ipynb"
    with pytest.raises(NotebookError, match=r"shout\.ipynb: cell \[4\] failed: AssertionError: WORD; .*x\.ipynb"):
        run_notebook(repository / "notebooks" / "shout.ipynb", {"fails": True}, output=output,
                     outputs_folder=repository)  # fmt: skip
    errors = [out for cell in nbformat.read(output, as_version=4).cells for out in cell.get("outputs", [])]
    assert [out.evalue for out in errors if out.output_type == "error"] == ["WORD"]


def test_dead_kernel_is_an_error_that_names_the_notebook(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "code = 1", "import os; os._exit(code)")
    with pytest.raises(NotebookError, match=r"n\.ipynb: .*died"):
        run_notebook(path, output=tmp_path / "x.ipynb", outputs_folder=tmp_path)
    assert (tmp_path / "x.ipynb").is_file()


def test_run_without_parameters_executes_the_committed_notebook_once(repository, capsys):
    notebook = repository / "notebooks" / "shout.ipynb"
    assert run_main(repository) == 0
    assert committed_notebook_faults(notebook) == []
    assert nbformat.read(notebook, as_version=4).cells[2].outputs[0].data["text/plain"] == "4"
    first = notebook.read_bytes()
    assert run_main(repository) == 0
    assert "default/shout: up to date" in capsys.readouterr().err
    assert run_main(repository, "--force") == 0
    assert notebook.read_bytes() == first


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "data" / "in.txt").write_text("other"),
        lambda root: (root / "data" / "new.txt").write_text("more"),
        lambda root: (root / "out" / "default.txt").unlink(),
        lambda root: (root / "out" / "default.txt").write_text("edited"),
        lambda root: (root / ".executed" / "default" / "shout.json").write_text('{"key":'),
        lambda root: write_notebook(root / "notebooks" / "shout.ipynb", "name = 'default'", "name"),
        lambda root: write_runs(root, {**RUN, "parameters": {"name": "default"}}),
    ],
)
def test_whatever_a_run_depends_on_makes_it_run_again(repository, change, monkeypatch):
    executed = []

    def pretend_to_run(path, parameters, *, output, outputs_folder):
        executed.append(path.name)
        (repository / "out" / "default.txt").write_text("WORD")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(path.read_bytes())
        return output

    monkeypatch.setattr(notebook_runs, "run_notebook", pretend_to_run)
    assert run_main(repository) == run_main(repository) == 0
    assert len(executed) == 1
    change(repository)
    assert run_main(repository) == 0
    assert len(executed) == 2


def test_other_parameters_leave_what_is_committed_as_it_is(repository, capsys):
    (repository / "out" / "mine.txt").write_text("committed")
    notebook = repository / "notebooks" / "shout.ipynb"
    before = notebook.read_bytes()
    assert run_main(repository, "shout", "-p", "name", "mine", "-p", "fails", "[]") == 0
    own = repository / ".executed" / "own" / "default" / "shout" / "name=mine,fails=_"
    assert f"default/shout: done, in {own.relative_to(repository)}" in capsys.readouterr().err
    assert (own / "out" / "mine.txt").read_text() == "WORD"
    assert (own / "shout.ipynb").is_file()
    assert (repository / "out" / "mine.txt").read_text() == "committed"
    assert notebook.read_bytes() == before


@pytest.mark.parametrize("folder", [".", "notebooks", "out/deeper"])
def test_paths_count_from_the_repository_wherever_a_notebook_is_run(repository, folder, monkeypatch, capsys):
    (repository / "out" / "deeper").mkdir()
    monkeypatch.chdir(repository / folder)
    assert in_repository("logs/x").resolve() == repository.resolve() / "logs" / "x"
    monkeypatch.delenv(OUTPUTS_SETTING, raising=False)
    assert output_path("figures/x").resolve() == repository.resolve() / ".executed" / "interactive" / "figures" / "x"
    assert ".executed/interactive/figures/x (a run of your own" in capsys.readouterr().out
    for setting in (".", str(repository)):
        monkeypatch.setenv(OUTPUTS_SETTING, setting)
        assert output_path("figures/x").resolve() == repository.resolve() / "figures" / "x"
    assert capsys.readouterr().out == ""


def test_outside_of_a_repository_paths_count_from_that_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_repository("figures") == ROOT / "figures"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_notebook_names_no_path_from_where_it_is_run(path):
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [source for source in sources if "../" in source] == []


def test_unknown_parameter_and_parameters_of_no_run_are_refused(repository, capsys):
    assert run_main(repository, "shout", "-p", "nam", "mine") == 2
    err = capsys.readouterr().err
    assert "has no parameter 'nam' (did you mean name?)" in err
    assert err.count("\n") == 1
    assert run_main(repository, "shout", "-p", "name", "[1") == 2
    assert "-p takes a name and a value as YAML writes it" in capsys.readouterr().err
    assert run_main(repository, "-p", "name", "mine") == 2
    assert "-p changes the runs that are named" in capsys.readouterr().err


def test_kernels_say_nothing_on_the_terminal(repository, capfd):
    assert run_main(repository) == 0
    err = capfd.readouterr().err
    assert "default/shout: done" in err
    assert "encryption" not in err


def test_interrupt_ends_the_kernel_and_says_so_in_a_line(repository):
    write_notebook(
        repository / "notebooks" / "shout.ipynb",
        "name = 'x'",
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)",
    )
    command = [sys.executable, "-m", "idealized_runtime", "notebooks", "--runs", "notebooks/runs.yml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command, cwd=repository, env=environment, stderr=subprocess.PIPE, text=True)
    pid = repository / "notebooks" / "pid"
    wait_until(lambda: pid.is_file() and pid.read_text(), timeout_s=120)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.splitlines()[-1] == "idealized-runtime notebooks: interrupted"
    assert "Traceback" not in err
    wait_until(lambda: not Path("/proc", pid.read_text()).exists(), timeout_s=20)


def wait_until(is_so, *, timeout_s):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_failed_run_is_reported_and_the_rest_goes_on(repository, capsys):
    write_runs(
        repository,
        {"name": "bad/shout", "parameters": {"fails": True}, "outputs": []},
        {"name": "silent/shout", "parameters": {"name": "silent"}, "outputs": ["out/loud.txt"]},
        {"name": "good/shout", "parameters": {"name": "good"}, "outputs": ["out/good.txt"]},
    )
    assert run_main(repository) == 1
    errors = capsys.readouterr().err
    assert "bad/shout: FAILED: " in errors
    assert "did not write out/loud.txt" in errors
    assert "good/shout: done" in errors
    assert "2 of 3 runs failed: bad/shout, silent/shout" in errors


def test_run_without_its_published_data_is_skipped_but_for_continuous_integration(repository, capsys, monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", str(repository / "absent"))
    monkeypatch.delenv("CI", raising=False)
    names = ("a100/shout", "v100/shout")
    write_runs(repository, *({"name": name, "needs": "published", "outputs": []} for name in names))
    assert run_main(repository) == 0
    errors = capsys.readouterr().err
    assert "a100/shout: skipped: published measurements not found" in errors
    assert "v100/shout: skipped, as above" in errors
    monkeypatch.setenv("CI", "true")
    assert run_main(repository) == 1
    assert "make published" in capsys.readouterr().err


def test_run_without_a_measurement_is_skipped(repository, capsys, monkeypatch):
    monkeypatch.setenv("CI", "true")
    write_runs(repository, {"name": "local/shout", "needs": "measurement", "inputs": ["logs/local/*"], "outputs": []})
    assert run_main(repository) == 0
    assert "`make figures` measures this machine" in capsys.readouterr().err


def test_run_whose_committed_data_are_gone_fails(repository, capsys):
    write_runs(repository, {"name": "cpu/shout", "inputs": ["logs/cpu/*"], "outputs": []})
    assert run_main(repository) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_runs_are_named_and_stars_stand_for_any_part(repository, capsys):
    names = ("a100/one", "a100/two", "cpu/one")
    write_runs(repository, *({"name": name, "outputs": []} for name in names))
    assert run_main(repository, "--list", "a100/*") == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a100/one", "a100/two"]
    assert run_main(repository, "v100/*") == 2
    assert "there are: a100/one, a100/two, cpu/one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"name": "x", "outputs": [], "input": []}, "run 'x': .*'input'"),
        ({"name": "x"}, "run 'x': .*outputs"),
        ({"name": ["x"], "outputs": []}, "name and notebook are texts"),
        ({"name": "../x", "outputs": []}, "a name stays in that folder"),
        ({"name": "x", "outputs": "out.txt"}, 'outputs is a list of paths; got "out.txt"'),
        ({"name": "x", "outputs": [], "inputs": [1]}, r"inputs is a list of paths; got \[1\]"),
        ({"name": "x", "outputs": [], "parameters": []}, "parameters is a mapping"),
        ({"name": "x", "outputs": [], "notebook": "data/in.txt"}, "not a notebook"),
        ({"name": "x", "outputs": [], "needs": "luck"}, "needs is published or measurement"),
        ({"name": "x", "outputs": [], "notebook": "notebooks/absent.ipynb"}, "there is no notebook"),
        ({"name": "x", "outputs": [], "parameters": {"nme": 1}}, "no parameter 'nme'"),
    ],
)
def test_mistakes_in_runs_are_found_before_any_run(repository, run, message):
    write_runs(repository, {"name": "first", "outputs": []}, run)
    with pytest.raises((TypeError, ValueError), match=message):
        read_runs(repository / "notebooks" / "runs.yml")
    assert run_main(repository) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"- [", "not YAML: "), (b"\tx: 1", "not YAML: "), (b"- \0", "not YAML: "), (b"- \xff", "not YAML: "),
        (b"[" * 5000, "not YAML: "), (b"word", "no list of runs"), (b"- 1", "no list"), (b"- null", "no list"),
        (b"", "no list"), (b"- {1: 2}", "run None: "),
    ],
)  # fmt: skip
def test_list_that_is_none_is_refused_in_a_line_that_names_it(repository, capsys, text, message):
    (repository / "notebooks" / "runs.yml").write_bytes(text)
    assert run_main(repository) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "runs.yml" in err
    assert err.count("\n") == 1


def test_absolute_inputs_are_found(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "in.txt"
    elsewhere.write_text("1")
    write_runs(repository, {**RUN, "inputs": [str(elsewhere)]})
    (run,) = read_runs(repository / "notebooks" / "runs.yml")
    assert find_inputs(run, repository) == [elsewhere]


def test_two_runs_of_one_name_are_refused(repository):
    write_runs(repository, {"name": "x", "outputs": []}, {"name": "x", "outputs": []})
    with pytest.raises(ValueError, match="run 'x': two runs have this name"):
        read_runs(repository / "notebooks" / "runs.yml")


@pytest.mark.parametrize(
    ("count", "source", "text", "message"),
    [
        (None, "1", "1", "execution count None"),
        (2, "1", "1", "execution count 2"),
        (1, "\n".join("x = 1" for _ in range(13)), "1", "over 12 lines"),
        (1, "def f(): pass", "1", "defines a function"),
        (1, "from numpy import *", "1", "imports *"),
        (1, "1", "/home/someone/logs/cpu", "absolute path in its output: /home/someone"),
        (1, "1", "C:\\Users\\someone", "absolute path"),
    ],
)
def test_faults_of_a_committed_notebook_are_named(tmp_path, count, source, text, message):
    path = write_notebook(tmp_path / "n.ipynb", source)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].execution_count = count
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=text)]
    nbformat.write(notebook, path)
    (fault,) = committed_notebook_faults(path)
    assert message in fault


@pytest.mark.parametrize("text", ["https://a.org/b/c", "3 tokens/s", "<td>1</td>", "../figures/fit", "1e3 / 2 / 4"])
def test_what_only_looks_like_an_absolute_path_is_no_fault(tmp_path, text):
    path = write_notebook(tmp_path / "n.ipynb", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].execution_count = 1
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=text)]
    nbformat.write(notebook, path)
    assert committed_notebook_faults(path) == []


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_notebook_was_executed_from_the_top(path):
    assert committed_notebook_faults(path) == []
    assert declared_parameters(path)


@pytest.mark.parametrize("name", ["fit_runtimes", "runtime_vs_output_tokens", "runtime_vs_prompt_tokens"])
def test_runtime_notebooks_take_any_hardware(name):
    declared = declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
    assert {"hardware", "models", "prompt_sizes", "method"} <= set(declared)


def test_every_committed_notebook_has_a_run_with_its_defaults():
    runs = read_runs(ROOT / RUNS_FILE)
    assert {ROOT / run.notebook for run in runs if not run.parameters} == set(COMMITTED)


def test_runs_write_no_file_twice():
    outputs = [output for run in read_runs(ROOT / RUNS_FILE) for output in run.outputs]
    assert len(outputs) == len(set(outputs))


def test_outputs_of_committed_runs_are_committed():
    for run in read_runs(ROOT / RUNS_FILE):
        if run.needs != "measurement":
            assert [name for name in run.outputs if not Path(ROOT, name).is_file()] == []


def test_run_on_published_data_depends_on_files_of_the_repository_too(repository, tmp_path_factory, monkeypatch):
    published = tmp_path_factory.mktemp("published")
    (published / "runs.csv").write_text("1")
    monkeypatch.setenv("PUBLISHED_DATA", str(published))
    write_runs(repository, {**RUN, "needs": "published", "inputs": ["data/*.txt", "runs.csv"]})
    (run,) = read_runs(repository / "notebooks" / "runs.yml")
    assert find_inputs(run, repository) == sorted([repository / "data" / "in.txt", published / "runs.csv"])
