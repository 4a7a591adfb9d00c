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
from idealized_runtime.queries.price import add_independent, price
from idealized_runtime.queries.tables import WEIGHT_COLUMN
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.statistics.ratios import ratio_interval

_SIDES = ("", "_lower", "_upper")


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
        Runtime models with ``predict_interval``.
    baseline : str
        The stack that the others are compared with.
    level : float
        Of the intervals, which join those of both runtimes (:mod:`~idealized_runtime.statistics.ratios`).

    Returns
    -------
    DataFrame, one row a stack, model and size of query
        ``stack, model, num_prompt_tokens, num_output_tokens``; ``num_queries``, how many of the workload have this
        size, or their weight; ``baseline_s`` and ``runtime_s`` of one, each with ``_lower`` and ``_upper``;
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
    for (stack, model), both in pairs.items():
        base, other = (price(queries, runtimes, level=level).table for runtimes in both)
        is_known = base["runtime_s"].notna() & other["runtime_s"].notna()
        columns = {}
        for name, table in (("baseline_s", base), ("runtime_s", other)):
            columns |= {f"{name}{side}": table[f"runtime_s{side}"] for side in _SIDES}
        ratios = ratio_interval(*([table[f"runtime_s{side}"] for side in _SIDES] for table in (base, other)))
        columns |= {f"speed_up{side}": ratio for side, ratio in zip(_SIDES, ratios, strict=True)}
        frames.append(queries.assign(**columns).loc[is_known].assign(stack=stack, model=model))
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


def workload_ratios(table: pd.DataFrame, rates: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """What all queries, one after the other, take or cost with one stack, over what they do with the baseline.

    Parameters
    ----------
    table : DataFrame
        As from :func:`compare_stacks`, of one stack.
    rates : mapping by model of (float, float)
        What a second costs with the baseline and with the stack: dollars or joules; 1 and 1 for the seconds themselves.

    Returns
    -------
    DataFrame, by model with a rate and for ``"all models"``
        ``ratio, ratio_lower, ratio_upper``. Errors of one model's queries count as one, those of models and of stacks
        are independent.
    """
    totals = {model: _totals(sizes) for model, sizes in table.groupby("model", sort=False) if model in rates}
    # (models, stacks, bounds)
    costs = np.array([np.array(both) * np.array(rates[model])[:, None] for model, both in totals.items()])
    costs = np.concatenate([costs, [[add_independent(*side.T) for side in costs.swapaxes(0, 1)]]])
    ratios = ratio_interval(costs[:, 1].T, costs[:, 0].T)
    columns = dict(zip(("ratio", "ratio_lower", "ratio_upper"), ratios, strict=True))
    return pd.DataFrame(columns, index=pd.Index([*totals, "all models"], name="model"))


def _totals(sizes) -> list[list[float]]:
    """Sums over a model's queries of the baseline's and the stack's runtimes, each with its bounds."""
    return [
        [float((sizes["num_queries"] * sizes[f"{name}{side}"]).sum()) for side in _SIDES]
        for name in ("baseline_s", "runtime_s")
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
