"""Queries as tables: the rows of a file or of a HELM run folder, or every pair of a grid."""

import contextlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from idealized_runtime.checks import MissingValueWarning, check_columns, numeric_columns
from idealized_runtime.measurements.published import ROOT, PublishedDataMissingError, published_data
from idealized_runtime.records import TOKEN_COLUMNS

WEIGHT_COLUMN = "weight"
_OPTIONAL_NUMBERS = ("arrival_s", WEIGHT_COLUMN)


def read_queries(source, *, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Queries of a file or folder, one a row, in its order.

    Parameters
    ----------
    source : path-like
        A CSV, ``.json`` (a list of objects), ``.jsonl`` or ``.parquet`` file, from the working directory, the
        repository root or the folder of published data; a folder of HELM runs; or ``"-"``, a CSV on standard input.
    columns : mapping of our name to theirs, optional
        Columns to rename, such as ``{"num_prompt_tokens": "ContextTokens"}``. Times of day that become ``arrival_s``
        are counted from the first of them, in seconds.

    Returns
    -------
    DataFrame
        ``num_prompt_tokens, num_output_tokens``; where they are there ``model``, ``arrival_s`` and ``weight`` (how
        often, or with what share, a row is asked); and whatever stands beside them. Numbers may be missing.

    Raises
    ------
    PublishedDataMissingError
        There is no such file.
    ValueError
        It cannot be read, a column is absent, or one of numbers holds something else; the message begins with the
        source and has the row and the value.
    """
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    try:
        queries = _read(source)
        queries.columns = [str(name).strip() for name in queries.columns]
        check_columns(queries, renamed, name="queries")
        # Ours that is there already gives way.
        queries = queries.drop(columns=set(renamed.values()) - set(renamed), errors="ignore").rename(columns=renamed)
        if not queries.columns.is_unique:
            raise ValueError(f"two columns of one name among {', '.join(queries.columns)}")
        if "arrival_s" in queries and pd.api.types.is_datetime64_any_dtype(queries["arrival_s"]):
            queries["arrival_s"] = (queries["arrival_s"] - queries["arrival_s"].min()).dt.total_seconds()
        numbers = [*TOKEN_COLUMNS, *(name for name in _OPTIONAL_NUMBERS if name in queries)]
        numeric_columns(queries, numbers, name="queries")
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return queries


def grid_queries(prompt_sizes: Iterable[int], output_sizes: Iterable[int]) -> pd.DataFrame:
    """Every pair of a prompt and an output size: ``num_prompt_tokens``, ``num_output_tokens``."""
    return pd.DataFrame([(p, o) for p in prompt_sizes for o in output_sizes], columns=TOKEN_COLUMNS)


def _read(source) -> pd.DataFrame:
    if str(source) == "-":
        return _read_csv(sys.stdin.buffer)
    roots = [Path(), ROOT]
    with contextlib.suppress(PublishedDataMissingError):
        roots.append(published_data())
    path = next((root / source for root in roots if (root / source).exists()), None)
    if path is None:
        raise PublishedDataMissingError(f"{source}: no such file, here, in the repository or among the published data")
    if path.is_dir():
        from idealized_runtime.records.helm import read_runs

        with warnings.catch_warnings():
            # Accuracies have no part in what a query costs.
            warnings.filterwarnings("ignore", ".* have no accuracy", MissingValueWarning)
            return read_runs(path)
    match path.suffix:
        case ".parquet":
            return pd.read_parquet(path)
        case ".json" | ".jsonl":
            return pd.read_json(path, lines=path.suffix == ".jsonl")
    return _read_csv(path)


def _read_csv(source) -> pd.DataFrame:
    """Stricter than pandas, for which a row may lack fields: such a row is refused with its number."""
    from pyarrow import csv

    return csv.read_csv(source).to_pandas()
