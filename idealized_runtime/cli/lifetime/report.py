"""Answers of the command line as text: every number in it is read from the data that ``--json`` prints."""

from dataclasses import dataclass

import numpy as np

from idealized_runtime.lifetime.scaling_law import COEFFICIENTS, ModelSize, ScalingLaw

_RULE = "-" * 40
# Labels are those of arXiv:2401.00448's scripts, for those who read their output by program.
_LABELS = {
    "num_params": ("Model Size (params)", ".3e"),
    "num_training_tokens": ("Training Data (tok)", ".3e"),
    "training_tokens_per_param": ("Tokens per parameter", ".1f"),
    "loss": ("Final Training loss", ".4f"),
    "training_usd": ("Train Cost ($)", ".3e"),
    "training_flops": ("Train FLOPs", ".3e"),
    "lifetime_flops": ("Total (Train + Inference) FLOPs", ".3e"),
    "lifetime_usd": ("Total (Train + Inference) Cost ($)", ".3e"),
}
_WIDTH = 36


@dataclass(frozen=True)
class Report:
    """An answer as text and as data."""

    text: str
    data: dict


def describe_model(law: ScalingLaw, size: ModelSize, flops, usd=None) -> dict:
    """Properties of a model and what training and serving it cost; ``flops`` and ``usd`` are LifetimeCosts."""
    data = {
        "num_params": size.num_params,
        "num_training_tokens": size.num_training_tokens,
        "training_tokens_per_param": size.training_tokens_per_param,
        "loss": law.loss(size.num_params, size.num_training_tokens),
        "training_flops": size.training_flops,
        "lifetime_flops": flops.total(size),
    }
    if usd is not None:
        data |= {"training_usd": usd.training(size), "lifetime_usd": usd.total(size)}
    return data


def describe_law(law: ScalingLaw) -> dict:
    """Coefficients and where they come from."""
    return {name: float(getattr(law, name)) for name in COEFFICIENTS} | {"source": law.source}


def describe_rental(rental, **mfu) -> dict:
    """An accelerator with its price, peak rate and utilisations."""
    return {
        "accelerator": rental.accelerator.name,
        "dtype": rental.dtype,
        "peak_flops_per_s": rental.accelerator.peak_flops(rental.dtype),
        "price_usd_per_hour": rental.price_usd_per_hour,
        "price_source": rental.price_source,
        **mfu,
    }


def plain(data):
    """The same data of plain Python numbers, which JSON can hold.

    Raises
    ------
    OverflowError
        A number is not finite: the sizes asked for multiply to more than a float holds.
    """
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    value = data.item() if isinstance(data, np.generic) else data
    if isinstance(value, float) and not np.isfinite(value):
        raise OverflowError(f"a number is {value}")
    return value


def title(text) -> list[str]:
    """A heading between rules."""
    return [_RULE, f"*** {text} ***", _RULE]


def row(label, value) -> str:
    """A label and its value in their columns."""
    return f"{label + ':':<{_WIDTH}}{value}"


def model_rows(data: dict, intervals=None, *, with_totals=True) -> list[str]:
    """Rows of a described model; ``intervals`` maps a property to its lower and upper bound."""
    rows = []
    for name, (label, form) in _LABELS.items():
        if name in data and (with_totals or not name.startswith("lifetime")):
            bounds = (intervals or {}).get(name)
            interval = f"   [{bounds['lower']:{form}}, {bounds['upper']:{form}}]" if bounds else ""
            rows.append(row(label, f"{data[name]:{form}}{interval}"))
    return rows


def law_rows(law: dict) -> list[str]:
    """Rows of a described law."""
    order = ("alpha", "beta", "A", "B", "E")
    return [
        row("Coefficients", "  ".join(f"{name} = {law[name]:.6g}" for name in order)),
        row("Source", law["source"]),
    ]


def rental_row(label, rental: dict) -> str:
    """Row of a described rental."""
    mfus = ", ".join(f"{name.removesuffix('_mfu')} MFU {rental[name]:g}" for name in rental if name.endswith("_mfu"))
    price = f"{rental['price_usd_per_hour']:.2f} $/h ({rental['price_source']})"
    return row(label, f"{rental['accelerator']}, {rental['dtype']}, {mfus}, {price}")


def request_rows(demand: dict) -> list[str]:
    """Rows of an inference demand."""
    return [
        row("Inference requests", f"{demand['num_requests']:.3e}"),
        row("Input tokens per request", f"{demand['num_prompt_tokens']:g}"),
        row("Output tokens per request", f"{demand['num_output_tokens']:g}"),
    ]


def optimum_rows(name, configuration_rows, data: dict) -> list[str]:
    """Rows of an optimum, the Chinchilla size of equal loss before it."""
    return [
        *title("Configuration"),
        *configuration_rows,
        *law_rows(data["law"]),
        *title("Baseline: Chinchilla-Style Model"),
        *model_rows(data["chinchilla"]),
        *title(f"{name} Model"),
        *model_rows(data["optimal"], data["intervals"]),
        *interval_rows(data["intervals"]),
        *title("Conclusion"),
        *conclusion(name.removeprefix("(Lifetime) "), data),
    ]


def conclusion(name, data: dict) -> list[str]:
    """The three sentences that compare the optimum with the Chinchilla size."""
    return [
        f"The {name} model should {verb} {100 * data[key]:.2f}% of {what}an equal-quality Chinchilla-style model."
        for verb, key, what in (
            ("have", "params_ratio", "the parameters of "),
            ("be trained on", "training_tokens_ratio", "the tokens of "),
            ("cost", "cost_ratio", ""),
        )
    ]


def interval_rows(intervals: dict | None) -> list[str]:
    """What the bounds beside the numbers are; nothing where there are none."""
    if intervals is None:
        return []
    used, drawn = intervals["num_draws_used"], intervals["num_draws"]
    over = (
        f"the {used} of {drawn} bootstrap refits that reach the loss" if used < drawn else f"{drawn} bootstrap refits"
    )
    return [row("[lower, upper]", f"{100 * intervals['level']:g} % intervals over {over}")]


def fit_rows(data: dict) -> list[str]:
    """Rows of a fit."""
    intervals = data["intervals"]
    rows = [row("Training runs", data["num_runs"])]
    for name in ("alpha", "beta", "A", "B", "E"):
        bounds = f"   [{intervals[name]['lower']:.5g}, {intervals[name]['upper']:.5g}]" if intervals else ""
        rows.append(row(name, f"{data['law'][name]:.6g}{bounds}"))
    if intervals:
        level, num_draws = 100 * intervals["level"], intervals["num_draws"]
        rows.append(row("[lower, upper]", f"{level:g} % intervals over {num_draws} bootstrap refits"))
    found = f"{data['num_starts_at_optimum']} of {data['num_starts']} starts"
    return [*rows, row("Objective (sum of Huber losses)", f"{data['objective']:.9f}, reached from {found}")]
