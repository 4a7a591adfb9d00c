"""Training runs from a CSV file: size, training tokens and final loss."""

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns

# What arXiv:2401.00448's trainingresults.csv calls them.
COLUMNS = {"num_params": "Parameters", "num_training_tokens": "Tokens", "loss": "Smoothed Loss"}
# Below this a ratio computed from two columns equals its cutoff but for rounding.
_CUTOFF_TOLERANCE = 1e-9


def read_training_runs(path, *, columns=None, max_training_tokens_per_param=None) -> pd.DataFrame:
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
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    check_columns(table, names.values(), name=str(path))
    runs = pd.DataFrame({ours: _numbers(path, table[theirs]) for ours, theirs in names.items()})
    limit = ""
    if max_training_tokens_per_param is not None:
        ratio = runs["num_training_tokens"] / runs["num_params"]
        runs = runs[ratio <= max_training_tokens_per_param * (1 + _CUTOFF_TOLERANCE)].reset_index(drop=True)
        limit = f" with {max_training_tokens_per_param:g} tokens a parameter or fewer"
    if runs.empty:
        raise ValueError(f"{path} has no runs{limit}")
    return runs


def _numbers(path, column) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(numbers) & (numbers > 0))
    if bad.any():
        row = int(np.argmax(bad))
        # The header is line 1.
        raise ValueError(
            f"{path}, line {row + 2}: {column.name!r} must be a positive finite number; got {column.iloc[row]!s} "
            f"({np.count_nonzero(bad)} of {len(bad)} rows)"
        )
    return numbers
