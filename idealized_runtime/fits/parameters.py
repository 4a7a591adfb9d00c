"""Parameter files: a JSON object by model name, with HELM's keys and what is ours under ``"fit"``."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.fits.interpolation import TILE_TOKENS
from idealized_runtime.fits.intervals import Intervals, RuleError
from idealized_runtime.fits.model import METHODS, RuntimeModel
from idealized_runtime.fits.uncertainty import Covariance
from idealized_runtime.records.files import replacing

SCHEMA_VERSION = 1


def write_parameters(path, models: Mapping[str, RuntimeModel], *, sources: Mapping | None = None) -> None:
    """Write models to a parameter file; equal models give equal bytes, and the file is replaced at once.

    Parameters
    ----------
    path : path-like
    models : mapping from model name to RuntimeModel
    sources : mapping from model name to one path or a list of them, optional
        Logs the models were fitted to; names and SHA-256 go into the file.

    Raises
    ------
    ValueError
        ``sources`` names a model that is not written.
    """
    sources = dict(sources or {})
    if unknown := sorted(set(sources) - set(models)):
        raise ValueError(f"sources name models that are not written: {', '.join(unknown)}")
    entries = {}
    for name in sorted(models):
        model = models[name]
        if name in sources:
            model = dataclasses.replace(model, sources=_hash_files(sources[name]))
        entries[name] = model.to_json()
    with replacing(path) as part:
        part.write_text(json.dumps(entries, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_parameters(path) -> dict[str, RuntimeModel]:
    """Models of a parameter file by name: ours, HELM's or the authors'.

    Raises
    ------
    ValueError
        The file is not JSON or an entry is not what it should be; the message has the file and the model.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a parameter file: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: a parameter file is a JSON object by model name; got {type(entries).__name__}")
    models = {}
    for name, entry in entries.items():
        try:
            models[name] = model_from_json(entry)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return models


def model_to_json(model: RuntimeModel) -> dict:
    """See :meth:`RuntimeModel.to_json`."""
    sizes = zip(model.num_prompt_tokens.tolist(), model.profiled_prompt_times_s.tolist(), strict=True)
    entry = {
        "runtime_per_output_token": model.time_per_output_token_s,
        "runtime_for_prompt_tokens": {str(size): time_s for size, time_s in sizes},
    }
    if model.overhead_s is not None:
        entry["overhead"] = model.overhead_s
    if model.method == "published" and model.r_squared is None and not model.sources:
        return entry
    entry["fit"] = {
        "schema_version": SCHEMA_VERSION,
        "method": model.method,
        "prompt_rule": _rule_to_json(model),
        "reference_num_prompt_tokens": model.reference_num_prompt_tokens,
        "time_per_output_token_slope": model.time_per_output_token_slope_s,
        **({} if model.batch_size is None else {"batch_size": model.batch_size}),
        "r_squared": model.r_squared,
        "residuals": model.residual_summary,
        "standard_errors": None if model.intervals is None else _standard_errors_to_json(model),
        "intervals": None if model.intervals is None else _intervals_to_json(model.intervals),
        "sources": [dict(source) for source in model.sources],
    }
    return entry


def _rule_to_json(model):
    if model.method == "published":
        return {"name": "next_larger_size_scaled"}
    return {"name": "linear_in_tiles", "tile_tokens": TILE_TOKENS, "tile_share": model.tile_share}


def _standard_errors_to_json(model):
    """For readers; intervals follow from the covariances beside them."""
    errors_s = model.intervals.prompt_standard_errors_s(model.num_prompt_tokens).tolist()
    sizes = map(str, model.num_prompt_tokens.tolist())
    return {
        "runtime_per_output_token": model.intervals.time_per_output_token_standard_error_s(),
        "runtime_for_prompt_tokens": dict(zip(sizes, errors_s, strict=True)),
    }


def _intervals_to_json(intervals: Intervals) -> dict:
    fields = dataclasses.asdict(intervals.covariance)
    covariance = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    rule_error = dataclasses.asdict(intervals.rule_error)
    return {"covariance": _without_inf(covariance), "rule_error": _without_nan(rule_error)}


def _without_inf(fields):
    """JSON has no infinity; degrees of freedom are null where there is no limit."""
    limited = {name: fields[name] if np.isfinite(fields[name]) else None for name in ("slope_dof", "lack_of_fit_dof")}
    level_dof = [dof if np.isfinite(dof) else None for dof in fields["level_dof"]]
    return fields | limited | {"level_dof": level_dof}


def _without_nan(fields):
    return {name: None if np.isnan(value) else value for name, value in fields.items()}


def model_from_json(entry: Mapping) -> RuntimeModel:
    """See :meth:`RuntimeModel.from_json`.

    Raises
    ------
    ValueError
        A key is missing or a value is no number; the message names it.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"parameters of a model are a JSON object; got {type(entry).__name__}")
    try:
        sizes, times_s = _prompt_times_from_json(entry["runtime_for_prompt_tokens"])
        overhead = entry.get("overhead")
        common = {
            "num_prompt_tokens": sizes,
            "profiled_prompt_times_s": times_s,
            "time_per_output_token_s": _number("runtime_per_output_token", entry["runtime_per_output_token"]),
            "overhead_s": None if overhead is None else _number("overhead", overhead),
        }
        if "fit" not in entry:
            return RuntimeModel(
                method="published",
                time_per_output_token_slope_s=0.0,
                reference_num_prompt_tokens=int(sizes[0]),
                **common,
            )
        return RuntimeModel(**common, **_fit_from_json(entry["fit"]))
    except KeyError as error:
        raise ValueError(f"parameters lack the key {error}") from error


def _prompt_times_from_json(times):
    try:
        pairs = sorted((int(size), _number(f"prompt time at {size!r}", time_s)) for size, time_s in times.items())
    except (AttributeError, TypeError) as error:
        raise ValueError("runtime_for_prompt_tokens must be an object by number of prompt tokens") from error
    if not pairs or pairs[0][0] < 1:
        raise ValueError("runtime_for_prompt_tokens needs at least one prompt size, of at least 1 token")
    sizes, times_s = zip(*pairs, strict=True)
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"runtime_for_prompt_tokens names a prompt size twice; got {', '.join(times)}")
    return np.array(sizes), np.array(times_s)


def _number(name, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {value!r}")
    return float(value)


def _batch_size(value) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"fit.batch_size must be an integer of at least 1; got {value!r}")
    return value


def _fit_from_json(fit) -> dict:
    if not isinstance(fit, Mapping):
        raise ValueError(f"fit must be an object; got {fit!r:.60}")
    if fit["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"fit.schema_version must be {SCHEMA_VERSION}; got {fit['schema_version']!r}")
    if fit["method"] not in METHODS:
        raise ValueError(f"fit.method must be one of {', '.join(METHODS)}; got {fit['method']!r}")
    reference = int(fit["reference_num_prompt_tokens"])
    intervals = fit["intervals"]
    return {
        "method": fit["method"],
        "tile_share": float(fit["prompt_rule"].get("tile_share", 0.0)),
        "reference_num_prompt_tokens": reference,
        "time_per_output_token_slope_s": _number("time_per_output_token_slope", fit["time_per_output_token_slope"]),
        "batch_size": _batch_size(fit.get("batch_size")),
        "r_squared": fit["r_squared"],
        "residual_summary": fit["residuals"],
        "intervals": None if intervals is None else _intervals_from_json(intervals, reference),
        "sources": tuple(fit["sources"]),
    }


def _intervals_from_json(intervals, reference) -> Intervals:
    fields = dict(intervals["covariance"])
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = np.array([np.inf if item is None else item for item in value], dtype=float)
        elif value is None:
            fields[name] = np.inf
    rule_error = {name: np.nan if value is None else value for name, value in intervals["rule_error"].items()}
    return Intervals(Covariance(**fields), reference, RuleError(**rule_error))


def _hash_files(paths) -> tuple:
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return tuple(
        {"file": Path(path).as_posix(), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()} for path in paths
    )


def by_parameter_name(fits: Mapping[str, RuntimeModel]) -> dict[str, RuntimeModel]:
    """The same models under the names that a parameter file lists them by; one may have several."""
    return {entry: fit for name, fit in fits.items() for entry in parameter_names(name)}


def parameter_names(model: str) -> tuple[str, ...]:
    """Names under which a parameter file lists a model: HELM's where it has any, else its own."""
    row = ARCHITECTURES.get(model)
    return row.helm_names if row is not None and row.helm_names else (model,)
