"""What the flags describe, and the two answers that commands share: of a model, and of an optimum."""

from pathlib import Path

import numpy as np

from idealized_runtime.cli.lifetime import report
from idealized_runtime.cli.lifetime.flags import DEFAULT_HARDWARE, DEFAULT_SIZES, PROPERTIES
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import print_answer
from idealized_runtime.lifetime.bootstrap import draws_that_reach, intervals_of, optimum_intervals
from idealized_runtime.lifetime.costs import LifetimeCosts, Rental, dollar_costs, flop_costs, rent
from idealized_runtime.lifetime.fitted_range import describe_range, is_beyond, refuse_far
from idealized_runtime.lifetime.law_files import FittedLaw, read_law
from idealized_runtime.lifetime.optimum import minimize_lifetime_cost
from idealized_runtime.lifetime.scaling_law import (
    COEFFICIENTS,
    SCALING_LAWS,
    chinchilla_size,
    get_scaling_law,
    size_from,
)
from idealized_runtime.queries.mix import QueryMix

# A cost that was regressed on a few models is not good for more.
_MOST_TIMES_BEYOND = 100


def law_of(arguments) -> FittedLaw:
    """Scaling law by name, with single coefficients replaced, or of a file."""
    replaced = {name: getattr(arguments, name) for name in COEFFICIENTS if getattr(arguments, name) is not None}
    is_file = arguments.coefficients.endswith(".json") or Path(arguments.coefficients).is_file()
    if arguments.coefficients in SCALING_LAWS or not is_file:
        return FittedLaw(get_scaling_law(arguments.coefficients, **replaced))
    if replaced:
        flags = ", ".join(f"--{name}" for name in replaced)
        raise ValueError(f"{flags} cannot replace coefficients of {arguments.coefficients}: its draws would not match")
    return read_law(arguments.coefficients)


def rental_of(arguments, side, default=None) -> Rental:
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


def sizes_of(arguments, workload=None) -> dict[str, float]:
    """Mean tokens of the flags; where neither is given, those that a workload states; else the defaults."""
    given = {name: getattr(arguments, name) for name in DEFAULT_SIZES}
    if workload is not None and workload.num_prompt_tokens is not None and set(given.values()) == {None}:
        return {name: float(getattr(workload, name)) for name in DEFAULT_SIZES}
    return {name: DEFAULT_SIZES[name] if given[name] is None else given[name] for name in DEFAULT_SIZES}


def mix_of(arguments, workload=None) -> QueryMix:
    """What is served: the sizes of a file, else the mean sizes for all."""
    if arguments.queries is not None:
        return QueryMix.read(arguments.queries, columns=arguments.columns)
    return QueryMix.from_means(**sizes_of(arguments, workload))


def accelerators_of(arguments) -> dict[str | None, int]:
    """Numbers of accelerators by model, under None that of all others."""
    numbers = dict(arguments.num_accelerators or [])
    if len(numbers) < (num_given := len(arguments.num_accelerators or [])):
        raise ValueError(f"--num-accelerators: one number a model, and one for all others; got {num_given} numbers")
    return numbers


def check_ranges(law, query_cost, **sizes) -> bool | None:
    """Whether sizes lie beyond the scaling law's runs; those far from them are refused.

    So is the ``optimal_size`` where it is far from the models whose cost was regressed.
    """
    is_beyond_law = is_beyond(law, **sizes)
    known, num_params = query_cost.per_query.num_params, sizes["optimal_size"].num_params
    ends = float(known.min()), float(known.max())
    found = describe_range("optimal_size", num_params, "parameters", "the models whose cost is known have", ends)
    refuse_far(found, num_params, ends, times_below=_MOST_TIMES_BEYOND, times_above=_MOST_TIMES_BEYOND)
    return is_beyond_law


def costs_of(arguments) -> tuple[LifetimeCosts, LifetimeCosts, dict]:
    """FLOP and dollar costs of the hardware and demand that the flags describe, and that description."""
    training, inference = rental_of(arguments, "train"), rental_of(arguments, "inference")
    training_mfu = {"training_mfu": arguments.training_mfu}
    inference_mfus = {name: getattr(arguments, name) for name in ("prompt_mfu", "output_mfu")}
    demand = {"num_requests": arguments.num_requests, **sizes_of(arguments)}
    usd = dollar_costs(training=training, inference=inference, **demand, **training_mfu, **inference_mfus)
    flops = flop_costs(arguments.num_requests * (demand["num_prompt_tokens"] + demand["num_output_tokens"]))
    return flops, usd, {
        "demand": demand,
        "training": report.describe_rental(training, **training_mfu),
        "inference": report.describe_rental(inference, **inference_mfus),
    }  # fmt: skip


def answer_optimum(arguments, name, flops, usd, assumed, rows) -> int:
    """Print the size of least cost, in dollars where ``usd`` is given, beside the Chinchilla size of equal loss.

    Parameters
    ----------
    arguments : Namespace
    name : str
        Of the optimum.
    flops, usd : LifetimeCosts
        ``usd`` may be None.
    assumed : dict
        What the costs rest on, as data; ``rows`` are the same for a terminal.
    """
    fitted, costs = law_of(arguments), usd or flops
    optimum = minimize_lifetime_cost(fitted.law, arguments.loss, costs)
    intervals = None
    if fitted.draws is not None:
        used = draws_that_reach(fitted.draws, arguments.loss)
        table = optimum_intervals(used, arguments.loss, costs, level=arguments.level)
        intervals = _interval_data(arguments, fitted, used, table.rename(index={"cost": f"lifetime_{costs.unit}"}))
    data = {
        "law": report.describe_law(fitted.law),
        "is_extrapolated": is_beyond(fitted.law, Chinchilla_size=optimum.chinchilla, optimal_size=optimum.optimal),
        "loss": arguments.loss,
        **assumed,
        "chinchilla": report.describe_model(fitted.law, optimum.chinchilla, flops, usd),
        "optimal": report.describe_model(fitted.law, optimum.optimal, flops, usd),
        "params_ratio": optimum.params_ratio,
        "training_tokens_ratio": optimum.training_tokens_ratio,
        "cost_ratio": optimum.cost_ratio,
        "intervals": intervals,
    }
    print_answer(data, report.optimum_rows(name, rows, data), as_json=arguments.json)
    return DONE


def answer_model(arguments, flops, usd, assumed, rows, *, has_demand: bool) -> int:
    """Print the properties of the model that some of them fix; parameters as for :func:`answer_optimum`."""
    given = {name: getattr(arguments, name) for name in PROPERTIES if getattr(arguments, name) is not None}
    if len(given) != (1 if arguments.chinchilla else 2):
        flags = ", ".join(flag for flag, *_ in PROPERTIES.values())
        what = f"--chinchilla takes exactly one of {flags}"
        if not arguments.chinchilla:
            what = f"a model follows from exactly two of {flags}, or from one with --chinchilla"
        raise ValueError(f"{what}; got {', '.join(PROPERTIES[name][0] for name in given) or 'none'}")
    fitted = law_of(arguments)
    solve = chinchilla_size if arguments.chinchilla else size_from
    size = solve(fitted.law, **given)
    data = {
        "law": report.describe_law(fitted.law),
        "is_extrapolated": is_beyond(fitted.law, model=size),
        "is_chinchilla": arguments.chinchilla,
        **assumed,
        "model": report.describe_model(fitted.law, size, flops, usd),
        "intervals": _model_intervals(arguments, fitted, given, solve, flops, usd),
    }
    rows = [
        *report.model_rows(data["model"], data["intervals"], with_totals=has_demand),
        ("Chinchilla Style", arguments.chinchilla),
        *report.interval_rows(data["intervals"]),
        *rows,
        *report.law_rows(data["law"]),
    ]
    print_answer(data, rows, as_json=arguments.json)
    return DONE


def _model_intervals(arguments, fitted, given, solve, flops, usd):
    """Intervals of what does not follow from the given properties alone; None without draws that have them."""
    draws = fitted.draws
    if draws is not None and "loss" in given:
        draws = draws_that_reach(draws, given["loss"], given.get("num_params"), given.get("num_training_tokens"))
    if draws is None:
        return None
    drawn = report.describe_model(draws, solve(draws, **given), flops, usd)
    varying = {name: values for name, values in drawn.items() if not np.allclose(values, np.min(values), rtol=1e-9)}
    return _interval_data(arguments, fitted, draws, intervals_of(varying, level=arguments.level))


def _interval_data(arguments, fitted, used, table) -> dict:
    counts = {"num_draws": len(fitted.draws.A), "num_draws_used": len(used.A)}
    return {"level": arguments.level, **counts, **table.to_dict("index")}
