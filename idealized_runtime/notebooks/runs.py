"""The runs of ``runs.yml``: which are up to date, and how the others are executed."""

import glob
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml

from idealized_runtime.measurements.published import PublishedDataMissingError, how_to_get, published_data
from idealized_runtime.notebooks.execution import NotebookError, check_parameters, run_notebook, store_outputs
from idealized_runtime.notebooks.places import EXECUTED_FOLDER
from idealized_runtime.records.files import replacing, sha256_of


def _shown(value) -> str:
    """A value as YAML has it, too."""
    return json.dumps(value, ensure_ascii=True, default=str)


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
        Glob patterns of the data it reads: absolute, or from the repository root and, where it needs published
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
    parameters: dict = field(default_factory=dict)
    needs: str | None = None

    def __post_init__(self):
        if not all(isinstance(text, str) and text.isprintable() for text in (self.name, self.notebook)):
            raise ValueError(f"name and notebook are texts; got {_shown(self.name)}, {_shown(self.notebook)}")
        if not self.name or Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise ValueError(f"the executed notebook is {EXECUTED_FOLDER}/<name>.ipynb, so a name stays in that folder")
        for key in ("inputs", "outputs"):
            texts = getattr(self, key)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{key} is a list of paths; got {_shown(texts)}")
        if not isinstance(self.parameters, dict):
            raise ValueError(f"parameters is a mapping of names to values; got {_shown(self.parameters)}")
        if self.needs not in (None, "published", "measurement"):
            raise ValueError(f"needs is published or measurement; got {_shown(self.needs)}")


class RunSkippedError(Exception):
    """The data of a run are not there; the message says how to get them."""


def read_runs(path) -> list[Run]:
    """Runs of a ``runs.yml``, their notebooks and parameters checked.

    Raises
    ------
    ValueError, TypeError
        It is no YAML, a key is unknown, missing or of another kind, a name stands twice, a notebook does not exist, or
        does not declare a parameter (:class:`ParameterError`).
    """
    path = Path(path)
    runs = {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: holds no list of runs, each a mapping with name, notebook, inputs and outputs")
    for entry in entries:
        try:
            run = Run(**entry)
            if run.name in runs:
                raise ValueError("two runs have this name")
            notebook = path.parent.parent / run.notebook
            if not notebook.is_file():
                raise ValueError(f"there is no notebook {notebook}")
            check_parameters(notebook, run.parameters)
        except (TypeError, ValueError) as error:
            text = str(error).removeprefix("Run.__init__() ")
            raise type(error)(f"{path}: run {entry.get('name')!r}: {text}") from error
        runs[run.name] = run
    return list(runs.values())


def execute_run(run: Run, root: Path, *, force: bool = False) -> str:
    """Bring the outputs of one run up to date.

    Returns
    -------
    str
        What was done: nothing where notebook, parameters, package, data and outputs are those of the last execution.

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
        return "up to date"
    executed = run_notebook(
        root / run.notebook, run.parameters, output=stamp.with_suffix(".ipynb"), outputs_folder=root
    )
    products = list(run.outputs)
    if not run.parameters:
        store_outputs(executed, root / run.notebook)
        products.append(run.notebook)
    if missing := [name for name in products if not (root / name).is_file()]:
        raise NotebookError(f"{run.notebook} ran but did not write {', '.join(missing)}")
    hashes = {name: sha256_of(root / name) for name in products}
    with replacing(stamp) as part:
        part.write_text(json.dumps({"key": key, "outputs": hashes}, indent=1) + "\n", encoding="utf-8")
    return "done"


def execute_with(run: Run, root: Path, parameters: dict) -> str:
    """Execute the notebook of a run with other parameters, in a folder where nothing that is committed is written over.

    The folder, ``.executed/own/<run>/<parameters>``, stands for the repository root in what the notebook writes.

    Returns
    -------
    str
        Where the executed notebook and what it wrote are.

    Raises
    ------
    ParameterError, NotebookError
        As :func:`run_notebook`.
    """
    check_parameters(root / run.notebook, parameters)
    given = ",".join(f"{name}={value}" for name, value in parameters.items())
    folder = root / EXECUTED_FOLDER / "own" / run.name / re.sub(r"[^\w.,=-]+", "_", given)[:100]
    shutil.rmtree(folder, ignore_errors=True)
    output = folder / Path(run.notebook).name
    run_notebook(root / run.notebook, {**run.parameters, **parameters}, output=output, outputs_folder=folder)
    return f"done, in {folder.relative_to(root)}"


def find_inputs(run: Run, root: Path) -> list[Path]:
    """Data files that a run reads, sorted.

    Raises
    ------
    RunSkippedError, PublishedDataMissingError, ValueError
        A pattern finds none: to be skipped; to be skipped but for continuous integration; a mistake.
    """
    folder = published_data() if run.needs == "published" else root
    found = {
        pattern: [Path(path) for base in {root, folder} for path in glob.glob(str(base / pattern))]
        for pattern in run.inputs
    }
    missing = [pattern for pattern, paths in found.items() if not paths]
    if not missing:
        return sorted({path for paths in found.values() for path in paths})
    patterns = ", ".join(str(folder / pattern) for pattern in missing)
    if run.needs == "measurement":
        raise RunSkippedError(f"no {patterns}: `make figures` measures this machine")
    if run.needs == "published":
        raise PublishedDataMissingError(f"no {patterns}: {how_to_get(missing[0])}")
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
    package = sorted(Path(__file__).parents[1].rglob("*.py"))
    pins = [path for path in [root / "requirements.txt"] if path.is_file()]
    files = [[path.name, sha256_of(path)] for path in (*inputs, *package, *pins)]
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
        (root / name).is_file() and sha256_of(root / name) == sha256 for name, sha256 in record["outputs"].items()
    )
