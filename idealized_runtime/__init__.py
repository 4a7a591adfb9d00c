"""What a Transformer costs to run: measure a few queries, fit a small model, price every query."""

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


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
