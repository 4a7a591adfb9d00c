"""The architecture that a command line names, by --architecture or by --hf-config."""

import json
from pathlib import Path

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.registry import get_architecture


def architecture_of_flags(name: str | None, hf_config: Path | None) -> Architecture:
    """Row of the registry called ``name``; without a name, the model of a Hugging Face ``config.json``.

    A configuration that does not say what it is called takes the name of :func:`name_of_hf_config`.

    Raises
    ------
    ValueError
        There is no such row, or the file cannot be read or describes no model that is counted here.
    """
    if name is not None:
        return get_architecture(name)
    try:
        config = json.loads(hf_config.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"--hf-config {hf_config}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"--hf-config {hf_config} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"--hf-config {hf_config} is not a JSON object")
    given = None if config.get("_name_or_path") else name_of_hf_config(hf_config)
    return Architecture.from_hf_config(config, name=given)


def name_of_hf_config(path: Path) -> str:
    """What to call the model of ``NAME/config.json`` or ``NAME.json``: NAME."""
    return path.resolve().parent.name if path.stem == "config" else path.stem
