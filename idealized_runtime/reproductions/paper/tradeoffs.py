"""Points of the trade-off figures of arXiv:2305.02440: estimated from fits, with frontiers, ranks and probabilities."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from idealized_runtime.comparisons.frontier import frontier_probability, pareto_frontier, rank, rank_probabilities
from idealized_runtime.fits.protocol import ModelOfRuntimes
from idealized_runtime.hardware.prices import dollar_cost_usd
from idealized_runtime.measurements.published import published_data
from idealized_runtime.queries.price import price
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.statistics.intervals import draw_log_normal, normal_half_width, standard_error_of_interval
from idealized_runtime.statistics.ratios import log_normal_interval, ratio_interval

# Tasks in the order of the paper's columns.
TASKS = {
    "mmlu:subject=college_chemistry": "MMLU (college chemistry)",
    "raft:subset=terms_of_service": "RAFT (terms of service)",
    "imdb": "IMDB",
    "boolq": "BoolQ",
}
# Dollars of one device for an hour, AWS on demand, as Figures 8 and 9 price them.
PRINTED_PRICES_USD = {"a100": 4.096, "v100": 3.06}
_LEVEL = 0.95


def short_task(task: str) -> str:
    """Title of a task without what stands in brackets: ``"MMLU"``."""
    return TASKS.get(task, task).split(" (")[0]


def price_on_hardware(
    queries: pd.DataFrame,
    models: Mapping[str, Mapping[str, ModelOfRuntimes]],
    *,
    prices_usd: Mapping[str, float] = PRINTED_PRICES_USD,
) -> pd.DataFrame:
    """Runtime and cost of each query on each of the paper's two kinds of hardware.

    Parameters
    ----------
    queries : DataFrame, one row a query
        ``task, model, num_prompt_tokens, num_output_tokens``; models as the paper prints them.
    models : mapping by hardware (``"a100"``, ``"v100"``) of models of runtimes, by printed name
    prices_usd : mapping by hardware
        Of one device for an hour.

    Returns
    -------
    DataFrame, a row a hardware and query
        The queries with ``hardware, runtime_s, standard_error_s, is_extrapolated, cost_cents``: the error is NaN where
        the model knows none, all is NaN where the hardware has no fit of the model, and cost where the paper has no
        number of devices.
    """
    frames = []
    for hardware, fits in models.items():
        numbers = _num_accelerators(hardware)
        priced = price(
            queries,
            fits,
            num_accelerators=numbers,
            price_usd_per_hour=prices_usd[hardware],
            level=_LEVEL,
            extrapolate=True,
        ).table
        frames.append(
            queries.assign(
                hardware=hardware,
                runtime_s=priced["runtime_s"],
                standard_error_s=_standard_errors_s(priced),
                is_extrapolated=priced["is_extrapolated"],
                cost_cents=100 * priced["cost_usd"],
            )
        )
    return pd.concat(frames, ignore_index=True)


def read_figure8() -> pd.DataFrame:
    """Points of Figure 8 as printed, a row a hardware, task and model: with ``runtime_s`` and ``cost_cents``."""
    printed = pd.read_csv(published_data("paper_figures/figure8_points.csv"))
    frames = [
        printed[["task", "model"]].assign(
            hardware=hardware, runtime_s=printed[f"runtime_{hardware}_s"], cost_cents=printed[f"cost_{hardware}_cents"]
        )
        for hardware in PRINTED_PRICES_USD
    ]
    return pd.concat(frames, ignore_index=True)


def compare_hardware(points: pd.DataFrame, *, level: float = _LEVEL) -> pd.DataFrame:
    """Ratios V100 / A100 of runtime and of cost, with intervals where standard errors are known.

    Parameters
    ----------
    points : DataFrame, a row a hardware, task and model
        ``hardware, task, model, runtime_s, cost_cents``, as from :func:`read_figure8` or from
        :func:`price_on_hardware`, which also gives ``standard_error_s``.
    level : float

    Returns
    -------
    DataFrame
        ``task, model`` and, for ``runtime`` and ``cost``, ``<metric>_ratio``, ``<metric>_lower`` and
        ``<metric>_upper``; ``break_even_price_ratio``, the share of the A100's price at which a V100 would cost
        the same by query. Rows without a number of V100 devices are left out.
    """
    a100, v100 = (points[points["hardware"] == name].set_index(["task", "model"]) for name in PRINTED_PRICES_USD)
    v100 = v100[v100["cost_cents"].notna()]
    a100 = a100.loc[v100.index]
    ratios = {}
    for metric, column in (("runtime", "runtime_s"), ("cost", "cost_cents")):
        # Devices and prices count as known, so both metrics have the relative error of the runtime.
        intervals = (
            log_normal_interval(side[column], side.get("standard_error_s", np.nan) / side["runtime_s"], level)
            for side in (v100, a100)
        )
        names = (f"{metric}_ratio", f"{metric}_lower", f"{metric}_upper")
        ratios |= dict(zip(names, ratio_interval(*intervals), strict=True))
    ratios = pd.DataFrame(ratios).reset_index()
    num_a100, num_v100 = (ratios["model"].map(_num_accelerators(name)) for name in PRINTED_PRICES_USD)
    return ratios.assign(break_even_price_ratio=1 / (ratios["runtime_ratio"] * (num_v100 / num_a100)))


def cost_cents(points: pd.DataFrame, *, prices_usd: Mapping[str, float] = PRINTED_PRICES_USD) -> pd.Series:
    """Cents of each query: runtime x devices x price / 36, with the number of devices the paper takes.

    Parameters
    ----------
    points : DataFrame
        ``hardware, model, runtime_s``; models as printed.
    prices_usd : mapping by hardware
        Of one device for an hour.
    """
    parts = [
        dollar_cost_usd(
            part["runtime_s"], num_accelerators=part["model"].map(_num_accelerators(hardware)),
            price_usd_per_hour=prices_usd[hardware],
        )
        for hardware, part in points.groupby("hardware")
    ]  # fmt: skip
    return 100 * pd.concat(parts).reindex(points.index)


def cost_identity_error(points: pd.DataFrame) -> float:
    """Largest relative difference between costs (``cost_cents``) and runtime x devices x price."""
    return float((points["cost_cents"] / cost_cents(points) - 1).abs().max())


def idealized_points(queries: pd.DataFrame, models: Mapping[str, Mapping[str, ModelOfRuntimes]]) -> pd.DataFrame:
    """Idealized runtime and cost as Figure 9 draws them: means of the A100's and the V100's.

    Microsoft+NV/TNLG v2 was drawn from the A100 alone, and so is any model that only one hardware has.

    Parameters
    ----------
    queries, models
        As in :func:`price_on_hardware`.

    Returns
    -------
    DataFrame, one row a metric, task and model
        ``metric`` (``idealized_runtime`` in seconds, ``idealized_cost`` in cents), ``task``, ``model``,
        ``value``, ``standard_error``, ``is_extrapolated`` (on either hardware).
    """
    points = price_on_hardware(queries, models)
    drawn = points[points["cost_cents"].notna()]
    relative_errors = drawn["standard_error_s"] / drawn["runtime_s"]
    frames = []
    for metric, column in (("idealized_runtime", "runtime_s"), ("idealized_cost", "cost_cents")):
        squares = (drawn[column] * relative_errors) ** 2
        means = drawn.assign(value=drawn[column], square=squares).groupby(["task", "model"], sort=False)
        frames.append(
            pd.DataFrame(
                {
                    "metric": metric,
                    "value": means["value"].mean(),
                    "standard_error": np.sqrt(means["square"].sum(skipna=False)) / means.size(),
                    "is_extrapolated": means["is_extrapolated"].any(),
                }
            ).reset_index()
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


def frontier_probabilities(points: pd.DataFrame, *, num_draws: int = 10_000) -> pd.Series:
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
        frontier_probability(panel, draw_values(panel, num_draws=num_draws))
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


def rank_intervals(points: pd.DataFrame, objective: str = "ratio", *, level: float = 0.95) -> pd.DataFrame:
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
        ``task, model, lower, upper``; NaN where no error is known.
    """
    frames = []
    for task, panel in points.groupby("task"):
        draws = draw_values(panel)
        up_to = rank_probabilities(panel, draws, objective=objective).cumsum(axis=1)
        # The first rank up to which the probability is enough; sums of shares are off by rounding.
        lower, upper = (
            (1 + (up_to < end - 1e-9).sum(axis=1)).where(up_to.notna().all(axis=1))
            for end in ((1 - level) / 2, (1 + level) / 2)
        )
        frames.append(pd.DataFrame({"task": task, "model": panel["model"], "lower": lower, "upper": upper}))
    return pd.concat(frames, ignore_index=True)


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
    half_width = normal_half_width(level) * joined["standard_error"]
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
    models : mapping of ModelOfRuntimes, by model

    Returns
    -------
    DataFrame
        The points with ``fitted_s``, runtime of that query, and ``standard_error``; NaN without a query or a fit.
    """
    priced = price(queries, models, level=_LEVEL, extrapolate=True).table
    fitted = queries[["task", "model"]].assign(
        fitted_s=priced["runtime_s"], standard_error=_standard_errors_s(priced) / priced["runtime_s"]
    )
    joined = points.merge(fitted, on=["task", "model"], how="left")
    return joined.assign(standard_error=joined["standard_error"] * joined["value"])


def draw_values(panel: pd.DataFrame, *, num_draws: int = 10_000) -> np.ndarray:
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
    return draw_log_normal(panel["value"], panel["standard_error"], num_draws=num_draws, rng=0, groups=logs)


def _num_accelerators(hardware) -> dict[str, int]:
    """Devices that serve one query of each model, by printed name, where the paper has a number."""
    rows = PAPER_MODELS.values()
    return {row.name: row.num_accelerators[hardware] for row in rows if hardware in row.num_accelerators}


def _standard_errors_s(priced) -> pd.Series:
    return standard_error_of_interval(priced["runtime_s_lower"], priced["runtime_s_upper"], _LEVEL)
