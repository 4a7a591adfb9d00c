"""Folders of timing logs, by name: this project's ``logs/<name>/`` and the published ones."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from idealized_runtime.architectures import published_architecture
from idealized_runtime.checks import did_you_mean
from idealized_runtime.measurements import published
from idealized_runtime.measurements.published import PublishedDataMissingError, published_data

PUBLISHED_LOGS = "helm-efficiency/logs"
_LOG_SUFFIXES = (".jsonl", ".log")


def find_logs(name_or_path, models: Iterable[str] | None = None) -> list[Path]:
    """Timing logs of a folder, one a model, in the order of ``models`` or else of file names.

    Parameters
    ----------
    name_or_path : str or path-like
        The path of a folder of logs, or of one log. Or a name: that of a folder under ``logs/``, of the working
        directory or else of the repository, or of one of the published measurements (``"a100"``, ``"v100"``).
    models : iterable of str, optional
        Only these: names of the registry, or file stems. Every model where it is not given.

    Raises
    ------
    PublishedDataMissingError
        There are no logs of this name; the message lists the names there are.
    ValueError
        The folder holds no log of a model asked for; the message lists the models it holds.
    """
    paths = _find_folder(name_or_path)
    if models is None:
        return paths
    models = [models] if isinstance(models, str) else list(models)
    if not models:
        raise ValueError(f"no model of the {name_or_path} logs is named; None takes every one")
    by_model = {_model_of_log(path): path for path in paths}
    by_name = {**{path.stem: path for path in paths}, **by_model}
    if missing := [model for model in models if model not in by_name]:
        hint = did_you_mean(missing[0], by_name)
        raise ValueError(f"no {name_or_path} log of {', '.join(missing)}{hint}; there are: {', '.join(by_model)}")
    return list(dict.fromkeys(by_name[model] for model in models))


def _find_folder(name_or_path) -> list[Path]:
    """The logs of the first place that has any."""
    if Path(name_or_path).is_file():
        return [Path(name_or_path)]
    places = [Path("logs"), published.ROOT / "logs"]
    with contextlib.suppress(PublishedDataMissingError):
        places.append(published_data(PUBLISHED_LOGS))
    for folder in (Path(name_or_path), *(place / name_or_path for place in places)):
        if logs := _logs_in(folder):
            return logs
    folders = [folder for place in places if place.is_dir() for folder in place.iterdir()]
    names = sorted({folder.name for folder in folders if _logs_in(folder)})
    raise PublishedDataMissingError(
        f"no timing logs of hardware {str(name_or_path)!r}, which may be a path, or a name in "
        f"{' or '.join(dict.fromkeys(str(place.absolute()) for place in places))}. "
        f"There are: {', '.join(names) or 'none'}. "
        "`make figures` measures this machine as 'local', `make published` gets 'a100' and 'v100', "
        "generate_text.py --log logs/NAME/MODEL.jsonl makes another"
    )


def _logs_in(folder) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _LOG_SUFFIXES)


def _model_of_log(path) -> str:
    """Model name of a log by its file name: the registry row's for a published log, else the stem."""
    row = published_architecture(path.stem)
    return path.stem if row is None else row.name
