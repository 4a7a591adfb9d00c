"""Compare two stacks or machines on the same queries: how much one takes, costs and draws of what the other does.

A and B are folders of timing logs or parameter files. Every model that both hold answers every query; a ratio below 1
says that B takes less. Its interval joins the errors of both fits.
"""

import warnings

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, print_json, print_table, write_table

EXAMPLES = """\
Examples:
  idealized-runtime compare cpu_eager cpu_sdpa
  idealized-runtime compare processed_jsons/v100.json processed_jsons/a100.json --queries queries.csv --json
"""
# Of the grid that stands for queries where none are given; prompts as long as both sides timed.
_OUTPUT_SIZES = (1, 2, 4, 8, 16, 32, 64)
_MOST_POWER = 21


def add_arguments(parser):
    """Add the flags of this subcommand."""
    for name in ("A", "B"):
        parser.add_argument(name.lower(), metavar=name, help="a folder of logs, by path or name, or a parameter file")
    add_shared(parser, "--queries", help="table of queries (default: a grid of sizes within what both timed)")
    add_shared(parser, "--columns")
    add_shared(parser, "--model", action="append", help="only this model; several times for several")
    add_shared(parser, "--level", "--out", "--json")


def run(arguments) -> int:
    """Print the ratios, by model and of the whole workload."""
    from idealized_runtime.architectures import registry_name
    from idealized_runtime.comparisons.stacks import compare_stacks, summarize_speed_ups
    from idealized_runtime.queries.served import on_terms, read_served
    from idealized_runtime.queries.tables import grid_queries, read_queries

    if arguments.out is not None:
        check_format(arguments.out)
    if arguments.a == arguments.b:
        raise ValueError(f"A and B are both {arguments.a}: name two stacks or machines")
    sides = {
        # A parameter file has HELM's names, several for one architecture.
        source: {registry_name(name): on_terms(model) for name, model in read_served(source, arguments.model).items()}
        for source in (arguments.a, arguments.b)
    }
    stacks = {source: {name: model.runtimes for name, model in side.items()} for source, side in sides.items()}
    if arguments.queries is None:
        queries = grid_queries(_common_prompt_sizes(stacks), _OUTPUT_SIZES)
    else:
        queries = read_queries(arguments.queries, columns=arguments.columns)
    table = compare_stacks(queries, stacks, baseline=arguments.a, level=arguments.level)
    if arguments.out is not None:
        write_table(table, arguments.out)
    summary = summarize_speed_ups(table).droplevel("stack")
    _warn_of_left_out(queries, summary)
    answer = _ratios(table, summary, sides)
    described = {source: _describe(source, side) for source, side in sides.items()}
    if arguments.json:
        *models, workload = answer.reset_index().to_dict("records")
        a, b = (dict(zip(("source", "hardware", "software"), own, strict=True)) for own in described.values())
        print_json({"a": a, "b": b, "models": models, "workload": workload})
    else:
        for side, own in zip("AB", described.values(), strict=True):
            print(f"{side}: {', '.join(part for part in own if part)}")
        grid = " of a grid" if arguments.queries is None else ""
        print(f"B over A, {len(queries):,} queries{grid} one after the other, {100 * arguments.level:g} % intervals:\n")
        print_table(answer.reset_index())
    return DONE


def _ratios(table, summary, sides):
    """By model and for all of them: how many queries, and what they take, cost and draw with B over what with A."""
    from idealized_runtime.comparisons.stacks import workload_ratios

    answer = summary[["num_queries", "percent_faster", "percent_slower"]]
    answer.loc["all models"] = answer["num_queries"].sum(), None, None
    for metric in ("runtime", "cost", "energy"):
        rates = {name: [_rate(metric, side[name]) for side in sides.values()] for name in summary.index}
        if rates := {name: both for name, both in rates.items() if None not in both}:
            answer = answer.join(workload_ratios(table, rates).add_prefix(f"{metric}_"))
            if len(rates) < len(summary):
                # A ratio over some of the models would pass for that of all.
                answer.loc["all models", [f"{metric}_ratio{side}" for side in ("", "_lower", "_upper")]] = None
    return answer


def _common_prompt_sizes(stacks) -> list[int]:
    """Powers of two that lie within what both timed, of every model that both hold."""
    sizes, (a, b) = [2**power for power in range(_MOST_POWER)], stacks.values()
    pairs = [(a[name], b[name]) for name in a.keys() & b.keys()]
    is_timed = [not any(model.is_extrapolated(size) for pair in pairs for model in pair) for size in sizes]
    return [size for size, is_so in zip(sizes, is_timed, strict=True) if is_so] or sizes[:1]


def _warn_of_left_out(queries, summary):
    from idealized_runtime.checks import MissingValueWarning
    from idealized_runtime.queries.tables import WEIGHT_COLUMN

    num_queries = queries[WEIGHT_COLUMN].sum() if WEIGHT_COLUMN in queries else len(queries)
    left_out = num_queries - summary["num_queries"]
    for number, models in left_out[left_out > 0].groupby(left_out):
        warnings.warn(
            f"{number:g} of {num_queries:g} queries are not compared for {', '.join(models.index)}: no token counts, "
            "or prompts beyond the sizes that both timed",
            MissingValueWarning,
            stacklevel=3,
        )


def _rate(metric, model) -> float | None:
    """What a second of a query costs; None where it is not known."""
    from idealized_runtime.hardware.prices import dollar_cost_usd, energy_joules

    rate = {"runtime": 1.0, "cost": model.price_usd_per_hour, "energy": model.power_watts}[metric]
    if metric == "runtime" or rate is None:
        return rate
    accelerators = {"num_accelerators": model.num_accelerators / model.batch_size}
    if metric == "cost":
        return dollar_cost_usd(1.0, price_usd_per_hour=rate.value, **accelerators)
    return energy_joules(1.0, power_watts=rate.value, **accelerators)


def _describe(source, side) -> tuple[str, str, str]:
    """Where the models of a side come from, and what they ran on."""
    ran_on = ({getattr(model, name) for model in side.values()} - {""} for name in ("hardware", "software"))
    return str(source), *(" or ".join(sorted(names)) for names in ran_on)
