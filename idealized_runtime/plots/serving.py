"""Figures of servers under load: measured against simulated requests, the queue over time, latency against the rate."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.plots.style import FITTED_COLOR, KNEE_COLOR, MEASURED_COLOR


def plot_measured_against_simulated(
    measured: pd.DataFrame,
    simulated: pd.DataFrame,
    value: str,
    *,
    is_later: ArrayLike | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw each request's measured time against its simulated one, on the line where they are equal.

    Parameters
    ----------
    measured, simulated : DataFrame
        Request tables, row by row the same.
    value : str
        Column of both, in seconds.
    is_later : bool array, optional
        Requests that the fit has not seen: filled; the others are hollow.
    """
    ax = plt.subplots()[1] if ax is None else ax
    there, ours = measured[value].to_numpy(float), simulated[value].to_numpy(float)
    is_later = np.ones(len(there), dtype=bool) if is_later is None else is_later
    limits = [min(there.min(), ours.min()), max(there.max(), ours.max())]
    ax.plot(limits, limits, "-", color="0.4", linewidth=0.8, label="equal")
    if not is_later.all():
        ax.plot(there[~is_later], ours[~is_later], "o", mfc="none", color=KNEE_COLOR, label="fitted")
    ax.plot(there[is_later], ours[is_later], "o", color=MEASURED_COLOR, label="not seen by the fit")
    names = {"time_to_first_token_s": "Time to first token", "runtime_s": "End to end"}
    name = names.get(value, value)
    ax.set(xlabel=f"{name}, measured (s)", ylabel="Simulated (s)")
    if limits[1] > 20 * limits[0] > 0:
        ax.set(xscale="log", yscale="log")
    ax.legend()
    return ax


def plot_requests_over_time(requests: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw how many requests run and how many wait, over time.

    Parameters
    ----------
    requests : DataFrame
        As from ``simulate``: ``arrival_s, queue_s, runtime_s``.
    """
    ax = plt.subplots()[1] if ax is None else ax
    arrival_s = requests["arrival_s"].to_numpy(float)
    start_s, end_s = arrival_s + requests["queue_s"].to_numpy(float), arrival_s + requests["runtime_s"].to_numpy(float)
    for begin, end, label, color in (
        (start_s, end_s, "running", MEASURED_COLOR),
        (arrival_s, start_s, "waiting", FITTED_COLOR),
    ):
        at = np.concatenate([begin, end])
        order = np.argsort(at, kind="stable")
        number = np.cumsum(np.repeat([1, -1], len(begin))[order])
        ax.step(at[order], number, where="post", label=label, color=color)
    ax.set(xlabel="Time (s)", ylabel="Requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_latency_against_rate(
    curve: pd.DataFrame, points: pd.DataFrame | None = None, *, limit_per_s: float | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:  # fmt: skip
    """Draw a time against the rate of arrivals, with its interval, and measured points.

    Parameters
    ----------
    curve : DataFrame
        ``rate_per_s, value, lower, upper`` (s), stable rates only.
    points : DataFrame, optional
        ``rate_per_s, value`` (s), ``is_fitted``: hollow where the fit has seen them.
    limit_per_s : float, optional
        The rate from which on the queue grows without end: dashed.
    """
    ax = plt.subplots()[1] if ax is None else ax
    curve = curve.sort_values("rate_per_s")
    ax.plot(curve["rate_per_s"], curve["value"], "-", color=FITTED_COLOR, label="simulated")
    if curve["lower"].notna().all():
        ax.fill_between(
            curve["rate_per_s"], curve["lower"].astype(float), curve["upper"].astype(float), color=FITTED_COLOR,
            alpha=0.2, linewidth=0, label="95 % interval",
        )  # fmt: skip
    if points is not None:
        for is_fitted, label in ((True, "measured, fitted"), (False, "measured, not seen")):
            part = points[points["is_fitted"] == is_fitted]
            face = "none" if is_fitted else MEASURED_COLOR
            if len(part):
                ax.plot(part["rate_per_s"], part["value"], "o", color=MEASURED_COLOR, mfc=face, label=label)
    if limit_per_s is not None:
        ax.axvline(limit_per_s, color="0.4", linewidth=0.8, linestyle="--", label="most that can be answered")
    ax.set(xlabel="Requests per second", ylabel="Seconds")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
