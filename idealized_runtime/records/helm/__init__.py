"""HELM (arXiv:2211.09110): its run folders as one tidy frame, its runtime parameters in and out."""

from idealized_runtime.records.helm.folders import NoRunsError
from idealized_runtime.records.helm.runs import COLUMNS, RepeatedRunWarning, SkippedRunWarning, read_runs

__all__ = [
    "COLUMNS",
    "NoRunsError",
    "RepeatedRunWarning",
    "SkippedRunWarning",
    "read_runs",
]
