"""Parameter files: a JSON object by model name, with HELM's keys and what is ours under ``"fit"``."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from idealized_runtime.checks import parse_json
from idealized_runtime.fits.batched.model import BatchRuntime
from idealized_runtime.fits.entries import SCHEMA_VERSION
from idealized_runtime.fits.formula import FormulaModel
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.protocol import ModelOfRuntimes
from idealized_runtime.fits.published import PublishedRuntimeModel
from idealized_runtime.records.files import replacing, sha256_of

_READERS = {
    model.method: model.from_json for model in (RuntimeModel, PublishedRuntimeModel, BatchRuntime, FormulaModel)
}


def write_parameters(
    path: str | os.PathLike, models: Mapping[str, ModelOfRuntimes], *, sources: Mapping | None = None
) -> None:
    """Write models to a parameter file; equal models give equal bytes, and the file is replaced at once.

    Step times of a server (``"steps"``) that the file has stay in it: they come from other measurements. Nothing else
    of it stays.

    Parameters
    ----------
    path : path-like
    models : mapping from model name to ModelOfRuntimes
    sources : mapping from model name to one path or a list of them, optional
        Logs the models were fitted to; names and SHA-256 go into the file.

    Raises
    ------
    ValueError
        ``sources`` names a model that is not written.

    Examples
    --------
    >>> from idealized_runtime import RuntimeModel, read_log
    >>> log = "logs/cpu/gpt2-small.jsonl"
    >>> models = {"gpt2-small": RuntimeModel.fit(read_log(log))}
    >>> write_parameters("build/mine.json", models, sources={"gpt2-small": log})
    >>> list(read_parameters("build/mine.json"))
    ['gpt2-small']
    """
    sources = dict(sources or {})
    if unknown := sorted(set(sources) - set(models)):
        raise ValueError(f"sources name models that are not written: {', '.join(unknown)}")
    entries = {}
    for name in sorted(models):
        model = models[name]
        if name in sources:
            paths = [sources[name]] if isinstance(sources[name], (str, os.PathLike)) else sources[name]
            hashed = {Path(path).as_posix(): sha256_of(path) for path in paths}
            sources_of_model = tuple({"file": log, "sha256": sha256} for log, sha256 in hashed.items())
            model = dataclasses.replace(model, sources=sources_of_model)
        entries[name] = model.to_json()
    for name, steps in _steps_of(path).items():
        entries[name] = {**entries.get(name, {}), "steps": steps}
    write_entries(path, entries)


def write_entries(path, entries: Mapping[str, Mapping]):
    """Write entries of JSON, by model name, as a parameter file."""
    text = json.dumps(entries, indent=2, allow_nan=False) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _steps_of(path) -> dict:
    """Step times in a file that is to be replaced, by model; none of one that is damaged."""
    try:
        entries = read_entries(path)
    except (OSError, ValueError):
        return {}
    return {name: entry["steps"] for name, entry in entries.items() if isinstance(entry, dict) and "steps" in entry}


def read_parameters(path: str | os.PathLike) -> dict[str, ModelOfRuntimes]:
    """Models of a parameter file by name: ours, HELM's or the authors'.

    Models of which it has nothing but step times of a server are left out.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ValueError
        The file is not JSON, an entry is not what it should be, or all are step times; the message has the file and
        the model.

    Examples
    --------
    >>> models = read_parameters("processed_jsons/a100.json")
    >>> round(float(models["openai/davinci"].predict(512, 64)), 2)  # seconds
    5.31
    """
    models = {}
    entries = read_entries(path)
    only_steps = [name for name, entry in entries.items() if isinstance(entry, dict) and list(entry) == ["steps"]]
    for name, entry in entries.items():
        if name in only_steps:
            continue
        try:
            models[name] = model_from_json(entry)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    if only_steps and not models:
        raise ValueError(
            f"{path}: holds the step times of a server alone (of {', '.join(only_steps)}), which `serving simulate` "
            "takes; runtimes of single queries are fitted to logs by `fit`"
        )
    return models


def read_entries(path) -> dict:
    """Entries of a parameter file as JSON has them, by model name; a ValueError with the path where it is none."""
    try:
        entries = parse_json(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a parameter file: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: a parameter file is a JSON object by model name; got {type(entries).__name__}")
    return entries


def model_from_json(entry: Mapping, *, readers: Mapping[str, Callable] | None = None) -> ModelOfRuntimes:
    """The model of one entry of a parameter file, of the class that made it.

    Parameters
    ----------
    entry : mapping
        One without ``"fit"`` is HELM's: a :class:`PublishedRuntimeModel`.
    readers : mapping of str to callable, optional
        ``from_json`` of classes of other rooms, or of an analyst's own, by the ``method`` that stands under ``"fit"``.

    Raises
    ------
    ValueError
        A key is missing or a value is not what it should be; the message names it.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"parameters of a model are a JSON object; got {type(entry).__name__}")
    readers = {**_READERS, **(readers or {})}
    try:
        if "fit" not in entry:
            return PublishedRuntimeModel.from_json(entry)
        if not isinstance(fit := entry["fit"], Mapping):
            raise ValueError(f"fit must be an object; got {fit!r:.60}")
        if fit["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"fit.schema_version must be {SCHEMA_VERSION}; got {fit['schema_version']!r}")
        if fit["method"] not in readers:
            raise ValueError(f"fit.method must be one of {', '.join(readers)}; got {fit['method']!r}")
        return readers[fit["method"]](entry)
    except KeyError as error:
        raise ValueError(f"parameters lack the key {error}") from error
    except (TypeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"parameters are not what their method writes: {error}") from error
