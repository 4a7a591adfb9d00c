"""Runtime models: t(p, o) = prompt_encoding_time(p) + (o - 1) g(p), fitted to a few timed settings.

``protocol`` is what every model of runtimes can do. ``model`` is the weighted fit: ``settings`` checks the frame and
makes one row a setting, ``linear`` is the weighted least-squares fit, ``uncertainty`` its covariance and tests,
``interpolation`` gives prompt times between profiled sizes, ``weighted`` puts them together, ``intervals`` follow.
``published`` is the procedure of arXiv:2305.02440, ``formula`` an analyst's own fit, ``batched`` the fit of batches on
pipelines, ``denoised`` that of APIs. ``knee`` and ``tables`` say what was fitted; ``parameters`` reads and writes files
of ``entries``; ``statistics`` is what several rooms compute with.
"""

from collections.abc import Callable
from functools import partial

import pandas as pd

from idealized_runtime.fits.formula import FormulaModel
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.parameters import model_from_json, read_parameters, write_parameters
from idealized_runtime.fits.protocol import ModelOfRuntimes, NoIntervalError
from idealized_runtime.fits.published import PublishedRuntimeModel
from idealized_runtime.fits.settings import settings_of_batch

__all__ = [
    "FormulaModel",
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
    """The fit that a notebook's parameter names: ``"weighted"``, ``"published"``, or a formula of statsmodels."""
    if "~" in name:
        return partial(FormulaModel, name)
    fits = {model.method: model.fit for model in (RuntimeModel, PublishedRuntimeModel)}
    if name not in fits:
        raise ValueError(f"a fit must be one of {', '.join(fits)}, or a formula 'runtime_s ~ terms'; got {name!r}")
    return fits[name]
