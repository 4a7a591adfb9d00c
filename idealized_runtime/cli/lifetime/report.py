"""Answers of the command line as text: every number in it is read from the data that ``--json`` prints."""

from idealized_runtime.cli.output import bounded
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
_PRINTED_COEFFICIENTS = ("alpha", "beta", "A", "B", "E")


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


def describe_case(arguments, law, mix, assumptions) -> dict:
    """What is asked, and what is assumed of training and of serving at a guessed utilisation."""
    return {
        "law": describe_law(law),
        "loss": arguments.loss,
        "demand": {
            "num_requests": arguments.num_requests,
            "num_prompt_tokens": mix.mean_prompt_tokens,
            "num_output_tokens": mix.mean_output_tokens,
            "num_query_sizes": mix.weights.size,
        },
        "training": describe_rental(assumptions.training, training_mfu=assumptions.training_mfu),
        "inference": describe_rental(
            assumptions.inference, prompt_mfu=assumptions.prompt_mfu, output_mfu=assumptions.output_mfu
        ),
    }


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


def title(text) -> list:
    """A heading between rules."""
    return [_RULE, f"*** {text} ***", _RULE]


def model_rows(data: dict, intervals=None, *, with_totals=True) -> list:
    """Rows of a described model; ``intervals`` maps a property to its lower and upper bound."""
    return [
        (label, bounded(data[name], (intervals or {}).get(name), form))
        for name, (label, form) in _LABELS.items()
        if name in data and (with_totals or not name.startswith("lifetime"))
    ]


def law_rows(law: dict) -> list:
    """Rows of a described law."""
    return [
        ("Coefficients", "  ".join(f"{name} = {law[name]:.6g}" for name in _PRINTED_COEFFICIENTS)),
        ("Source", law["source"]),
    ]


def rental_row(label, rental: dict) -> tuple[str, str]:
    """Row of a described rental."""
    mfus = ", ".join(f"{name.removesuffix('_mfu')} MFU {rental[name]:g}" for name in rental if name.endswith("_mfu"))
    price = f"{rental['price_usd_per_hour']:.2f} $/h ({rental['price_source']})"
    return (label, f"{rental['accelerator']}, {rental['dtype']}, {mfus}, {price}")


def request_rows(demand: dict) -> list:
    """Rows of an inference demand."""
    return [
        ("Inference requests", f"{demand['num_requests']:.3e}"),
        ("Input tokens per request", f"{demand['num_prompt_tokens']:g}"),
        ("Output tokens per request", f"{demand['num_output_tokens']:g}"),
    ]


def optimum_rows(name, configuration_rows, data: dict) -> list:
    """Rows of an optimum, the Chinchilla size of equal loss before it, and three sentences that compare them."""
    short = name.removeprefix("(Lifetime) ")
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
        *(
            f"The {short} model should {verb} {100 * data[key]:.2f}% of {what}an equal-quality Chinchilla-style model."
            for verb, key, what in (
                ("have", "params_ratio", "the parameters of "),
                ("be trained on", "training_tokens_ratio", "the tokens of "),
                ("cost", "cost_ratio", ""),
            )
        ),
    ]


def interval_rows(intervals: dict | None) -> list:
    """What the bounds beside the numbers are; nothing where there are none."""
    if intervals is None:
        return []
    drawn, used = intervals["num_draws"], intervals.get("num_draws_used", intervals["num_draws"])
    over = (
        f"the {used} of {drawn} bootstrap refits that reach the loss" if used < drawn else f"{drawn} bootstrap refits"
    )
    return [("[lower, upper]", f"{100 * intervals['level']:g} % intervals over {over}")]


def fit_rows(data: dict) -> list:
    """Rows of a fit."""
    law, intervals = data["law"], data["intervals"]
    found = f"{data['num_starts_at_optimum']} of {data['num_starts']} starts"
    return [
        ("Training runs", data["num_runs"]),
        *((name, bounded(law[name], (intervals or {}).get(name), ".6g")) for name in _PRINTED_COEFFICIENTS),
        *interval_rows(intervals),
        ("Objective (sum of Huber losses)", f"{data['objective']:.9f}, reached from {found}"),
    ]
