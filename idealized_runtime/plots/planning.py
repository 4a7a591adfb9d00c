"""Figures of plans: what candidates cost, what a query costs by the traffic there is, what an objective costs."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from idealized_runtime.plots.style import FITTED_COLOR, MEASURED_COLOR, as_text, label_log_axis
from idealized_runtime.serving.planning import Plan

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_plan(plan: Plan, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw dollars an hour of each candidate, with the interval of its replicas; the cheapest on top.

    Beside each stands how many replicas it takes.
    """
    ax = plt.subplots()[1] if ax is None else ax
    answers = [answer for answer in plan.answers if answer.usd_per_hour is not None][::-1]
    for place, answer in enumerate(answers):
        one = answer.usd_per_hour / answer.num_replicas
        most = answer.num_replicas_upper or answer.num_replicas
        reach = [[one * (answer.num_replicas - answer.num_replicas_lower)], [one * (most - answer.num_replicas)]]
        ax.errorbar(answer.usd_per_hour, place, xerr=reach, fmt="o", color=MEASURED_COLOR, capsize=3)
        # Where no number may do, as far as is known, the interval has no upper end.
        more = " or more" if answer.num_replicas_upper is None else ""
        ax.annotate(f"  {answer.num_replicas}{more}", (one * most, place), va="center", fontsize="small")
    labels = [as_text(f"{answer.candidate.model}, {answer.candidate.devices}") for answer in answers]
    ax.set_yticks(range(len(answers)), labels)
    ax.set(xlabel="Dollars an hour (number: replicas)")
    ax.set_xlim(left=0)
    ax.margins(x=0.1)
    return ax


def plot_usd_against_rate(
    curves: Mapping[str, pd.DataFrame], api_usd_per_query: float | None = None, *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw dollars a thousand queries against the queries that come, one line a candidate.

    Parameters
    ----------
    curves : mapping of label to DataFrame
        ``requests_per_s, usd_per_query``.
    api_usd_per_query : float, optional
        What an API asks: dashed.
    """
    ax = plt.subplots()[1] if ax is None else ax
    for (label, curve), marker in zip(curves.items(), cycle(_MARKERS), strict=False):
        ax.plot(curve["requests_per_s"], 1000 * curve["usd_per_query"], f"{marker}-", markersize=4, label=label)
    if api_usd_per_query is not None:
        ax.axhline(1000 * api_usd_per_query, linestyle="--", color="0.4", label="API")
    ax.set(xscale="log", yscale="log", xlabel="Queries a second", ylabel="Dollars a thousand queries")
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_usd_against_objective(curve: pd.DataFrame, label: str, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw dollars an hour against the limit of an objective, one line a model and hardware.

    Parameters
    ----------
    curve : DataFrame
        As from :func:`~idealized_runtime.serving.decisions.tighter_objective`.
    label : str
        Of the objective, such as ``TTFT p95 (s)``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    groups = curve.groupby(["model", "hardware", "num_accelerators"], sort=False)
    for ((model, hardware, number), group), marker in zip(groups, cycle(_MARKERS), strict=False):
        name = as_text(f"{model}, {number} x {hardware}")
        ax.plot(group["seconds"], group["usd_per_hour"], f"{marker}-", markersize=4, label=name)
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="Dollars an hour")
    label_log_axis(ax.xaxis)
    label_log_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_measured_rate_within(rates: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the largest rate within each objective, predicted against measured, on the line where they are equal.

    Parameters
    ----------
    rates : DataFrame, by objective
        ``measured_per_s, predicted_per_s``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    limits = np.array([rates.min().min(), rates.max().max()])
    ax.plot(limits, limits, "-", color="0.4", linewidth=0.8, label="equal")
    ax.fill_between(
        limits, 0.9 * limits, 1.1 * limits, color=FITTED_COLOR, alpha=0.15, linewidth=0, label="within 10 %"
    )
    for (name, row), marker in zip(rates.iterrows(), cycle(_MARKERS), strict=False):
        ax.plot(row["measured_per_s"], row["predicted_per_s"], marker, label=name)
    ax.set(xlabel="Largest rate, measured (requests/s)", ylabel="Predicted (requests/s)")
    ax.legend()
    return ax
