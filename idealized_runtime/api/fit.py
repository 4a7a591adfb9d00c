"""Denoised parameters of a log of API trials."""

import pandas as pd

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.records import read_trials


def fit_log(path, *, estimator: str = "minimum") -> tuple[pd.DataFrame, RuntimeModel]:
    """Trials of a log that a fit may use, and the denoised model of them.

    Parameters
    ----------
    path : path-like
    estimator : str
        As for :func:`~idealized_runtime.fits.denoised.fit_denoised`.

    Returns
    -------
    trials : DataFrame, one row a trial
        As from :func:`~idealized_runtime.records.read_trials`.
    model : RuntimeModel
        Unrounded, with ``overhead_s`` and intervals.

    Raises
    ------
    ValueError
        The log cannot be read, or holds too few settings for a fit.
    """
    trials = read_trials(path)
    return trials, fit_denoised(trials, estimator=estimator, fit=RuntimeModel.fit)
