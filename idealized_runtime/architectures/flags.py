"""The architecture that a word of a command line names: a row of the registry, or a Hugging Face ``config.json``."""

import json
from pathlib import Path

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.registry import get_architecture


def architecture_of_model(model: str) -> Architecture:
    """Row of the registry of this name; of a path, or a name that ends in ``.json``, :func:`read_hf_config`.

    Raises
    ------
    ValueError
        There is no such row, or the file cannot be read or describes no model that is counted here.
    """
    path = Path(model)
    return read_hf_config(path) if path.suffix == ".json" or path.is_file() else get_architecture(model)


def read_hf_config(path: Path) -> Architecture:
    """The model of a ``config.json``; one that does not say what it is called is called by :func:`name_of_hf_config`.

    Raises
    ------
    ValueError
        The file cannot be read or describes no model that is counted here.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")
    return Architecture.from_hf_config(config, name=None if config.get("_name_or_path") else name_of_hf_config(path))


def name_of_hf_config(path: Path) -> str:
    """What to call the model of ``NAME/config.json`` or ``NAME.json``: NAME."""
    return path.resolve().parent.name if path.stem == "config" else path.stem
