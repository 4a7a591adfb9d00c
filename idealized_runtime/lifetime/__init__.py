"""What to train: the model size and number of training tokens that cost least over training and serving.

``scaling_law`` holds the loss law and its published coefficients, ``costs`` what training and inference cost,
``optimum`` the solver. ``training_runs`` are read, ``fitting`` fits a law to them by the objective in ``log_huber``,
``bootstrap`` gives its intervals, ``law_files`` keep it, and ``fitted_range`` says what lies beyond. ``measured`` puts
timed models in place of a guessed utilisation: ``profiles`` of parameter files, their ``size_curve``, and the
``comparison`` with the guess. ``planned`` puts servers in their place, each at the largest rate that it bears within
objectives, ``served`` published servers, and ``electricity`` tells kilowatt hours and CO2.
"""

import idealized_runtime

# Resolved on first use, so that a command which only needs a part does not wait for pandas.
_MODULES = {
    "scaling_law": ("SCALING_LAWS", "ModelSize", "ScalingLaw", "chinchilla_size", "get_scaling_law", "size_from"),
    "costs": ("LifetimeCosts", "LinearCost", "Rental", "dollar_costs", "flop_costs", "rent"),
    "optimum": ("LifetimeOptimum", "minimize_lifetime_cost"),
    "training_runs": ("read_training_runs",),
    "fitting": ("ScalingLawFit", "fit_scaling_law"),
    "bootstrap": ("bootstrap_scaling_law", "coefficient_intervals", "draws_that_reach", "optimum_intervals"),
    "profiles": ("read_profiles",),
    "size_curve": ("SizeCurve",),
    "measured": ("MeasuredQueryCost", "profile_table"),
    "planned": ("PlannedQueryCosts", "predicted_servers"),
    "served": ("ServedQueryCost",),
    "electricity": ("Electricity",),
    "comparison": (
        "Assumptions",
        "chinchilla_ratio_maps",
        "compare_servings",
        "compare_with_guess",
        "sizing_table",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_HOMES]

__getattr__, __dir__ = idealized_runtime.resolve_late(__name__, _HOMES)
