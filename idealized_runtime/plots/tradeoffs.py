"""Figures of hardware, efficiency against capability, and ranks: data and axes in, axes out."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from idealized_runtime.plots.style import label_log_axis, name_rows
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.paper.tradeoffs import TASKS, short_task

# Label and limits of each metric's axis, the same in all of its panels.
METRICS = {
    "model_size": ("Parameters (billion)", (3, 1000)),
    "flops": ("FLOPs", (2e12, 5e15)),
    "runtime": ("Raw runtime (s)", (0.09, 40)),
    "denoised_runtime": ("Denoised runtime (s)", (0.09, 40)),
    "idealized_runtime": ("Idealized runtime (s)", (0.04, 4)),
    "idealized_cost": ("Idealized cost (cents)", (0.004, 10)),
}
OBJECTIVE_LABELS = {
    "ratio": "Accuracy / runtime",
    "ratio_log": "Accuracy / ln(runtime)",
    "ratio_log1p": "Accuracy / ln(1 + runtime)",
}
TASK_MARKERS = {"mmlu": "P", "raft": "o", "imdb": "s", "boolq": "^"}
_TASK_COLORS = {"mmlu": "#D55E00", "raft": "#0173B2", "imdb": "#029E73", "boolq": "#DE8F05"}


def plot_hardware_comparison(
    points: pd.DataFrame, *, value: str, hardware: tuple[str, str] = ("a100", "v100"), ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw one value a model on two kinds of hardware, with a dotted line where they are equal (Figure 8).

    Parameters
    ----------
    points : DataFrame, one row a hardware and model
        ``hardware``, ``model`` as printed, and the column ``value``. Models without either value are not drawn.
    value : str
        The caller labels the axes with its unit.
    hardware : pair of str
        On the horizontal and the vertical axis.
    """
    ax = plt.subplots()[1] if ax is None else ax
    drawn = points.pivot_table(index="model", columns="hardware", values=value, sort=False)[list(hardware)].dropna()
    for model, (x, y) in zip(drawn.index, drawn.to_numpy(), strict=True):
        ax.plot(x, y, "o", color=_color(model), label=model)
    largest_x, largest_y = drawn.max()
    largest = max(largest_x, largest_y)
    ax.plot([0, largest], [0, largest], ":", color="0.1", linewidth=1, label="_equal", zorder=1)
    ax.set_xlim(0, 1.08 * largest_x)
    ax.set_ylim(0, 1.08 * largest_y)
    return ax


def plot_by_model(
    points: pd.DataFrame,
    *,
    value: str,
    interval: tuple[str, str] | None = None,
    printed: str | None = None,
    reference: float | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw one value a model as a point with its interval, one line a model, in the order of Table 1.

    Parameters
    ----------
    points : DataFrame, one row a model
        ``model`` as printed, and the columns named below.
    value : str
    interval : pair of str, optional
        Columns of the lower and the upper bound.
    printed : str, optional
        Column of what the paper gives, as a hollow circle.
    reference : float, optional
        Value of a dotted line.
    """
    ax = plt.subplots()[1] if ax is None else ax
    names = [name for name in PAPER_MODELS if name in set(points["model"])]
    drawn = points.set_index("model").loc[names]
    if reference is not None:
        ax.axvline(reference, linestyle=":", color="0.1", linewidth=1)
    places, colors = np.arange(len(names)), [_color(name) for name in names]
    if interval is not None:
        ax.hlines(places, drawn[interval[0]], drawn[interval[1]], colors=colors, linewidth=2)
    if printed is not None:
        ax.plot(drawn[printed], places, "o", markersize=6.5, fillstyle="none", color="0.1", label="printed")
    ax.scatter(drawn[value], places, color=colors, s=16, zorder=3, label="recomputed")
    name_rows(ax, names)
    return ax


def plot_efficiency_vs_capability(
    points: pd.DataFrame, *, metric: str, errors: str | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw accuracy against an efficiency metric: squares, joined by a dashed line, are on the Pareto frontier.

    One panel of the paper's Figure 9.

    Parameters
    ----------
    points : DataFrame, one row a model, of one metric and task
        ``model`` as printed, ``value``, ``accuracy``, ``on_frontier``.
    metric : str
        A key of ``METRICS``.
    errors : str, optional
        Column with the half width of the interval of ``value``; the axis then holds no more than the points.
    """
    ax = plt.subplots()[1] if ax is None else ax
    frontier = points[points["on_frontier"]].sort_values("value")
    if len(frontier) > 1:
        ax.plot(frontier["value"], frontier["accuracy"], "--", color="0.1", linewidth=1, label="_frontier", zorder=1)
    for row in points.to_dict("records"):
        marker, size = ("s", 6.5) if row["on_frontier"] else ("o", 4.5)
        if errors is not None:
            ends = row["value"] + np.array([-1, 1]) * row[errors]
            ax.plot(ends, [row["accuracy"]] * 2, "|-", color=_color(row["model"]), markersize=7, label="_interval")
            size -= 2
        ax.plot(row["value"], row["accuracy"], marker, markersize=size, color=_color(row["model"]), label=row["model"])
    label, limits = METRICS[metric]
    ax.set(xscale="log", xlim=limits if errors is None else None, xlabel=label, ylabel="Accuracy")
    ax.margins(y=0.12)
    ax.xaxis.set_minor_formatter(NullFormatter())
    if errors is not None:
        label_log_axis(ax.xaxis)
    return ax


def plot_frontier_probabilities(probabilities: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the probability of being on the frontier: a cell a model and task, darker where it is likelier.

    Parameters
    ----------
    probabilities : DataFrame of float, models by tasks
    """
    ax = plt.subplots()[1] if ax is None else ax
    values = probabilities.to_numpy(dtype=float)
    ax.imshow(values, cmap="Greens", vmin=0, vmax=1.25, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = probability_text(value)
        ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if value > 0.8 else "0.25")
    ax.set_xticks(range(values.shape[1]), [short_task(task) for task in probabilities.columns])
    ax.set_yticks(range(values.shape[0]), probabilities.index)
    ax.grid(False)
    ax.tick_params(length=0)
    return ax


def plot_ranks(ranks: pd.DataFrame, intervals: pd.DataFrame | None = None, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the rank of each model on each task, best models on top (Figure 10).

    Tasks of one model stand slightly above each other, so that equal ranks stay visible.

    Parameters
    ----------
    ranks : DataFrame of int, models by tasks
        In the order of its rows, the first one on top.
    intervals : DataFrame, optional
        ``task, model, lower, upper``: ranks possible given the errors of the fits, as bars.
    """
    ax = plt.subplots()[1] if ax is None else ax
    offsets = np.linspace(-0.27, 0.27, len(ranks.columns)) if len(ranks.columns) > 1 else [0.0]
    places = np.arange(len(ranks))
    for task, offset in zip(ranks.columns, offsets, strict=True):
        name = task.split(":")[0]
        style = {"color": _TASK_COLORS[name], "zorder": 3}
        if intervals is not None:
            bounds = intervals[intervals["task"] == task].set_index("model").loc[ranks.index]
            ax.hlines(places + offset, bounds["lower"], bounds["upper"], linewidth=2.5, alpha=0.35, **style)
        ax.plot(ranks[task], places + offset, TASK_MARKERS[name], label=short_task(task), **style)
    name_rows(ax, ranks.index)
    ax.set_xticks(range(1, len(ranks) + 1))
    ax.set(xlim=(0.5, len(ranks) + 0.5), xlabel="Rank")
    return ax


def plot_savings(
    savings: pd.DataFrame, *, printed: tuple[float, float] | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw by which factor estimating is cheaper than measuring, one line a column against the index.

    Parameters
    ----------
    savings : DataFrame
        Factors; the index is what is assumed, its name and the columns' name are labels.
    printed : pair of float, optional
        The published assumption and factor, as a circle.
    """
    ax = plt.subplots()[1] if ax is None else ax
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(savings.columns)))
    for color, column in zip(colors, savings.columns, strict=True):
        ax.plot(savings.index, savings[column], "-", color=color, label=f"{column:g}")
    if printed is not None:
        ax.plot(*printed, "o", markersize=7, fillstyle="none", color="0.1", label="published")
    ax.axhline(1, color="0.4", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel=savings.index.name, ylabel="Savings (factor)")
    ax.legend(title=savings.columns.name, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def task_grid(rows: Sequence[str], tasks: Sequence[str], *, panel_size=(1.75, 1.5)) -> tuple[plt.Figure, dict]:
    """A figure of panels, one row a metric and one titled column a task.

    Returns
    -------
    figure : Figure
    axes : dict of Axes, by (row, task)
    """
    size = (panel_size[0] * len(tasks) + 0.5, panel_size[1] * len(rows) + 0.6)
    figure, grid = plt.subplots(len(rows), len(tasks), figsize=size, squeeze=False)
    for ax, task in zip(grid[0], tasks, strict=True):
        ax.set_title(TASKS.get(task, task).replace(" (", "\n("))
    return figure, {(row, task): grid[i, j] for i, row in enumerate(rows) for j, task in enumerate(tasks)}


def finish_grid(figure: plt.Figure, axes: Mapping[tuple, plt.Axes]):
    """One legend of models above all panels, in the order of the paper's Table 1; y labels on the left only."""
    handles = {}
    for ax in axes.values():
        if not ax.get_subplotspec().is_first_col():
            ax.set_ylabel("")
        for label in ax.get_legend_handles_labels()[1]:
            handles[label] = Line2D([], [], marker="o", linestyle="none", color=_color(label))
    labels = [name for name in PAPER_MODELS if name in handles]
    figure.legend(
        [handles[name] for name in labels],
        labels,
        loc="outside upper center",
        ncols=4,
        columnspacing=1.2,
        handletextpad=0.2,
    )


def probability_text(probability: float) -> str:
    """Two decimals, no more certain than they can tell: ``< 0.01`` and ``> 0.99`` between the certainties."""
    if np.isnan(probability) or probability in (0, 1):
        return "" if np.isnan(probability) else f"{probability:.0f}"
    return "< 0.01" if probability < 0.01 else "> 0.99" if probability > 0.99 else f"{probability:.2f}"


def _color(model):
    return PAPER_MODELS[model].color
