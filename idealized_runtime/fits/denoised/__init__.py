"""Denoised runtime of models behind APIs: what a query takes when nothing disturbs it.

``order_statistics`` takes the least of repeated trials and fits it as the paper does; ``stochastic_frontier`` models
the disturbance instead and fits all trials at once; ``noise`` tests which of them holds for some trials; ``simulation``
compares them where the truth is known.
"""

from idealized_runtime.fits.denoised.noise import ScatterFinding, find_scatter
from idealized_runtime.fits.denoised.order_statistics import (
    ESTIMATORS,
    UnequalTrialsWarning,
    fit_denoised,
    floor_runtimes,
)
from idealized_runtime.fits.denoised.simulation import ApiNoise, compare_estimators, simulate_trials
from idealized_runtime.fits.denoised.stochastic_frontier import FrontierFit, fit_frontier

__all__ = [
    "ESTIMATORS",
    "ApiNoise",
    "FrontierFit",
    "ScatterFinding",
    "UnequalTrialsWarning",
    "compare_estimators",
    "find_scatter",
    "fit_denoised",
    "fit_frontier",
    "floor_runtimes",
    "simulate_trials",
]
