"""The look of every figure, their panels, and how they are written."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns

STYLE = {
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    # Type 42 keeps text of a PDF as text.
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
    "svg.hashsalt": "idealized-runtime",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
# Told apart with every kind of colour vision: blue, orange and grey of seaborn's "colorblind".
MEASURED_COLOR, FITTED_COLOR, KNEE_COLOR = (sns.color_palette("colorblind")[i] for i in (0, 3, 7))
PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 2.4, 2.0
# What would differ between two runs that draw the same.
_NO_METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def use_style():
    """Draw everything after this in the project's style: readable in print, safe for colour blindness."""
    mpl.rcParams.update(STYLE)


def make_panels(names: Sequence[str], *, num_columns: int = 4) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A figure with one titled panel a name, row by row; unused places stay empty.

    Returns
    -------
    figure : Figure
    axes : dict of Axes, by name
    """
    names = list(names)
    if not names:
        raise ValueError("make_panels needs at least one name")
    num_columns = min(num_columns, len(names))
    num_rows = -(-len(names) // num_columns)
    size = (max(PANEL_WIDTH_IN * num_columns, 4.0), PANEL_HEIGHT_IN * num_rows + 0.4)
    figure, grid = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False)
    axes = dict(zip(names, grid.flat, strict=False))
    for name, ax in axes.items():
        ax.set_title(name)
    for ax in list(grid.flat)[len(names) :]:
        ax.remove()
    return figure, axes


def finish_panels(figure: plt.Figure, axes: dict[str, plt.Axes], *, legend_title: str | None = None):
    """Leave axis labels to the outer panels, and give all panels one legend above them."""
    panels = list(axes.values())
    for number, ax in enumerate(panels):
        spec = ax.get_subplotspec()
        num_columns = spec.get_gridspec().ncols
        if not spec.is_first_col():
            ax.set_ylabel("")
        if number + num_columns < len(panels):
            ax.set_xlabel("")
    handles = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 8), title=legend_title
        )


def save_figure(figure: plt.Figure, path) -> list[Path]:
    """Write a figure as ``path.pdf`` and ``path.png``; equal figures give equal bytes.

    Parameters
    ----------
    path : path-like, without suffix
        Its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, metadata in _NO_METADATA.items():
        # with_suffix would cut a name at its dot: gpt2-9.9b.
        written.append(path.with_name(f"{path.name}.{suffix}"))
        figure.savefig(written[-1], metadata=metadata)
    return written
