"""Figures of predictions for models that were not timed, and of how far measured times are from their floors."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from idealized_runtime.plots.style import (
    FITTED_COLOR,
    KNEE_COLOR,
    MEASURED_COLOR,
    error_bars,
    interval_label,
    label_log_axis,
    name_rows,
)

# Ratios to a floor are drawn on a logarithmic axis where they reach further.
_MAX_LINEAR_RATIO = 5
# Of per cent: more of them run into each other in half a figure.
_FEW_TICKS = {"nbins": 7, "steps": [1, 2, 5, 10]}


def plot_floor_distances(roofline: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw how many times its floor each model's token and prompt take, a row a model.

    Parameters
    ----------
    roofline : DataFrame
        As from ``roofline_table``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    rows = np.arange(len(roofline))
    # Slightly above each other, so that equal distances stay visible.
    ax.plot(roofline["token_over_floor"], rows - 0.14, "o", color=MEASURED_COLOR, label="One output token")
    ax.plot(roofline["prompt_over_floor"], rows + 0.14, "s", color=FITTED_COLOR, label="Longest prompt")
    ax.axvline(1, color="0.4", linewidth=0.8, label="Floor")
    name_rows(ax, roofline.index)
    if roofline[["token_over_floor", "prompt_over_floor"]].max(axis=None) > _MAX_LINEAR_RATIO:
        ax.set_xscale("log")
        label_log_axis(ax.xaxis)
    ax.set(xlabel="Measured time over its floor")
    ax.set_xlim(left=0.9)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def plot_token_errors(
    left_out: Mapping, *, target_percent: float | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw by how much the time per output token of each left-out model is missed, a row a model.

    Parameters
    ----------
    left_out : mapping of LeftOutModel, by name
    target_percent : float, optional
        Shaded on both sides of zero.
    """
    ax = plt.subplots()[1] if ax is None else ax
    percent = [100 * np.expm1(model.log_errors()[1]) for model in left_out.values()]
    if target_percent is not None:
        ax.axvspan(-target_percent, target_percent, color=KNEE_COLOR, alpha=0.25, linewidth=0,
                   label=f"within {target_percent:g} %")  # fmt: skip
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.plot(percent, np.arange(len(percent)), "o", color=MEASURED_COLOR, label="its error")
    name_rows(ax, left_out)
    limit = 1.1 * max(*np.abs(percent), target_percent or 0)
    ax.set_xlim(-limit, limit)
    ax.set(xlabel="Error of the time per\noutput token (%)")
    ax.xaxis.set_major_locator(MaxNLocator(**_FEW_TICKS))
    return ax


def plot_prompt_errors(left_out: Mapping, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw by how much the prompt times of each left-out model are missed, a row a model.

    The dot is the median over its prompt sizes, the thick line holds the middle half of them, the thin one all.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.axvline(0, color="0.4", linewidth=0.8)
    for row, model in enumerate(left_out.values()):
        low, quarter, middle, three_quarters, high = np.percentile(
            100 * np.expm1(model.log_errors()[0]), (0, 25, 50, 75, 100)
        )
        labels = ("all prompt sizes", "middle half", "median") if row == 0 else (None,) * 3
        ax.plot([low, high], [row, row], "-", color=FITTED_COLOR, linewidth=0.8, label=labels[0])
        ax.plot([quarter, three_quarters], [row, row], "-", color=FITTED_COLOR, linewidth=2.6, label=labels[1])
        ax.plot(middle, row, "o", color=FITTED_COLOR, label=labels[2])
    name_rows(ax, left_out)
    ax.set(xlabel="Error of the prompt\nencoding time (%)")
    ax.xaxis.set_major_locator(MaxNLocator(**_FEW_TICKS))
    return ax


def plot_predictions(predictions: pd.DataFrame, *, level: float = 0.95, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the runtime of one query to each of several models with its interval, a row a model.

    Parameters
    ----------
    predictions : DataFrame
        As from ``prediction_table``.
    level : float
        Of its intervals, for the label.
    """
    ax = plt.subplots()[1] if ax is None else ax
    rows = np.arange(len(predictions))
    bars = error_bars(*(predictions[name] for name in ("runtime_s", "runtime_s_lower", "runtime_s_upper")))
    ax.errorbar(predictions["runtime_s"], rows, xerr=bars, fmt="D", color=FITTED_COLOR, capsize=2)
    name_rows(ax, predictions.index)
    ax.set(xlabel=f"Predicted runtime (s), {interval_label(level)}")
    ax.set_xlim(left=0)
    return ax
