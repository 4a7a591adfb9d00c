"""The answer of ``cost-optimal --parameters FILE``: the cheapest size with inference as measured, beside the guess."""

from idealized_runtime.cli.flags import made_of
from idealized_runtime.cli.lifetime import report
from idealized_runtime.cli.lifetime.answers import accelerators_of, check_ranges, law_of, mix_of, rental_of
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import bounded, print_answer
from idealized_runtime.lifetime.comparison import SIZING, Assumptions, compare_with_guess, sizing_table
from idealized_runtime.lifetime.measured import MeasuredQueryCost
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.lifetime.scaling_law import ModelSize

_LABELS = {"num_params": "Model Size (params)", "num_training_tokens": "Training Data (tok)",
           "cost_usd": "Total (Train + Inference) Cost ($)"}  # fmt: skip


def answer_measured(arguments) -> int:
    """Print the size of least lifetime cost, inference priced by the runtimes of a parameter file."""
    numbers, fitted = accelerators_of(arguments), law_of(arguments)
    profiles = read_profiles(arguments.parameters, models=arguments.models, num_accelerators=numbers)
    query_cost = MeasuredQueryCost.fit(profiles, mix_of(arguments), extrapolate=arguments.extrapolate)
    measured_on = profiles[0].hardware, profiles[0].dtype
    rentals = {"training": rental_of(arguments, "train"), "inference": rental_of(arguments, "inference", measured_on)}
    assumptions = made_of(Assumptions, arguments, **rentals)
    table = compare_with_guess(fitted.law, arguments.loss, arguments.num_requests, query_cost, assumptions,
                               law_draws=fitted.draws, level=arguments.level)  # fmt: skip
    data = _describe(arguments, fitted, query_cost, assumptions, table)
    print_answer(data, _rows(data), as_json=arguments.json)
    return DONE


def _describe(arguments, fitted, query_cost, assumptions, table) -> dict:
    row, sizing = table.iloc[0], sizing_table(table.iloc[0])
    columns = (sizing.loc[["num_params", "num_training_tokens"], name] for name in ("guessed", "measured"))
    guessed, optimal = (ModelSize(*column) for column in columns)
    is_beyond_law = check_ranges(fitted.law, query_cost, guessed_size=guessed, optimal_size=optimal)
    peak = assumptions.inference.accelerator.peak_flops(assumptions.inference.dtype)
    implied = query_cost.utilization(row["num_params"], peak, level=arguments.level).iloc[0]
    case = report.describe_case(arguments, fitted.law, query_cost.mix, assumptions)
    case["demand"]["share_extrapolated"] = query_cost.share_extrapolated
    return {
        **case,
        "is_extrapolated": is_beyond_law,
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


def _describe_intervals(arguments, fitted, table, sizing, implied) -> dict:
    row = table.iloc[0]
    bounds = {name: {"lower": sizing.loc[name, "lower"], "upper": sizing.loc[name, "upper"]} for name in SIZING}
    for name in ("excess_cost", *(f"{name}_moves" for name in SIZING)):
        bounds[name] = {side: row[f"{name}_{side}"] for side in ("lower", "upper")}
    for name in ("prompts", "output_tokens"):
        bounds[name] = {side: implied[f"{name}_{side}"] for side in ("lower", "upper")}
    law = {"has_scaling_law": fitted.draws is not None, "share_of_law_draws": row["share_of_law_draws"]}
    return {"level": arguments.level, **law, **bounds}


def _rows(data) -> list:
    measured, intervals, share = data["measured"], data["intervals"], data["demand"]["share_extrapolated"]
    sizes = f"{measured['least_num_params']:.3g} to {measured['most_num_params']:.3g} parameters"
    models = f"{len(measured['models'])} models of {sizes}, batches of {', '.join(map(str, measured['batch_sizes']))}"
    of_law = "without the error of the scaling law"
    if intervals["has_scaling_law"]:
        of_law = (
            f"with that of the scaling law ({100 * intervals['share_of_law_draws']:.0f} % of its draws reach the loss)"
        )
    level = f"{100 * intervals['level']:g} % intervals for a model of another shape, {of_law}"
    return [
        *report.title("Configuration"),
        *report.request_rows(data["demand"]),
        report.rental_row("Training", data["training"]),
        report.rental_row("Inference", data["inference"]),
        ("Measured", f"{measured['parameters']}, {models}"),
        *([("Extrapolated", f"{100 * share:.3g} % of the prompts are longer than those timed")] if share else []),
        *report.law_rows(data["law"]),
        *report.title("Cost-Optimal Model with the guessed utilisations"),
        *((label, f"{data['guessed'][name]:.3e}") for name, label in _LABELS.items()),
        *report.title("Cost-Optimal Model with inference as measured"),
        *((label, bounded(data["optimal"][name], intervals[name], ".3e")) for name, label in _LABELS.items()),
        *((f"Utilisation, {name.replace('_', ' ')}", bounded(value, intervals[name], ".4f"))
          for name, value in data["utilization"].items()),
        ("[lower, upper]", level),
        *report.title("Conclusion"),
        f"The measured optimum has {100 * data['moves']['num_params']:.1f}% of the parameters of the guessed one, and "
        f"costs {100 * data['moves']['cost_usd']:.1f}% of what the guess says.",
        f"The guessed size would cost {100 * data['excess_cost']:.1f}% more than the measured optimum "
        f"(at most {100 * intervals['excess_cost']['upper']:.1f}%).",
        *(["It lies outside the sizes that were measured: an extrapolation."] if measured["is_extrapolated"] else []),
    ]  # fmt: skip
