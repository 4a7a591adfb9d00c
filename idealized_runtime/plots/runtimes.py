"""Figures of the runtime model: data and axes in, axes out. Points are measured, lines are fitted."""

import contextlib
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from idealized_runtime.fits.knee import PromptEncodingKnee
from idealized_runtime.fits.protocol import ModelOfRuntimes, NoIntervalError
from idealized_runtime.plots.style import (
    FITTED_COLOR,
    KNEE_COLOR,
    MEASURED_COLOR,
    error_bars,
    interval_label,
    label_log_axis,
)
from idealized_runtime.statistics.errors import summarize_errors

# Of the legend of measured and fitted runtimes.
PROMPT_SIZES_TITLE = "Prompt tokens; points are measured, lines fitted"


def plot_runtime_vs_output_tokens(
    runtimes: pd.DataFrame,
    fit: ModelOfRuntimes | None = None,
    *,
    prompt_sizes: Iterable[int] | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw measured runtimes as points and, if ``fit`` is given, its prediction as lines.

    Figure 3 of arXiv:2305.02440.

    Parameters
    ----------
    runtimes : DataFrame, one row a setting of one model
        ``num_prompt_tokens``, ``num_output_tokens``, ``runtime_s``.
    fit : ModelOfRuntimes, optional
        Its R² stands in the panel where it has one, cut, not rounded, to five decimals.
    prompt_sizes : iterable of int, optional
        Sizes to draw, those of them that were profiled; all where it is not given.

    Raises
    ------
    ValueError
        None of ``prompt_sizes`` was profiled; the message lists those that were.
    """
    ax = plt.subplots()[1] if ax is None else ax
    profiled = sorted(int(size) for size in runtimes["num_prompt_tokens"].unique())
    drawn = profiled if prompt_sizes is None else [size for size in profiled if size in set(prompt_sizes)]
    if not drawn:
        raise ValueError(f"none of the prompt sizes {list(prompt_sizes)} was profiled; there are {profiled}")
    colors = sns.color_palette("flare_r", len(drawn))
    for color, num_prompt_tokens in zip(colors, drawn, strict=True):
        group = runtimes[runtimes["num_prompt_tokens"] == num_prompt_tokens].sort_values("num_output_tokens")
        ax.plot(group["num_output_tokens"], group["runtime_s"], "o", color=color, label=f"{num_prompt_tokens}")
        if fit is not None:
            ends = np.array([group["num_output_tokens"].min(), group["num_output_tokens"].max()])
            ax.plot(ends, fit.predict(num_prompt_tokens, ends), "-", color=color)
    r_squared = getattr(fit, "r_squared", None)
    if r_squared is not None:
        _note(ax, f"$R^2$ = {np.floor(r_squared * 1e5) / 1e5:.5f}")
    ax.set(xlabel="Number of output tokens", ylabel="Runtime (s)")
    ax.set_ylim(bottom=0)
    ax.legend(title=PROMPT_SIZES_TITLE)
    return ax


def plot_prompt_encoding_time(
    fit: ModelOfRuntimes | None,
    knee: PromptEncodingKnee | None = None,
    *,
    level: float = 0.95,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw prompt encoding time against prompt size (Figure 4 of arXiv:2305.02440).

    Points are the fitted times at the profiled sizes with their intervals, the line is the rule that
    predicts between them.

    Parameters
    ----------
    fit : RuntimeModel
        One without intervals (a bare parameter file) gives points without them.
    knee : PromptEncodingKnee, optional
        Its line dotted over the linear part, its place as a vertical line with its interval shaded.
    level : float
        Confidence level of the intervals.
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = np.asarray(fit.num_prompt_tokens)
    dense = np.unique(np.concatenate([np.arange(sizes.min(), sizes.max() + 1), sizes]))
    ax.plot(dense, fit.prompt_encoding_time_s(dense), "-", color=FITTED_COLOR, label="Rule between sizes")
    times_s, bars_s = fit.prompt_encoding_time_s(sizes), None
    with contextlib.suppress(NoIntervalError):
        bars_s = error_bars(times_s, *fit.prompt_encoding_interval_s(sizes, level))
    ax.errorbar(
        sizes,
        times_s,
        yerr=bars_s,
        fmt="o",
        markersize=2.5,
        elinewidth=1,
        color=MEASURED_COLOR,
        label=f"Profiled size, {interval_label(level)}",
    )
    if knee is not None:
        line = np.array([knee.num_prompt_tokens, sizes.max()])
        ax.plot(line, knee.line_s(line), ":", color="0.1", label="Best-fit line", zorder=3)
        ax.axvspan(*knee.interval, color=KNEE_COLOR, alpha=0.25, linewidth=0, label=f"its {interval_label(knee.level)}")
        ax.axvline(knee.num_prompt_tokens, color=KNEE_COLOR, linewidth=1, label="Knee")
    ax.set(xlabel="Prompt size (tokens)", ylabel="Prompt time (s)")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_residuals(residuals: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the relative error of each prediction against its measured runtime.

    Parameters
    ----------
    residuals : DataFrame, one row a setting of one model
        ``runtime_s``, ``relative_error`` (predicted / measured - 1).
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.axhline(0, color="0.4", linewidth=0.8)
    percent = 100 * residuals["relative_error"]
    ax.plot(residuals["runtime_s"], percent, "o", color=MEASURED_COLOR, markersize=3, alpha=0.6)
    errors = summarize_errors(percent)
    _note(ax, f"median {errors['median']:.2f} %, 95th {errors['p95']:.2f} %")
    ax.set_xscale("log")
    label_log_axis(ax.xaxis)
    # Room for the note above the points; an error plot reads from zero, alike on both sides.
    limit = max(1.35 * errors["max"], 0.1)
    ax.set_ylim(-limit, limit)
    ax.set(xlabel="Measured runtime (s)", ylabel="Relative error (%)")
    return ax


def _note(ax, text):
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=7.5)
