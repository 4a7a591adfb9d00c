"""The answer of ``cost-optimal --plan``: the cheapest size with inference as it is served, within objectives."""

from dataclasses import replace

import pandas as pd

from idealized_runtime.architectures import find_architecture, read_architecture
from idealized_runtime.checks import did_you_mean
from idealized_runtime.cli.flags import made_of
from idealized_runtime.cli.lifetime import report
from idealized_runtime.cli.lifetime.answers import accelerators_of, check_ranges, law_of, mix_of, rental_of
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import (
    bounded,
    findings_in_a_line,
    print_json,
    print_rows,
    print_table,
    progress_bar,
    say,
)
from idealized_runtime.cli.serving.flags import objectives_of
from idealized_runtime.hardware.prices import device_power
from idealized_runtime.lifetime.comparison import Assumptions, compare_servings
from idealized_runtime.lifetime.electricity import Electricity
from idealized_runtime.lifetime.planned import PlannedQueryCosts, predicted_servers
from idealized_runtime.lifetime.scaling_law import ModelSize
from idealized_runtime.measurements.shipped import read_stack
from idealized_runtime.prediction import fit_predictor
from idealized_runtime.serving.candidates import candidates_of_parameters
from idealized_runtime.serving.planning import Candidate

_LABELS = {
    "num_params": "Model Size (params)",
    "num_training_tokens": "Training Data (tok)",
    "training_usd": "Train Cost ($)",
    "inference_usd": "Inference Cost ($)",
    "cost_usd": "Total (Train + Inference) Cost ($)",
    "energy_kwh": "Energy (kWh)",
    "co2e_kg": "Emissions (kg CO2e)",
}
_COLUMNS = {
    "num_params": "parameters",
    "num_accelerators": "accelerators",
    "max_num_seqs": "sequences",
    "max_requests_per_s": "largest requests/s",
    "planned_s": "accelerator-s a query",
    "planned_fitted_s": "on the curve",
    "one_at_a_time_s": "at batch 1",
    "limited_by": "limited by",
}


def answer_planned(arguments) -> int:
    """Print the size of least lifetime cost, a query priced at the largest rate that a replica bears."""
    _refuse_others(arguments)
    (objectives, workload), fitted = objectives_of(arguments), law_of(arguments)
    mix = mix_of(arguments, workload)
    candidates, architectures, dtype = _candidates(arguments, mix)
    # Where nothing can be served, the plan says why.
    served = next((it for it in candidates if isinstance(it, Candidate)), candidates[0])
    timed_on = getattr(served, "candidate", served).steps.hardware
    assumptions = _assumptions(arguments, arguments.hardware or timed_on, dtype)
    electricity = _electricity(arguments, assumptions, candidates)
    with progress_bar(sum(isinstance(it, Candidate) for it in candidates), "candidates") as bar:
        costs = PlannedQueryCosts.plan(candidates, architectures, mix, objectives, report=lambda _: bar.update())
    servings = {"batch_1": costs.one_at_a_time, "planned": costs.planned}
    table = compare_servings(
        fitted.law, arguments.loss, arguments.num_requests, servings, assumptions, electricity=electricity,
        law_draws=fitted.draws, level=arguments.level,
    )  # fmt: skip
    data = _describe(arguments, fitted, objectives, costs, assumptions, electricity, table)
    if arguments.json:
        print_json(data)
    else:
        _print(data, workload)
    return DONE


def _refuse_others(arguments):
    """Refuse flags that a plan does not use."""
    if arguments.extrapolate:
        raise ValueError("--extrapolate goes without --plan: step times hold for prompts of any size")
    if arguments.inference_gpu_type is not None:
        raise ValueError("--inference-gpu-type goes without --plan: --hardware names what serves")
    if (arguments.logs is None) == (arguments.parameters is None):
        raise ValueError("--plan needs one of --logs, from which models are predicted, and --parameters, with steps")
    if arguments.parameters is not None and arguments.software is not None:
        raise ValueError("--software chooses among the logs of a folder: give it with --logs, not --parameters")


def _candidates(arguments, mix) -> tuple:
    """Servers of every model, the architectures by model, and the data type, None where nothing says it."""
    numbers = accelerators_of(arguments)
    terms = {name: getattr(arguments, name) for name in ("hardware", "power_watts")}
    if arguments.logs is None:
        candidates = candidates_of_parameters(arguments.parameters, arguments.models, **terms)
        architectures, dtype = {it.model: find_architecture(it.model) for it in candidates}, None
    else:
        with findings_in_a_line(arguments.logs):
            timed = read_stack(arguments.logs, software=arguments.software)
            predictor = fit_predictor(timed.values())
        found = [
            timed[name].architecture if name in timed else read_architecture(name, suggested=timed)
            for name in arguments.models or timed
        ]
        architectures, dtype = {it.name: it for it in found if it is not None}, next(iter(timed.values())).dtype
    if unknown := [name for name in numbers if name is not None and name not in architectures]:
        hint = did_you_mean(unknown[0], architectures)
        raise ValueError(f"--num-accelerators: no model {unknown[0]}{hint}; there are: {', '.join(architectures)}")
    if arguments.logs is None:
        numbers = {it.model: numbers.get(it.model, numbers.get(None, it.num_accelerators)) for it in candidates}
        candidates = [replace(it, num_accelerators=numbers[it.model]) for it in candidates]
    else:
        candidates = predicted_servers(architectures.values(), predictor, mix, num_accelerators=numbers, **terms)
    return candidates, architectures, dtype


def _assumptions(arguments, hardware, dtype) -> Assumptions:
    """Prices and utilisations; the guess is one about the hardware that serves."""
    source = arguments.logs or arguments.parameters
    if not hardware:
        raise ValueError(f"{source} does not say what it was timed on: give --hardware")
    if not (dtype or arguments.inference_dtype):
        raise ValueError(f"{source} does not say the data type, whose peak the guess is a share of: "
                         "give --inference-dtype")  # fmt: skip
    training, inference = rental_of(arguments, "train"), rental_of(arguments, "inference", (hardware, dtype))
    return made_of(Assumptions, arguments, training=training, inference=inference)


def _electricity(arguments, assumptions, candidates) -> Electricity | None:
    """Watts and factors; None where the watts of a side are not known."""
    training = device_power(arguments.training_power_watts, [], assumptions.training.accelerator)
    inference = next((it.power_watts for it in candidates if isinstance(it, Candidate)), None)
    if training is None or inference is None:
        return None
    given = {}
    for name, source in (("pue", "pue_source"), ("kg_co2e_per_kwh", "grid_source")):
        if getattr(arguments, name) is not None:
            given |= {name: getattr(arguments, name), source: "as given"}
    return Electricity(training, inference, **given)


def _describe(arguments, fitted, objectives, costs, assumptions, electricity, table) -> dict:
    columns = (table.loc[name, ["num_params", "num_training_tokens"]] for name in ("guessed", "planned"))
    guessed, optimal = (ModelSize(*column) for column in columns)
    is_beyond_law = check_ranges(fitted.law, costs.planned, guessed_size=guessed, optimal_size=optimal)
    mix, known = costs.planned.mix, costs.planned.per_query.num_params
    return {
        **report.describe_case(arguments, fitted.law, mix, assumptions),
        "is_extrapolated": is_beyond_law,
        "objectives": [str(objective) for objective in objectives],
        "planned": {
            "source": str(arguments.logs or arguments.parameters),
            "least_num_params": known.min(),
            "most_num_params": known.max(),
            "has_errors": costs.has_errors,
            "models": costs.table().reset_index(),
            "left_out": [
                {"model": it.candidate.model, "devices": it.candidate.devices, "reason": it.reason}
                for it in costs.left_out
            ],
            "caveats": list(dict.fromkeys(said for it in costs.answers.values() for said in it.candidate.caveats)),
        },
        "electricity": electricity and _describe_electricity(electricity),
        "servings": {name: row.dropna().to_dict() for name, row in table.drop(columns="share_of_law_draws").iterrows()},
        "intervals": {
            "level": arguments.level,
            "has_scaling_law": fitted.draws is not None,
            "share_of_law_draws": table["share_of_law_draws"].iloc[0],
        },
    }


def _describe_electricity(electricity) -> dict:
    watts = {side: getattr(electricity, f"{side}_power_watts") for side in ("training", "inference")}
    return {
        **{f"{side}_power_watts": rate.value for side, rate in watts.items()},
        **{f"{side}_power_source": rate.source for side, rate in watts.items()},
        **{name: getattr(electricity, name) for name in ("pue", "pue_source", "kg_co2e_per_kwh", "grid_source")},
    }


def _print(data, workload):
    planned, servings = data["planned"], data["servings"]
    models = planned["models"]
    sizes = f"{planned['least_num_params']:.3g} to {planned['most_num_params']:.3g} parameters"
    served = models[models["planned_s"].notna()]
    origin = ", ".join(dict.fromkeys(served["origin"]))
    print_rows([
        *report.title("Configuration"),
        *report.request_rows(data["demand"]),
        report.rental_row("Training", data["training"]),
        report.rental_row("Inference", data["inference"]),
        ("Objectives", ", ".join(data["objectives"]) + (f" ({workload.name}: {workload.source})" if workload else "")),
        ("Planned", f"{planned['source']}, {len(served)} models of {sizes}, {origin}"),
        *_electricity_rows(data["electricity"]),
        *report.law_rows(data["law"]),
        *report.title("What a query costs, served within the objectives"),
    ])  # fmt: skip
    print_table(models.drop(columns="origin").rename(columns=_COLUMNS))
    print_rows(report.title("Cost-Optimal Model as guessed, at batch 1, and as planned"))
    rows = []
    for name, label in _LABELS.items():
        if name in servings["planned"]:
            cells = (bounded(row[name], _bounds(row, name), ".3g") for row in servings.values())
            rows.append(dict(zip(("", "guessed", "batch 1", "planned"), (label, *cells), strict=True)))
    print_table(pd.DataFrame(rows))
    print_rows(_conclusion(data))
    for it in planned["left_out"]:
        say(f"left out: {it['model']} on {it['devices']}: {it['reason']}")


def _bounds(row, name) -> dict | None:
    bounds = {side: row.get(f"{name}_{side}") for side in ("lower", "upper")}
    return None if None in bounds.values() else bounds


def _electricity_rows(electricity) -> list:
    if electricity is None:
        return [("Electricity", "not told: no watts are known; give --power-watts and --train-power-watts")]
    said = [
        f"{electricity[f'{side}_power_watts']:.4g} W an accelerator ({electricity[f'{side}_power_source']})"
        for side in ("training", "inference")
    ]
    return [
        ("Training draws", said[0]),
        ("Inference draws", said[1]),
        ("PUE", f"{electricity['pue']:g} ({electricity['pue_source']})"),
        ("Grid", f"{electricity['kg_co2e_per_kwh']:g} kg CO2e a kWh ({electricity['grid_source']})"),
    ]


def _conclusion(data) -> list:
    guessed, alone, planned = data["servings"].values()
    level, intervals = 100 * data["intervals"]["level"], data["intervals"]
    of_law = "without the error of the scaling law"
    if intervals["has_scaling_law"]:
        share = 100 * intervals["share_of_law_draws"]
        of_law = f"with that of the scaling law ({share:.0f} % of its draws reach the loss)"
    steps = "" if data["planned"]["has_errors"] else ", without the errors of step times, which are not known"
    extrapolated = [
        f"The size {how} lies outside those of the models behind its cost: an extrapolation."
        for how, row in (("at batch 1", alone), ("as planned", planned))
        if row["is_extrapolated"]
    ]
    return [
        f"[lower, upper]: {level:g} % intervals for a model of another shape, {of_law}{steps}",
        *report.title("Conclusion"),
        f"Served within the objectives, the cheapest model has "
        f"{100 * planned['num_params'] / guessed['num_params']:.1f}% of the parameters of the guessed one, and costs "
        f"{100 * planned['cost_usd'] / guessed['cost_usd']:.1f}% of what the guess says and "
        f"{100 * planned['cost_usd'] / alone['cost_usd']:.1f}% of what one query at a time takes.",
        f"Served so, the guessed size would cost {100 * guessed['excess_cost']:.1f}% more (at most "
        f"{100 * guessed['excess_cost_upper']:.1f}%), and the size for batch 1 {100 * alone['excess_cost']:.1f}% more "
        f"(at most {100 * alone['excess_cost_upper']:.1f}%).",
        *extrapolated,
        *(f"Not in the intervals: {caveat}." for caveat in data["planned"]["caveats"]),
    ]
