"""What `design --target rate` prints: loads of a server that narrow the largest rate of a plan."""

from idealized_runtime.cli.output import print_json, print_table, show, write_table
from idealized_runtime.cli.serving.flags import objectives_of

# Of one replica: how many queries come to all of them changes nothing.
_RATE_PER_S = 1.0


def run_rate(arguments) -> None:
    """Print the loads, what they take, and how well the rate is known with them."""
    from idealized_runtime.design.loads import RateDesign
    from idealized_runtime.queries.tables import read_queries
    from idealized_runtime.serving.candidates import candidates_of_parameters
    from idealized_runtime.serving.demand import Demand
    from idealized_runtime.serving.planning import plan

    _refuse_others(arguments)
    objectives, workload = objectives_of(arguments)
    if arguments.queries is None and workload is None:
        raise ValueError("--target rate needs --queries, or --workload with sizes of others: the mix that is served")
    queries = workload.queries if arguments.queries is None else read_queries(
        arguments.queries, columns=arguments.columns
    )  # fmt: skip
    found = candidates_of_parameters(arguments.parameters, arguments.model and [arguments.model])
    if len(found) > 1:
        names = ", ".join(candidate.model for candidate in found)
        raise ValueError(f"{arguments.parameters} has steps of {names}: name one by --model")
    demand = Demand.of_queries(
        queries, rate_per_s=_RATE_PER_S, name=str(arguments.queries or workload.name), seed=arguments.seed
    )  # fmt: skip
    planned = plan(found, demand, objectives, num_draws=1, rng=arguments.seed)
    if planned.rejections:
        raise ValueError(f"{planned.rejections[0].candidate.label} bears no rate: {planned.rejections[0].reason}")
    (answer,) = planned.answers
    design = RateDesign(answer, _loads(arguments, demand, answer), arguments.level)
    # Without a target, as narrow as the seconds allow.
    table = design.choose(target_error=arguments.target_error or 0.0, max_seconds=arguments.max_seconds)
    after = float(table["error_after"].iloc[-1]) if len(table) else design.error
    if arguments.out is not None:
        write_table(table, arguments.out)
    found = {
        "settings": table,
        "expected_error": after,
        "expected_device_s": float(table["seconds"].sum()),
        "level": arguments.level,
        "target_error": arguments.target_error,
        "is_reached": None if arguments.target_error is None else bool(after <= arguments.target_error),
        "error": design.error,
        "max_requests_per_s": answer.max_requests_per_s,
        "next": design.worth_of_each(),
    }
    if arguments.json:
        print_json(found)
    else:
        _show(arguments, found, answer)


def _refuse_others(arguments):
    """Flags that are of timings of one query at a time; they are not given in vain."""
    given = [name for name in ("log", "logs", "software") if getattr(arguments, name) is not None]
    if given or arguments.accept:
        flag = (given or ["accept"])[0]
        raise ValueError(f"--{flag}: the rate comes from step times of a server, --parameters alone; leave it out")
    if arguments.parameters is None:
        raise ValueError("--target rate needs --parameters, a file with the step times that `serving fit` wrote")


def _loads(arguments, demand, answer):
    import pandas as pd

    from idealized_runtime.design.loads import LOAD_COLUMNS, loads_of

    _, p, o = demand.day(0)
    loads = loads_of(
        pd.DataFrame({"num_prompt_tokens": p, "num_output_tokens": o}), answer.candidate.steps.scheduler.max_num_seqs
    )
    given = (arguments.all_num_prompt_tokens, arguments.all_num_output_tokens, arguments.all_num_parallel)
    sizes = [own or sorted(set(loads[name])) for own, name in zip(given, LOAD_COLUMNS, strict=True)]
    return pd.MultiIndex.from_product(sizes, names=LOAD_COLUMNS).to_frame(index=False)


def _show(arguments, found, answer):
    percent, table = f"{100 * arguments.level:g} %", found["settings"]
    show(
        f"{answer.candidate.label} bears {answer.max_requests_per_s:.4g} requests/s of {answer.demand.name}; what is "
        f"missed first is {answer.binding.label}. By the errors of its step times {percent} is known to "
        f"{100 * found['error']:.3g} %."
    )
    target = f"the target of {100 * (arguments.target_error or 0):.3g} %"
    if table.empty:
        fits = "" if arguments.max_seconds is None else f" that fits into {arguments.max_seconds:g} s"
        why = f"{target} is met" if found["is_reached"] else f"no load{fits} would narrow it"
        show(f"Nothing more to measure: {why}.")
        return
    print_table(table)
    show(
        f"\n{found['expected_device_s']:.3g} s; then {percent} is expected to be known to "
        f"{100 * found['expected_error']:.3g} %. Time each by `api load`, and give its log to `serving fit`, beside "
        "what was measured before."
    )
    if found["is_reached"] is False:
        show(f"That is not {target}: give more seconds, sizes or loads.")
