"""Queries as tables: every pair of a grid, or the rows of a file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns
from idealized_runtime.measurements.published import ROOT, published_data

_TOKENS = ["num_prompt_tokens", "num_output_tokens"]


def grid_workload(prompt_sizes: Iterable[int], output_sizes: Iterable[int]) -> pd.DataFrame:
    """Every pair of a prompt and an output size: ``num_prompt_tokens``, ``num_output_tokens``."""
    return pd.DataFrame([(p, o) for p in prompt_sizes for o in output_sizes], columns=_TOKENS)


def read_workload(path) -> pd.DataFrame:
    """Queries of a CSV file, one a row, in the order of the file.

    Parameters
    ----------
    path : path-like
        From the working directory, from the repository root or from the folder of published data.

    Returns
    -------
    DataFrame
        ``num_prompt_tokens, num_output_tokens`` and whatever columns stand beside them.

    Raises
    ------
    PublishedDataMissingError
        There is no such file.
    ValueError
        A column is missing, or a number of tokens is no positive integer; the message names the first such row.
    """
    places = [root / path for root in (Path(), ROOT) if (root / path).is_file()]
    queries = pd.read_csv(places[0] if places else published_data(str(path)))
    check_columns(queries, _TOKENS, name=str(path))
    sizes = queries[_TOKENS].apply(pd.to_numeric, errors="coerce")
    is_wrong = ~((sizes >= 1) & (sizes % 1 == 0)).all(axis=1)
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise ValueError(
            f"{path}: numbers of tokens are integers of at least 1; row {row + 1} of {len(queries)} holds "
            f"{queries[_TOKENS].iloc[row].to_dict()}"
        )
    return queries.astype(dict.fromkeys(_TOKENS, int))
