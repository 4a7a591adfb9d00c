"""HELM's runtime parameters, in and out: ``inference_{idealized,denoised}_runtimes.json``."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from idealized_runtime.architectures import ARCHITECTURES


def read_efficiency_json(path) -> dict:
    """Runtime models of one of HELM's efficiency files, by HELM's model name.

    The format is this project's parameter file without what stands under ``"fit"``, and a file with it
    reads the same; see :func:`idealized_runtime.fits.read_parameters`, also for the errors.
    """
    from idealized_runtime.fits import read_parameters

    return read_parameters(path)


def write_efficiency_json(path, models: Mapping) -> None:
    """Write runtime models as one of HELM's efficiency files.

    Parameters
    ----------
    path : path-like
        Replaced as a whole, or not at all.
    models : mapping of str to RuntimeModel
        A model of the registry that HELM knows is written under each of its HELM names, any other
        under its own. HELM's keys only: seconds per output token, seconds per prompt size and
        overhead, unrounded. Between prompt sizes HELM estimates by its own rule, whatever the model's.

    Raises
    ------
    ValueError
        Two models would be written under one name.
    """
    entries = {}
    for name, model in models.items():
        entry = {key: value for key, value in model.to_json().items() if key != "fit"}
        for helm_name in _helm_names(name):
            if helm_name in entries:
                raise ValueError(f"{path}: two models for the HELM name {helm_name!r}; {name!r} is the second")
            entries[helm_name] = entry
    _replace(Path(path), json.dumps(entries, indent=4, allow_nan=False) + "\n")


def _helm_names(name: str) -> tuple[str, ...]:
    architecture = ARCHITECTURES.get(name)
    return (architecture and architecture.helm_names) or (name,)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
