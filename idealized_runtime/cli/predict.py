"""Runtime, dollar cost and energy of a query to a model that was never timed, with a prediction interval, from the logs
of other models on the same hardware and software.

Without parallel sizes the model takes as few devices as hold its weights and cache; beyond 8, in pipeline stages.
"""

from idealized_runtime.checks import positive_int
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import bounded, print_answer

EXAMPLES = """\
example: idealized-runtime predict --model config.json --logs a100 --num-prompt-tokens 512 --num-output-tokens 64
"""


def add_arguments(parser):
    """Flags of the command."""
    add_shared(parser, "--model", required=True, help="a name of the registry, or the path of a config.json")
    add_shared(parser, "--logs", "--num-prompt-tokens", "--num-output-tokens", required=True)
    add_shared(parser, "--software", "--extrapolate")
    parser.add_argument("--tensor-parallel-size", type=positive_int, metavar="N", help="devices that share each layer")
    parser.add_argument("--pipeline-parallel-size", type=positive_int, metavar="N", help="stages of layers")
    add_shared(parser, "--hardware", help="row of the accelerators with memory, price and power (default: the logs')")
    add_shared(parser, "--price-usd-per-hour", "--power-watts", "--level", "--json")


def run(arguments) -> int:
    """Predict one query, and print what it takes, costs and draws, and what is known of the error."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.hardware.accelerators import get_accelerator
    from idealized_runtime.measurements.timed_models import read_timed_models
    from idealized_runtime.prediction import fit_predictor, predict_model
    from idealized_runtime.prediction.left_out import left_out_summary

    p, o = arguments.num_prompt_tokens, arguments.num_output_tokens
    timed = read_timed_models(arguments.logs, software=arguments.software)
    architecture = read_architecture(arguments.model, suggested=timed)
    predictor = fit_predictor(timed.values())
    accelerator = predictor.accelerator if arguments.hardware is None else get_accelerator(arguments.hardware)
    predicted = predict_model(
        architecture, predictor, num_context_tokens=p + o, accelerator=accelerator,
        tensor_parallel_size=arguments.tensor_parallel_size, pipeline_parallel_size=arguments.pipeline_parallel_size,
    )  # fmt: skip
    stack = predictor.models[0]
    left_out = left_out_summary(predictor.left_out)[["median", "worst"]] if predictor.left_out else None
    caveats = [*predicted.caveats, *predicted.context_caveats]
    if predicted.is_extrapolated(p):
        low, high = predicted.prompt_range
        caveats.append(f"prompts of {p} tokens were not timed, only of {low} to {high}")
    answer = {
        "model": architecture.name,
        "logs": arguments.logs,
        "hardware": stack.hardware,
        "software": stack.software,
        "dtype": stack.dtype,
        "tensor_parallel_size": predicted.placement.tensor_parallel_size,
        "pipeline_parallel_size": predicted.placement.pipeline_parallel_size,
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "level": arguments.level,
        **_estimates(arguments, predictor.models, accelerator, predicted, predictor.own_log(predicted)),
        "left_out_percent": None if left_out is None else left_out.to_dict(orient="index"),
        "caveats": caveats,
    }
    print_answer(answer, _rows(answer), as_json=arguments.json)
    return DONE


def _estimates(arguments, models, accelerator, predicted, own_log) -> dict:
    """Times, cost and energy; None where neither the command nor a log nor the accelerator has a price or a power.

    ``own_log_runtime_s`` is by the fit of the model's own log; None for prompts beyond what it holds.
    """
    import pandas as pd

    from idealized_runtime.hardware.prices import device_power, device_price
    from idealized_runtime.queries.price import price

    p, o, level = arguments.num_prompt_tokens, arguments.num_output_tokens, arguments.level
    # Refused, and not missing, where it lies beyond the timed sizes.
    predicted.predict(p, o, extrapolate=arguments.extrapolate)
    price_usd = device_price(arguments.price_usd_per_hour, accelerator)
    power_watts = device_power(arguments.power_watts, (model.mean_power_watts for model in models), accelerator)
    answers = {"predicted": predicted} | ({} if own_log is None else {"own": own_log.fit})
    sizes = {"num_prompt_tokens": p, "num_output_tokens": [1, o, o]}
    queries = pd.DataFrame(sizes | {"model": ["predicted", "predicted", "own"]}, index=["prompt", "query", "own"])
    rates = {"price_usd_per_hour": price_usd, "power_watts": power_watts}
    number = predicted.placement.num_accelerators
    table = price(queries, answers, num_accelerators=number, level=level, extrapolate=True, **rates).table
    has_own = own_log is not None and not table.loc["own", "is_extrapolated"]
    token_s, bounds = predicted.output_token_s(p + 1), (None, None)
    if predicted.error is not None:
        bounds = predicted.output_token_interval_s(p + 1, level)
    return {
        "prompt_encoding_time_s": _estimate(table.loc["prompt"], "runtime_s"),
        "time_per_output_token_s": dict(zip(("estimate", "lower", "upper"), (token_s, *bounds), strict=True)),
        "runtime_s": _estimate(table.loc["query"], "runtime_s"),
        "num_accelerators": number,
        "price_usd_per_hour": price_usd and price_usd.value,
        "price_source": price_usd and price_usd.source,
        "power_watts": power_watts and power_watts.value,
        "power_source": power_watts and power_watts.source,
        "cost_usd": price_usd and _estimate(table.loc["query"], "cost_usd"),
        "energy_joules": power_watts and _estimate(table.loc["query"], "energy_joules"),
        "is_timed": own_log is not None,
        "own_log_runtime_s": _estimate(table.loc["own"], "runtime_s") if has_own else None,
    }


def _estimate(row, name) -> dict:
    """A priced number, and its bounds, None where they are not known."""
    estimates = {"estimate": row[name], "lower": row[f"{name}_lower"], "upper": row[f"{name}_upper"]}
    return {bound: None if value != value else float(value) for bound, value in estimates.items()}


def _rows(answer):
    devices = f"{answer['num_accelerators']} device{'s' if answer['num_accelerators'] > 1 else ''}"
    yield f"{answer['model']} on {answer['logs']}, {devices}, {answer['dtype']}, {answer['software']}"
    yield f"{answer['num_prompt_tokens']} prompt tokens, {answer['num_output_tokens']} output tokens"
    yield ""
    for label, name, flag in (
        ("prompt encoding time, s", "prompt_encoding_time_s", ""),
        ("time per output token, s", "time_per_output_token_s", ""),
        ("runtime, s", "runtime_s", ""),
        ("cost, USD", "cost_usd", "--price-usd-per-hour"),
        ("energy, J", "energy_joules", "--power-watts"),
    ):
        estimate = answer[name]
        yield label, f"unknown: give {flag}" if estimate is None else bounded(estimate["estimate"], estimate)
    if answer["left_out_percent"] is None:
        yield "\nNo interval: with fewer than three timed models, none can be left out. Time another."
    else:
        yield "[lower, upper]", f"{100 * answer['level']:g} % interval"
        named = "; ".join(
            f"{name.replace('_', ' ')} {errors['median']:.1f} % in the median, {errors['worst']:.1f} % at worst"
            for name, errors in answer["left_out_percent"].items()
        )
        yield f"\nEach timed model predicted from the others is off by: {named}."
    if answer["is_timed"]:
        own_s = answer["own_log_runtime_s"]
        says = (
            f": its own log says {bounded(own_s['estimate'], own_s)} s" if own_s else ", not at this prompt size though"
        )
        yield f"{answer['model']} was timed on this stack itself{says}."
    if answer["price_source"] is not None:
        yield f"Price: {answer['price_usd_per_hour']:.4g} USD an hour a device, {answer['price_source']}."
    if answer["power_source"] is not None:
        yield f"Power: {answer['power_watts']:.4g} W a device, {answer['power_source']}."
    for caveat in answer["caveats"]:
        yield f"Not in the interval: {caveat}."
