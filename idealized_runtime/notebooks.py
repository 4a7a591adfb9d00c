"""Run notebooks: papermill that refuses unknown parameters, and every run that ``runs.yml`` lists."""

import argparse
import ast
import difflib
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from idealized_runtime.published import ROOT, PublishedDataMissingError, published_data

RUNS_FILE = "notebooks/runs.yml"
# Executed notebooks and what each run was made from; ignored by git.
EXECUTED_FOLDER = ".executed"
# "/" that begins a path of two parts or more; what stands before it rules out URLs and closing tags.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~*])/(?!/)[\w.~-]+/[\w.~-]+|\b[A-Za-z]:\\\w")


class NotebookError(RuntimeError):
    """A notebook stopped with an error; the message names cell, error and the notebook as it stopped."""


class ParameterError(ValueError):
    """A notebook declares no parameters, or not the one that was given."""


def declared_parameters(path) -> dict:
    """Names and defaults that the cell tagged ``parameters`` of a notebook declares.

    Raises
    ------
    ParameterError
        Not exactly one cell has the tag, or the cell holds anything but plain literals.
    """
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in _tags(cell)]
    if len(cells) != 1:
        raise ParameterError(f"{path}: {len(cells)} cells have the tag 'parameters'; exactly one must")
    declared = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            (target,) = statement.targets
            declared[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError) as error:
            raise ParameterError(
                f"{path}: the parameters cell takes lines `name = literal`; got {ast.unparse(statement)!r}"
            ) from error
    return declared


def check_parameters(path, parameters: Mapping[str, object]):
    """Refuse parameters that a notebook does not declare.

    Raises
    ------
    ParameterError
        The message names the parameter, the nearest declared names, and all of them.
    """
    declared = declared_parameters(path)
    for name in parameters:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=2)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise ParameterError(f"{path} has no parameter {name!r}{hint}; it declares {', '.join(declared)}")


def run_notebook(path, parameters: Mapping[str, object] | None = None, *, output, kernel_name: str = "python3") -> Path:
    """Execute a notebook from the top with papermill, in the notebook's own folder.

    Parameters
    ----------
    path : path-like
    parameters : mapping, optional
        Each must be declared in the cell tagged ``parameters``; its defaults hold for the others.
    output : path-like
        The executed notebook, also where it failed: then it ends at the error.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    ParameterError
        A parameter is not declared; nothing was run (papermill alone would only warn).
    NotebookError
        A cell failed, or the kernel died.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    path, output = Path(path), Path(output)
    check_parameters(path, parameters or {})
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            path, output, parameters=dict(parameters or {}), cwd=path.parent, kernel_name=kernel_name,
            language="python", progress_bar=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise NotebookError(
            f"{path}: cell [{error.exec_count}] failed: {error.ename}: {error.evalue}; "
            f"the notebook as it stopped: {output}"
        ) from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{path}: {error}; the notebook as it stopped: {output}") from error
    return output


def store_outputs(executed, path):
    """Give the notebook at ``path`` the outputs of its executed copy; everything else of it stays.

    Timestamps and machine names of the execution are left behind, so that equal results leave an
    equal file. An equal file is not written again.
    """
    executed, notebook = (nbformat.read(name, as_version=4) for name in (executed, path))
    before = nbformat.writes(notebook)
    for cell, done in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = done.execution_count
            cell.outputs = [_without_transient_metadata(output) for output in done.outputs]
    if nbformat.writes(notebook) != before:
        nbformat.write(notebook, path)


def committed_notebook_faults(path) -> list[str]:
    """What keeps a notebook from being committed; empty for one that was executed from the top.

    Returns
    -------
    list of str
        A sentence a fault: a cell without execution or out of order, an error among the outputs, an
        absolute path in an output, a timestamp, a cell over 12 lines, a function definition.
    """
    notebook = nbformat.read(path, as_version=4)
    faults = []
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code_cells, start=1):
        where = f"{path}: code cell {number}"
        if cell.execution_count != number:
            faults.append(f"{where} has execution count {cell.execution_count}; run the notebook from the top")
        if len(cell.source.splitlines()) > 12:
            faults.append(f"{where} has over 12 lines; move code into the package")
        if re.search(r"^\s*(async\s+)?def |^\s*class |import \*", cell.source, flags=re.MULTILINE):
            faults.append(f"{where} defines a function or class, or imports *; move code into the package")
        if set(cell.metadata) & {"execution", "papermill"}:
            faults.append(f"{where} has timestamps in its metadata")
        faults += [f"{where} {fault}" for output in cell.outputs for fault in _output_faults(output)]
    if "papermill" in notebook.metadata:
        faults.append(f"{path}: has timestamps of papermill in its metadata")
    return faults


def _output_faults(output) -> list[str]:
    if output.output_type == "error":
        return [f"ends in an error: {output.ename}: {output.evalue}"]
    data = output.get("data", {})
    texts = [output.get("text", "")] + [text for kind, text in data.items() if kind.startswith("text/")]
    found = [match[0] for text in texts if (match := _ABSOLUTE_PATH.search(text))]
    return [f"has an absolute path in its output: {found_path}" for found_path in found[:1]]


def _without_transient_metadata(output):
    output.pop("metadata", None)
    if output.output_type in ("display_data", "execute_result"):
        output["metadata"] = {}
    return output


def _tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


@dataclass(frozen=True)
class Run:
    """One entry of ``runs.yml``.

    Parameters
    ----------
    name : str
        ``<hardware>/<notebook>``; the executed notebook is ``.executed/<name>.ipynb``.
    notebook : str
        Path from the repository root.
    parameters : dict
        None for the committed notebook itself, which then gets the outputs of the run.
    inputs : list of str
        Glob patterns of the data it reads, from the repository root or, where it needs published
        data, from the folder of published measurements.
    outputs : list of str
        Files it writes, from the repository root.
    needs : {None, "published", "measurement"}
        Without these data the run is skipped with a sentence; missing published data are an error
        in continuous integration.
    """

    name: str
    notebook: str
    inputs: list
    outputs: list
    parameters: dict
    needs: str | None = None


class RunSkippedError(Exception):
    """The data of a run are not there; the message says how to get them."""


def read_runs(path) -> list[Run]:
    """Runs of a ``runs.yml``, their notebooks and parameters checked.

    Raises
    ------
    ValueError
        A key is unknown or missing, a name stands twice, a notebook does not exist, or does not
        declare a parameter (:class:`ParameterError`).
    """
    path = Path(path)
    runs = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        try:
            run = Run(**{"parameters": {}, **entry})
        except TypeError as error:
            raise ValueError(f"{path}: run {entry.get('name')!r}: {error}") from error
        if run.needs not in (None, "published", "measurement"):
            raise ValueError(f"{path}: run {run.name!r}: needs is published or measurement; got {run.needs!r}")
        if run.name in {other.name for other in runs}:
            raise ValueError(f"{path}: two runs are named {run.name!r}")
        notebook = path.parent.parent / run.notebook
        if not notebook.is_file():
            raise ValueError(f"{path}: run {run.name!r}: there is no notebook {notebook}")
        check_parameters(notebook, run.parameters)
        runs.append(run)
    return runs


def execute_run(run: Run, root: Path, *, force: bool = False) -> bool:
    """Bring the outputs of one run up to date.

    Returns
    -------
    bool
        False where notebook, parameters, package, data and outputs are those of the last execution.

    Raises
    ------
    RunSkippedError
        Its data are not there.
    NotebookError
        The notebook failed, or did not write a file it should.
    """
    key = _content_key(run, root)
    stamp = root / EXECUTED_FOLDER / f"{run.name}.json"
    if not force and _is_up_to_date(stamp, key, root):
        return False
    executed = run_notebook(root / run.notebook, run.parameters, output=stamp.with_suffix(".ipynb"))
    products = list(run.outputs)
    if not run.parameters:
        store_outputs(executed, root / run.notebook)
        products.append(run.notebook)
    if missing := [name for name in products if not (root / name).is_file()]:
        raise NotebookError(f"{run.notebook} ran but did not write {', '.join(missing)}")
    hashes = {name: _sha256(root / name) for name in products}
    stamp.write_text(json.dumps({"key": key, "outputs": hashes}, indent=1) + "\n", encoding="utf-8")
    return True


def find_inputs(run: Run, root: Path) -> list[Path]:
    """Data files that a run reads, sorted.

    Raises
    ------
    RunSkippedError, PublishedDataMissingError, ValueError
        There are none: to be skipped; to be skipped but for continuous integration; a mistake.
    """
    folder = published_data() if run.needs == "published" else root
    paths = sorted({path for pattern in run.inputs for path in folder.glob(pattern)})
    if paths:
        return paths
    patterns = ", ".join(str(folder / pattern) for pattern in run.inputs)
    if run.needs == "measurement":
        raise RunSkippedError(f"no {patterns}: `make figures` measures this machine")
    if run.needs == "published":
        raise PublishedDataMissingError(f"no {patterns}: `make published` gets them")
    raise ValueError(f"run {run.name!r} reads {patterns}, and there is no such file")


def _content_key(run, root) -> str:
    """Hash of all that the outputs depend on; of the notebook its sources, since its outputs are results."""
    try:
        inputs = find_inputs(run, root)
    except PublishedDataMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        raise RunSkippedError(str(error)) from error
    cells = nbformat.read(root / run.notebook, as_version=4).cells
    sources = [[cell.cell_type, cell.source] for cell in cells]
    package = sorted(Path(__file__).parent.rglob("*.py"))
    pins = [path for path in [root / "requirements.txt"] if path.is_file()]
    files = [[path.name, _sha256(path)] for path in (*inputs, *package, *pins)]
    described = json.dumps([sources, run.parameters, run.outputs, files], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _is_up_to_date(stamp, key, root) -> bool:
    if not stamp.is_file():
        return False
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
    except ValueError:
        # Cut off while it was written: as good as absent.
        return False
    return record["key"] == key and all(
        (root / name).is_file() and _sha256(root / name) == sha256 for name, sha256 in record["outputs"].items()
    )


def _sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv=None) -> int:
    """Command line: execute the runs of ``runs.yml`` that are not up to date.

    Returns
    -------
    int
        1 where a run failed; the others were executed all the same.
    """
    arguments = _build_parser().parse_args(argv)
    try:
        runs = _select_runs(read_runs(arguments.runs), arguments.only)
    except (OSError, ValueError) as error:
        print(f"run_notebooks.py: error: {error}", file=sys.stderr)
        return 2
    if arguments.list:
        print(*(f"{run.name}: {run.notebook} {run.parameters or ''}".rstrip() for run in runs), sep="\n")
        return 0
    root = arguments.runs.resolve().parent.parent
    return 1 if _execute_all(runs, root, force=arguments.force) else 0


def _execute_all(runs, root, *, force) -> list[str]:
    """Names of the runs that failed."""
    from tqdm import tqdm

    failed, reasons = [], set()
    bar_format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} elapsed, {remaining} left"
    with tqdm(runs, bar_format=bar_format, desc="notebooks") as progress:
        for run in progress:
            progress.set_description(run.name)
            try:
                outcome = "done" if execute_run(run, root, force=force) else "up to date"
            except RunSkippedError as error:
                outcome = "skipped, as above" if str(error) in reasons else f"skipped: {error}"
                reasons.add(str(error))
            except (NotebookError, OSError, ValueError) as error:
                failed.append(run.name)
                outcome = f"FAILED: {error}"
            progress.write(f"{run.name}: {outcome}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return failed


def _select_runs(runs, patterns) -> list[Run]:
    if not patterns:
        return runs
    for pattern in patterns:
        if not any(Path(run.name).match(pattern) for run in runs):
            names = ", ".join(run.name for run in runs)
            raise ValueError(f"--only {pattern}: no run has this name; there are: {names}")
    return [run for run in runs if any(Path(run.name).match(pattern) for pattern in patterns)]


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_notebooks.py",
        description="Execute every notebook run that notebooks/runs.yml lists and that is not up to date: same "
        "notebook, parameters, package, data and outputs as at its last execution. Executed notebooks go to "
        f"{EXECUTED_FOLDER}/<run>.ipynb, one that fails included; a run without parameters also stores its outputs "
        "in the committed notebook. Runs whose data are missing are skipped and say so.",
        epilog="Examples: run_notebooks.py --list;  run_notebooks.py --only 'a100/*';  "
        "run_notebooks.py --only cpu/fit_runtimes --force",
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs of these names; * stands for any part")
    parser.add_argument("--force", action="store_true", help="execute also what is up to date")
    parser.add_argument("--list", action="store_true", help="print the runs and stop")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / RUNS_FILE, metavar="FILE", help=f"list of runs (default: {RUNS_FILE})"
    )
    return parser
