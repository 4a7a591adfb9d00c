"""Entries of parameter files, one a model: HELM's keys, and values as JSON has them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass

import numpy as np

from idealized_runtime.checks import is_number

SCHEMA_VERSION = 1


def entry_of(model, sizes, fit: dict, *, method: str) -> dict:
    """Entry of a model that has no profiled prompt sizes of its own.

    Parameters
    ----------
    model : ModelOfRuntimes
    sizes : int array
        Prompt sizes whose times HELM's keys hold; the time per output token is that behind the middle one.
    fit : dict
        What restores the model, of values that :func:`to_json` takes.
    method : str
        Names its class.
    """
    times_s = model.prompt_encoding_time_s(np.asarray(sizes))
    return {
        "runtime_per_output_token": float(model.time_per_output_token_at(int(sizes[len(sizes) // 2]))),
        "runtime_for_prompt_tokens": {str(size): float(time_s) for size, time_s in zip(sizes, times_s, strict=True)},
        "fit": {"schema_version": SCHEMA_VERSION, "method": method, **to_json(fit)},
    }


def doubling_sizes(low: int, high: int) -> list[int]:
    """A size, the powers of two above it, and a last size."""
    powers = 2 ** np.arange(np.ceil(np.log2(high)), dtype=int)
    return [low, *powers[powers > low].tolist(), high] if high > low else [low]


def to_json(value):
    """Dataclasses, arrays and numbers as JSON has them: objects, lists, and null for what is not finite."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def from_json(value, missing: float):
    """A number or an array that :func:`to_json` wrote; ``missing`` is what null stands for."""
    if isinstance(value, list):
        return np.array([missing if item is None else item for item in value], dtype=float)
    return missing if value is None else value


def made_from_json(made, values, missing: float, *, name: str):
    """An object of a dataclass of numbers and arrays that :func:`to_json` wrote; ``name`` stands in messages.

    Raises
    ------
    ValueError
        A field is missing, is none of the class, or holds something else than numbers.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be an object; got {values!r:.60}")
    known = {field.name: field.default is MISSING for field in fields(made)}
    if lacking := [field for field, is_needed in known.items() if is_needed and field not in values]:
        raise ValueError(f"{name} lacks {', '.join(lacking)}")
    if unknown := [field for field in values if field not in known]:
        raise ValueError(f"{name} has {', '.join(unknown)}, which it should not; fields are {', '.join(known)}")
    read = {}
    for field, value in values.items():
        try:
            read[field] = from_json(value, missing)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name}.{field} must be a list of numbers; got {value!r:.60}") from error
        if not isinstance(read[field], np.ndarray | bool) and not (read[field] is missing or is_number(read[field])):
            raise ValueError(f"{name}.{field} must be a number; got {value!r:.60}")
    return made(**read)


def positive(name, value) -> float:
    """A positive number of JSON."""
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be positive; got {value!r}")
    return float(value)


def number(name, value) -> float:
    """A number of JSON; ``name`` says in the message which."""
    if not is_number(value):
        raise ValueError(f"{name} must be a finite number; got {value!r}")
    return float(value)
