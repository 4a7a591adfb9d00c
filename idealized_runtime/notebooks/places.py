"""Where a notebook reads and writes: every path counts from the repository root, wherever the notebook is run.

``idealized-runtime notebooks`` tells its runs where their outputs go. Any other run, in JupyterLab or by papermill,
writes below ``.executed/interactive/`` and says so: what is committed stays as it is. ``NOTEBOOK_OUTPUTS=.`` asks for
the repository itself.
"""

import os
from pathlib import Path

from idealized_runtime.measurements.published import ROOT

# Executed notebooks, what each run was made from, and what runs of one's own wrote; ignored by git.
EXECUTED_FOLDER = ".executed"
RUNS_FILE = "notebooks/runs.yml"
# Set by whoever runs a notebook: the folder that stands for the repository root in what it writes.
OUTPUTS_SETTING = "NOTEBOOK_OUTPUTS"


def in_repository(path) -> Path:
    """A path that counts from the repository root: of the repository worked in, or else of the one of this package."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / RUNS_FILE).is_file()), ROOT)
    return root / path


def output_path(path) -> Path:
    """Where to write what stands at ``path`` in the repository, its folder made; a run of one's own is told where."""
    if folder := os.environ.get(OUTPUTS_SETTING):
        target = in_repository(folder) / path
    else:
        own = Path(EXECUTED_FOLDER, "interactive", path)
        print(f"-> {own} (a run of your own: what is committed stays; {OUTPUTS_SETTING}=. writes there)")
        target = in_repository(own)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def save_figure(figure, name: str) -> list[Path]:
    """Write a figure to ``figures/<name>.pdf`` and ``.png``; see :func:`output_path`."""
    # matplotlib is not imported to list the runs.
    from idealized_runtime.plots import style

    return style.save_figure(figure, output_path(f"figures/{name}"))
