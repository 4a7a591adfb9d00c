"""Figures of APIs under load and beside their floor: percentiles, throughput, ratios. Data and axes in, axes out."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from idealized_runtime.plots.style import draw_band, error_bars, interval_label, label_log_axis, mark_values

_LABELS = {
    "time_to_first_token_s": "Time to first token (s)",
    "time_per_output_token_s": "Time per output token (s)",
    "runtime_s": "Runtime (s)",
}
_LOAD_LABELS = {"num_parallel": "Requests in parallel", "rate_per_s": "Requests sent a second"}
# More of them would touch each other.
_MAX_LEVEL_LABELS = 12
_PERCENTILES = {"p50": "o-", "p95": "s--"}


def plot_percentiles(
    summary: pd.DataFrame, *, quantity: str, level: float = 0.95, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw the median and 95th percentile of a time against the load, with their intervals.

    Parameters
    ----------
    summary : DataFrame, one row a load
        As from :func:`~idealized_runtime.api.statistics.summarize_requests`, of one size and kind of load.
    quantity : {"time_to_first_token_s", "time_per_output_token_s", "runtime_s"}
    level : float
        Of the intervals, for the legend.
    """
    ax = plt.subplots()[1] if ax is None else ax
    load = _load_column(summary)
    table = summary[summary["quantity"] == quantity].sort_values(load)
    loads = table[load].astype(float)
    for (name, style), color in zip(_PERCENTILES.items(), sns.color_palette("colorblind"), strict=False):
        label = {"p50": "median", "p95": "95th percentile"}[name]
        ax.plot(loads, table[name], style, color=color, label=label)
        # Where too few requests bound a percentile its interval ends at what is known.
        low, high = table[f"{name}_lower"].fillna(table[name]), table[f"{name}_upper"].fillna(table[name])
        draw_band(ax, loads, low, high, color=color, label=f"its {interval_label(level)}")
    _finish(ax, load, loads, _LABELS[quantity])
    # Room for the legend above the lines.
    ax.set_ylim(top=1.5 * ax.get_ylim()[1])
    return ax


def plot_throughput(
    throughput: pd.DataFrame, *, goodput: pd.DataFrame | None = None, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw answered requests a second against the load, and those that meet the objectives.

    Parameters
    ----------
    throughput : DataFrame, one row a load
        As from :func:`~idealized_runtime.api.statistics.measure_throughput`.
    goodput : DataFrame, optional
        As from :func:`~idealized_runtime.api.statistics.measure_goodput`.
    """
    ax = plt.subplots()[1] if ax is None else ax
    load = _load_column(throughput)
    lines = [(throughput, "requests_per_s", "o-", "all answered")]
    if goodput is not None:
        lines.append((goodput, "goodput_per_s", "^--", "meet the objectives"))
    for (table, value, style, label), color in zip(lines, sns.color_palette("colorblind")[2:], strict=False):
        table = table.sort_values(load)
        ax.plot(table[load].astype(float), table[value], style, color=color, label=label)
    return _finish(ax, load, throughput[load], "Requests a second")


def plot_ratios(
    raw: pd.DataFrame, comparison: pd.DataFrame, *, level: float = 0.95, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw raw and denoised runtimes over the idealized one, a column a setting; all should lie on or above 1.

    Parameters
    ----------
    raw : DataFrame, one row a trial
        ``num_prompt_tokens, num_output_tokens, runtime_s``.
    comparison : DataFrame, one row a setting
        As from :func:`~idealized_runtime.comparisons.inequality.compare_runtimes`.
    level : float
        Of its intervals, for the legend.
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = ["num_prompt_tokens", "num_output_tokens"]
    comparison = comparison.assign(place=range(len(comparison)))
    trials = raw.merge(comparison[[*sizes, "idealized_s", "place"]], on=sizes)
    raw_color, denoised_color = sns.color_palette("colorblind")[:2]
    ax.axhline(1, color="0.3", linestyle=":", linewidth=1.2, label="idealized")
    ax.plot(trials["place"], trials["runtime_s"] / trials["idealized_s"], "o", color=raw_color, markersize=3,
            alpha=0.5, label="raw, one trial")  # fmt: skip
    bars_s = error_bars(*(comparison[f"denoised_s{bound}"] for bound in ("", "_lower", "_upper")))
    ax.errorbar(
        comparison["place"], comparison["denoised_over_idealized"], bars_s / comparison["idealized_s"].to_numpy(),
        fmt="_", color=denoised_color, markersize=11, markeredgewidth=2,
        label=f"denoised, {interval_label(level)}",
    )  # fmt: skip
    labels = [f"{p}, {o}" for p, o in comparison[sizes].to_numpy()]
    ax.set_xticks(comparison["place"], labels, rotation=90 if len(labels) > _MAX_LEVEL_LABELS else 0)
    ax.grid(axis="x", visible=False)
    # A few trials take many times what the others do.
    ax.set_yscale("log")
    label_log_axis(ax.yaxis)
    ax.set(xlabel="Prompt tokens, output tokens", ylabel="Runtime / idealized runtime")
    ax.legend()
    return ax


def _load_column(table) -> str:
    """What the load of a table is: parallel requests of a closed loop, or the rate of an open one."""
    kinds = set(table["load"])
    if len(kinds) != 1:
        raise ValueError(f"one kind of load is drawn at a time; got {sorted(map(str, kinds))}")
    return "num_parallel" if kinds == {"closed"} else "rate_per_s"


def _finish(ax, load, loads, ylabel) -> plt.Axes:
    mark_values(ax, loads)
    ax.set_ylim(bottom=0)
    ax.set(xlabel=_LOAD_LABELS[load], ylabel=ylabel)
    ax.legend()
    return ax
