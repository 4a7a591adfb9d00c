"""Figures of batches on pipelines: data and axes in, axes out. Points are measured, lines are fitted."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from idealized_runtime.plots.style import FITTED_COLOR, mark_values, style_models
from idealized_runtime.records import SETTING_COLUMNS

_COLORS = sns.color_palette("colorblind")
# Column of the measured times, its label, its colour and mark.
_PARTS = {
    "runtime_s": ("Overall", _COLORS[0], "o"),
    "generation_time_s": ("Generate", _COLORS[1], "s"),
    "prompt_encoding_time_s": ("Prompt", _COLORS[7], "^"),
}


def plot_token_micro_batch_sizes(timings: pd.DataFrame, model=None, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw prompt, generate and overall time of one batch size against the token micro-batch size.

    Parameters
    ----------
    timings : DataFrame, one row a token micro-batch size
        One model, prompt and output size, batch and micro-batch size: the columns of a setting,
        ``prompt_encoding_time_s, generation_time_s, runtime_s``.
    model : BatchRuntimeModel, optional
        Its overall time as a line.

    Returns
    -------
    Axes
        The token micro-batch size with the shortest generation time measured is ringed: prompts do not depend on it.

    Raises
    ------
    ValueError
        A token micro-batch size stands there twice.
    """
    ax = plt.subplots()[1] if ax is None else ax
    timings = timings.sort_values("token_micro_batch_size")
    k = timings["token_micro_batch_size"].to_numpy(int)
    if len(np.unique(k)) < len(k):
        raise ValueError(f"one panel takes each token micro-batch size once; got {k.tolist()}")
    for column, (label, color, mark) in _PARTS.items():
        ax.plot(k, timings[column], mark, color=color, label=label)
    if model is not None:
        p, o, batch, m, _ = (timings[name].to_numpy(int) for name in SETTING_COLUMNS)
        ax.plot(k, model.predict(p, o, batch, k, m=m), "-", color=FITTED_COLOR, label="Overall, fitted", zorder=1)
    best = int(np.argmin(timings["generation_time_s"]))
    ax.plot(
        k[best], timings["generation_time_s"].iloc[best], "o", markersize=11, markerfacecolor="none",
        markeredgecolor="black", label="Shortest generation",
    )  # fmt: skip
    mark_values(ax, k)
    ax.set(xlabel="Token micro-batch size", ylabel="Time (s)")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_generation_rate(tables, *, column: str = "tokens_per_s", label: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw one rate of token generation against the batch size, a line a model.

    Parameters
    ----------
    tables : mapping of DataFrame, by model name, from small to large
        Of ``generation_table``; batch sizes that failed are left out.
    column : str
    label : str
        Of the y axis, with its unit.
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = []
    for name, style in style_models(tables).items():
        timed = tables[name][tables[name][column].notna()]
        ax.plot(timed.index, timed[column], linestyle="-", label=name, **style)
        sizes += timed.index.tolist()
    mark_values(ax, sizes)
    ax.set(xlabel="Batch size (sequences)", ylabel=label)
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
