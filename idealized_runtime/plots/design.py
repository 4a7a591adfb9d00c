"""Figures of designs: how far estimates are off after so small a part of the device time."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from idealized_runtime.plots.style import label_log_axis

_MARKERS = {"whole grid": "s", "small grid": "o", "random": "x"}


def plot_designs(
    sequential: dict[str, pd.DataFrame], hand_made: pd.DataFrame, *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw the 95th percentile of relative errors against how many times cheaper than the published grid a design is.

    Parameters
    ----------
    sequential : mapping of DataFrame, by label
        As from ``at_shares``: lines; around the first one a band from the best to the worst model.
    hand_made : DataFrame
        As from ``replay_hand_made``: a marker a design, of its kind.
    """
    ax = plt.subplots()[1] if ax is None else ax
    colors = sns.color_palette("colorblind")
    for number, ((label, table), color) in enumerate(zip(sequential.items(), colors, strict=False)):
        if number == 0:
            ax.fill_between(table["times_cheaper"], table["least_p95"], table["most_p95"], color=color, alpha=0.15,
                            linewidth=0, label="single models")  # fmt: skip
        ax.plot(table["times_cheaper"], table["p95"], marker=".", color=color, label=label)
    for kind, rows in hand_made.groupby("kind", sort=False):
        ax.plot(rows["times_cheaper"], rows["p95"], _MARKERS[kind], color="0.3", label=kind)
    ax.set(xscale="log", yscale="log", xlabel="Times cheaper than the published grid",
           ylabel="95th percentile of relative errors (%)")  # fmt: skip
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_stated_errors(table: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the error that a design states after each block, and how far its predictions are off, against device time.

    Parameters
    ----------
    table : DataFrame
        As from ``stated_errors``; a vertical line marks what a sweep with the defaults would take.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(table["device_s"], 100 * table["stated_error"], marker=".", label="stated error")
    ax.plot(table["device_s"], 100 * table["deviation"], "--", marker=".", label="rms deviation")
    default_s = table["default_s"].iloc[-1]
    ax.axvline(default_s, color="0.3", linestyle=":", label=f"default sweep: {default_s:.0f} s")
    ax.set(xscale="log", yscale="log", xlabel="Device time (s)", ylabel="Relative error (%)")
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_point_errors(errors: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the share of servers whose mean error stays below each value, a line for each choice of points.

    Parameters
    ----------
    errors : DataFrame
        As from ``point_design_errors``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    for name in errors.filter(regex="_[0-9]+$"):
        choice, number = name.split("_")
        values = 100 * errors[name].dropna().sort_values()
        style = "-" if choice == "designed" else "--"
        ax.plot(values, (values.rank() / len(values)), style, label=f"{number} {choice} points")
    ax.set(xscale="log", xlabel="Mean relative error at the other points (%)", ylabel="Share of servers")
    label_log_axis(ax.xaxis)
    ax.legend()
    return ax
