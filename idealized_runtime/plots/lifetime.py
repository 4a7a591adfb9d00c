"""Figures of what to train: scaling laws, cheapest sizes, measured against guessed inference. Data and axes in."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from idealized_runtime.lifetime.comparison import Assumptions
from idealized_runtime.lifetime.measured import MeasuredQueryCost, profile_table
from idealized_runtime.lifetime.scaling_law import ModelSize, ScalingLaw
from idealized_runtime.lifetime.size_curve import SizeCurve
from idealized_runtime.plots.style import FITTED_COLOR, MEASURED_COLOR, draw_band, interval_label, label_log_axis

GUESSED_COLOR = "0.35"
_TRAINING_COLOR, _INFERENCE_COLOR = "#009E73", "#CC79A7"
_NUM_POINTS = 200
_EXTRAPOLATED = "Outside the measured sizes"
_RATIO_LEVELS_PERCENT = np.array([10, 20, 30, 50, 70, 90, 98, 102, 120, 200, 500, 2000])
# Of the width and the height of a map, from its middle: what labels may be centred on.
_LABELLED_HALF = (0.44, 0.38)


def plot_ratio_map(ratios: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw optimal over Chinchilla, in per cent, over demand and loss: colour, and labelled lines of equal ratio.

    White is no difference, blue less and red more than Chinchilla.

    Parameters
    ----------
    ratios : DataFrame, losses by demands
        The caller labels the x axis with the unit of the demand.
    """
    ax = plt.subplots()[1] if ax is None else ax
    percent = 100 * ratios.to_numpy(dtype=float)
    demands, losses = ratios.columns.to_numpy(dtype=float), ratios.index.to_numpy(dtype=float)
    # The log of the ratio, so that half and double are equally far from white.
    span = np.log([min(percent.min(), 99), max(percent.max(), 101)]) - np.log(100)
    norm = TwoSlopeNorm(0, *span)
    ax.pcolormesh(demands, losses, np.log(percent / 100), norm=norm, cmap="RdBu_r", shading="gouraud", rasterized=True)
    levels = _RATIO_LEVELS_PERCENT[(percent.min() < _RATIO_LEVELS_PERCENT) & (percent.max() > _RATIO_LEVELS_PERCENT)]
    lines = ax.contour(demands, losses, percent, levels=levels, colors="0.15", linewidths=0.7)
    ax.set(xscale="log", ylabel="Loss (nats a token)", ylim=(losses.max(), losses.min()))
    ax.grid(False)
    places = _label_places(ax, [found[0] for found in lines.allsegs if found])
    labels = ax.clabel(lines, fmt=lambda level: f"{level:g} %", fontsize=7, inline_spacing=2, manual=places)
    for label in labels:
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    return ax


def plot_loss_vs_tokens_per_param(
    runs: pd.DataFrame, law: ScalingLaw | None = None, *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw the loss of training runs against training tokens a parameter, one colour a size, with the law as lines.

    Parameters
    ----------
    runs : DataFrame, one row a run
        ``num_params, num_training_tokens, loss``.
    law : ScalingLaw, optional
    """
    ax = plt.subplots()[1] if ax is None else ax
    ratio = runs["num_training_tokens"] / runs["num_params"]
    dense = np.geomspace(ratio.min(), ratio.max(), _NUM_POINTS)
    sizes = np.sort(runs["num_params"].unique())
    for color, size in zip(sns.color_palette("flare_r", len(sizes)), sizes, strict=True):
        of_size = runs["num_params"] == size
        ax.plot(ratio[of_size], runs["loss"][of_size], "o", color=color, label=_size_text(size))
        if law is not None:
            ax.plot(dense, law.loss(size, dense * size), "-", color=color, linewidth=1)
    ax.set(xscale="log", xlabel="Training tokens a parameter", ylabel="Loss (nats a token)")
    # Room for the legend above the losses.
    ax.set_ylim(top=ax.get_ylim()[1] + 0.25 * np.ptp(ax.get_ylim()))
    ax.legend(title="Parameters", loc="upper right", ncols=3)
    return ax


def plot_loss_errors(runs: pd.DataFrame, laws: Mapping[str, ScalingLaw], *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw by how much each law's loss is off each run, in per cent, against training tokens a parameter.

    Parameters
    ----------
    runs : DataFrame, one row a run
        ``num_params, num_training_tokens, loss``.
    laws : mapping of ScalingLaw, by label
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.axhline(0, color="0.4", linewidth=0.8)
    ratio = runs["num_training_tokens"] / runs["num_params"]
    for color, marker, (label, law) in zip((MEASURED_COLOR, FITTED_COLOR, "0.5"), "os^", laws.items(), strict=False):
        error = law.loss(runs["num_params"], runs["num_training_tokens"]) / runs["loss"] - 1
        label = f"{label} (median {100 * error.abs().median():.1f} %)"
        ax.plot(ratio, 100 * error, marker, color=color, markersize=3.5, alpha=0.7, label=label)
    ax.set(xscale="log", xlabel="Training tokens a parameter", ylabel="Predicted / measured loss - 1 (%)")
    # Room for the legend below the errors, whose markers would else pass for runs.
    ax.set_ylim(bottom=ax.get_ylim()[0] - 0.2 * np.ptp(ax.get_ylim()))
    ax.legend(loc="lower left", frameon=True)
    return ax


def plot_size_curve(
    curve: SizeCurve,
    *,
    num_params: ArrayLike | None = None,
    level: float = 0.95,
    label: str | None = "Measured model",
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw what models cost against their size, and the regression with its interval for a new model.

    Parameters
    ----------
    curve : SizeCurve
        The caller labels the y axis.
    num_params : pair of float, optional
        Ends of the line; outside the measured sizes it is dashed. The measured sizes where it is not given.
    level : float
    label : str
        Of the models' points.
    """
    ax = plt.subplots()[1] if ax is None else ax
    measured = curve.num_params.min(), curve.num_params.max()
    sizes = np.geomspace(*(measured if num_params is None else num_params), _NUM_POINTS)
    lower, upper = curve.interval(sizes, level=level)
    draw_band(ax, sizes, lower, upper, color=FITTED_COLOR, label=f"{interval_label(level)} of a new model")
    outside = "_inside" if num_params is None else _EXTRAPOLATED
    ax.plot(sizes, curve(sizes), "--", color=FITTED_COLOR, linewidth=0.9, label=outside)
    inside = np.geomspace(*measured, _NUM_POINTS)
    ax.plot(inside, curve(inside), "-", color=FITTED_COLOR, label="Regression")
    ax.plot(curve.num_params, curve.costs, "o", color=MEASURED_COLOR, label=label)
    ax.set(yscale="log")
    _set_sizes(ax)
    label_log_axis(ax.yaxis)
    return ax


def plot_utilization(
    measured: MeasuredQueryCost,
    peak_flops_per_s: float,
    assumptions: Assumptions,
    *,
    level: float = 0.95,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw the utilisation, 2 N tokens / peak, that measured models imply for prompts and output tokens; the guesses.

    Parameters
    ----------
    measured : MeasuredQueryCost
    peak_flops_per_s : float
        Of one accelerator.
    assumptions : Assumptions
        Its guesses are dotted lines.
    level : float
    """
    ax = plt.subplots()[1] if ax is None else ax
    models = profile_table(measured, peak_flops_per_s)
    sizes = np.geomspace(models["num_params"].min(), models["num_params"].max(), _NUM_POINTS)
    implied = measured.utilization(sizes, peak_flops_per_s, level=level)
    for name, guess, color, marker in (
        ("prompts", assumptions.prompt_mfu, MEASURED_COLOR, "o"),
        ("output_tokens", assumptions.output_mfu, FITTED_COLOR, "s"),
    ):
        label = name.replace("_", " ").capitalize()
        ax.plot(models["num_params"], models[name], marker, color=color, label=f"{label}, measured")
        ax.plot(sizes, implied[name], "-", color=color, label="regression")
        bounds = implied[f"{name}_lower"], implied[f"{name}_upper"]
        draw_band(ax, sizes, *bounds, color=color, label=f"its {interval_label(level)}")
        ax.axhline(guess, linestyle=":", color=color, label=f"{label}, guessed")
    ax.set(yscale="log", ylabel="Utilisation")
    _set_sizes(ax)
    return ax


def plot_against_demand(
    comparison: pd.DataFrame,
    *,
    value: str,
    guessed: str | None = None,
    label: str = "Measured",
    color: str = FITTED_COLOR,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw a column of a comparison against the number of requests, as a line in its interval.

    Parameters
    ----------
    comparison : DataFrame
        As :func:`~idealized_runtime.lifetime.comparison.compare_with_guess` gives it, of one loss. Optima outside the
        measured sizes are dashed.
    value : str
        Column; the caller labels the y axis.
    guessed : str, optional
        Column of the guess, as a dotted line.
    label : str
        Of the line.
    color
        Of the line and its interval.
    """
    ax = plt.subplots()[1] if ax is None else ax
    rows = comparison.sort_values("num_requests")
    requests = rows["num_requests"]
    draw_band(ax, requests, rows[f"{value}_lower"], rows[f"{value}_upper"], color=color, label="95 % interval")
    ax.plot(requests, rows[value].mask(rows["is_extrapolated"]), "-", color=color, label=label)
    if rows["is_extrapolated"].any():
        ax.plot(requests, rows[value], "--", color=color, linewidth=0.9, label=_EXTRAPOLATED)
    if guessed is not None:
        ax.plot(requests, rows[guessed], ":", color=GUESSED_COLOR, label="Guessed")
    ax.set(xscale="log", yscale="log", xlabel="Requests over the model's life")
    # Costs span too many decades for plain numbers.
    if value.endswith("num_params"):
        label_log_axis(ax.yaxis, _size_text)
    elif value.endswith("_moves"):
        label_log_axis(ax.yaxis)
    return ax


def plot_cost_vs_size(
    law: ScalingLaw,
    row: pd.Series,
    query_cost: MeasuredQueryCost,
    assumptions: Assumptions,
    *,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw what training and serving cost at equal loss against the size of the model, with the optimum.

    Parameters
    ----------
    law : ScalingLaw
    row : Series
        One row of :func:`~idealized_runtime.lifetime.comparison.compare_with_guess`; its interval is shaded.
    query_cost : MeasuredQueryCost
    assumptions : Assumptions
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = np.geomspace(0.75 * row["num_params_lower"], 4 * row["num_params_upper"], _NUM_POINTS)
    # Little above the size with which no number of tokens reaches the loss.
    sizes = sizes[sizes > 1.02 * (law.A / law.reducible_loss(row["loss"])) ** (1 / law.alpha)]
    costs = assumptions.measured_costs(query_cost, row["num_requests"])
    training_usd = costs.training(ModelSize(sizes, law.training_tokens_for(row["loss"], sizes)))
    inference_usd = costs.inference.cost(sizes)
    guessed_usd = assumptions.guessed_costs(query_cost.mix, row["num_requests"]).inference.cost(sizes)
    ax.plot(sizes, training_usd, "-", color=_TRAINING_COLOR, label="Training")
    ax.plot(sizes, inference_usd, "-", color=_INFERENCE_COLOR, label="Inference, measured")
    ax.plot(sizes, guessed_usd, ":", color=_INFERENCE_COLOR, label="Inference, guessed")
    ax.plot(sizes, training_usd + inference_usd, "-", color="0.1", label="Both, measured")
    ax.axvspan(row["num_params_lower"], row["num_params_upper"], color=FITTED_COLOR, alpha=0.2, linewidth=0,
               label="its 95 % interval")  # fmt: skip
    ax.plot(row["num_params"], row["cost_usd"], "o", color=FITTED_COLOR, label="Cheapest size", zorder=3)
    ax.set(yscale="log", ylabel="Lifetime cost ($)")
    _set_sizes(ax)
    lowest = min(training_usd.min(), inference_usd.min(), guessed_usd.min())
    ax.set_ylim(lowest / 2, 10 * max(row["cost_usd"], guessed_usd.min()))
    return ax


def _label_places(ax, segments) -> list:
    """Where to write on each line: away from the edges that would cut the text, and from the next line's label."""
    places = []
    for number, segment in enumerate(segments):
        across = ax.transAxes.inverted().transform(ax.transData.transform(segment))
        distance = np.max(np.abs(across - 0.5) / _LABELLED_HALF, axis=1)
        inside = segment[distance <= max(1, distance.min())]
        places.append(inside[int(len(inside) * (0.35, 0.65)[number % 2])])
    return places


def _set_sizes(ax):
    ax.set(xscale="log", xlabel="Parameters")
    label_log_axis(ax.xaxis, _size_text)


def _size_text(num_params, _=None) -> str:
    return f"{num_params / 1e9:.3g} B" if num_params >= 1e9 else f"{num_params / 1e6:.3g} M"
