"""The look of every figure, their panels, and how they are written."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import LogLocator, NullFormatter

from idealized_runtime.plots.tables import head_in_words
from idealized_runtime.records.files import replacing

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
# Of models, from small to large; each beside a colour of a scale that is as dark in print.
_MODEL_MARKERS = "os^DvPX<>p"
PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 2.4, 2.0
# Multiples of powers of ten that ticks stand at, where so many fit the axis.
_TICKS_IN_DECADE = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
# Of two neighbours on a logarithmic axis, in units of the room that matplotlib counts for a tick.
_ROOM_OF_LABEL = 1.1
# What would differ between two runs that draw the same.
# Of a name: what a panel 4 inches wide has room for. The longest of the registry, with its machine, is shorter.
_MOST_LETTERS = 50
_NO_METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def use_style() -> None:
    """Draw everything after this in the project's style, readable in print; in a notebook, head tables in words."""
    mpl.rcParams.update(STYLE)
    head_in_words()


def style_models(names: Iterable[str]) -> dict[str, dict]:
    """Colour and marker of each model, as keywords of ``plot``: the same in every panel that is given the same names.

    Parameters
    ----------
    names : iterable of str
        From the smallest model to the largest, dark to light.
    """
    names = list(dict.fromkeys(names))
    colors = sns.color_palette("viridis", as_cmap=True)(np.linspace(0, 0.9, len(names)))
    return {
        name: {"color": mpl.colors.to_hex(color), "marker": _MODEL_MARKERS[number % len(_MODEL_MARKERS)]}
        for number, (name, color) in enumerate(zip(names, colors, strict=True))
    }


def make_panels(names: Sequence[str], *, num_columns: int = 4, **shared) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A figure with one titled panel a name, row by row; unused places stay empty.

    Parameters
    ----------
    names : sequence of str
    num_columns : int
    **shared
        ``sharex`` and ``sharey``, as in ``plt.subplots``.

    Returns
    -------
    figure : Figure
    axes : dict of Axes, by name
    """
    names = list(names)
    if not names:
        raise ValueError("nothing to draw: make_panels needs at least one name")
    num_columns = min(num_columns, len(names))
    num_rows = -(-len(names) // num_columns)
    size = (max(PANEL_WIDTH_IN * num_columns, 4.0), PANEL_HEIGHT_IN * num_rows + 0.4)
    figure, grid = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False, **shared)
    axes = dict(zip(names, grid.flat, strict=False))
    for name, ax in axes.items():
        ax.set_title(name)
    for ax in list(grid.flat)[len(names) :]:
        ax.remove()
    return figure, axes


def finish_panels(
    figure: plt.Figure, axes: dict[str, plt.Axes], *, legend_title: str | None = None, legend_side: str = "top"
) -> None:
    """Leave axis labels to the outer panels, and give all panels one legend.

    Parameters
    ----------
    figure, axes
        As from :func:`make_panels`.
    legend_title : str, optional
    legend_side : {"top", "right"}
        Above the panels, or beside them, one line an entry, where there are many.
    """
    panels = list(axes.values())
    for number, ax in enumerate(panels):
        spec = ax.get_subplotspec()
        num_columns = spec.get_gridspec().ncols
        if not spec.is_first_col():
            ax.set_ylabel("")
        if number + num_columns < len(panels):
            ax.set_xlabel("")
    if handles := take_legends(panels):
        place, ncols = {"top": ("upper center", min(len(handles), 8)), "right": ("right center", 1)}[legend_side]
        while True:
            legend = figure.legend(
                handles.values(), handles.keys(), loc=f"outside {place}", ncols=ncols, title=legend_title
            )  # fmt: skip
            width = legend.get_window_extent(figure.canvas.get_renderer()).width
            if ncols == 1 or width <= figure.bbox.width:
                break
            # Entries that do not fit the figure's width take one row more.
            legend.remove()
            ncols -= 1


def take_legends(axes: Iterable[plt.Axes]) -> dict:
    """Remove the legends of panels: what stood in them, by label."""
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    return handles


def label_log_axis(axis: mpl.axis.Axis, text: str | Callable = "{x:g}"):
    """Plain numbers on a logarithmic axis, as many as fit it.

    Parameters
    ----------
    axis : Axis
        ``ax.xaxis`` or ``ax.yaxis``.
    text : str or function of value and position
        As ``set_major_formatter`` takes it.
    """
    axis.set_major_locator(_FittingLogLocator())
    axis.set_major_formatter(text)
    axis.set_minor_formatter(NullFormatter())


def mark_values(ax: plt.Axes, values, *, base: float = 2):
    """Make the horizontal axis logarithmic, with a tick at each value drawn and no other."""
    values = np.unique(np.asarray(values, dtype=float))
    ax.set_xscale("log", base=base)
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()


def name_rows(ax: plt.Axes, names: Iterable[str]):
    """Names on the vertical axis, the first on top, at 0."""
    names = list(names)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def as_text(name: str) -> str:
    """A name from a file as a figure shows it: letter by letter, dollars begin no formula; a long one by its ends."""
    if len(name) > _MOST_LETTERS:
        half = _MOST_LETTERS // 2
        name = f"{name[:half]}…{name[-half:]}"
    return name.replace("$", r"\$")


def error_bars(values, lower, upper) -> np.ndarray:
    """Lengths of bars below and above values, as ``errorbar`` takes them; none where rounding puts a bound beyond."""
    return np.maximum([values - lower, upper - values], 0)


def interval_label(level: float) -> str:
    """What a legend calls intervals of this confidence level."""
    return f"{100 * level:g} % interval"


def draw_band(ax: plt.Axes, x, lower, upper, *, color, label: str = "_interval"):
    """Shade the interval of a line."""
    ax.fill_between(x, lower, upper, color=color, alpha=0.2, linewidth=0, label=label)


def save_figure(figure: plt.Figure, path: str | os.PathLike) -> list[Path]:
    """Write a figure as ``path.pdf`` and ``path.png``; equal figures give equal bytes.

    Parameters
    ----------
    path : path-like, without suffix
        Its folder is made where it is missing.
    """
    # with_suffix would cut a name at its dot: gpt2-9.9b.
    written = [Path(f"{path}.{suffix}") for suffix in _NO_METADATA]
    for file, (suffix, metadata) in zip(written, _NO_METADATA.items(), strict=True):
        with replacing(file) as part:
            figure.savefig(part, format=suffix, metadata=metadata)
    return written


class _FittingLogLocator(LogLocator):
    """The densest of several ways to divide a decade whose labels have room."""

    def tick_values(self, vmin, vmax):
        low, high = sorted((vmin, vmax))
        labels_a_decade = self.axis.get_tick_space() / max(np.log10(high / low), 1e-9)
        for subs in _TICKS_IN_DECADE:
            closest = np.diff(np.log10([*subs, 10])).min()
            if closest * labels_a_decade >= _ROOM_OF_LABEL:
                break
        self.set_params(subs=subs)
        return super().tick_values(vmin, vmax)
