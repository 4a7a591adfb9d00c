"""The command: what would a query take, cost and draw on a model that nobody here has timed?"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from idealized_runtime.architectures import architecture_of_flags
from idealized_runtime.hardware.prices import DeviceRate, device_power, device_price, dollar_cost_usd, energy_joules
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.prediction.left_out import left_out_summary
from idealized_runtime.prediction.predictor import RuntimePredictor, fit_predictor, predict_model


@dataclass(frozen=True)
class Estimate:
    """A number and its prediction interval; None where it is not known."""

    estimate: float
    lower: float | None
    upper: float | None

    def times(self, factor: "Estimate") -> "Estimate":
        """The product with a factor that is known to lie between its bounds."""
        bounds = [
            None if bound is None else bound * limit
            for bound, limit in ((self.lower, factor.lower), (self.upper, factor.upper))
        ]
        return Estimate(self.estimate * factor.estimate, *bounds)


def main(argv=None) -> int:
    """Predict one query and print it; the exit code is 0, or 2 for what cannot be answered."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    try:
        answer = _answer(arguments)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(json.dumps(answer, indent=2) if arguments.json else _as_text(answer))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m idealized_runtime.prediction",
        description="Runtime, dollar cost and energy of a query to a model that was never timed, with a prediction "
        "interval, from the logs of other models on the same hardware and software.",
        epilog="Example: python -m idealized_runtime.prediction --hf-config config.json --hardware a100 "
        "--num-prompt-tokens 512 --num-output-tokens 64",
        allow_abbrev=False,
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--hf-config", metavar="FILE", type=Path, help="a Hugging Face config.json")
    model.add_argument("--architecture", metavar="NAME", help="a row of the registry of architectures")
    parser.add_argument("--hardware", required=True, metavar="NAME", help="a folder of logs: cpu, local, a100, v100")
    parser.add_argument("--software", metavar="NAME", help="the stack, or a part of its name, if there are several")
    parser.add_argument("--num-prompt-tokens", required=True, type=int, metavar="P")
    parser.add_argument("--num-output-tokens", required=True, type=int, metavar="O")
    parser.add_argument("--extrapolate", action="store_true", help="predict prompts beyond the timed sizes, too")
    _add_machine(parser)
    parser.add_argument("--level", type=float, default=0.95, metavar="X", help="of the interval (default: 0.95)")
    parser.add_argument("--json", action="store_true", help="print an object instead of text")
    return parser


def _add_machine(parser):
    parser.add_argument(
        "--tensor-parallel-size", type=int, metavar="N",
        help="devices that share each layer (default: as few as hold weights and cache; beyond 8, in pipeline stages)",
    )  # fmt: skip
    parser.add_argument("--pipeline-parallel-size", type=int, metavar="N", help="stages of layers (default: as above)")
    parser.add_argument(
        "--price-usd-per-hour",
        type=float,
        metavar="X",
        help="of one device (default: that of idealized_runtime.hardware.accelerators)",
    )
    parser.add_argument(
        "--power-watts",
        type=float,
        metavar="X",
        help="draw of one device (default: as the logs measured it, else its maximum, an upper bound)",
    )


def _answer(arguments) -> dict:
    architecture = architecture_of_flags(arguments.architecture, arguments.hf_config)
    p, o = arguments.num_prompt_tokens, arguments.num_output_tokens
    predictor = fit_predictor(read_timed_models(arguments.hardware, software=arguments.software).values())
    stack = predictor.models[0]
    predicted = predict_model(
        architecture, predictor, num_context_tokens=p + o,
        tensor_parallel_size=arguments.tensor_parallel_size, pipeline_parallel_size=arguments.pipeline_parallel_size,
    )  # fmt: skip
    placement, accelerator = predicted.placement, predictor.accelerator
    _check_prompt(predicted, p, arguments.extrapolate)
    own_log = predictor.own_log(predicted)
    caveats = [*predicted.caveats, *predicted.context_caveats]
    if predicted.is_extrapolated(p):
        low, high = predicted.prompt_range
        caveats.append(f"prompts of {p} tokens were not timed, only of {low} to {high}")
    return {
        "model": architecture.name,
        "hardware": arguments.hardware,
        "software": stack.software,
        "dtype": stack.dtype,
        "tensor_parallel_size": placement.tensor_parallel_size,
        "pipeline_parallel_size": placement.pipeline_parallel_size,
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "level": arguments.level,
        **_estimates(arguments, predictor.models, accelerator, predicted),
        "left_out_percent": _left_out(predictor),
        "is_timed": own_log is not None,
        "own_log_runtime_s": own_log and _own_runtime(own_log, p, o, arguments.level),
        "caveats": caveats,
    }


def _check_prompt(predicted, p, extrapolate):
    if not extrapolate and predicted.is_extrapolated(p):
        low, high = predicted.prompt_range
        raise ValueError(
            f"num_prompt_tokens must lie in [{low}, {high}], which the logs of this stack hold; got {p}. Time that "
            "size, or give --extrapolate"
        )


def _own_runtime(model, p, o, level) -> dict | None:
    """Runtime by the fit of its own log; None for prompts beyond what it holds."""
    fit = model.fit
    if fit.is_extrapolated(p):
        return None
    bounds = (None, None) if fit.intervals is None else fit.predict_interval(p, o, level=level)
    return asdict(Estimate(fit.predict(p, o), *bounds))


def _estimate(predicted, p, o, level) -> Estimate:
    options = {"extrapolate": True}
    bounds = (None, None) if predicted.error is None else predicted.predict_interval(p, o, level=level, **options)
    return Estimate(predicted.predict(p, o, **options), *bounds)


def _token_estimate(predicted, num_context_tokens, level) -> Estimate:
    bounds = (None, None)
    if predicted.error is not None:
        bounds = predicted.output_token_interval_s(num_context_tokens, level)
    return Estimate(predicted.output_token_s(num_context_tokens), *bounds)


def _estimates(arguments, models, accelerator, predicted) -> dict:
    p, o, level = arguments.num_prompt_tokens, arguments.num_output_tokens, arguments.level
    runtime_s = _estimate(predicted, p, o, level)
    num_devices = predicted.placement.tensor_parallel_size * predicted.placement.pipeline_parallel_size
    return {
        "prompt_encoding_time_s": asdict(_estimate(predicted, p, 1, level)),
        "time_per_output_token_s": asdict(_token_estimate(predicted, p + 1, level)),
        "runtime_s": asdict(runtime_s),
        **_prices(arguments, models, accelerator, num_devices, runtime_s),
    }


def _prices(arguments, models, accelerator, number, runtime_s) -> dict:
    """Cost and energy; None where neither the command nor a log nor the accelerator's row has a price or a power."""
    price = device_price(arguments.price_usd_per_hour, accelerator)
    power = device_power(arguments.power_watts, (model.mean_power_watts for model in models), accelerator)
    cost_usd = price and _of_second(
        price, lambda usd: dollar_cost_usd(1, num_accelerators=number, price_usd_per_hour=usd)
    )
    joules = power and _of_second(power, lambda watts: energy_joules(1, num_accelerators=number, power_watts=watts))
    return {
        "num_accelerators": number,
        "price_usd_per_hour": price and price.value,
        "price_source": price and price.source,
        "power_watts": power and power.value,
        "power_source": power and power.source,
        "cost_usd": cost_usd and asdict(runtime_s.times(cost_usd)),
        "energy_joules": joules and asdict(runtime_s.times(joules)),
    }


def _of_second(rate: DeviceRate, metric) -> Estimate:
    return Estimate(*map(metric, (rate.value, rate.lower, rate.upper)))


def _left_out(predictor: RuntimePredictor) -> dict | None:
    if not predictor.left_out:
        return None
    return left_out_summary(predictor.left_out)[["median", "worst"]].to_dict(orient="index")


def _as_text(answer) -> str:
    devices = f"{answer['num_accelerators']} device{'s' if answer['num_accelerators'] > 1 else ''}"
    lines = [
        f"{answer['model']} on {answer['hardware']}, {devices}, {answer['dtype']}, {answer['software']}",
        f"{answer['num_prompt_tokens']} prompt tokens, {answer['num_output_tokens']} output tokens",
        "",
        f"{'':30}{'estimate':>12}   {100 * answer['level']:g} % interval",
        _line("prompt encoding time, s", answer["prompt_encoding_time_s"]),
        _line("time per output token, s", answer["time_per_output_token_s"]),
        _line("runtime, s", answer["runtime_s"]),
        _line("cost, USD", answer["cost_usd"], "unknown: give --price-usd-per-hour"),
        _line("energy, J", answer["energy_joules"], "unknown: give --power-watts"),
    ]
    return "\n".join([*lines, *_notes(answer)])


def _notes(answer):
    yield ""
    if answer["left_out_percent"] is None:
        yield "No interval: with fewer than three timed models, none can be left out. Time another."
    else:
        named = "; ".join(
            f"{name.replace('_', ' ')} {errors['median']:.1f} % in the median, {errors['worst']:.1f} % at worst"
            for name, errors in answer["left_out_percent"].items()
        )
        yield f"Each timed model predicted from the others is off by: {named}."
    if answer["is_timed"]:
        yield f"{answer['model']} was timed on this stack itself{_own_runtime_text(answer['own_log_runtime_s'])}."
    if answer["price_source"] is not None:
        yield f"Price: {answer['price_usd_per_hour']:.4g} USD an hour a device, {answer['price_source']}."
    if answer["power_source"] is not None:
        yield f"Power: {answer['power_watts']:.4g} W a device, {answer['power_source']}."
    for caveat in answer["caveats"]:
        yield f"Not in the interval: {caveat}."


def _own_runtime_text(runtime_s) -> str:
    if runtime_s is None:
        return ", though not at this prompt size"
    bounds = "" if runtime_s["lower"] is None else f" [{runtime_s['lower']:.4g}, {runtime_s['upper']:.4g}]"
    return f": its own log says {runtime_s['estimate']:.4g} s{bounds}"


def _line(name, estimate, unknown="") -> str:
    if estimate is None:
        return f"{name:30}{unknown:>12}"
    bounds = "" if estimate["lower"] is None else f"   [{estimate['lower']:.4g}, {estimate['upper']:.4g}]"
    return f"{name:30}{estimate['estimate']:>12.4g}{bounds}"
