"""Missing values are kept, named and counted: one warning for each cause."""

import warnings

import numpy as np
import pandas as pd


class MissingValueWarning(UserWarning):
    """Rows that have no result, because something they need is missing."""


def warn_missing(is_missing: np.ndarray, cause: str, *, labels=None, stacklevel: int = 2):
    """Warn once of the rows that are missing for one cause; silent where there are none.

    Parameters
    ----------
    is_missing : array of bool
        One a row.
    cause : str
        What they lack, and what becomes of them.
    labels : array, optional
        One a row, such as its model: the first distinct ones are named, each with its count.
    stacklevel : int
        Whose line the warning shows: 1 for the caller of this function, 2 for its caller.
    """
    num_missing = int(np.count_nonzero(is_missing))
    if num_missing:
        named = "" if labels is None else ": " + _counts(pd.Series(labels).to_numpy(dtype=object)[is_missing])
        warnings.warn(
            f"{num_missing} of {len(is_missing)} rows {cause}{named}", MissingValueWarning, stacklevel=stacklevel + 1
        )


def _counts(labels, most=8):
    counts = pd.Series(labels).value_counts(dropna=False, sort=False)
    named = ", ".join(
        ("(no name)" if pd.isna(label) else str(label)) + (f" ({count})" if count > 1 else "")
        for label, count in counts.head(most).items()
    )
    return named + (f" and {len(counts) - most} more" if len(counts) > most else "")
