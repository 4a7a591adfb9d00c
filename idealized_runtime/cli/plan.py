"""What serves a demand within objectives, cheapest first: the largest rate of a replica, how many replicas it takes and
how surely, what they cost and draw, and what limits them.

A model's step times come from a parameter file (`serving fit` writes it), from published points of latency against
concurrency, or, where nobody served it, from the logs of other models on a machine, or from what others served with an
engine (--hardware and --software, without logs).
"""

from idealized_runtime.checks import did_you_mean, not_negative_number, positive_int, positive_number, printable
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import (
    check_format,
    findings_in_a_line,
    print_json,
    print_table,
    progress_bar,
    say,
    show,
    write_table,
)
from idealized_runtime.cli.serving.flags import add_objectives, add_scheduler, objectives_of, scheduler_of

EXAMPLES = """\
examples: idealized-runtime plan --parameters steps.json --requests trace.csv --objective ttft:p95=0.5 e2e:p99=10
          idealized-runtime plan --logs a100 v100 --model opt-6.7b gpt-j --workload chat --rate 9
          idealized-runtime plan --hardware H100 L40S --software vllm --model config.json --workload chat --rate 9
          idealized-runtime plan --workload list
          idealized-runtime plan --points points.csv --queries queries.csv --rate 2 9 4 --objective tpot:p95=0.05 --json
"""


# Of days of random queries alone.
_DRAWN = ("num_requests", "burstiness")


def add_arguments(parser):
    """Flags of the command."""
    source = parser.add_argument_group("candidates", "what may serve it, from any of:")
    add_shared(source, "--parameters", nargs="+", default=[], help="parameter files with steps")
    source.add_argument("--points", nargs="+", default=[], metavar="FILE",
                        help="tables of published points: model, hardware, num_accelerators, concurrency, "
                        "num_prompt_tokens, num_output_tokens, time_per_output_token_s, ...")  # fmt: skip
    add_shared(source, "--logs", nargs="+", default=[],
               help="folders of timing logs, or stacks that come with the package (a100, v100, cpu), from which the "
               "models are predicted")  # fmt: skip
    add_shared(source, "--model", nargs="+",
               help="names in the parameter files (default: all); with --logs or --software, of the registry or paths "
               "of a config.json")  # fmt: skip
    add_shared(source, "--hardware", nargs="+", default=[],
               help="row of the accelerators whose memory, price and power count (default: that which was timed); with "
               "--software and without logs, several to compare them")  # fmt: skip
    add_shared(source, "--software", help="of logs of several stacks, the one to go by; without logs, the engine: vllm")
    add_shared(source, "--dtype", "--columns")
    source.add_argument(
        "--num-accelerators",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="of a replica; several to compare them (default: as timed, or as few as hold the model)",
    )
    add_shared(source, "--price-usd-per-hour", "--power-watts")
    demand = parser.add_argument_group("demand")
    come = demand.add_mutually_exclusive_group()
    come.add_argument("--requests", metavar="FILE", help="request table or trace: arrival_s and sizes are used")
    add_shared(come, "--queries", help="sizes that are drawn from, with --rate: a table, or a HELM run folder")
    demand.add_argument("--rate", dest="rates_per_s", type=positive_number, nargs="+", metavar="R",
                        help="queries that come a second; several are the hours of a day, planned for the busiest and "
                        "for each. Of a trace: so many of its requests, or all of them quicker")  # fmt: skip
    demand.add_argument("--burstiness", type=positive_number, metavar="CV",
                        help="coefficient of variation of the times between queries (default: 1, Poisson)")  # fmt: skip
    demand.add_argument("--num-requests", type=positive_int, metavar="N",
                        help="of a simulated day, for each replica (default: 4000)")  # fmt: skip
    add_objectives(demand)
    add_scheduler(parser, "as the steps were fitted, 256 sequences and 8192 tokens where they are predicted",
                  several_limits=True)  # fmt: skip
    api = parser.add_argument_group("beside an API", "what the same queries cost there, for the break-even")
    for tokens in ("prompt", "output"):
        api.add_argument(f"--usd-per-million-{tokens}-tokens", type=not_negative_number, metavar="USD")
    parser.add_argument(
        "--simulations",
        metavar="FILE",
        help="file that keeps what is simulated: another objective takes seconds (.npz)",
    )
    parser.add_argument("--num-draws", type=positive_int, default=20, metavar="N",
                        help="step models drawn for intervals and probabilities (default: 20)")  # fmt: skip
    add_shared(
        parser, "--out",
        help="table of the candidates to write: .csv, .json, .parquet, .tex; .md, to paste, has sentence and sources",
    )  # fmt: skip
    add_shared(parser, "--level", "--json")
    add_shared(parser, "--seed", default=0)


def run(arguments) -> int:
    """Plan, print the answer, write the table where asked to; the exit code is 1 where nothing serves the demand."""
    from dataclasses import replace

    from idealized_runtime.serving.planning import Plan, Rejection, Simulations, plan

    if arguments.workload == "list":
        return _list_workloads(arguments)
    if arguments.out is not None:
        check_format(arguments.out)
    objectives, workload = objectives_of(arguments)
    prices = (arguments.usd_per_million_prompt_tokens, arguments.usd_per_million_output_tokens)
    if prices.count(None) == 1:
        raise ValueError("an API's price is that of prompt tokens and of output tokens: give both")
    demand = _demand(arguments, workload)
    found = _candidates(arguments, demand)
    candidates = [it for it in found if not isinstance(it, Rejection)]
    rejections = tuple(it for it in found if isinstance(it, Rejection))
    simulations = Simulations(arguments.simulations)
    answer = Plan(demand, tuple(objectives), (), rejections, arguments.level)
    if candidates:
        with progress_bar(len(candidates), "candidates") as bar:
            answer = plan(
                candidates, demand, objectives, level=arguments.level, num_draws=arguments.num_draws,
                rng=arguments.seed, simulations=simulations, report=lambda candidate: bar.update(),
            )  # fmt: skip
        answer = replace(answer, rejections=answer.rejections + rejections)
    more = _decisions(arguments, prices, answer, simulations)
    if arguments.out is not None:
        if arguments.out.suffix == ".md":
            _write_markdown(answer, workload, arguments.out)
        else:
            write_table(answer.table(), arguments.out)
    if arguments.json:
        print_json(answer.to_json() | more)
    else:
        _print(answer, workload, more)
    return DONE if answer.answers else NOTHING_DONE


def _list_workloads(arguments) -> int:
    """Print what others plan for, below the source of each: objectives as ``--objective`` takes them."""
    from idealized_runtime.serving.objectives import WORKLOADS

    if arguments.json:
        print_json({"workloads": [
            {**vars(workload), "objectives": [str(it) for it in workload.objectives]} for workload in WORKLOADS.values()
        ]})  # fmt: skip
        return DONE
    source, width = None, max(map(len, WORKLOADS))
    for workload in WORKLOADS.values():
        if workload.source != source:
            source = workload.source
            show(f"{source}:")
        p, o = workload.num_prompt_tokens, workload.num_output_tokens
        sizes = "of any size" if p is None else f"{p} + {o} tokens"
        show(f"  {workload.name:{width}}  {sizes:19}  --objective {' '.join(map(str, workload.objectives))}")
    return DONE


def _demand(arguments, workload):
    """What is asked for; of several rates, the largest."""
    from idealized_runtime.queries.tables import read_queries
    from idealized_runtime.serving.demand import Demand
    from idealized_runtime.serving.requests import read_request_table

    rates = arguments.rates_per_s or []
    drawn = {name: given for name in _DRAWN if (given := getattr(arguments, name)) is not None}
    if arguments.requests is not None:
        if drawn:
            flag = next(iter(drawn)).replace("_", "-")
            raise ValueError(f"--{flag} is for queries that are drawn: requests come as they came; leave it out")
        requests = read_request_table(arguments.requests, columns=arguments.columns, is_demand=True)
        demand = Demand.of_trace(requests, name=str(arguments.requests))
        return demand.at_rate(max(rates)) if rates else demand
    if arguments.queries is not None:
        queries, name = read_queries(arguments.queries, columns=arguments.columns), str(arguments.queries)
    elif workload is not None:
        queries, name = workload.queries, workload.name
    else:
        raise ValueError(
            "nothing is asked for: give --requests (a trace), --queries with --rate, or --workload with --rate"
        )
    if not rates:
        raise ValueError("--rate must be given with sizes: how many queries come a second")
    return Demand.of_queries(queries, rate_per_s=max(rates), name=name, seed=arguments.seed, **drawn)


def _candidates(arguments, demand) -> list:
    from itertools import product

    import pandas as pd

    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.measurements.shipped import read_stack
    from idealized_runtime.prediction import fit_predictor
    from idealized_runtime.queries.tables import read_queries
    from idealized_runtime.serving import candidates as made
    from idealized_runtime.serving.scheduler import Scheduler

    is_served = arguments.software is not None and not arguments.logs
    if not (arguments.parameters or arguments.points or arguments.logs or is_served):
        raise ValueError(
            "no candidate: give --parameters, --points, --logs with --model, or --hardware, --software and --model"
        )
    if is_served and not (arguments.hardware and arguments.model):
        raise ValueError("--software without --logs names the engine of a server: give --hardware and --model, too")
    if arguments.dtype is not None and not is_served:
        raise ValueError("--dtype is of servers, which --hardware and --software name without --logs")
    if len(arguments.hardware) > 1 and (arguments.parameters or arguments.points or arguments.logs):
        raise ValueError("--hardware takes several machines only without --parameters, --points and --logs")
    if arguments.logs and arguments.model is None:
        raise ValueError("--model must be given with --logs: names of the registry, or paths of a config.json")
    rates = {name: getattr(arguments, name) for name in ("price_usd_per_hour", "power_watts")}
    terms = {"hardware": next(iter(arguments.hardware), None)} | rates
    rules = scheduler_of(arguments, Scheduler())
    limits, numbers = arguments.all_max_num_seqs, arguments.num_accelerators or [None]
    found = []
    for path in arguments.parameters:
        of_file = None if arguments.logs or is_served else arguments.model
        found += made.candidates_of_parameters(path, of_file, **terms)
    for path in arguments.points:
        points = read_queries(path, columns=arguments.columns)
        if arguments.model is not None and "model" in points:
            known = points["model"]
            points = points[known.isin(arguments.model)]
            if points.empty and not (arguments.logs or is_served):
                near = did_you_mean(arguments.model[0], known.unique().astype(str))
                raise ValueError(f"{path}: no points of {', '.join(arguments.model)}{near}")
        found += made.candidates_of_points(pd.DataFrame(points), name=str(path), scheduler=rules, **terms)
    found = [changed for it in found for changed in _with_rules(it, arguments)]
    for stack in arguments.logs:
        with findings_in_a_line(stack):
            timed = read_stack(stack, software=arguments.software)
            predictor = fit_predictor(timed.values())
        for name in arguments.model:
            found += made.predicted_candidates(
                read_architecture(name, suggested=timed), predictor, longest=demand.longest + 1,
                all_num_accelerators=numbers, all_max_num_seqs=limits or [rules.max_num_seqs], scheduler=rules, **terms,
            )  # fmt: skip
    for hardware, name in product(arguments.hardware, arguments.model) if is_served else ():
        found += made.served_candidates(
            read_architecture(name), hardware=hardware, software=arguments.software, dtype=arguments.dtype,
            demand=demand, all_num_accelerators=numbers, all_max_num_seqs=limits or [rules.max_num_seqs],
            scheduler=rules, **rates,
        )  # fmt: skip
    return found


def _with_rules(found, arguments) -> list:
    """A candidate whose steps are known, by the scheduler's flags; one for each batch limit and number of devices."""
    from dataclasses import replace

    from idealized_runtime.serving.planning import Rejection

    if isinstance(found, Rejection):
        return [found]
    rules, candidates = scheduler_of(arguments, found.steps.scheduler), []
    # Each copy of the model has devices of its own.
    timed = -(-found.num_accelerators * rules.num_engines // found.steps.scheduler.num_engines)
    for limit in arguments.all_max_num_seqs or [rules.max_num_seqs]:
        steps = replace(found.steps, scheduler=replace(rules, max_num_seqs=limit))
        for number in arguments.num_accelerators or [timed]:
            changed = replace(found, steps=steps, num_accelerators=number)
            if number != timed and found.steps.num_accelerators is not None:
                changed = Rejection(
                    changed, f"its steps were timed on {timed}: fit those on {number}, or predict them with --logs"
                )
            candidates.append(changed)
    return candidates


def _decisions(arguments, prices, answer, simulations) -> dict:
    """What further flags ask: the break-even against an API, and the hours of a day."""
    from idealized_runtime.serving import decisions

    more = {}
    if not answer.answers:
        return more
    best = answer.answers[0]
    if None not in prices:
        more["break_even"] = decisions.break_even(best, *prices)
    if len(arguments.rates_per_s or []) > 1:
        more["hours"] = decisions.replicas_by_hour(best, arguments.rates_per_s, answer.objectives, simulations)
    return more


def _is_of(workload, answer) -> bool:
    """Whether the objectives are those of a workload."""
    return workload is not None and tuple(workload.objectives) == tuple(answer.objectives)


def _write_markdown(answer, workload, path):
    """The answer to paste where others read it: the sentence, the table, and below it what both rest on."""
    from idealized_runtime.records.files import replacing
    from idealized_runtime.records.table_files import markdown_table

    said = answer.answers[0].sentence if answer.answers else "Nothing serves this demand within these objectives."
    table = [markdown_table(answer.table())] if answer.answers else []
    goals = "objectives: " + ", ".join(objective.label for objective in answer.objectives)
    source = f" ({workload.name}: {workload.source})" if _is_of(workload, answer) else ""
    notes = [f"{goals}{source}", f"lower and upper: the {100 * answer.level:g} % interval"]
    for it in answer.answers:
        for unit, rate in (("$/h", it.candidate.price_usd_per_hour), ("W", it.candidate.power_watts)):
            if rate is not None:
                notes.append(f"{it.candidate.devices}: {rate.value:.4g} {unit} an accelerator, {rate.source}")
        notes += [f"not in the interval of {it.candidate.label}: {caveat}" for caveat in it.candidate.caveats]
    notes += [f"left out: {it.candidate.model} on {it.candidate.devices}: {it.reason}" for it in answer.rejections]
    with replacing(path) as part:
        bullets = "".join(f"- {' '.join(printable(note).split())}\n" for note in dict.fromkeys(notes))
        part.write_text("\n".join([f"**{printable(said)}**\n", *table, bullets]), encoding="utf-8")


def _print(answer, workload, more):
    if _is_of(workload, answer):
        show(f"{workload.name}: {workload.source}")
    show("objectives: " + ", ".join(objective.label for objective in answer.objectives))
    if answer.answers:
        best = answer.answers[0]
        show(f"\n{best.sentence}\n")
        print_table(answer.table())
        show(f"\nlower and upper: the {100 * answer.level:g} % interval, by the errors of the step times and what days "
             "differ by")  # fmt: skip
        _print_best(best)
    else:
        show("\nNothing serves this demand within these objectives.")
    if "break_even" in more:
        show(f"\n{more['break_even']['sentence']}")
    if "hours" in more:
        show()
        print_table(more["hours"]["by_hour"])
        show(more["hours"]["sentence"])
    for it in answer.rejections:
        say(f"left out: {it.candidate.model} on {it.candidate.devices}: {it.reason}")
    for it in answer.answers:
        for caveat in it.candidate.caveats:
            show(f"Not in the interval of {it.candidate.label}: {caveat}.")


def _print_best(best):
    """What the price of the cheapest candidate is made of, and what is not known of it."""
    from idealized_runtime.serving.decisions import MEASURE

    candidate = best.candidate
    if candidate.price_usd_per_hour is not None:
        price = candidate.price_usd_per_hour
        show(f"{price.value:.4g} $/h an accelerator: {price.source}")
        millions = ", ".join(
            f"{best.usd_per_million(tokens):.4g} $ of {tokens}" for tokens in ("prompt", "output", "all")
        )
        show(f"a million tokens, each time all that is paid: {millions} tokens")
    if candidate.power_watts is not None:
        show(f"{candidate.power_watts.value:.4g} W an accelerator: {candidate.power_watts.source}")
    names = {
        "share": "share of the time",
        "usd_per_million_tokens": "$/1M of its tokens",
        "joules_per_token": "J/token",
    }
    print_table(best.phases.rename(columns=names), with_index=True)
    if candidate.steps.origin == "predicted":
        show("Not known is above all how far predictions by this stack are off: serve the model, and fit its steps.")
    elif best.decisive.any():
        term = best.decisive.idxmax()
        show(
            f"Knowing {term} takes away {best.decisive.max():.0%} of what is not known (variance) of its largest rate: "
            f"measure {MEASURE[term]}."
        )
