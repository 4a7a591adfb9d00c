"""Software stacks compared: how much sooner each one answers every query of a workload.

Section 5.3 of arXiv:2305.02440 compares hardware by estimates from a few timed queries; software compares the same
way. A stack is what answers a query on given hardware: an engine, its version and its kernels. The floor of the
hardware may stand among the stacks, as the one that no software beats.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from idealized_runtime.measurements.floors import FloorRuntime, roofline_of
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models, read_timed_models
from idealized_runtime.queries.price import add_independent
from idealized_runtime.queries.tables import WEIGHT_COLUMN
from idealized_runtime.queries.terms import PricedModel, price_models
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.statistics.ratios import ratio_interval

_SIDES = ("", "_lower", "_upper")
# What is compared: its columns of the baseline and of the stack.
_COLUMNS = {
    "runtime_s": ("baseline_s", "runtime_s"),
    "cost_usd": ("baseline_cost_usd", "cost_usd"),
    "energy_joules": ("baseline_energy_joules", "energy_joules"),
}


def read_stacks(folders: Mapping[str, str]) -> dict[str, dict[str, TimedModel]]:
    """Models that were timed with each of several stacks, on one kind of hardware.

    Parameters
    ----------
    folders : mapping of stack to folder of logs
        As in :func:`idealized_runtime.measurements.folders.find_logs`.

    Raises
    ------
    ValueError
        The logs are of several machines, or of one model on different numbers of devices; the message names them.
    PublishedDataMissingError
        There is no such folder.
    """
    stacks = {
        stack: {model.name: model for model in fitted_models(read_timed_models(folder).values())}
        for stack, folder in folders.items()
    }
    machines = {stack: sorted({model.hardware for model in models.values()}) for stack, models in stacks.items()}
    if len({name for names in machines.values() for name in names}) > 1:
        named = "; ".join(f"{stack}: {', '.join(names)}" for stack, names in machines.items())
        raise ValueError(f"stacks are compared on one kind of hardware; the logs are of several: {named}")
    _check_parallelism(stacks)
    return stacks


def floor_stack(models: Mapping[str, TimedModel]) -> dict[str, FloorRuntime]:
    """The floors of timed models as a stack, by model; without models of whose machine nothing is known."""
    rooflines = {name: roofline_of(model) for name, model in models.items()}
    return {name: FloorRuntime(roofline) for name, roofline in rooflines.items() if roofline is not None}


def compare_stacks(
    workload: pd.DataFrame, stacks: Mapping[str, Mapping], *, baseline: str, level: float = 0.95
) -> pd.DataFrame:
    """Speed-up of each stack over another on every query of a workload, for every model that both hold.

    Parameters
    ----------
    workload : DataFrame, one row a query
        ``num_prompt_tokens, num_output_tokens``; optional ``weight``.
    stacks : mapping by name of a stack of mappings by model
        Models of runtimes, or :class:`~idealized_runtime.queries.terms.PricedModel` to compare cost and energy, too.
    baseline : str
        The stack that the others are compared with.
    level : float
        Of the intervals, which join those of both runtimes (:mod:`~idealized_runtime.statistics.ratios`).

    Returns
    -------
    DataFrame, one row a stack, model and size of query
        ``stack, model, num_prompt_tokens, num_output_tokens``; ``num_queries``, how many of the workload have this
        size, or their weight; ``baseline_s`` and ``runtime_s`` of one, each with ``_lower`` and ``_upper``, so too
        ``baseline_cost_usd, cost_usd, baseline_energy_joules, energy_joules`` where both models have a price or watts;
        ``speed_up``, how many times the stack's runtime the baseline takes, with ``speed_up_lower`` and
        ``speed_up_upper``. Queries beyond the prompt sizes that both stacks timed are left out.

    Raises
    ------
    ValueError
        There is no such baseline, or no other stack holds a model of it (the message lists what there is), or no
        query is as short as the prompts that were timed.
    """
    if baseline not in stacks:
        raise ValueError(f"no stack named {baseline!r} for a baseline; there are: {', '.join(stacks)}")
    pairs = {
        (stack, model): (stacks[baseline][model], runtimes)
        for stack, models in stacks.items()
        if stack != baseline
        for model, runtimes in models.items()
        if model in stacks[baseline]
    }
    if not pairs:
        held = "; ".join(f"{stack}: {', '.join(models)}" for stack, models in stacks.items())
        raise ValueError(f"no model was timed with {baseline!r} and with another stack. There are: {held}")
    sizes = workload.groupby(TOKEN_COLUMNS, sort=False)
    counts = sizes[WEIGHT_COLUMN].sum() if WEIGHT_COLUMN in workload else sizes.size()
    queries = counts.rename("num_queries").reset_index()
    frames = []
    queries = queries.assign(model="")
    for (stack, model), both in pairs.items():
        both = [one if isinstance(one, PricedModel) else PricedModel("", one) for one in both]
        base, other = (price_models(queries, {"": one}, level=level).table for one in both)
        is_known = base["runtime_s"].notna() & other["runtime_s"].notna()
        columns = {
            f"{name}{side}": table[f"{metric}{side}"]
            for metric, names in _COLUMNS.items()
            if metric in base and metric in other
            for name, table in zip(names, (base, other), strict=True)
            for side in _SIDES
        }
        ratios = ratio_interval(*([table[f"runtime_s{side}"] for side in _SIDES] for table in (base, other)))
        columns |= {f"speed_up{side}": ratio for side, ratio in zip(_SIDES, ratios, strict=True)}
        frames.append(queries.drop(columns="model").assign(**columns).loc[is_known].assign(stack=stack, model=model))
    table = pd.concat(frames, ignore_index=True)
    if table.empty:
        shortest = queries["num_prompt_tokens"].min()
        raise ValueError(f"no two stacks timed prompts as long as those of the workload, of {shortest} tokens and more")
    return table[["stack", "model", *table.columns.drop(["stack", "model"])]]


def summarize_speed_ups(table: pd.DataFrame) -> pd.DataFrame:
    """What the queries of each model gain from each stack.

    Parameters
    ----------
    table : DataFrame
        As from :func:`compare_stacks`.

    Returns
    -------
    DataFrame, by stack and model
        ``num_queries`` that are compared; ``median``, ``least`` and ``most`` of their speed-ups; ``percent_faster`` and
        ``percent_slower``, queries whose whole interval is above and below 1; ``workload``, speed-up of all queries
        one after the other, with ``workload_lower`` and ``workload_upper``, for which the errors of a stack's queries
        count as one: they share a fit.
    """
    rows = {}
    for key, sizes in table.groupby(["stack", "model"], sort=False):
        weights, speed_ups = sizes["num_queries"].to_numpy(), sizes["speed_up"].to_numpy()
        baseline_s, runtime_s = _totals(sizes)
        rows[key] = {
            "num_queries": weights.sum(),
            "median": _median(speed_ups, weights),
            "least": speed_ups.min(),
            "most": speed_ups.max(),
            "percent_faster": 100 * (weights[sizes["speed_up_lower"] > 1].sum() / weights.sum()),
            "percent_slower": 100 * (weights[sizes["speed_up_upper"] < 1].sum() / weights.sum()),
            **dict(
                zip(
                    ("workload", "workload_lower", "workload_upper"), ratio_interval(baseline_s, runtime_s), strict=True
                )
            ),
        }
    return pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(rows, names=["stack", "model"]))


def workload_ratios(table: pd.DataFrame, metric: str = "runtime_s") -> pd.DataFrame:
    """What all queries, one after the other, take or cost with one stack, over what they do with the baseline.

    Parameters
    ----------
    table : DataFrame
        As from :func:`compare_stacks`, of one stack.
    metric : {"runtime_s", "cost_usd", "energy_joules"}

    Returns
    -------
    DataFrame, by model of which it is known, and for ``"all models"``
        ``ratio, ratio_lower, ratio_upper``; of all together NaN where it is not known of each. Errors of one model's
        queries count as one, those of models and of stacks are independent.
    """
    by_model = {model: np.array(_totals(sizes, metric)) for model, sizes in table.groupby("model", sort=False)}
    known = {model: totals for model, totals in by_model.items() if not np.isnan(totals[:, 0]).any()}
    # (models, stacks, bounds)
    totals = np.array([*known.values()]).reshape(-1, 2, 3)
    whole = [add_independent(*side.T) for side in totals.swapaxes(0, 1)]
    totals = np.concatenate([totals, [whole if len(known) == len(by_model) else np.full((2, 3), np.nan)]])
    ratios = ratio_interval(totals[:, 1].T, totals[:, 0].T)
    columns = dict(zip(("ratio", "ratio_lower", "ratio_upper"), ratios, strict=True))
    return pd.DataFrame(columns, index=pd.Index([*known, "all models"], name="model"))


def _totals(sizes, metric="runtime_s") -> list[list[float]]:
    """Sums over a model's queries of what they take with the baseline and with the stack, each with its bounds."""
    return [
        [float((sizes["num_queries"] * sizes[f"{name}{side}"]).sum(skipna=False)) for side in _SIDES]
        for name in _COLUMNS[metric]
    ]


def _median(values, weights) -> float:
    """Median of values that stand there so often; between two values, their mean."""
    order = np.argsort(values)
    up_to = np.cumsum(weights[order])
    middle = np.searchsorted(up_to, up_to[-1] / 2, side="left"), np.searchsorted(up_to, up_to[-1] / 2, side="right")
    return float(values[order][np.minimum(middle, len(values) - 1)].mean())


def _check_parallelism(stacks):
    for name in dict.fromkeys(name for models in stacks.values() for name in models):
        sizes = {
            stack: f"{models[name].tensor_parallel_size}x{models[name].pipeline_parallel_size}"
            for stack, models in stacks.items()
            if name in models
        }
        if len(set(sizes.values())) > 1:
            named = ", ".join(f"{stack} {size}" for stack, size in sizes.items())
            raise ValueError(
                f"{name} was timed at different tensor x pipeline parallel sizes ({named}); compare equal ones"
            )
