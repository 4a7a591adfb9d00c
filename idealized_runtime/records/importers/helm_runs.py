"""Runs of HELM: an instance a request, with the runtime that HELM measured."""

import warnings

import numpy as np
import pandas as pd

from idealized_runtime.checks import MissingValueWarning, warn_missing
from idealized_runtime.records import TOKEN_COLUMNS, definitions
from idealized_runtime.records.helm import read_runs
from idealized_runtime.records.importers.common import make_header
from idealized_runtime.records.requests import requests_frame


def import_runs(folder, *, hardware: str | None) -> pd.DataFrame:
    """One row an instance of every HELM run at or below a folder that has a runtime, in the columns of a request.

    HELM neither streams nor says when it sent a query. Instances that took several requests have mean token counts;
    they deviate, and no fit uses them.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, NoRunsError
        As :func:`idealized_runtime.records.helm.read_runs`.

    Warns
    -----
    MissingValueWarning
        Instances without tokens or runtime, which are left out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no accuracy", category=MissingValueWarning)
        runs = read_runs(folder)
    numbers = runs[[*TOKEN_COLUMNS, "raw_runtime_s"]].to_numpy(dtype=float)
    is_missing = ~(np.isfinite(numbers) & (numbers > 0)).all(axis=1)
    warn_missing(is_missing, "have no tokens or runtime and are left out", labels=runs["scenario"])
    runs, numbers = runs[~is_missing].reset_index(drop=True), numbers[~is_missing]
    is_mean = (numbers[:, :2] % 1 != 0).any(axis=1)
    header = make_header("", software="HELM", hardware=hardware)
    # One plain request tells all that is the same of them.
    plain = {**dict.fromkeys(TOKEN_COLUMNS, 1), "trial": 0, "runtime_s": 1.0, "definitions": definitions.HELM}
    columns = requests_frame(header, [plain])
    frame = pd.DataFrame({name: np.repeat(columns[name].array, len(runs)) for name in columns})
    # HELM's tables round means as well.
    sizes = pd.DataFrame(np.maximum(np.rint(numbers[:, :2]), 1), columns=TOKEN_COLUMNS)
    return frame.assign(
        model=runs["model"].astype(str),
        trial=np.arange(len(runs)),
        **{name: sizes[name].astype("Int64") for name in sizes},
        runtime_s=numbers[:, 2],
        deviations=np.where(is_mean, "token counts are means over several requests", ""),
        is_fit=~is_mean,
    )
