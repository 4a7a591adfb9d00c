"""Models whose runtime is known, with their size and the accelerators and batch they were timed with."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from idealized_runtime.architectures import Architecture
from idealized_runtime.queries.terms import PricedModel, priced_by_parameters, select_names


def read_profiles(
    path: str | os.PathLike,
    *,
    models: Iterable[str] | None = None,
    num_accelerators: Mapping[str | None, int] | None = None,
) -> tuple[PricedModel, ...]:
    """Models of a parameter file, such as ``processed_jsons/a100.json``, smallest model first.

    HELM lists some models under several names; each architecture counts once, under its own. The number of
    accelerators comes from ``num_accelerators``, else from the log that the parameters name as their source. The batch
    size is what the parameters state (``fit.batch_size``), else that log's, else 1.

    Parameters
    ----------
    path : path-like
    models : iterable of str, optional
        Only these: names in the file, or of the registry.
    num_accelerators : mapping of model name to int, optional
        By names as in ``models``; under None that of all others.

    Raises
    ------
    ValueError
        The file is no parameter file, lacks a model asked for, or a model cannot be placed: its size or number of
        accelerators is not known, or a token visits only a part of it. The message begins with path and model.
    """
    served, given = priced_by_parameters(path, models), dict(num_accelerators or {})
    of_all_others = given.pop(None, None)
    select_names(path, served, given)
    by_architecture = {}
    for name, model in served.items():
        own_name = getattr(model.architecture, "name", name)
        number = given.get(own_name, given.get(name, of_all_others))
        number = model.num_accelerators if number is None else number
        try:
            _check(model, number)
            by_architecture.setdefault(own_name, replace(model, name=own_name, num_accelerators=number))
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return tuple(sorted(by_architecture.values(), key=lambda profile: (profile.num_params, profile.name)))


def check_dense(architecture: Architecture | None):
    """Refuse a model whose cost is no function of its number of parameters, or whose number is not known."""
    if architecture is None:
        raise ValueError("its size is not known: neither the registry nor a log at hand describes this model")
    if architecture.num_experts is not None:
        raise ValueError("a token visits a part of its experts: its cost is no function of N; leave it out of models")


def _check(model, num_accelerators):
    """Refuse what the cost of a query cannot be told of, as a function of the model's size."""
    if model.runtimes.overhead_s is not None:
        raise ValueError("timed through an API, which says nothing of accelerators; give a model timed on its hardware")
    check_dense(model.architecture)
    if num_accelerators is None:
        raise ValueError("its number of accelerators is not known: give num_accelerators for it")
