"""Measurements by the name of their hardware: this project's ``logs/<hardware>/`` and the published ones."""

import contextlib
import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import published_architecture
from idealized_runtime.fits import RuntimeModel, settings_of_batch
from idealized_runtime.measurements.published import ROOT, PublishedDataMissingError, published_data
from idealized_runtime.records import read_log

PUBLISHED_LOGS = "helm-efficiency/logs"
_LOG_SUFFIXES = (".jsonl", ".log")


def find_logs(hardware: str, models: Iterable[str] | None = None) -> list[Path]:
    """Timing logs of one piece of hardware, one a model, in the order of ``models`` or else of file names.

    Parameters
    ----------
    hardware : str
        A folder of logs: a path, or the name of a folder under ``logs/`` (looked for in the working
        directory, its parent and the repository root) or among the published measurements (``"a100"``).
    models : iterable of str, optional
        Only these: names of the registry, or file stems. Every model where it is not given.

    Raises
    ------
    PublishedDataMissingError
        No folder has this name; the message lists the names there are.
    ValueError
        The folder holds no log of a model asked for; the message lists the models it holds.
    """
    paths = _logs_in(_find_folder(hardware))
    if models is None:
        return paths
    models = [models] if isinstance(models, str) else list(models)
    by_model = {model_of_log(path): path for path in paths}
    by_name = {**{path.stem: path for path in paths}, **by_model}
    if missing := [model for model in models if model not in by_name]:
        near = difflib.get_close_matches(missing[0], by_name, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"no {hardware} log of {', '.join(missing)}{hint}; there are: {', '.join(by_model)}")
    return list(dict.fromkeys(by_name[model] for model in models))


def read_logs(hardware: str, models: Iterable[str] | None = None) -> dict[str, pd.DataFrame]:
    """Timings of each model on one piece of hardware: :func:`find_logs`, each read by ``read_log``.

    Returns
    -------
    dict of DataFrame
        By model name, in the order of :func:`find_logs`; one row a setting. ``attrs["source"]`` of each
        has the log's ``file`` (with its folder, the same on every machine) and ``sha256``.

    Raises
    ------
    ValueError
        As :func:`find_logs`; or two logs hold the same model.
    """
    frames = {}
    for path in find_logs(hardware, models):
        frame = read_log(path)
        model = frame["model"].iloc[0]
        if model in frames:
            raise ValueError(f"{path}: a second log of {model} on {hardware}; keep one of them in the folder")
        frame.attrs["source"] = {
            "file": "/".join(path.parts[-2:]),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        frames[model] = frame
    return frames


def fit_models(
    logs: Mapping[str, pd.DataFrame], *, method: str = "weighted", batch_size: int | None = None
) -> dict[str, RuntimeModel]:
    """Runtime model of each log of :func:`read_logs`, with the log as its source.

    Parameters
    ----------
    logs : mapping of model to DataFrame
    method : {"weighted", "published"}
    batch_size : int, optional
        That of several in a log which is fitted; one prompt size and one number of output tokens are then enough
        (see :func:`~idealized_runtime.fits.settings_of_batch`). Without it a log must hold one batch size.

    Raises
    ------
    ValueError
        A log cannot be fitted; the message begins with its model.
    """
    fits = {}
    for name, runtimes in logs.items():
        try:
            if batch_size is None:
                fit = RuntimeModel.fit(runtimes, method=method)
            else:
                fit = RuntimeModel.fit(settings_of_batch(runtimes, batch_size), method=method, min_prompt_sizes=1)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        fits[name] = dataclasses.replace(fit, sources=(runtimes.attrs["source"],))
    return fits


def model_of_log(path) -> str:
    """Model name of a log by its file name: the registry row's for a published log, else the stem."""
    row = published_architecture(Path(path).stem)
    return Path(path).stem if row is None else row.name


def _find_folder(hardware) -> Path:
    folders = _candidate_folders(hardware)
    for folder in folders:
        if folder.is_dir() and _logs_in(folder):
            return folder
    names = sorted({name for folder in folders for name in _folders_beside(folder)})
    raise PublishedDataMissingError(
        f"no timing logs of hardware {hardware!r} in {' or '.join(str(folder.parent) for folder in folders)}. "
        f"There are: {', '.join(names) or 'none'}. `make figures` measures this machine as 'local', "
        "`make published` gets 'a100' and 'v100', generate_text.py --log logs/NAME/MODEL.jsonl makes another"
    )


def _candidate_folders(hardware) -> list[Path]:
    roots = dict.fromkeys(path.resolve() for path in (Path(), Path(".."), ROOT))
    folders = [root / "logs" / hardware for root in roots]
    if Path(hardware).name != str(hardware):
        folders.insert(0, Path(hardware))
    with contextlib.suppress(PublishedDataMissingError):
        folders.append(published_data(PUBLISHED_LOGS) / hardware)
    return folders


def _folders_beside(folder) -> list[str]:
    if not folder.parent.is_dir():
        return []
    return [path.name for path in folder.parent.iterdir() if path.is_dir() and _logs_in(path)]


def _logs_in(folder) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _LOG_SUFFIXES)
