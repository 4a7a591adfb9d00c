"""Software stacks compared: how much sooner each one answers every query of a workload.

Section 5.3 of arXiv:2305.02440 compares hardware by estimates from a few timed queries; software compares the same
way. A stack is what answers a query on given hardware: an engine, its version and its kernels. The floor of the
hardware may stand among the stacks, as the one that no software beats.
"""

from collections.abc import Mapping

import pandas as pd

from idealized_runtime.comparisons.ratios import ratio_interval
from idealized_runtime.measurements.floors import FloorRuntime, roofline_of
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models, read_timed_models
from idealized_runtime.queries.price import price
from idealized_runtime.queries.tables import TOKEN_COLUMNS

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
        ``num_prompt_tokens, num_output_tokens``.
    stacks : mapping by name of a stack of mappings by model
        Runtime models with ``predict_interval``.
    baseline : str
        The stack that the others are compared with.
    level : float
        Of the intervals, which join those of both runtimes (:mod:`~idealized_runtime.comparisons.ratios`).

    Returns
    -------
    DataFrame, one row a stack, model and size of query
        ``stack, model, num_prompt_tokens, num_output_tokens``; ``num_queries``, how many of the workload have this
        size; ``baseline_s`` and ``runtime_s`` of one, each with ``_lower`` and ``_upper``; ``speed_up``, how many
        times the stack's runtime the baseline takes, with ``speed_up_lower`` and ``speed_up_upper``. Queries beyond
        the prompt sizes that both stacks timed are left out.

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
    queries = workload.groupby(list(TOKEN_COLUMNS), sort=False).size().rename("num_queries").reset_index()
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
        group = sizes.loc[sizes.index.repeat(sizes["num_queries"])]
        totals = ([group[f"{name}{side}"].sum() for side in _SIDES] for name in ("baseline_s", "runtime_s"))
        rows[key] = {
            "num_queries": len(group),
            "median": group["speed_up"].median(),
            "least": group["speed_up"].min(),
            "most": group["speed_up"].max(),
            "percent_faster": 100 * (group["speed_up_lower"] > 1).mean(),
            "percent_slower": 100 * (group["speed_up_upper"] < 1).mean(),
            **{f"workload{side}": float(ratio) for side, ratio in zip(_SIDES, ratio_interval(*totals), strict=True)},
        }
    summary = pd.DataFrame.from_dict(rows, orient="index")
    summary.index = pd.MultiIndex.from_tuples(summary.index, names=["stack", "model"])
    return summary.astype({"num_queries": int})


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
