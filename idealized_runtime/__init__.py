"""What a Transformer costs to run: measure a few queries, fit a small model, price every query."""

import sys
from importlib import import_module

# Resolved on first use, so that a command which only needs a part does not wait for pandas or scipy.
_HOMES = {
    "Architecture": "architectures",
    "get_architecture": "architectures",
    "read_log": "records",
    "read_trials": "records",
    "read_requests": "records",
    "RuntimeModel": "fits",
    "BatchRuntimeModel": "fits.batched.model",
    "read_parameters": "fits",
    "write_parameters": "fits",
    "fit_denoised": "fits.denoised",
    "get_accelerator": "hardware.accelerators",
    "pareto_frontier": "comparisons.frontier",
    "price": "queries.price",
    "rank": "comparisons.frontier",
    "read_queries": "queries.tables",
    "read_runs": "records.helm",
}
__all__ = [*_HOMES]


def resolve_late(package: str, homes: dict):
    """``__getattr__`` and ``__dir__`` of a package that imports the modules of these names on first use."""

    def get(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *homes})


__getattr__, __dir__ = resolve_late(__name__, _HOMES)
