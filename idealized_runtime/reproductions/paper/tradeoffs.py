"""Points of the trade-off figures of arXiv:2305.02440: estimated from fits, with frontiers, ranks and probabilities."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from idealized_runtime.comparisons.frontier import frontier_probability, pareto_frontier, rank, rank_probabilities
from idealized_runtime.fits import ExtrapolationWarning
from idealized_runtime.fits.statistics import draw_log_normal
from idealized_runtime.hardware.prices import dollar_cost_usd
from idealized_runtime.reproductions.paper.models import PAPER_MODELS

# Tasks in the order of the paper's columns.
TASKS = {
    "mmlu:subject=college_chemistry": "MMLU (college chemistry)",
    "raft:subset=terms_of_service": "RAFT (terms of service)",
    "imdb": "IMDB",
    "boolq": "BoolQ",
}
# Dollars of one device for an hour, AWS on demand, as Figures 8 and 9 price them.
PRINTED_PRICES_USD = {"a100": 4.096, "v100": 3.06}


def estimate_queries(queries: pd.DataFrame, models: Mapping) -> pd.DataFrame:
    """Runtime of each query, with the standard error of its mean where the model knows one.

    Parameters
    ----------
    queries : DataFrame, one row a query
        ``model, num_prompt_tokens, num_output_tokens``.
    models : mapping of RuntimeModel, by model

    Returns
    -------
    DataFrame, with the index of ``queries``
        ``runtime_s``; ``standard_error_s``, the 95 % interval's width over 2 x 1.96, NaN without intervals;
        ``is_extrapolated``, beyond the profiled prompt sizes. NaN, NaN and False without a model.
    """
    columns = {"runtime_s": np.nan, "standard_error_s": np.nan, "is_extrapolated": False}
    estimates = pd.DataFrame(columns, index=queries.index)
    for name, group in queries.groupby("model", sort=False):
        if name not in models:
            continue
        p, o = group["num_prompt_tokens"].to_numpy(), group["num_output_tokens"].to_numpy()
        estimates.loc[group.index, "is_extrapolated"] = models[name].is_extrapolated(p)
        with warnings.catch_warnings():
            # Named in a column instead.
            warnings.simplefilter("ignore", ExtrapolationWarning)
            estimates.loc[group.index, "runtime_s"] = models[name].predict(p, o, extrapolate=True)
            estimates.loc[group.index, "standard_error_s"] = models[name].standard_error(p, o, extrapolate=True)
    return estimates


def estimate_on_both(
    queries: pd.DataFrame, a100: Mapping, v100: Mapping, *, prices_usd: Mapping[str, float] = PRINTED_PRICES_USD
) -> pd.DataFrame:
    """Runtime and cost of each query on the paper's two kinds of hardware.

    Parameters
    ----------
    queries : DataFrame, one row a query
        ``task, model, num_prompt_tokens, num_output_tokens``; models as the paper prints them.
    a100, v100 : mapping of RuntimeModel, by printed name
    prices_usd : mapping by hardware
        Of one device for an hour.

    Returns
    -------
    DataFrame
        The queries with, for each hardware, ``runtime_<hardware>_s``, ``standard_error_<hardware>_s``,
        ``is_extrapolated_<hardware>`` and ``cost_<hardware>_cents``. NaN where the hardware has no fit of the
        model or the paper no number of devices.
    """
    result = queries.copy()
    for hardware, models in (("a100", a100), ("v100", v100)):
        estimates = estimate_queries(queries, models)
        result[f"runtime_{hardware}_s"] = estimates["runtime_s"]
        result[f"standard_error_{hardware}_s"] = estimates["standard_error_s"]
        result[f"is_extrapolated_{hardware}"] = estimates["is_extrapolated"]
        result[f"cost_{hardware}_cents"] = cost_cents(
            queries["model"], estimates["runtime_s"], hardware, price_usd_per_hour=prices_usd[hardware]
        )
    return result


def compare_hardware(points: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Ratios V100 / A100 of runtime and of cost, with intervals where standard errors are known.

    Parameters
    ----------
    points : DataFrame, one row a task and model
        ``runtime_a100_s, runtime_v100_s, cost_a100_cents, cost_v100_cents``, as published or from
        :func:`estimate_on_both`, which also gives the standard errors.
    level : float

    Returns
    -------
    DataFrame
        ``task, model`` and, for ``runtime`` and ``cost``, ``<metric>_ratio``, ``<metric>_lower`` and
        ``<metric>_upper``; ``break_even_price_ratio``, the share of the A100's price at which a V100 would cost
        the same by query. Rows without a number of V100 devices are left out.
    """
    points = points[points["cost_v100_cents"].notna()]
    ratios = points[["task", "model"]].copy()
    variance = sum(
        (points.get(f"standard_error_{hardware}_s", np.nan) / points[f"runtime_{hardware}_s"]) ** 2
        for hardware in PRINTED_PRICES_USD
    )
    # Of the logarithm of the ratio: the errors of the two fits are independent.
    factor = np.exp(stats.norm.ppf((1 + level) / 2) * np.sqrt(variance))
    for metric, unit in (("runtime", "s"), ("cost", "cents")):
        ratio = points[f"{metric}_v100_{unit}"] / points[f"{metric}_a100_{unit}"]
        ratios[f"{metric}_ratio"] = ratio
        ratios[f"{metric}_lower"], ratios[f"{metric}_upper"] = ratio / factor, ratio * factor
    devices = {name: row.num_v100 / row.num_a100 for name, row in PAPER_MODELS.items() if row.num_v100}
    ratios["break_even_price_ratio"] = 1 / (ratios["runtime_ratio"] * points["model"].map(devices))
    return ratios


def cost_cents(models: pd.Series, runtime_s, hardware: str, *, price_usd_per_hour: float | None = None) -> pd.Series:
    """Cents of each query: runtime x devices x price / 36, with the number of devices the paper takes.

    Parameters
    ----------
    models : Series of str
        Names as printed.
    runtime_s : Series
        Seconds.
    hardware : {"a100", "v100"}
    price_usd_per_hour : float, optional
        Of one device; the printed one where it is not given.
    """
    numbers = models.map({name: getattr(row, f"num_{hardware}") for name, row in PAPER_MODELS.items()}).astype(float)
    price = PRINTED_PRICES_USD[hardware] if price_usd_per_hour is None else price_usd_per_hour
    return 100 * dollar_cost_usd(runtime_s, num_accelerators=numbers, price_usd_per_hour=price)


def cost_identity_error(points: pd.DataFrame) -> float:
    """Largest relative difference between the costs of Figure 8 and runtime x devices x price.

    Parameters
    ----------
    points : DataFrame
        ``model, runtime_<hardware>_s, cost_<hardware>_cents`` of both.
    """
    errors = [
        points[f"cost_{hardware}_cents"] / cost_cents(points["model"], points[f"runtime_{hardware}_s"], hardware) - 1
        for hardware in PRINTED_PRICES_USD
    ]
    return float(pd.concat(errors).abs().max())


def idealized_points(queries: pd.DataFrame, a100: Mapping, v100: Mapping) -> pd.DataFrame:
    """Idealized runtime and cost as Figure 9 draws them: means of the A100's and the V100's.

    Microsoft+NV/TNLG v2 was drawn from the A100 alone, and so is any model that only one hardware has.

    Parameters
    ----------
    queries, a100, v100
        As in :func:`estimate_on_both`.

    Returns
    -------
    DataFrame, one row a metric, task and model
        ``metric`` (``idealized_runtime`` in seconds, ``idealized_cost`` in cents), ``task``, ``model``,
        ``value``, ``standard_error``, ``is_extrapolated`` (on either hardware).
    """
    both = estimate_on_both(queries, a100, v100)
    is_drawn = both[["cost_a100_cents", "cost_v100_cents"]].notna().to_numpy()
    # Errors relative to the runtime, which the factor from runtime to cost leaves alone.
    relative_errors = (
        both[["standard_error_a100_s", "standard_error_v100_s"]].to_numpy()
        / both[["runtime_a100_s", "runtime_v100_s"]].to_numpy()
    )
    is_extrapolated = both[["is_extrapolated_a100", "is_extrapolated_v100"]].to_numpy(dtype=bool)
    frames = []
    for metric, column in (("idealized_runtime", "runtime_{}_s"), ("idealized_cost", "cost_{}_cents")):
        values = both[[column.format("a100"), column.format("v100")]].where(is_drawn).to_numpy()
        errors = np.where(is_drawn, values * relative_errors, 0)
        frames.append(
            queries[["task", "model"]].assign(
                metric=metric,
                value=np.nanmean(values, axis=1),
                standard_error=np.sqrt((errors**2).sum(axis=1)) / is_drawn.sum(axis=1),
                is_extrapolated=(is_extrapolated & is_drawn).any(axis=1),
            )
        )
    return pd.concat(frames, ignore_index=True)


def mark_frontiers(points: pd.DataFrame) -> pd.Series:
    """Whether each point is on the Pareto frontier of its metric and task.

    Parameters
    ----------
    points : DataFrame
        ``metric, task, value, accuracy``.

    Returns
    -------
    Series of bool, with the index of ``points``
    """
    panels = [pareto_frontier(panel) for _, panel in points.groupby(["metric", "task"])]
    return pd.concat(panels).reindex(points.index)


def frontier_counts(points: pd.DataFrame) -> pd.DataFrame:
    """On how many tasks each model is on the frontier of each metric.

    Parameters
    ----------
    points : DataFrame
        ``metric, task, model, on_frontier``.

    Returns
    -------
    DataFrame of int, models in the order of Table 1 by metrics in the order of the rows
    """
    counts = points.pivot_table(index="model", columns="metric", values="on_frontier", aggfunc="sum", fill_value=0)
    models = [name for name in PAPER_MODELS if name in counts.index]
    return counts.loc[models, list(points["metric"].unique())].astype(int).rename_axis(columns=None)


def frontier_members(points: pd.DataFrame) -> pd.DataFrame:
    """Names on each frontier, by increasing value.

    Parameters
    ----------
    points : DataFrame
        ``metric, task, model, value, on_frontier``.

    Returns
    -------
    DataFrame of str, one row a metric and task, column ``frontier``
    """
    members = points[points["on_frontier"]].sort_values("value", kind="stable")
    named = members.groupby(["metric", "task"], sort=False)["model"].agg(", ".join)
    order = [pair for pair in dict.fromkeys(zip(points["metric"], points["task"], strict=True)) if pair in named.index]
    return named.loc[order].to_frame("frontier")


def frontier_probabilities(points: pd.DataFrame, *, num_draws: int = 10_000, seed: int = 0) -> pd.Series:
    """Probability that each point is on the frontier of its metric and task, given the errors of the fits.

    Models that share timings (Anthropic/v4-s3 and Cohere/XL) share their error. Accuracies are taken as certain.

    Parameters
    ----------
    points : DataFrame
        ``metric, task, model, value, standard_error, accuracy``.

    Returns
    -------
    Series of float, with the index of ``points``
    """
    panels = [
        frontier_probability(panel, draw_values(panel, num_draws=num_draws, seed=seed))
        for _, panel in points.groupby(["metric", "task"])
    ]
    return pd.concat(panels).reindex(points.index)


def rank_table(points: pd.DataFrame, objective: str = "ratio") -> pd.DataFrame:
    """Rank of each model on each task (Figure 10), best mean rank first, ties by the narrower spread.

    Parameters
    ----------
    points : DataFrame, of one metric
        ``task, model, value, accuracy``.
    objective : str
        As in :func:`idealized_runtime.comparisons.frontier.rank`.

    Returns
    -------
    DataFrame of int, models by tasks
    """
    ranks = pd.concat([rank(panel, objective=objective) for _, panel in points.groupby("task")])
    table = points.assign(rank=ranks).pivot_table(index="model", columns="task", values="rank", aggfunc="first")
    tasks = [task for task in TASKS if task in table.columns]
    table = table[tasks].astype(int)
    order = pd.DataFrame({"mean": table.mean(axis=1), "std": table.std(axis=1)}).sort_values(["mean", "std"]).index
    return table.loc[order].rename_axis(columns=None)


def rank_intervals(
    points: pd.DataFrame, objective: str = "ratio", *, level: float = 0.95, num_draws: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Lowest and highest rank of each model on each task that the errors of the fits leave possible.

    Parameters
    ----------
    points, objective
        As in :func:`rank_table`, with ``standard_error``.
    level : float
        Probability, at least, of the ranks in between.

    Returns
    -------
    DataFrame, one row a task and model
        ``task, model, lower, upper``.
    """
    frames = []
    for task, panel in points.groupby("task"):
        draws = draw_values(panel, num_draws=num_draws, seed=seed)
        up_to = rank_probabilities(panel, draws, objective=objective).cumsum(axis=1)
        # The first rank up to which the probability is enough; sums of shares are off by rounding.
        lower, upper = (1 + (up_to < end - 1e-9).sum(axis=1) for end in ((1 - level) / 2, (1 + level) / 2))
        frames.append(pd.DataFrame({"task": task, "model": panel["model"], "lower": lower, "upper": upper}))
    return pd.concat(frames, ignore_index=True).astype({"lower": int, "upper": int})


def beside_printed(points: pd.DataFrame, printed: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Recomputed points beside the printed ones, with intervals and deviations.

    Parameters
    ----------
    points : DataFrame
        ``metric, task, model, value, standard_error``, from :func:`idealized_points`.
    printed : DataFrame
        ``metric, task, model, value, accuracy``.

    Returns
    -------
    DataFrame, the points that are printed
        With ``value_printed, accuracy``; ``half_width`` of the interval of ``value``; ``deviation_percent`` from
        the print, and its bounds ``lower_percent`` and ``upper_percent``.
    """
    joined = points.merge(printed, on=["metric", "task", "model"], suffixes=("", "_printed"))
    half_width = stats.norm.ppf((1 + level) / 2) * joined["standard_error"]
    bounds = {"deviation": 0, "lower": -half_width, "upper": half_width}
    percent = {
        f"{name}_percent": 100 * ((joined["value"] + shift) / joined["value_printed"] - 1)
        for name, shift in bounds.items()
    }
    return joined.assign(half_width=half_width, **percent)


def with_relative_errors(points: pd.DataFrame, queries: pd.DataFrame, models: Mapping) -> pd.DataFrame:
    """Points with the relative error that a fit has at a representative query of the same task and model.

    Parameters
    ----------
    points : DataFrame, one row a task and model
        ``task, model, value``.
    queries : DataFrame, one row a task and model
        ``task, model, num_prompt_tokens, num_output_tokens``.
    models : mapping of RuntimeModel, by model

    Returns
    -------
    DataFrame
        The points with ``standard_error``; NaN without a query or a fit.
    """
    estimates = estimate_queries(queries, models)
    relative_errors = queries[["task", "model"]].assign(
        standard_error=estimates["standard_error_s"] / estimates["runtime_s"]
    )
    joined = points.merge(relative_errors, on=["task", "model"], how="left")
    return joined.assign(standard_error=joined["standard_error"] * joined["value"])


def draw_values(panel: pd.DataFrame, *, num_draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """Draws of uncertain values, one column a row; models that share timings move together.

    Parameters
    ----------
    panel : DataFrame
        ``model`` as printed, ``value``, ``standard_error``.

    Returns
    -------
    ndarray, shape (num_draws, rows)
    """
    logs = pd.factorize(panel["model"].map(lambda name: PAPER_MODELS[name].architecture_name))[0]
    return draw_log_normal(panel["value"], panel["standard_error"], num_draws=num_draws, rng=seed, groups=logs)
