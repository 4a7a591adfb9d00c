"""Figures of the planner: what the queries of a choice take on several candidates."""

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from idealized_runtime.plots.style import as_text, draw_band, error_bars, interval_label, label_log_axis

_MARKERS = "os^DvP"
# Beyond, a bar of the shortest candidate is a line.
_MOST_LINEAR = 40


def style_candidates(labels: Iterable[str]) -> dict[str, dict]:
    """Colour and marker of each candidate, the same in all panels that are given the same labels."""
    labels, colors = list(labels), sns.color_palette("colorblind")
    return {
        label: {"color": colors[place % len(colors)], "marker": _MARKERS[place % len(_MARKERS)]}
        for place, label in enumerate(labels)
    }


def plot_runtime_parts(parts: pd.DataFrame, *, level: float = 0.95, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw seconds of the prompts and of the further tokens of each candidate, one behind the other in a bar.

    Parameters
    ----------
    parts : DataFrame, by label, the first on top
        ``prompt_encoding_time_s``; ``runtime_s`` with ``_lower`` and ``_upper``, NaN where not known.
    level : float
        Of the intervals, for the legend.
    """
    ax = plt.subplots()[1] if ax is None else ax
    styles, rows = style_candidates(parts.index), np.arange(len(parts))
    prompt_s, runtime_s = parts["prompt_encoding_time_s"].to_numpy(), parts["runtime_s"].to_numpy()
    colors = [styles[label]["color"] for label in parts.index]
    ax.barh(rows, prompt_s, color="0.35", height=0.36, label="prompt")
    ax.barh(rows, runtime_s - prompt_s, left=prompt_s, color=colors, height=0.36, label="further tokens")
    _draw_intervals(
        ax, parts["runtime_s"], parts["runtime_s_lower"], parts["runtime_s_upper"], rows, level, color="0.1"
    )
    _label_rows(ax, parts.index)
    ax.set(xlabel="Seconds")
    ax.set_xlim(left=0)
    return ax


def plot_estimates(estimates: pd.DataFrame, *, label: str, level: float = 0.95, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw a number of each candidate with its interval, a row a candidate, the first on top.

    Parameters
    ----------
    estimates : DataFrame, by label
        ``value, lower, upper``; NaN where not known.
    label : str
        Of the axis, with its unit.
    """
    ax = plt.subplots()[1] if ax is None else ax
    styles, rows = style_candidates(estimates.index), np.arange(len(estimates))
    for row, (name, value) in enumerate(estimates["value"].items()):
        ax.plot(value, row, linestyle="none", markersize=6, **styles[name])
    _draw_intervals(ax, estimates["value"], estimates["lower"], estimates["upper"], rows, level, color="0.3")
    _label_rows(ax, estimates.index)
    if estimates["value"].max() > _MOST_LINEAR * estimates["value"].min():
        ax.set_xscale("log")
        label_log_axis(ax.xaxis)
    else:
        ax.set_xlim(left=0)
    ax.set(xlabel=label)
    return ax


def plot_runtime_curves(
    curves: Mapping[str, pd.DataFrame],
    measured: Mapping[str, pd.DataFrame],
    *,
    varied: str,
    asked: int,
    level: float = 0.95,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw the runtime of a query against one of its sizes: lines with their intervals, points where it was measured.

    Parameters
    ----------
    curves : mapping of label to DataFrame
        The column ``varied``; ``runtime_s`` with ``_lower`` and ``_upper``.
    measured : mapping of label to DataFrame
        ``num_prompt_tokens, num_output_tokens, runtime_s``, all at one size of what does not vary; where that is not
        the size of the curve, ``fitted_s``, dotted.
    varied : {"num_prompt_tokens", "num_output_tokens"}
    asked : int
        The size that is asked for, marked.
    """
    ax = plt.subplots()[1] if ax is None else ax
    styles = style_candidates(curves)
    fixed, word = ("num_output_tokens", "output") if varied == "num_prompt_tokens" else ("num_prompt_tokens", "prompt")
    for name, curve in curves.items():
        color = styles[name]["color"]
        draw_band(ax, curve[varied], curve["runtime_s_lower"], curve["runtime_s_upper"], color=color)
        ax.plot(curve[varied], curve["runtime_s"], "-", color=color, label=as_text(name))
    for name, points in measured.items():
        size = int(points[fixed].iloc[0])
        said = f"measured, {size:,} {word} token{'s' * (size != 1)}"
        ax.plot(points[varied], points["runtime_s"], linestyle="none", label=said, **styles[name])
        if "fitted_s" in points:
            ax.plot(points[varied], points["fitted_s"], ":", color=styles[name]["color"])
    ax.axvline(asked, color="0.5", linestyle=":", linewidth=1)
    ax.set(xlabel="Prompt tokens" if varied == "num_prompt_tokens" else "Output tokens", ylabel="Seconds")
    ax.set_ylim(bottom=0)
    return ax


def ring_models(points: pd.DataFrame, names: Iterable[str], *, value: str, quality: str, ax: plt.Axes) -> plt.Axes:
    """Draw a ring around the models that were asked for, with their names."""
    for name in names:
        if name in points.index:
            place = points.loc[name, value], points.loc[name, quality]
            ax.plot(*place, "o", markersize=13, fillstyle="none", color="0.1", markeredgewidth=1.2)
            ax.annotate(as_text(name), place, xytext=(9, -9), textcoords="offset points", fontsize=8, fontweight="bold")
    return ax


def _draw_intervals(ax, values, lower, upper, rows, level, *, color):
    known = (lower.notna() & upper.notna()).to_numpy()
    if known.any():
        bars = error_bars(values[known], lower[known], upper[known])
        ax.errorbar(values[known], rows[known], xerr=bars, fmt="none", ecolor=color, capsize=3, elinewidth=1.2,
                    label=interval_label(level))  # fmt: skip


def _label_rows(ax, labels):
    """Labels above the rows, where they take no width from them."""
    for row, label in enumerate(labels):
        ax.annotate(as_text(label), (0, row - 0.27), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    ax.set_yticks([])
    ax.set_ylim(len(labels) - 0.55, -0.75)
    ax.grid(visible=False, axis="y")
