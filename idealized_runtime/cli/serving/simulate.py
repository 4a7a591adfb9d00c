"""What a server does with requests: times to the first token, between tokens and to the end, with intervals, and
whether it keeps up at all; of requests that came, or of queries that come at random at a rate, or from so many clients
who each wait for an answer before they send the next.
"""

import math

from idealized_runtime.checks import positive_int, positive_number
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import bounded, check_format, print_json, print_table, write_table
from idealized_runtime.cli.serving.flags import add_scheduler, describe, scheduler_of

EXAMPLES = """\
examples: idealized-runtime serving simulate --parameters steps.json --requests requests.csv --out simulated.csv
          idealized-runtime serving simulate --parameters steps.json --queries queries.csv --rate 4 --json
          idealized-runtime serving simulate --parameters steps.json --queries queries.csv --num-parallel 16
          idealized-runtime serving simulate --parameters steps.json --workload chat --rate 4
"""

# Of requests that are drawn, where it is not given.
_DRAWN = {"burstiness": 1.0, "num_requests": 2000, "num_days": 5}


def add_arguments(parser):
    """Flags of the command."""
    add_shared(parser, "--parameters", required=True, help="parameter file with steps, as `serving fit` writes it")
    add_shared(parser, "--model", help="its name there, where there are several")
    demand = parser.add_mutually_exclusive_group(required=True)
    demand.add_argument(
        "--requests", metavar="FILE", help="request table or trace: arrival_s and sizes are used, prompts encoded whole"
    )
    add_shared(
        demand, "--queries",
        help="sizes that are drawn from, with --rate or --num-parallel: a table, or a HELM run folder",
    )  # fmt: skip
    demand.add_argument("--workload", metavar="NAME", help="queries of the sizes that others plan for, with --rate or "
                        "--num-parallel (chat, retrieval, ...; `plan --workload list` shows them)")  # fmt: skip
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--rate", dest="rate_per_s", type=positive_number, metavar="R",
                      help="queries that come a second, as a Poisson process")  # fmt: skip
    load.add_argument("--num-parallel", type=positive_int, metavar="N",
                      help="clients, each of whom sends its next query when the last one is answered")  # fmt: skip
    parser.add_argument("--burstiness", type=positive_number, metavar="CV",
                        help="coefficient of variation of the times between them (default: 1, Poisson)")  # fmt: skip
    parser.add_argument("--num-requests", type=positive_int, metavar="N", help="of a day (default: 2000)")
    parser.add_argument("--num-days", type=positive_int, metavar="N",
                        help="days of the same demand, for what they differ by (default: 5)")  # fmt: skip
    add_shared(parser, "--columns")
    add_scheduler(parser, "as the steps were fitted")
    add_shared(parser, "--out", help="request table to write, in the order of the requests: .csv, .json, .parquet")
    add_shared(parser, "--level", "--json")
    add_shared(parser, "--seed", default=0)


def run(arguments) -> int:
    """Simulate, print the answer, and write every request where asked to."""
    from idealized_runtime.serving.simulation import simulate_days

    if arguments.out is not None:
        check_format(arguments.out)
    name, steps = _read_steps(arguments)
    scheduler, days = scheduler_of(arguments, steps.scheduler), _read_demand(arguments)
    answer = simulate_days(
        days, steps, scheduler, level=arguments.level, rng=arguments.seed, rate_per_s=arguments.rate_per_s,
        num_parallel=arguments.num_parallel,
    )  # fmt: skip
    requests = answer.pop("requests")
    if arguments.out is not None:
        write_table(requests, arguments.out)
    if arguments.json:
        print_json({"model": name, **answer})
        return DONE
    origin = f"steps {steps.origin}" + (f" on {steps.hardware}" if steps.hardware else "")
    print(f"{len(requests)} requests to {name}, {origin}; {describe(scheduler)}")
    _print_answer(answer, arguments.num_parallel)
    if steps.covariance is not None:
        print(f"\nin brackets: the {100 * arguments.level:g} % interval by the errors of the step times")
    if len(days) > 1:
        spread = answer["ttft_s"]["p95"]
        bounds = f"[{spread['day_lower']:.4g}, {spread['day_upper']:.4g}]"
        print(f"between {len(days)} such days TTFT p95 lies in {bounds} s")
    return DONE


def _read_steps(arguments) -> tuple:
    """Name and steps of the model that is asked for, or of the only one."""
    from idealized_runtime.serving.steps import read_steps

    models = read_steps(arguments.parameters)
    name = arguments.model or (next(iter(models)) if len(models) == 1 else None)
    if name not in models:
        raise ValueError(f"--model must be one of {', '.join(models)}, the models with steps there; got {name}")
    return name, models[name]


def _read_demand(arguments) -> list:
    """Requests as they came, or days of them as they may come."""
    import numpy as np

    from idealized_runtime.queries.tables import read_queries
    from idealized_runtime.serving.objectives import get_workload
    from idealized_runtime.serving.requests import random_requests, read_request_table

    if arguments.requests is not None:
        for name in ("rate_per_s", "num_parallel", *_DRAWN):
            if getattr(arguments, name) is not None:
                flag = name.removesuffix("_per_s").replace("_", "-")
                raise ValueError(f"--{flag} is for --queries: requests come when they came; leave one of the two out")
        requests = read_request_table(arguments.requests, columns=arguments.columns, is_demand=True)
        if "run" in requests and (num_runs := requests["run"].nunique()) > 1:
            raise ValueError(
                f"{arguments.requests}: holds {num_runs} runs, each with a clock of its own; give a table of one "
                "(in Python, the rows of read_request_table(...) with one value of run)"
            )
        return [requests]
    if arguments.rate_per_s is None and arguments.num_parallel is None:
        flag = "--queries" if arguments.workload is None else "--workload"
        raise ValueError(f"{flag} needs --rate, how many come a second, or --num-parallel, how many clients ask")
    if arguments.num_parallel is not None and arguments.burstiness is not None:
        raise ValueError("--burstiness is for --rate: clients send when they are answered; leave one of the two out")
    if arguments.workload is None:
        queries = read_queries(arguments.queries, columns=arguments.columns)
    else:
        queries = get_workload(arguments.workload).queries
    drawn = {
        name: default if (given := getattr(arguments, name)) is None else given for name, default in _DRAWN.items()
    }
    rngs = np.random.default_rng(arguments.seed).spawn(drawn.pop("num_days"))
    return [random_requests(queries, rng=rng, rate_per_s=arguments.rate_per_s, **drawn) for rng in rngs]


def _print_answer(answer, num_parallel):
    import pandas as pd

    from idealized_runtime.serving.simulation import METRICS

    rate = answer["arrival_rate_per_s"]
    limit, tokens = (
        " ".join(bounded(answer[name], {end: answer[f"{name}_{end}"] for end in ("lower", "upper")}).split())
        for name in ("saturated_rate_per_s", "output_tokens_per_s")
    )
    if num_parallel is not None:
        print(f"{num_parallel} clients, each with one request at a time: {rate:.3g} requests/s of at most {limit}.")
    elif answer["is_stable"]:
        sure = "" if answer["probability_stable"] == 1 else f", with probability {answer['probability_stable']:.2g}"
        print(f"Stable{sure}: {rate:.3g} requests/s come, {limit} can be answered.")
    elif math.isnan(rate):
        print(f"All come at once: no rate that could be stable; {limit} requests/s can be answered.")
    else:
        print(
            f"NOT STABLE: {rate:.3g} requests/s come, {limit} can be answered; the queue grows by "
            f"{answer['queue_growth_per_s']:.3g} a second. "
            "Times are those of this run, and grow with its length: there is no steady state."
        )
    print(f"{tokens} output tokens/s\n")
    rows = []
    for metric, label in METRICS.items():
        cells = {statistic: bounded(known["value"], known) for statistic, known in answer[metric].items()}
        rows.append({"": f"{label}, s", **cells})
    print_table(pd.DataFrame(rows))
