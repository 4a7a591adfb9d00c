"""Run notebooks: papermill that refuses unknown parameters, and every run that ``runs.yml`` lists."""

from idealized_runtime.notebooks.execution import (
    NotebookError,
    ParameterError,
    check_parameters,
    committed_notebook_faults,
    declared_parameters,
    run_notebook,
    store_outputs,
)
from idealized_runtime.notebooks.runs import (
    EXECUTED_FOLDER,
    RUNS_FILE,
    Run,
    RunSkippedError,
    execute_run,
    execute_with,
    find_inputs,
    read_runs,
)

__all__ = [
    "EXECUTED_FOLDER",
    "RUNS_FILE",
    "NotebookError",
    "ParameterError",
    "Run",
    "RunSkippedError",
    "check_parameters",
    "committed_notebook_faults",
    "declared_parameters",
    "execute_run",
    "execute_with",
    "find_inputs",
    "read_runs",
    "run_notebook",
    "store_outputs",
]
