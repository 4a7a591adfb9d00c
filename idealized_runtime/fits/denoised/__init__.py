"""Denoised runtime of models behind APIs: what a query takes when nothing disturbs it.

``floors`` takes the least of repeated trials and fits it as the paper does; ``frontier`` models the disturbance
instead and fits all trials at once; ``simulation`` compares both where the truth is known.
"""

from idealized_runtime.fits.denoised.floors import ESTIMATORS, fit_denoised, floor_runtimes
from idealized_runtime.fits.denoised.frontier import FrontierFit, fit_frontier
from idealized_runtime.fits.denoised.simulation import ApiNoise, compare_estimators, simulate_trials

__all__ = [
    "ESTIMATORS",
    "ApiNoise",
    "FrontierFit",
    "compare_estimators",
    "fit_denoised",
    "fit_frontier",
    "floor_runtimes",
    "simulate_trials",
]
