"""Compare two stacks or machines on the same queries: how much one takes, costs and draws of what the other does.

A and B are folders of timing logs, parameter files, or an engine on a machine as others served with it (vllm@H100), for
the models that are named. Every model that both hold answers every query; a ratio below 1 says that B takes less. Its
interval joins the errors of both sides.
"""

import warnings
from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, print_json, print_table, write_table

EXAMPLES = """\
Examples:
  idealized-runtime compare cpu_eager cpu_sdpa
  idealized-runtime compare processed_jsons/v100.json processed_jsons/a100.json --queries queries.csv --json
  idealized-runtime compare vllm@H100 vllm@L40S --model llama-3.1-8b --concurrency 32
"""
# Of the grid that stands for queries where none are given; prompts as long as both sides timed.
_OUTPUT_SIZES = (1, 2, 4, 8, 16, 32, 64)
_MOST_POWER = 21


def add_arguments(parser):
    """Add the flags of this subcommand."""
    for name in ("A", "B"):
        parser.add_argument(name.lower(), metavar=name, help="a folder of logs, by path or name, a parameter file, or "
                            "an engine on a machine: vllm@H100")  # fmt: skip
    add_shared(parser, "--queries", help="table of queries (default: a grid of sizes within what both timed)")
    add_shared(parser, "--columns", "--accept")
    add_shared(parser, "--model", action="append", help="only this model; several times for several")
    add_shared(
        parser, "--num-accelerators", help="accelerators that serve one query on either side (default: as timed)"
    )
    add_shared(parser, "--concurrency", "--dtype", "--level", "--out", "--json")


def run(arguments) -> int:
    """Print the ratios, by model and of the whole workload."""
    from idealized_runtime.comparisons.stacks import compare_stacks, summarize_speed_ups
    from idealized_runtime.queries.tables import grid_queries, read_queries
    from idealized_runtime.queries.terms import shared_conditions

    if arguments.out is not None:
        check_format(arguments.out)
    if arguments.a == arguments.b:
        raise ValueError(f"A and B are both {arguments.a}: name two stacks or machines")
    queries = None if arguments.queries is None else read_queries(arguments.queries, columns=arguments.columns)
    sides = {source: _models_of(source, arguments, queries) for source in (arguments.a, arguments.b)}
    if queries is None:
        queries = grid_queries(_common_prompt_sizes(sides), _OUTPUT_SIZES)
    table = compare_stacks(queries, sides, baseline=arguments.a, level=arguments.level)
    if arguments.out is not None:
        write_table(table, arguments.out)
    summary = summarize_speed_ups(table).droplevel("stack")
    _warn_of_left_out(queries, summary)
    answer = _ratios(table, summary)
    if arguments.json:
        *models, workload = answer.reset_index().to_dict("records")
        a, b = ({"source": source, **shared_conditions(side.values())} for source, side in sides.items())
        print_json({"a": a, "b": b, "models": models, "workload": workload})
    else:
        print("; ".join(
            f"{letter}: {', '.join(part for part in (str(source), *shared_conditions(side.values()).values()) if part)}"
            for letter, (source, side) in zip("AB", sides.items(), strict=True)
        ))  # fmt: skip
        grid = " of a grid" if arguments.queries is None else ""
        print(f"B over A, {len(queries):,} queries{grid} one after the other, {100 * arguments.level:g} % intervals:\n")
        print_table(answer.reset_index())
    return DONE


def _models_of(source, arguments, queries) -> dict:
    """Models of a side, by the registry's names."""
    from idealized_runtime.architectures import read_architecture, registry_name
    from idealized_runtime.cli.served import mean_sizes
    from idealized_runtime.queries.terms import on_terms, read_priced_models
    from idealized_runtime.serving.served import predict_served_priced

    number = arguments.num_accelerators
    if "@" not in source or Path(source).exists():
        for name in ("concurrency", "dtype"):
            if getattr(arguments, name) is not None and "@" not in arguments.a + arguments.b:
                raise ValueError(f"--{name} is of servers, such as vllm@H100, and neither A nor B is one: leave it out")
        # A parameter file has HELM's names, several for one architecture.
        models = read_priced_models(source, arguments.model, accept=arguments.accept).items()
        return {registry_name(name): on_terms(model, num_accelerators=number) for name, model in models}
    if not arguments.model:
        raise ValueError(f"{source}: give --model, names of the registry or paths of a config.json: any can be served")
    software, _, hardware = source.partition("@")
    models = [
        predict_served_priced(
            read_architecture(name), hardware=hardware, software=software, dtype=arguments.dtype,
            tensor_parallel_size=number, concurrency=arguments.concurrency or 1, **mean_sizes(queries),
        )
        for name in arguments.model
    ]  # fmt: skip
    return {registry_name(model.name): model for model in models}


def _ratios(table, summary):
    """By model and for all of them: how many queries, and what they take, cost and draw with B over what with A."""
    from idealized_runtime.comparisons.stacks import workload_ratios

    answer = summary[["num_queries", "percent_faster", "percent_slower"]]
    answer.loc["all models"] = answer["num_queries"].sum(), None, None
    for name, metric in (("runtime", "runtime_s"), ("cost", "cost_usd"), ("energy", "energy_joules")):
        if metric in table:
            answer = answer.join(workload_ratios(table, metric).add_prefix(f"{name}_"))
    return answer


def _common_prompt_sizes(sides) -> list[int]:
    """Powers of two that lie within what both timed, of every model that both hold."""
    sizes, (a, b) = [2**power for power in range(_MOST_POWER)], sides.values()
    pairs = [(a[name].runtimes, b[name].runtimes) for name in a.keys() & b.keys()]
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
