"""HELM's runtime parameters, in and out: ``inference_{idealized,denoised}_runtimes.json``."""

from collections.abc import Mapping

from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.fits import RuntimeModel, read_parameters, write_parameters


def read_efficiency_json(path) -> dict[str, RuntimeModel]:
    """Runtime models of one of HELM's efficiency files, by HELM's model name.

    They estimate as HELM does. The format is this project's parameter file without what stands under
    ``"fit"``, and a file with it reads the same.

    Raises
    ------
    ValueError
        See :func:`idealized_runtime.fits.read_parameters`.
    """
    return read_parameters(path)


def write_efficiency_json(path, models: Mapping[str, RuntimeModel]) -> None:
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
    renamed = {}
    for name, model in models.items():
        bare = RuntimeModel.from_json({key: value for key, value in model.to_json().items() if key != "fit"})
        for helm_name in _helm_names(name):
            if helm_name in renamed:
                raise ValueError(f"{path}: two models for the HELM name {helm_name!r}; {name!r} is the second")
            renamed[helm_name] = bare
    write_parameters(path, renamed)


def _helm_names(name: str) -> tuple[str, ...]:
    architecture = ARCHITECTURES.get(name)
    return (architecture and architecture.helm_names) or (name,)
