"""Figures of software stacks compared query by query, and of capability against what it costs to run."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from idealized_runtime.plots.style import error_bars, interval_label, label_log_axis, style_models

# Bars leave the panel beyond so many times the speed-ups it holds: one may be without end.
_MAX_BAR_REACH = 2
_FRONTIER_COLOR = "0.1"
_OTHERS_STYLE = {"color": "0.6", "marker": "p"}
# Of a line of text, as a share of the scores drawn.
_NAME_HEIGHT = 0.033
_NAME_LINE = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
_SCORE_NAMES = {"mmlu_percent": "MMLU", "mmlu_pro_percent": "MMLU-Pro"}
# Series of models told apart by colour and marker; the first letters of a model's name say which it is.
SERIES = {
    "llama": "Llama",
    "qwen": "Qwen",
    "gemma": "Gemma",
    "mi": "Mistral, Mixtral",
    "deepseek": "DeepSeek",
    "olmo": "OLMo",
    "nemotron": "Nemotron",
}


def plot_speed_ups(table: pd.DataFrame, *, models: Sequence[str] | None = None, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the speed-up of one stack on every query against the query's runtime with the baseline.

    A grey line stands where both are as fast.

    Parameters
    ----------
    table : DataFrame
        As from ``compare_stacks``, of one stack; a colour and marker a model, intervals as bars.
    models : sequence of str, optional
        From the smallest to the largest, for :func:`~.style.style_models`; those of ``table`` where it is not given.
    """
    ax = plt.subplots()[1] if ax is None else ax
    groups = dict(list(table.groupby("model")))
    for model, style in style_models(table["model"] if models is None else models).items():
        if model in groups:
            group = groups[model]
            bars = error_bars(*(group[f"speed_up{bound}"] for bound in ("", "_lower", "_upper")))
            ax.errorbar(group["baseline_s"], group["speed_up"], yerr=bars, linestyle="none", elinewidth=0.8,
                        label=model, **style)  # fmt: skip
    ax.axhline(1, color="0.4", linewidth=0.8, label="as the baseline")
    ax.set(xscale="log", yscale="log", xlabel="Runtime with the baseline (s)", ylabel="Speed-up")
    ax.set_ylim(_speed_up_limits(table))
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend(title="Model")
    return ax


def plot_capability_frontier(
    points: pd.DataFrame,
    table: pd.DataFrame,
    *,
    value: str,
    score: str = "mmlu_percent",
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw score against cost: filled markers were timed, hollow ones predicted, bars are intervals.

    Models of the Pareto frontier are joined by a dashed line, and named where they are on it in more than half of
    the draws; the larger a marker, the likelier that is. Models that were timed are named, too.

    Parameters
    ----------
    points, table : DataFrame, by model
        As from ``capability_points`` and ``frontier_table`` of ``value`` and ``score``.
    value : str
    score : {"mmlu_percent", "mmlu_pro_percent"}
    """
    ax = plt.subplots()[1] if ax is None else ax
    frontier = table[table["on_frontier"]].drop_duplicates([value, score])
    ax.plot(frontier[value], frontier[score], "--", color=_FRONTIER_COLOR, linewidth=1, zorder=1)
    points = points.loc[points.index.isin(table.index)]
    for model, row in points.iterrows():
        style = _series_style(model)
        color = style["color"]
        ax.hlines(row[score], row[f"{value}_lower"], row[f"{value}_upper"], color=color, linewidth=1, zorder=2)
        ax.plot(
            row[value],
            row[score],
            **style,
            linestyle="none",
            markerfacecolor=color if row["is_measured"] else "white",
            markersize=3.5 + 4 * np.sqrt(table.loc[model, "frontier_probability"]),
            zorder=3,
        )
    ax.set(xscale="log", ylabel=f"{_SCORE_NAMES[score]}, 5-shot (% right)")
    others = points[points["is_measured"]].drop(frontier.index, errors="ignore").sort_values(score)
    likely = frontier[frontier["frontier_probability"] > 0.5]
    low, high = np.log(ax.dataLim.intervalx)
    # Room for the names of the cheapest models, and of timed ones that are beaten.
    ends = np.log(others[f"{value}_upper"]) + (0.05 + 0.025 * others.index.str.len()) * (high - low)
    right = max([high + 0.05 * (high - low), *ends])
    ax.set_xlim(np.exp(low - 0.35 * (high - low)), np.exp(right))
    _name_points(ax, likely.assign(left=points.loc[likely.index, f"{value}_lower"]), value, score)
    for height, (model, row) in zip(_apart(ax, others[score]), others.iterrows(), strict=True):
        place = row[f"{value}_upper"] * np.exp(0.03 * (high - low)), height
        ax.annotate(model, (row[value], row[score]), xytext=place, arrowprops=_NAME_LINE, va="center", fontsize=7)
    label_log_axis(ax.xaxis)
    return ax


def add_proportional_axis(ax: plt.Axes, factor: float, label: str) -> None:
    """A second horizontal axis on top, of what is ``factor`` times the first."""
    top = ax.secondary_xaxis("top", functions=(lambda x: factor * x, lambda x: x / factor))
    top.set_xlabel(label)
    label_log_axis(top.xaxis)


def capability_legend(points: pd.DataFrame, *, level: float = 0.95) -> list[Line2D]:
    """What is drawn by :func:`plot_capability_frontier`, whose intervals are of this level."""
    named = [series for series in SERIES if any(model.startswith(series) for model in points.index)]
    handles = [_marker(SERIES[series], **_series_style(series)) for series in named]
    if any(_series_style(model) is _OTHERS_STYLE for model in points.index):
        handles.append(_marker("others", **_OTHERS_STYLE))
    if points["is_measured"].any():
        handles.append(_marker("timed", markerfacecolor="0.1"))
    if not points["is_measured"].all():
        handles.append(_marker("predicted"))
    return [
        *handles,
        _marker("likely on the frontier", markersize=7.5),
        Line2D([], [], color="0.4", linewidth=1, label=interval_label(level)),
        Line2D([], [], linestyle="--", color=_FRONTIER_COLOR, linewidth=1, label="Pareto frontier"),
    ]


def _speed_up_limits(table) -> tuple[float, float]:
    """Of the axis: hold every point and the line at 1, and of the bars what is near them."""
    points = table["speed_up"].min(), table["speed_up"].max()
    low = max(table["speed_up_lower"].min(), points[0] / _MAX_BAR_REACH)
    high = min(table["speed_up_upper"].max(), points[1] * _MAX_BAR_REACH)
    return 0.95 * min(low, 1), 1.05 * max(high, 1)


def _apart(ax, scores) -> np.ndarray:
    """Heights of names, as near to rising scores as lines of text leave them."""
    steps = _NAME_HEIGHT * np.ptp(ax.dataLim.intervaly) * np.arange(len(scores))
    return isotonic_regression(scores - steps).x + steps if len(scores) else steps


def _name_points(ax, points, value, score):
    """Names to the left of the frontier, below each other, as near to their points as that leaves them."""
    low, high = np.log(ax.dataLim.intervalx)
    points = points.sort_values(score)
    for height, (model, row) in zip(_apart(ax, points[score]), points.iterrows(), strict=True):
        # Left of all that the frontier holds as far down as the text and a marker reach.
        lowest = height - _NAME_HEIGHT * np.ptp(ax.dataLim.intervaly)
        edge = min(np.log(row["left"]), np.interp(lowest, points[score], np.log(points["left"])))
        ax.annotate(
            model,
            (row[value], row[score]),
            xytext=(np.exp(edge - 0.05 * (high - low)), height),
            arrowprops=_NAME_LINE,
            horizontalalignment="right",
            verticalalignment="center",
            fontsize=7,
        )


def _series_style(model) -> dict:
    for color, marker, series in zip(sns.color_palette("colorblind"), "os^DvPX", SERIES, strict=False):
        if model.startswith(series):
            return {"color": color, "marker": marker}
    return _OTHERS_STYLE


def _marker(label, **options) -> Line2D:
    hollow = {"marker": "o", "color": "0.1", "markerfacecolor": "white"}
    return Line2D([], [], linestyle="none", label=label, **{**hollow, **options})
