"""Training runs from a CSV file: size, training tokens and final loss."""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from pyarrow import csv

from idealized_runtime.checks import numeric_columns

# What arXiv:2401.00448's trainingresults.csv calls them.
COLUMNS = {"num_params": "Parameters", "num_training_tokens": "Tokens", "loss": "Smoothed Loss"}
# Least and most of what a run can be.
_PLAUSIBLE = {"num_params": (1, 1e18), "num_training_tokens": (1, 1e18), "loss": (1e-3, 100)}
# Below this a ratio computed from two columns equals its cutoff but for rounding.
_CUTOFF_TOLERANCE = 1e-9


def read_training_runs(
    path: str | os.PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    max_training_tokens_per_param: float | None = None,
) -> pd.DataFrame:
    """Training runs, one row a run.

    Parameters
    ----------
    path : str or Path
        CSV with a header; other columns than the three that are named do not matter.
    columns : mapping, optional
        The file's names of ``num_params``, ``num_training_tokens`` and ``loss``; those left out are named as in
        ``trainingresults.csv`` (``Parameters``, ``Tokens``, ``Smoothed Loss``).
    max_training_tokens_per_param : float, optional
        Runs with more are left out: the original's ``--cutoff``.

    Returns
    -------
    DataFrame
        Columns ``num_params, num_training_tokens, loss`` (nats a token).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no CSV, lacks a column or rows, or holds something other than positive finite numbers.
    """
    names = {**COLUMNS, **(columns or {})}
    with Path(path).open("rb") as file:
        try:
            # Stricter than pandas, for which a row may lack fields.
            table = csv.read_csv(file).to_pandas()
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    if twice := [name for name in names.values() if list(table).count(name) > 1]:
        raise ValueError(f"{path}: two columns are named {twice[0]!r}")
    runs = pd.DataFrame(dict(zip(names, numeric_columns(table, names.values(), name=str(path)), strict=True)))
    for ours, theirs in names.items():
        least, most = _PLAUSIBLE[ours]
        if (bad := ~runs[ours].between(least, most)).any():
            # The header is line 1.
            raise ValueError(
                f"{path}, line {bad.idxmax() + 2}: {theirs!r} must be a positive finite number, from {least:g} to "
                f"{most:g}; got {runs[ours][bad.idxmax()]:g} ({bad.sum()} of {len(bad)} rows)"
            )
    limit = ""
    if max_training_tokens_per_param is not None:
        ratio = runs["num_training_tokens"] / runs["num_params"]
        runs = runs[ratio <= max_training_tokens_per_param * (1 + _CUTOFF_TOLERANCE)].reset_index(drop=True)
        limit = f" with {max_training_tokens_per_param:g} tokens a parameter or fewer"
    if runs.empty:
        raise ValueError(f"{path} has no runs{limit}")
    return runs
