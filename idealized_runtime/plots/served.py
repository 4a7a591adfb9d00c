"""Figures of servers that others measured: time by batch, errors of what was left out, joules, the nameplate."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns
from idealized_runtime.plots.style import (
    FITTED_COLOR,
    KNEE_COLOR,
    MEASURED_COLOR,
    draw_band,
    error_bars,
    label_log_axis,
    mark_values,
    name_rows,
)

_MARKERS = "osD^vP"
_COLORS = (MEASURED_COLOR, FITTED_COLOR, KNEE_COLOR)


def plot_times_by_batch(points: pd.DataFrame, by: str, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw measured times between tokens as markers, and the line of each server with its interval.

    Parameters
    ----------
    points : DataFrame
        ``concurrency, time_per_output_token_s, predicted_s, predicted_s_lower, predicted_s_upper``.
    by : str
        Column that names the server.
    """
    needed = ["concurrency", "time_per_output_token_s", "predicted_s", "predicted_s_lower", "predicted_s_upper", by]
    check_columns(points, needed, name="points")
    ax = plt.subplots()[1] if ax is None else ax
    for number, (server, rows) in enumerate(points.sort_values("concurrency").groupby(by)):
        color, marker = _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]
        batch = rows["concurrency"]
        ax.plot(batch, 1e3 * rows["time_per_output_token_s"], marker, color=color, label=server)
        ax.plot(batch, 1e3 * rows["predicted_s"], "-", color=color, linewidth=1.0)
        draw_band(ax, batch, *(1e3 * rows[f"predicted_s_{side}"] for side in ("lower", "upper")), color=color)
    ax.set(xscale="log", yscale="log", xlabel="Running requests", ylabel="Time between tokens (ms)")
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    # Room for the legend above the lines.
    ax.set_ylim(top=2 * 1e3 * points["predicted_s_upper"].max())
    ax.legend(loc="upper left")
    return ax


def plot_left_out_errors(
    rows: pd.DataFrame, by: str, *, half_width: float | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw the errors of left-out points, a row a group: median, middle half and middle 80 %.

    Parameters
    ----------
    rows : DataFrame
        ``relative_error``, and the column ``by``.
    half_width : float, optional
        Of log(predicted / measured): the interval is shaded.
    """
    check_columns(rows, ["relative_error", by], name="rows")
    ax = plt.subplots()[1] if ax is None else ax
    if half_width is not None:
        ax.axvspan(100 * np.expm1(-half_width), 100 * np.expm1(half_width), color=KNEE_COLOR, alpha=0.2, linewidth=0,
                   label="within the interval")  # fmt: skip
    ax.axvline(0, color="0.4", linewidth=0.8)
    groups = (100 * rows["relative_error"]).groupby(rows[by])
    for row, (_, percent) in enumerate(groups):
        low, quarter, middle, three_quarters, high = np.percentile(percent, (10, 25, 50, 75, 90))
        labels = ("middle 80 %", "middle half", "median") if row == 0 else (None,) * 3
        ax.plot([low, high], [row, row], "-", color=FITTED_COLOR, linewidth=0.8, label=labels[0])
        ax.plot([quarter, three_quarters], [row, row], "-", color=FITTED_COLOR, linewidth=2.6, label=labels[1])
        ax.plot(middle, row, "o", color=MEASURED_COLOR, label=labels[2])
    name_rows(ax, [name for name, _ in groups])
    ax.set(xlabel="Prediction error (%)")
    ax.legend()
    return ax


def plot_joules(rows: pd.DataFrame, by: str, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw predicted against measured joules of an output token, on the line where they are equal.

    Parameters
    ----------
    rows : DataFrame
        ``predicted_joules``, ``relative_error`` (predicted / measured - 1), and the column ``by``.
    """
    check_columns(rows, ["predicted_joules", "relative_error", by], name="rows")
    ax = plt.subplots()[1] if ax is None else ax
    measured = rows["predicted_joules"] / (1 + rows["relative_error"])
    limits = [min(measured.min(), rows["predicted_joules"].min()), max(measured.max(), rows["predicted_joules"].max())]
    ax.plot(limits, limits, "-", color="0.4", linewidth=0.8, label="equal")
    for number, (name, group) in enumerate(rows.groupby(by)):
        ax.plot(measured[group.index], group["predicted_joules"], _MARKERS[number % len(_MARKERS)], mfc="none",
                color=_COLORS[number % len(_COLORS)], label=name)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="Measured (J a token)", ylabel="Predicted (J a token)")
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_nameplate(points: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw how many times the measured joules the data sheet's watts give, by running requests.

    Parameters
    ----------
    points : DataFrame, one row a batch size
        ``running_requests, median, p10, p90``.
    """
    check_columns(points, ["running_requests", "median", "p10", "p90"], name="points")
    ax = plt.subplots()[1] if ax is None else ax
    ax.axhline(1, color="0.4", linewidth=0.8, label="as measured")
    bars = error_bars(*(points[name] for name in ("median", "p10", "p90")))
    ax.errorbar(points["running_requests"], points["median"], yerr=bars, fmt="D-", color=FITTED_COLOR, capsize=2,
                label="median, middle 80 %")  # fmt: skip
    mark_values(ax, points["running_requests"])
    ax.set(xlabel="Running requests, at most", ylabel="Nameplate's joules\nover measured")
    ax.legend()
    return ax
