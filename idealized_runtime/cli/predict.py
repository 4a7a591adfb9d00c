"""Runtime, dollar cost and energy of a query to a model that was never timed, with a prediction interval: from the logs
of other models on the same hardware and software, or, without logs, from what others served with an engine.

Without parallel sizes the model takes as few devices as hold its weights and cache; by logs beyond 8, in pipeline
stages.
"""

from idealized_runtime.checks import positive_int
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import bounded, findings_in_a_line, print_answer

EXAMPLES = """\
examples: idealized-runtime predict --model config.json --logs a100 --num-prompt-tokens 512 --num-output-tokens 64
          idealized-runtime predict --model config.json --hardware H100 --software vllm --concurrency 32 \\
              --num-prompt-tokens 512 --num-output-tokens 64
"""


def add_arguments(parser):
    """Flags of the command."""
    add_shared(parser, "--model", required=True, help="a name of the registry, or the path of a config.json")
    add_shared(parser, "--num-prompt-tokens", "--num-output-tokens", required=True)
    add_shared(parser, "--logs", "--accept", "--extrapolate", "--num-accelerators")
    add_shared(parser, "--software", help="of logs of several stacks, the one to go by; without logs, the engine: vllm")
    parser.add_argument("--tensor-parallel-size", type=positive_int, metavar="N", help="devices that share each layer")
    parser.add_argument("--pipeline-parallel-size", type=positive_int, metavar="N", help="stages of layers")
    add_shared(parser, "--hardware", help="row of the accelerators with memory, price and power (default: the logs')")
    add_shared(parser, "--concurrency", "--dtype")
    add_shared(parser, "--price-usd-per-hour", "--power-watts", "--level", "--json")


def run(arguments) -> int:
    """Predict one query, and print what it takes, costs and draws, and what is known of the error."""
    from idealized_runtime.cli.served import is_served

    p, o = arguments.num_prompt_tokens, arguments.num_output_tokens
    predict = _from_served if is_served(arguments) else _from_logs
    model, more, token_s, own_log = predict(arguments)
    predicted, caveats = model.runtimes, list(model.caveats)
    if predicted.is_extrapolated(p):
        low, high = predicted.prompt_range
        caveats.append(f"prompts of {p} tokens were not timed, only of {low} to {high}")
    price, power = model.price_usd_per_hour, model.power_watts
    answer = {
        "model": model.name,
        "logs": arguments.logs,
        "hardware": model.hardware,
        "software": model.software,
        "dtype": model.dtype,
        "origin": model.origin,
        "measured_on": model.measured_on or None,
        "conditions": model.conditions(),
        "num_accelerators": model.num_accelerators,
        **more,
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "level": arguments.level,
        "price_usd_per_hour": price and price.value,
        "price_source": price and price.source,
        "power_watts": power and power.value,
        "power_source": power and power.source,
        **_estimates(arguments, model, token_s, own_log),
        "caveats": caveats,
    }
    print_answer(answer, _rows(answer, model.errors), as_json=arguments.json)
    return DONE


def _from_logs(arguments) -> tuple:
    """The model on the stack of the logs, what the answer has of it besides, seconds of a token behind its prompt with
    their bounds, and its own log where it was timed.
    """
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.measurements.shipped import read_stack
    from idealized_runtime.prediction import fit_predictor, predict_priced

    with findings_in_a_line(arguments.logs):
        timed = read_stack(arguments.logs, software=arguments.software, accept=arguments.accept)
        architecture = read_architecture(arguments.model, suggested=timed)
        predictor = fit_predictor(timed.values())
    given = ("num_accelerators", "tensor_parallel_size", "pipeline_parallel_size", "hardware", "price_usd_per_hour",
             "power_watts")  # fmt: skip
    model = predict_priced(
        architecture, predictor, num_context_tokens=arguments.num_prompt_tokens + arguments.num_output_tokens,
        **{name: getattr(arguments, name) for name in given},
    )  # fmt: skip
    placement = model.runtimes.placement
    more = {name: getattr(placement, name) for name in ("tensor_parallel_size", "pipeline_parallel_size")}
    predicted, bounds, behind = model.runtimes, (None, None), arguments.num_prompt_tokens + 1
    if predicted.error is not None:
        bounds = predicted.output_token_interval_s(behind, arguments.level)
    more["left_out_percent"] = predictor.left_out_percent
    return model, more, (predicted.output_token_s(behind), *bounds), predictor.own_log(predicted)


def _from_served(arguments) -> tuple:
    """The same of a model on a server, from what others served: a mean token, and no log of its own."""
    from dataclasses import replace

    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.cli.served import where_served
    from idealized_runtime.serving.served import predict_served_priced

    p, o, concurrency = arguments.num_prompt_tokens, arguments.num_output_tokens, arguments.concurrency or 1
    model = predict_served_priced(
        read_architecture(arguments.model), num_prompt_tokens=p, num_output_tokens=o, concurrency=concurrency,
        num_context_tokens=p + o, price_usd_per_hour=arguments.price_usd_per_hour, power_watts=arguments.power_watts,
        **where_served(arguments),
    )  # fmt: skip
    served = model.runtimes.served
    beyond = served.extrapolations(concurrency=concurrency, num_prompt_tokens=p, num_context_tokens=p + o / 2)
    more = {
        "tensor_parallel_size": served.tensor_parallel_size,
        "pipeline_parallel_size": 1,
        "concurrency": concurrency,
        "left_out_percent": served.known.left_out_percent(served.accelerator),
    }
    token_s = model.runtimes.output_token_s(p, o)
    bounds = model.runtimes.output_token_interval_s(p, o, arguments.level)
    return replace(model, caveats=(*beyond, *model.caveats)), more, (token_s, *bounds), None


def _estimates(arguments, model, tokens_s, own_log) -> dict:
    """Times, cost and energy; None where neither the command nor a log nor the accelerator has a price or a power.

    ``own_log_runtime_s`` is by the fit of the model's own log; None for prompts beyond what it holds.
    """
    from dataclasses import replace

    import pandas as pd

    from idealized_runtime.queries.terms import price_models

    p, o, level = arguments.num_prompt_tokens, arguments.num_output_tokens, arguments.level
    predicted = model.runtimes
    # Refused, and not missing, where it lies beyond the timed sizes.
    predicted.predict(p, o, extrapolate=arguments.extrapolate)
    models = {"predicted": model} | ({} if own_log is None else {"own": replace(model, runtimes=own_log.fit)})
    sizes = {"num_prompt_tokens": p, "num_output_tokens": [1, o, o]}
    queries = pd.DataFrame(sizes | {"model": ["predicted", "predicted", "own"]}, index=["prompt", "query", "own"])
    priced = price_models(queries, models, level=level, extrapolate=True)
    table, whole = priced.table, priced.totals(queries.index == "query")
    has_own = own_log is not None and not table.loc["own", "is_extrapolated"]
    return {
        "prompt_encoding_time_s": _estimate(table.loc["prompt"], "runtime_s"),
        "time_per_output_token_s": dict(zip(("estimate", "lower", "upper"), tokens_s, strict=True)),
        "output_tokens_per_s": {
            name: None if seconds is None else 1 / seconds
            for name, seconds in zip(("estimate", "upper", "lower"), tokens_s, strict=True)
        },
        **{name: _estimate(table.loc["query"], name) for name in ("runtime_s", "cost_usd", "energy_joules")},
        "per_million_tokens": whole["per_million_tokens"],
        "is_timed": own_log is not None,
        "own_log_runtime_s": _estimate(table.loc["own"], "runtime_s") if has_own else None,
    }


def _estimate(row, name) -> dict | None:
    """A priced number, and its bounds, None where they are not known; None for what has no price."""
    if name not in row:
        return None
    estimates = {"estimate": row[name], "lower": row[f"{name}_lower"], "upper": row[f"{name}_upper"]}
    return {bound: None if value != value else float(value) for bound, value in estimates.items()}


def _rows(answer, errors):
    yield answer["conditions"]
    yield f"{answer['num_prompt_tokens']} prompt tokens, {answer['num_output_tokens']} output tokens"
    yield ""
    for label, name, flag in (
        ("prompt encoding time, s", "prompt_encoding_time_s", ""),
        ("time per output token, s", "time_per_output_token_s", ""),
        ("output tokens/s", "output_tokens_per_s", ""),
        ("runtime, s", "runtime_s", ""),
        ("cost, USD", "cost_usd", "--price-usd-per-hour"),
        ("energy, J", "energy_joules", "--power-watts"),
    ):
        estimate = answer[name]
        yield label, f"unknown: give {flag}" if estimate is None else bounded(estimate["estimate"], estimate)
        if millions := answer["per_million_tokens"].get(name):
            of_output, of_all = (f"{millions[tokens]:.4g}" for tokens in ("output", "all"))
            yield "  a million tokens", f"{of_output} of output, {of_all} of prompt and output"
    if answer["left_out_percent"] is None:
        yield "\nNo interval: with fewer than three timed models, none can be left out. Time another."
    else:
        yield "[lower, upper]", f"{100 * answer['level']:g} % interval"
        yield f"\n{errors}"
    if answer["is_timed"]:
        own_s = answer["own_log_runtime_s"]
        says = (
            f": its own log says {bounded(own_s['estimate'], own_s)} s" if own_s else ", not at this prompt size though"
        )
        yield f"{answer['model']} was timed on this stack itself{says}."
    for caveat in answer["caveats"]:
        yield f"Not in the interval: {caveat}."
