"""What each command of the command line answers: the same numbers as text and as data."""

from pathlib import Path

import numpy as np

from idealized_runtime.cli.lifetime import report
from idealized_runtime.cli.lifetime.flags import MEASURED_FLAGS, PROPERTY_FLAGS
from idealized_runtime.cli.lifetime.measured_commands import measured_cost_optimal, rent_as_asked
from idealized_runtime.lifetime.bootstrap import (
    bootstrap_scaling_law,
    coefficient_intervals,
    draws_that_reach,
    intervals_of,
    optimum_intervals,
)
from idealized_runtime.lifetime.costs import dollar_costs, flop_costs
from idealized_runtime.lifetime.fitted_range import check_range
from idealized_runtime.lifetime.fitting import fit_scaling_law
from idealized_runtime.lifetime.law_files import FittedLaw, read_law, write_law
from idealized_runtime.lifetime.optimum import minimize_lifetime_cost
from idealized_runtime.lifetime.scaling_law import (
    COEFFICIENTS,
    SCALING_LAWS,
    chinchilla_size,
    get_scaling_law,
    size_from,
)
from idealized_runtime.lifetime.training_runs import read_training_runs


def compute_optimal(arguments) -> report.Report:
    """The size of fewest lifetime FLOPs."""
    demand = {"num_inference_tokens": arguments.inference_tokens}
    flops = flop_costs(arguments.inference_tokens)
    rows = [report.row("Inference tokens", f"{arguments.inference_tokens:.3e}")]
    return _optimum(arguments, "(Lifetime) Compute-Optimal", flops, None, {"demand": demand}, rows)


def cost_optimal(arguments) -> report.Report:
    """The size of least lifetime cost."""
    if arguments.parameters is not None:
        return measured_cost_optimal(arguments, _law(arguments))
    _refuse_measured_flags(arguments)
    flops, usd, assumed = _dollar_costs(arguments)
    rows = [*report.request_rows(assumed["demand"]), *_rental_rows(assumed)]
    return _optimum(arguments, "Cost-Optimal", flops, usd, assumed, rows)


def _refuse_measured_flags(arguments):
    given = [flag for flag in MEASURED_FLAGS if getattr(arguments, flag[2:].replace("-", "_"))]
    if given:
        verb = "go" if len(given) > 1 else "goes"
        raise ValueError(f"{', '.join(given)} {verb} with --parameters: guessed costs depend on means alone")


def model(arguments) -> report.Report:
    """A model's missing properties."""
    flops = flop_costs(arguments.inference_tokens)
    assumed = {"demand": {"num_inference_tokens": arguments.inference_tokens}}
    rows = [report.row("Inference tokens", f"{arguments.inference_tokens:.3e}")] if arguments.inference_tokens else []
    return _model(arguments, flops, None, assumed, rows)


def cost(arguments) -> report.Report:
    """What training and serving a model cost."""
    flops, usd, assumed = _dollar_costs(arguments)
    training_row, inference_row = _rental_rows(assumed)
    demand_rows = [*report.request_rows(assumed["demand"]), inference_row] if arguments.inference_reqs else []
    return _model(arguments, flops, usd, assumed, [training_row, *demand_rows])


def fit(arguments) -> report.Report:
    """A scaling law fitted to training runs."""
    runs = _read_runs(arguments)
    _check_folder(arguments.out)
    fitted = fit_scaling_law(runs, delta=arguments.delta)
    draws, intervals = None, None
    if arguments.draws:
        draws = bootstrap_scaling_law(
            runs, fitted, num_draws=arguments.draws, delta=arguments.delta, rng=arguments.seed
        )
        intervals = coefficient_intervals(draws, level=arguments.level).to_dict("index")
    if arguments.out:
        write_law(arguments.out, FittedLaw(fitted.law, draws))
    data = {
        "law": report.describe_law(fitted.law),
        "num_runs": len(runs),
        "objective": fitted.objective,
        "num_starts": fitted.num_starts,
        "num_starts_at_optimum": fitted.num_at_optimum,
        "intervals": intervals and {"level": arguments.level, "num_draws": len(draws.A), **intervals},
    }
    return report.Report("\n".join(report.fit_rows(data)), report.plain(data))


def _check_folder(path):
    """Before the fit, which would be lost."""
    if path and not Path(path).parent.is_dir():
        raise FileNotFoundError(f"--out {path}: there is no folder {Path(path).parent}; make it first")
    if path and Path(path).is_dir():
        raise IsADirectoryError(f"--out {path} is a folder; name a file")


def _read_runs(arguments):
    columns = {
        "num_params": arguments.params_column,
        "num_training_tokens": arguments.tokens_column,
        "loss": arguments.loss_column,
    }
    return read_training_runs(arguments.data, columns=columns, max_training_tokens_per_param=arguments.cutoff)


def _optimum(arguments, name, flops, usd, assumed, rows) -> report.Report:
    fitted = _law(arguments)
    costs = usd or flops
    optimum = minimize_lifetime_cost(fitted.law, arguments.loss, costs)
    sizes = {"Chinchilla_size": optimum.chinchilla, "optimal_size": optimum.optimal}
    data = {
        "law": report.describe_law(fitted.law),
        "is_extrapolated": check_range(fitted.law, **sizes),
        "loss": arguments.loss,
        **assumed,
        "chinchilla": report.describe_model(fitted.law, optimum.chinchilla, flops, usd),
        "optimal": report.describe_model(fitted.law, optimum.optimal, flops, usd),
        "params_ratio": optimum.params_ratio,
        "training_tokens_ratio": optimum.training_tokens_ratio,
        "cost_ratio": optimum.cost_ratio,
        "intervals": _optimum_intervals(arguments, fitted, costs),
    }
    return report.Report("\n".join(report.optimum_rows(name, rows, data)), report.plain(data))


def _optimum_intervals(arguments, fitted, costs):
    if fitted.draws is None:
        return None
    used = draws_that_reach(fitted.draws, arguments.loss)
    table = optimum_intervals(used, arguments.loss, costs, level=arguments.level)
    return _interval_data(arguments, fitted, used, table.rename(index={"cost": f"lifetime_{costs.unit}"}))


def _interval_data(arguments, fitted, used, table):
    counts = {"num_draws": len(fitted.draws.A), "num_draws_used": len(used.A)}
    return {"level": arguments.level, **counts, **table.to_dict("index")}


def _model(arguments, flops, usd, assumed, rows) -> report.Report:
    given = _given_properties(arguments)
    fitted = _law(arguments)
    solve = chinchilla_size if arguments.chinchilla else size_from
    size = solve(fitted.law, **given)
    data = report.describe_model(fitted.law, size, flops, usd)
    intervals = _model_intervals(arguments, fitted, given, flops, usd)
    has_demand = any(assumed["demand"].values()) and assumed["demand"].get("num_requests", 1) > 0
    text = [
        *report.model_rows(data, intervals, with_totals=has_demand),
        report.row("Chinchilla Style", arguments.chinchilla),
        *report.interval_rows(intervals),
        *rows,
        *report.law_rows(report.describe_law(fitted.law)),
    ]
    law = {
        "law": report.describe_law(fitted.law),
        "is_extrapolated": check_range(fitted.law, model=size),
        "is_chinchilla": arguments.chinchilla,
    }
    return report.Report("\n".join(text), report.plain({**law, **assumed, "model": data, "intervals": intervals}))


def _model_intervals(arguments, fitted, given, flops, usd):
    """Intervals of what does not follow from the given properties alone; None without draws that have them."""
    draws = fitted.draws
    if draws is not None and "loss" in given:
        draws = draws_that_reach(draws, given["loss"], given.get("num_params"), given.get("num_training_tokens"))
    if draws is None:
        return None
    solve = chinchilla_size if arguments.chinchilla else size_from
    drawn = report.describe_model(draws, solve(draws, **given), flops, usd)
    varying = {name: values for name, values in drawn.items() if not np.allclose(values, np.min(values), rtol=1e-9)}
    return _interval_data(arguments, fitted, draws, intervals_of(varying, level=arguments.level))


def _given_properties(arguments) -> dict:
    """Properties that fix the model: one with --chinchilla, two without."""
    given = {name: getattr(arguments, name) for name in PROPERTY_FLAGS if getattr(arguments, name) is not None}
    needed = 1 if arguments.chinchilla else 2
    if len(given) != needed:
        flags = ", ".join(PROPERTY_FLAGS.values())
        what = f"--chinchilla takes exactly one of {flags}"
        if not arguments.chinchilla:
            what = f"a model follows from exactly two of {flags}, or from one with --chinchilla"
        raise ValueError(f"{what}; got {', '.join(PROPERTY_FLAGS[name] for name in given) or 'none'}")
    return given


def _law(arguments) -> FittedLaw:
    replaced = {name: getattr(arguments, name) for name in COEFFICIENTS if getattr(arguments, name) is not None}
    is_file = arguments.coefficients.endswith(".json") or Path(arguments.coefficients).is_file()
    if arguments.coefficients in SCALING_LAWS or not is_file:
        return FittedLaw(get_scaling_law(arguments.coefficients, **replaced))
    if replaced:
        flags = ", ".join(f"--{name}" for name in replaced)
        raise ValueError(f"{flags} cannot replace coefficients of {arguments.coefficients}: its draws would not match")
    return read_law(arguments.coefficients)


def _dollar_costs(arguments):
    """FLOP and dollar costs of the hardware and demand that the arguments describe, and that description."""
    training, inference = rent_as_asked(arguments, "train"), rent_as_asked(arguments, "inference")
    demand = {
        "num_requests": arguments.inference_reqs,
        "num_prompt_tokens": arguments.input_tok,
        "num_output_tokens": arguments.output_tok,
    }
    training_mfu = {"training_mfu": arguments.train_mfu}
    inference_mfus = {"prompt_mfu": arguments.prefill_mfu, "output_mfu": arguments.generation_mfu}
    usd = dollar_costs(training=training, inference=inference, **demand, **training_mfu, **inference_mfus)
    flops = flop_costs(arguments.inference_reqs * (arguments.input_tok + arguments.output_tok))
    assumed = {
        "demand": demand,
        "training": report.describe_rental(training, **training_mfu),
        "inference": report.describe_rental(inference, **inference_mfus),
    }
    return flops, usd, assumed


def _rental_rows(assumed) -> list[str]:
    return [report.rental_row(side.capitalize(), assumed[side]) for side in ("training", "inference")]
