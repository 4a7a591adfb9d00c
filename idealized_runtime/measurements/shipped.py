"""Stacks whose coefficients come with the package: timed models without their timings, which need not be at hand."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from idealized_runtime.architectures import Architecture
from idealized_runtime.checks import did_you_mean, parse_json
from idealized_runtime.fits.entries import SCHEMA_VERSION, to_json
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.parameters import model_from_json
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import TimedModel, read_timed_models
from idealized_runtime.records.files import replacing

_FOLDER = Path(__file__).parent / "stacks"
SHIPPED_STACKS = ("a100", "cpu", "v100")
_SHARED = ("hardware", "software", "dtype", "is_cuda")
_OWN = ("name", "tensor_parallel_size", "pipeline_parallel_size", "num_layers_profiled", "measured_on", "source")
_TIMED = ("is_sliced", "longest_context", "mean_power_watts")


@dataclass(frozen=True, eq=False, kw_only=True)
class ShippedModel(TimedModel):
    """A timed model of which the coefficients of its fit are known, and not the timings.

    Parameters
    ----------
    coefficients : RuntimeModel
    timed : mapping
        What the timings said besides: ``is_sliced, longest_context, mean_power_watts``.
    together : mapping
        What :attr:`~idealized_runtime.prediction.predictor.RuntimePredictor.together` keeps of all models of the stack.
    """

    coefficients: RuntimeModel
    timed: Mapping
    together: Mapping

    fit = property(lambda self: self.coefficients)
    is_sliced = property(lambda self: self.timed["is_sliced"])
    longest_context = property(lambda self: self.timed["longest_context"])
    mean_power_watts = property(lambda self: self.timed["mean_power_watts"])


def read_stack(
    name_or_path,
    models: Iterable[str] | None = None,
    *,
    software: str | None = None,
    accept: Iterable[str] = (),
) -> dict[str, TimedModel]:
    """Timed models of a folder of logs; where there is none of that name, those of the stack that is shipped under it.

    Parameters, errors and warnings are those of
    :func:`~idealized_runtime.measurements.timed_models.read_timed_models`.
    """
    try:
        return read_timed_models(name_or_path, models, software=software, accept=accept)
    except PublishedDataMissingError as error:
        if str(name_or_path) not in SHIPPED_STACKS:
            shipped = f"coefficients come with this package for {', '.join(SHIPPED_STACKS)}"
            raise PublishedDataMissingError(f"{error}; {shipped}") from error
    shipped = read_shipped(str(name_or_path))
    stack = next(iter(shipped.values())).software
    if software is not None and software not in stack:
        raise ValueError(f"{name_or_path}: the coefficients in this package are of {stack}; got software {software!r}")
    models = list(shipped) if models is None else [models] if isinstance(models, str) else list(models)
    if missing := [name for name in models if name not in shipped]:
        hint = did_you_mean(missing[0], shipped)
        raise ValueError(f"{name_or_path} has no {', '.join(missing)}{hint}; there are: {', '.join(shipped)}")
    return {name: shipped[name] for name in models}


@cache
def read_shipped(name: str) -> dict[str, ShippedModel]:
    """Models of a shipped stack, one of ``SHIPPED_STACKS``, by name."""
    stack = parse_json((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    shared = {field: stack[field] for field in _SHARED}
    return {
        model["name"]: ShippedModel(
            **shared,
            **{field: model[field] for field in _OWN},
            runtimes=None,
            architecture=Architecture.from_dict(model["architecture"]),
            coefficients=model_from_json(model["parameters"]),
            timed=model,
            together=stack["together"],
        )
        for model in stack["models"]
    }


def write_shipped(name: str, models: Iterable[TimedModel], together: Mapping):
    """Write the stack that is shipped under a name: models of one stack, fitted, and what holds of all of them."""
    models = list(models)
    stack = {
        "schema_version": SCHEMA_VERSION,
        **{field: getattr(models[0], field) for field in _SHARED},
        "together": to_json(together),
        "models": [
            {
                **{field: getattr(model, field) for field in (*_OWN, *_TIMED)},
                "architecture": model.architecture.to_dict(),
                "parameters": replace(model.fit, sources=(model.source,)).to_json(),
            }
            for model in models
        ],
    }
    with replacing(_FOLDER / f"{name}.json") as part:
        part.write_text(json.dumps(stack, allow_nan=False) + "\n", encoding="utf-8")
