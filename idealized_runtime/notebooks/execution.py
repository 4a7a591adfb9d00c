"""Execute one notebook with papermill, and refuse unknown parameters."""

import ast
import os
from collections.abc import Mapping
from pathlib import Path

import nbformat

from idealized_runtime.checks import did_you_mean
from idealized_runtime.notebooks.places import OUTPUTS_SETTING
from idealized_runtime.records.files import replacing


class NotebookError(RuntimeError):
    """A notebook stopped with an error; the message names cell, error and the notebook as it stopped."""


class ParameterError(ValueError):
    """A notebook declares no parameters, or not the one that was given."""


def declared_parameters(path) -> dict:
    """Names and defaults that the cell tagged ``parameters`` of a notebook declares.

    Raises
    ------
    ParameterError
        It is no notebook, not exactly one cell has the tag, or the cell holds anything but plain literals.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        # nbformat raises what its parsers do.
        raise ParameterError(f"{path}: not a notebook: {' '.join(str(error).split())[:200]}") from error
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
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
            hint = did_you_mean(name, declared)
            raise ParameterError(f"{path} has no parameter {name!r}{hint}; it declares {', '.join(declared)}")


def run_notebook(path, parameters: Mapping[str, object] | None = None, *, output, outputs_folder) -> Path:
    """Execute a notebook from the top with papermill.

    Parameters
    ----------
    path : path-like
    parameters : mapping, optional
        Each must be declared in the cell tagged ``parameters``; its defaults hold for the others.
    output : path-like
        The executed notebook, also where it failed: then it ends at the error.
    outputs_folder : path-like
        Stands for the repository root in what it writes; see :mod:`.places`.

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

    config = Config()
    # Or else every kernel prints that it talks in plain text, and one that is interrupted where it stood.
    config.KernelManager.transport_encryption = "auto"
    config.NotebookClient.extra_arguments = ["--IPKernelApp.log_level=CRITICAL"]
    path, output = Path(path), Path(output)
    check_parameters(path, parameters or {})
    output.parent.mkdir(parents=True, exist_ok=True)
    # The kernel is born with this process's environment.
    os.environ[OUTPUTS_SETTING] = str(Path(outputs_folder).resolve())
    try:
        papermill.execute_notebook(
            path, output, parameters=dict(parameters or {}), cwd=path.parent, kernel_name="python3",
            language="python", progress_bar=False, config=config,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise NotebookError(
            f"{path}: cell [{error.exec_count}] failed: {error.ename}: {error.evalue}; "
            f"the notebook as it stopped: {output}"
        ) from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{path}: {error}; the notebook as it stopped: {output}") from error
    finally:
        del os.environ[OUTPUTS_SETTING]
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
