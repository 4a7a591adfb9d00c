"""Execute one notebook with papermill, refuse unknown parameters, judge what may be committed."""

import ast
import difflib
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat

from idealized_runtime.records.files import replacing

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
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])]
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


def run_notebook(path, parameters: Mapping[str, object] | None = None, *, output, cwd=None) -> Path:
    """Execute a notebook from the top with papermill.

    Parameters
    ----------
    path : path-like
    parameters : mapping, optional
        Each must be declared in the cell tagged ``parameters``; its defaults hold for the others.
    output : path-like
        The executed notebook, also where it failed: then it ends at the error.
    cwd : path-like, optional
        Where it runs: in its own folder if not given.

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
    from traitlets.config import Config

    # Or else every kernel prints that it talks in plain text.
    encrypted = Config({"KernelManager": {"transport_encryption": "auto"}})
    path, output = Path(path), Path(output)
    check_parameters(path, parameters or {})
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            path, output, parameters=dict(parameters or {}), cwd=cwd or path.parent, kernel_name="python3",
            language="python", progress_bar=False, config=encrypted,
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
            cell.outputs = done.outputs
            for output in cell.outputs:
                output.pop("metadata", None)
                if output.output_type in ("display_data", "execute_result"):
                    output["metadata"] = {}
    if nbformat.writes(notebook) != before:
        with replacing(path) as part:
            nbformat.write(notebook, part)


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
