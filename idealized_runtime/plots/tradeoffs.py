"""Figures of hardware, efficiency against capability, and ranks: data and axes in, axes out."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from idealized_runtime.plots.style import FITTED_COLOR, label_log_axis, name_rows, style_models, take_legends
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
# Figures 8 to 10 draw them from small to large.
MODELS_BY_SIZE = sorted(PAPER_MODELS, key=lambda name: PAPER_MODELS[name].num_params_printed)
_MODEL_STYLES = style_models(MODELS_BY_SIZE)
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
        ax.plot(x, y, linestyle="none", label=model, **_MODEL_STYLES[model])
    largest_x, largest_y = drawn.max()
    largest = max(largest_x, largest_y)
    ax.plot([0, largest], [0, largest], ":", color="0.1", linewidth=1, label="Equal", zorder=1)
    ax.set_xlim(0, 1.08 * largest_x)
    ax.set_ylim(0, 1.08 * largest_y)
    return ax


def plot_by_model(
    points: pd.DataFrame,
    *,
    value: str,
    interval: tuple[str, str] | None = None,
    printed: str | None = None,
    reference: tuple[float, str] | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw one value a model as a point with its interval, a row a model, from small to large.

    Parameters
    ----------
    points : DataFrame, one row a model
        ``model`` as printed, and the columns named below.
    value : str
    interval : pair of str, optional
        Columns of the lower and the upper bound.
    printed : str, optional
        Column of what the paper gives, as a hollow circle.
    reference : pair of float and str, optional
        Value of a dotted line, and what it is.
    """
    ax = plt.subplots()[1] if ax is None else ax
    names = [name for name in MODELS_BY_SIZE if name in set(points["model"])]
    drawn = points.set_index("model").loc[names]
    if reference is not None:
        ax.axvline(reference[0], linestyle=":", color="0.1", linewidth=1, label=reference[1])
    places = np.arange(len(names))
    if interval is not None:
        ends = drawn[interval[0]], drawn[interval[1]]
        ax.hlines(places, *ends, colors=FITTED_COLOR, alpha=0.5, linewidth=2, label="Its 95 % interval")
    if printed is not None:
        ax.plot(drawn[printed], places, "o", markersize=6.5, fillstyle="none", color="0.1", label="Printed")
    ax.plot(drawn[value], places, "o", color=FITTED_COLOR, label="Recomputed")
    name_rows(ax, names)
    return ax


def plot_efficiency_vs_capability(
    points: pd.DataFrame, *, metric: str, errors: str | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw accuracy against an efficiency metric: rings, joined by a dashed line, are on the Pareto frontier.

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
    ring = {"fillstyle": "none", "markersize": 9, "markeredgewidth": 1, "color": "0.1", "linewidth": 1}
    ax.plot(frontier["value"], frontier["accuracy"], "o--", **ring, label="Pareto frontier", zorder=1)
    if errors is not None:
        values = points["value"]
        ends = values - points[errors], values + points[errors]
        ax.hlines(points["accuracy"], *ends, colors="0.4", linewidth=1.2, label="95 % interval", zorder=2)
    for row in points.to_dict("records"):
        style = {"linestyle": "none", "markersize": 4.5 if errors is None else 3.5, **_MODEL_STYLES[row["model"]]}
        ax.plot(row["value"], row["accuracy"], **style, label=row["model"], zorder=3)
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

    Tasks of one model stand slightly above each other, so that equal ranks stay visible; bars are possible ranks.

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
    if intervals is not None:
        ax.plot([], [], "-", color="0.7", linewidth=2.5, label="Ranks left possible")
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
    ax.axhline(1, color="0.4", linewidth=0.8, label="saves nothing")
    ax.set(xscale="log", yscale="log", xlabel=savings.index.name, ylabel="Savings (factor)")
    ax.legend(title=savings.columns.name, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def task_grid(
    rows: Sequence[str], tasks: Sequence[str], *, panel_size: tuple[float, float] = (1.75, 1.5)
) -> tuple[plt.Figure, dict]:
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


def finish_grid(figure: plt.Figure, axes: Mapping[tuple, plt.Axes]) -> None:
    """One legend above all panels: the models from small to large, and what else is drawn; y labels on the left."""
    for ax in axes.values():
        if not ax.get_subplotspec().is_first_col():
            ax.set_ylabel("")
    handles = take_legends(axes.values())
    models = [name for name in MODELS_BY_SIZE if name in handles]
    labels = [*models, *(label for label in handles if label not in PAPER_MODELS)]
    # One size of marker, whichever the panels have.
    proxies = {name: Line2D([], [], linestyle="none", **_MODEL_STYLES[name]) for name in models}
    shown = [proxies.get(label, handles[label]) for label in labels]
    figure.legend(shown, labels, loc="outside upper center", ncols=4, columnspacing=1.2, handletextpad=0.4)


def probability_text(probability: float) -> str:
    """Two decimals, no more certain than they can tell: ``< 0.01`` and ``> 0.99`` between the certainties."""
    if np.isnan(probability) or probability in (0, 1):
        return "" if np.isnan(probability) else f"{probability:.0f}"
    return "< 0.01" if probability < 0.01 else "> 0.99" if probability > 0.99 else f"{probability:.2f}"
