"""Figures of models behind APIs: variance, load, dates, pairs of runtimes, estimators. Data and axes in, axes out."""

from collections.abc import Iterable

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from idealized_runtime.plots.style import MEASURED_COLOR, mark_values, style_models, take_legends

# Figure 7's colours, and a marker each, for those who cannot tell green from red.
PROVIDER_COLORS = {"OpenAI": "green", "AI21 Labs": "red", "other": "black"}
_PROVIDER_MARKERS = {"OpenAI": "o", "AI21 Labs": "^", "other": "s"}
_ESTIMATOR_LABELS = {
    "minimum": "minimum",
    "second_smallest": "second smallest",
    "quantile": "10 % quantile",
    "frontier": "spike-and-slab frontier",
}
_ESTIMATOR_MARKERS = {"minimum": "o", "second_smallest": "s", "quantile": "^", "frontier": "D"}
_MINIMUM_COLOR = "#D55E00"


def plot_trial_runtimes(trials: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw every trial of one model and prompt size, a row for each number of output tokens (Figure 5).

    The least of each row, which the denoised fit takes, is a vertical stroke.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``num_output_tokens``, ``runtime_s``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = sorted(trials["num_output_tokens"].unique())
    rows = trials["num_output_tokens"].map({size: place for place, size in enumerate(sizes)})
    ax.plot(trials["runtime_s"], rows, "o", color=MEASURED_COLOR, markersize=3.5, alpha=0.6, label="one trial")
    minima_s = trials.groupby("num_output_tokens")["runtime_s"].min()
    ax.plot(minima_s, range(len(sizes)), "|", color=_MINIMUM_COLOR, markersize=11, markeredgewidth=2, label="minimum")
    ax.set_yticks(range(len(sizes)), sizes)
    # One output token on top.
    ax.set_ylim(len(sizes) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set(xlabel="Runtime (s)", ylabel="Number of output tokens")
    ax.grid(axis="y", visible=False)
    return ax


def plot_load(
    runtimes: pd.DataFrame,
    *,
    value: str = "runtime_s",
    predicted: pd.DataFrame | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw minimum runtime against the number of queries sent in parallel, a line a number of output tokens (Figure 6).

    Parameters
    ----------
    runtimes : DataFrame, one row a number of output tokens and load
        ``num_output_tokens``, ``num_parallel_queries`` and ``value``.
    value : {"runtime_s", "slowdown"}
    predicted : DataFrame, optional
        The same columns; where they are given they are the lines, and the runtimes are points.
    """
    ax = plt.subplots()[1] if ax is None else ax
    _draw_output_sizes(ax, runtimes, "num_parallel_queries", value, lines=predicted)
    mark_values(ax, runtimes["num_parallel_queries"])
    ylabel = {"runtime_s": "Minimum runtime (s)", "slowdown": "Slowdown"}[value]
    ax.set(xlabel="Number of parallel queries", ylabel=ylabel)
    return ax


def plot_runtimes_over_time(runtimes: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw minimum runtime of one model and prompt size against the date, a line a number of output tokens.

    Parameters
    ----------
    runtimes : DataFrame, one row a number of output tokens and date
        ``date``, ``num_output_tokens``, ``runtime_s``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    _draw_output_sizes(ax, runtimes, "date", "runtime_s")
    ax.set_xticks(sorted(runtimes["date"].unique()))
    ax.xaxis.set_major_formatter(mdates.DateFormatter("%m-%d"))
    year = pd.to_datetime(runtimes["date"]).dt.year.min()
    ax.set(xlabel=f"Date in {year}", ylabel="Minimum runtime (s)")
    return ax


def _draw_output_sizes(ax, runtimes, x, y, *, lines=None):
    """A line a number of output tokens, darker where they are few; through the points or as it is given."""
    groups = dict(list(runtimes.sort_values(x).groupby("num_output_tokens")))
    for size, style in style_models(groups).items():
        ax.plot(groups[size][x], groups[size][y], linestyle="-" if lines is None else "none", label=f"{size}", **style)
        if lines is not None:
            line = lines[lines["num_output_tokens"] == size].sort_values(x)
            ax.plot(line[x], line[y], linestyle="--", **{**style, "marker": ""})
    ax.set_ylim(bottom=0)
    ax.legend(title="Output tokens")


def plot_runtime_pairs(points: pd.DataFrame, *, xlabel: str, ylabel: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw one runtime against another on logarithmic axes, in the provider's colour, with y = x dotted (Figure 7).

    Parameters
    ----------
    points : DataFrame, one row a scenario and model
        ``provider``, ``x_runtime_s``, ``y_runtime_s``.
    xlabel, ylabel : str
    """
    ax = plt.subplots()[1] if ax is None else ax
    numbers = points["provider"].value_counts()
    for provider in [name for name in PROVIDER_COLORS if name in numbers]:
        drawn = points[points["provider"] == provider]
        ax.plot(
            drawn["x_runtime_s"],
            drawn["y_runtime_s"],
            _PROVIDER_MARKERS[provider],
            color=PROVIDER_COLORS[provider],
            markersize=2.2,
            markeredgewidth=0,
            alpha=0.55,
            label=provider,
            # The few above the many, so that they are not hidden.
            zorder=3 - numbers[provider] / len(points),
        )
    # Two points of the line that lie among the data: axline lets a panel grow to hold them.
    low_s = points[["x_runtime_s", "y_runtime_s"]].min().max()
    high_s = max(points[["x_runtime_s", "y_runtime_s"]].max().min(), 1.01 * low_s)
    ax.axline((low_s, low_s), (high_s, high_s), linestyle=":", color="0.1", linewidth=1.2, label="y = x", zorder=4)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def plot_estimators(
    comparison: pd.DataFrame, *, value: str, target: float | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw a property of each estimator against the number of trials.

    Parameters
    ----------
    comparison : DataFrame
        Rows of one quantity of :func:`~idealized_runtime.fits.denoised.compare_estimators`.
    value : {"bias_percent", "rmse_percent", "coverage"}
    target : float, optional
        Where it should be, as a grey line.
    """
    ax = plt.subplots()[1] if ax is None else ax
    if target is not None:
        ax.axhline(target, color="0.5", linewidth=1, label="truth or nominal level", zorder=1)
    colors = dict(zip(_ESTIMATOR_LABELS, sns.color_palette("colorblind"), strict=False))
    for estimator, line in comparison.groupby("estimator", sort=False):
        ax.plot(
            line["num_trials"],
            line[value],
            f"{_ESTIMATOR_MARKERS[estimator]}-",
            color=colors[estimator],
            label=_ESTIMATOR_LABELS[estimator],
        )
    mark_values(ax, comparison["num_trials"], base=10)
    ylabel = {"bias_percent": "Bias (%)", "rmse_percent": "RMS error (%)", "coverage": "Coverage"}[value]
    ax.set(xlabel="Trials a setting", ylabel=ylabel)
    if value == "coverage":
        ax.set_ylim(0, 1.05)
    ax.legend()
    return ax


def share_legend(figure: plt.Figure, axes: Iterable[plt.Axes]) -> None:
    """Give panels one legend above them, and leave their axis labels, which differ, where they are."""
    handles = take_legends(axes)
    options = {"loc": "outside upper center", "ncols": len(handles), "markerscale": 2}
    legend = figure.legend(handles.values(), handles.keys(), **options)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
