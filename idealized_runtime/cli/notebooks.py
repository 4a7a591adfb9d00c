"""Every papermill run."""

from idealized_runtime.notebooks import main

__all__ = ["main"]
