"""The answer of ``cost-optimal --parameters FILE``: the cheapest size with inference as measured, beside the guess."""

from idealized_runtime.cli.lifetime import report
from idealized_runtime.cli.lifetime.flags import DEFAULT_HARDWARE
from idealized_runtime.lifetime.comparison import SIZING, Assumptions, compare_with_guess, sizing_table
from idealized_runtime.lifetime.costs import Rental, rent
from idealized_runtime.lifetime.fitted_range import check_range, describe_range, refuse_far
from idealized_runtime.lifetime.law_files import FittedLaw
from idealized_runtime.lifetime.measured import MeasuredQueryCost
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.lifetime.scaling_law import ModelSize
from idealized_runtime.queries.mix import QueryMix

# A cost that was regressed on a few timed models is not good for more.
_MOST_TIMES_BEYOND = 100
_LABELS = {"num_params": "Model Size (params)", "num_training_tokens": "Training Data (tok)",
           "cost_usd": "Total (Train + Inference) Cost ($)"}  # fmt: skip


def measured_cost_optimal(arguments, fitted: FittedLaw) -> report.Report:
    """The size of least lifetime cost, inference priced by the runtimes of a parameter file.

    Parameters
    ----------
    arguments : Namespace
        Of ``cost-optimal``.
    fitted : FittedLaw
    """
    profiles = read_profiles(
        arguments.parameters, models=arguments.models, num_accelerators=_num_accelerators(arguments)
    )
    query_cost = MeasuredQueryCost.fit(profiles, _read_mix(arguments), extrapolate=arguments.extrapolate)
    assumptions = _assume(arguments, profiles)
    table = compare_with_guess(
        fitted.law,
        arguments.loss,
        arguments.inference_reqs,
        query_cost,
        assumptions,
        law_draws=fitted.draws,
        level=arguments.level,
    )
    data = _describe(arguments, fitted, query_cost, assumptions, table)
    return report.Report("\n".join(_rows(data)), report.plain(data))


def _num_accelerators(arguments) -> dict[str | None, int]:
    """As ``read_profiles`` takes them."""
    pairs = arguments.num_accelerators or []
    if len(numbers := dict(pairs)) < len(pairs):
        raise ValueError(f"--num-accelerators: one number a model, and one for all others; got {len(pairs)} numbers")
    return numbers


def _read_mix(arguments) -> QueryMix:
    if arguments.queries is not None:
        return QueryMix.read(arguments.queries)
    return QueryMix.from_means(arguments.input_tok, arguments.output_tok)


def _assume(arguments, profiles) -> Assumptions:
    return Assumptions(
        rent_as_asked(arguments, "train"),
        rent_as_asked(arguments, "inference", (profiles[0].hardware, profiles[0].dtype)),
        arguments.train_mfu,
        arguments.prefill_mfu,
        arguments.generation_mfu,
    )


def rent_as_asked(arguments, side, default=None) -> Rental:
    """Accelerator, type and price of one side, ``"train"`` or ``"inference"``, by its flags or their defaults.

    Parameters
    ----------
    default : (str, str), optional
        Accelerator and type; those of the command line's help where it is not given.
    """
    default_name, default_dtype = default or DEFAULT_HARDWARE[side]
    name = getattr(arguments, f"{side}_gpu_type") or default_name
    dtype = getattr(arguments, f"{side}_dtype") or default_dtype
    if not (name and dtype):
        raise ValueError(f"{arguments.parameters} does not say what it was measured on: "
                         f"give --{side}-gpu-type and --{side}-dtype")  # fmt: skip
    return rent(name, dtype, getattr(arguments, f"{side}_gpu_cost"))


def _describe(arguments, fitted, query_cost, assumptions, table) -> dict:
    row, sizing = table.iloc[0], sizing_table(table.iloc[0])
    is_beyond_law = _check_ranges(fitted.law, query_cost, sizing)
    peak = assumptions.inference.accelerator.peak_flops(assumptions.inference.dtype)
    implied = query_cost.utilization(row["num_params"], peak, level=arguments.level).iloc[0]
    return {
        "law": report.describe_law(fitted.law),
        "is_extrapolated": is_beyond_law,
        "loss": arguments.loss,
        **_describe_assumed(arguments, query_cost, assumptions),
        "measured": {
            "parameters": str(arguments.parameters),
            "models": [profile.name for profile in query_cost.profiles],
            "batch_sizes": sorted({profile.batch_size for profile in query_cost.profiles}),
            "least_num_params": query_cost.profiles[0].num_params,
            "most_num_params": query_cost.profiles[-1].num_params,
            "is_extrapolated": bool(row["is_extrapolated"]),
        },
        "guessed": sizing["guessed"].to_dict(),
        "optimal": sizing["measured"].to_dict(),
        "moves": sizing["moves"].to_dict(),
        "cost_of_guess_usd": row["cost_of_guess_usd"],
        "excess_cost": row["excess_cost"],
        "chinchilla_params_ratio": row["chinchilla_ratio"],
        "utilization": {name: implied[name] for name in ("prompts", "output_tokens")},
        "intervals": _describe_intervals(arguments, fitted, table, sizing, implied),
    }


def _check_ranges(law, query_cost, sizing) -> bool | None:
    """Whether sizes lie beyond the scaling law's runs; those far from them, or from what was timed, are refused."""
    sizes = {
        f"{name}_size": ModelSize(*sizing.loc[["num_params", "num_training_tokens"], column])
        for name, column in (("guessed", "guessed"), ("optimal", "measured"))
    }
    is_beyond_law = check_range(law, **sizes)
    ends, value = (
        (query_cost.profiles[0].num_params, query_cost.profiles[-1].num_params),
        sizes["optimal_size"].num_params,
    )
    found = describe_range("optimal_size", value, "parameters", "the measured models have", ends)
    refuse_far(found, value, ends, times_below=_MOST_TIMES_BEYOND, times_above=_MOST_TIMES_BEYOND)
    return is_beyond_law


def _describe_assumed(arguments, query_cost, assumptions) -> dict:
    guess = {"prompt_mfu": assumptions.prompt_mfu, "output_mfu": assumptions.output_mfu}
    return {
        "demand": {
            "num_requests": arguments.inference_reqs,
            "num_prompt_tokens": query_cost.mix.mean_prompt_tokens,
            "num_output_tokens": query_cost.mix.mean_output_tokens,
            "num_query_sizes": query_cost.mix.weights.size,
            "share_extrapolated": query_cost.share_extrapolated,
        },
        "training": report.describe_rental(assumptions.training, training_mfu=assumptions.training_mfu),
        "inference": report.describe_rental(assumptions.inference, **guess),
    }


def _describe_intervals(arguments, fitted, table, sizing, implied) -> dict:
    row = table.iloc[0]
    bounds = {name: {"lower": sizing.loc[name, "lower"], "upper": sizing.loc[name, "upper"]} for name in SIZING}
    for name in ("excess_cost", *(f"{name}_moves" for name in SIZING)):
        bounds[name] = {side: row[f"{name}_{side}"] for side in ("lower", "upper")}
    for name in ("prompts", "output_tokens"):
        bounds[name] = {side: implied[f"{name}_{side}"] for side in ("lower", "upper")}
    law = {"has_scaling_law": fitted.draws is not None, "share_of_law_draws": row["share_of_law_draws"]}
    return {"level": arguments.level, **law, **bounds}


def _rows(data) -> list[str]:
    return [
        *report.title("Configuration"),
        *report.request_rows(data["demand"]),
        report.rental_row("Training", data["training"]),
        report.rental_row("Inference", data["inference"]),
        *_measured_rows(data),
        *report.law_rows(data["law"]),
        *report.title("Cost-Optimal Model with the guessed utilisations"),
        *(report.row(label, f"{data['guessed'][name]:.3e}") for name, label in _LABELS.items()),
        *report.title("Cost-Optimal Model with inference as measured"),
        *(report.row(label, _bounded(data["optimal"][name], data, name, ".3e")) for name, label in _LABELS.items()),
        *(report.row(f"Utilisation, {name.replace('_', ' ')}", _bounded(value, data, name, ".4f"))
          for name, value in data["utilization"].items()),
        *_interval_rows(data),
        *report.title("Conclusion"),
        *_conclusion(data),
    ]  # fmt: skip


def _measured_rows(data) -> list[str]:
    measured = data["measured"]
    sizes = f"{measured['least_num_params']:.3g} to {measured['most_num_params']:.3g} parameters"
    models = f"{len(measured['models'])} models of {sizes}, batches of {', '.join(map(str, measured['batch_sizes']))}"
    rows = [report.row("Measured", f"{measured['parameters']}, {models}")]
    if data["demand"]["share_extrapolated"]:
        share = 100 * data["demand"]["share_extrapolated"]
        rows.append(report.row("Extrapolated", f"{share:.3g} % of the prompts are longer than those timed"))
    return rows


def _interval_rows(data) -> list[str]:
    intervals = data["intervals"]
    of_law = "without the error of the scaling law"
    if intervals["has_scaling_law"]:
        share = 100 * intervals["share_of_law_draws"]
        of_law = f"with that of the scaling law ({share:.0f} % of its draws reach the loss)"
    level = f"{100 * intervals['level']:g} % intervals"
    return [report.row("[lower, upper]", f"{level} for a model of another shape, {of_law}")]


def _conclusion(data) -> list[str]:
    moves, bounds = data["moves"], data["intervals"]
    sentences = [
        f"The measured optimum has {100 * moves['num_params']:.1f}% of the parameters of the guessed one, and costs "
        f"{100 * moves['cost_usd']:.1f}% of what the guess says.",
        f"The guessed size would cost {100 * data['excess_cost']:.1f}% more than the measured optimum "
        f"(at most {100 * bounds['excess_cost']['upper']:.1f}%).",
    ]
    if data["measured"]["is_extrapolated"]:
        sentences.append("It lies outside the sizes that were measured: an extrapolation.")
    return sentences


def _bounded(value, data, name, form) -> str:
    bounds = data["intervals"][name]
    return f"{value:{form}}   [{bounds['lower']:{form}}, {bounds['upper']:{form}}]"
