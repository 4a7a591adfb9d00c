"""Runtime models: t(p, o) = prompt_encoding_time(p) + (o - 1) g(p), fitted to a few timed settings.

``protocol`` is what every model of runtimes can do, and ``profiled`` what those with profiled prompt sizes share.
``model`` is the weighted fit: ``settings`` checks the frame and makes one row a setting, ``linear`` is the weighted
least-squares fit, ``uncertainty`` its covariance and tests, ``interpolation`` gives prompt times between profiled
sizes, ``weighted`` puts them together, ``intervals`` are what follows. ``published`` is the procedure of
arXiv:2305.02440; ``parameters`` reads and writes the files; ``statistics`` is what several rooms compute with.
"""

from collections.abc import Callable

import pandas as pd

from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.parameters import model_from_json, read_parameters, write_parameters
from idealized_runtime.fits.protocol import ModelOfRuntimes, NoIntervalError
from idealized_runtime.fits.published import PublishedRuntimeModel
from idealized_runtime.fits.settings import settings_of_batch

__all__ = [
    "ModelOfRuntimes",
    "NoIntervalError",
    "PublishedRuntimeModel",
    "RuntimeModel",
    "fit_by_name",
    "model_from_json",
    "read_parameters",
    "settings_of_batch",
    "write_parameters",
]


def fit_by_name(name: str) -> Callable[[pd.DataFrame], ModelOfRuntimes]:
    """The fit that a word of a notebook names: ``"weighted"`` (:class:`RuntimeModel`) or ``"published"``."""
    fits = {model.method: model.fit for model in (RuntimeModel, PublishedRuntimeModel)}
    if name not in fits:
        raise ValueError(f"a fit must be one of {', '.join(fits)}; got {name!r}")
    return fits[name]
