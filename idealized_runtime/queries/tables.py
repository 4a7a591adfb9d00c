"""Queries as tables: the rows of a file or of a HELM run folder, or every pair of a grid."""

import contextlib
import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.checks import MissingValueWarning, check_columns, numeric_columns, parse_json, warn_missing
from idealized_runtime.measurements.published import ROOT, PublishedDataMissingError, published_data
from idealized_runtime.records import TOKEN_COLUMNS

WEIGHT_COLUMN = "weight"
# No query has as many: a number that is damaged, or of something else.
_MOST_TOKENS = 1e7
_OPTIONAL_NUMBERS = ("arrival_s", WEIGHT_COLUMN)
_OURS = {*TOKEN_COLUMNS, *_OPTIONAL_NUMBERS, "model"}
# A field that so small a share of the rows has is one whose name was damaged.
_FEW_ROWS = 0.1
# With or without separators of thousands.
_NUMBER = r" *((\d{1,3}(,\d{3})+|\d+)(\.\d+)?)? *"


def read_queries(source: str | os.PathLike, *, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
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
        It is no table, a column is absent, one of numbers holds something else, a weight is negative, or a size
        is beyond what any query has; the message begins with the source and has the row and the value.

    Examples
    --------
    >>> read_queries("docs/queries.csv").head(2).to_dict("list")
    {'num_prompt_tokens': [777, 32], 'num_output_tokens': [123, 512]}
    """
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    try:
        queries = _read(source)
        if not all(isinstance(name, str) and name.isprintable() for name in queries.columns):
            raise ValueError("not a table of queries (its columns have no names)")
        queries.columns = _plain_names(queries.columns)
        for name, number in queries.notna().sum().items():
            if name not in _OURS and 0 < number <= max(1, _FEW_ROWS * len(queries)) < len(queries) / 2:
                said = f"queries: {name!r:.60} stands in {number} of {len(queries)} rows, and is not read"
                warnings.warn(said, MissingValueWarning, stacklevel=3)
        check_columns(queries, renamed, name="queries")
        # Ours that is there already gives way.
        queries = queries.drop(columns=set(renamed.values()) - set(renamed), errors="ignore").rename(columns=renamed)
        if not queries.columns.is_unique:
            raise ValueError(f"two columns of one name among {', '.join(queries.columns)}")
        if "arrival_s" in queries and pd.api.types.is_datetime64_any_dtype(queries["arrival_s"]):
            queries["arrival_s"] = (queries["arrival_s"] - queries["arrival_s"].min()).dt.total_seconds()
        if absent := [name for name in TOKEN_COLUMNS if name not in queries]:
            pairs = ",".join(f"{name}=THEIRS" for name in absent)
            raise ValueError(
                f"queries: no column {', '.join(absent)}; needed: {', '.join(TOKEN_COLUMNS)}; there are: "
                f"{', '.join(queries.columns)}. Say what theirs are called: on the command line --columns {pairs}, in "
                f"Python columns={{{absent[0]!r}: THEIRS}}"
            )
        numbers = [*TOKEN_COLUMNS, *(name for name in _OPTIONAL_NUMBERS if name in queries)]
        for name in numbers:
            queries[name] = _without_separators(queries[name])
        values = dict(zip(numbers, numeric_columns(queries, numbers, name="queries"), strict=True))
        weights = values.get(WEIGHT_COLUMN, np.zeros(0))
        for name, wrong, allowed in (
            (WEIGHT_COLUMN, (weights < 0) | np.isinf(weights), "weights must be finite, not negative"),
            *(
                (name, values[name] > _MOST_TOKENS, f"{name} must be {_MOST_TOKENS:g} or less")
                for name in TOKEN_COLUMNS
            ),
        ):
            if (rows := np.flatnonzero(wrong)).size:
                raise ValueError(
                    f"queries: {allowed}; the first that is not is in row {rows[0] + 1} of {len(queries)}: "
                    f"{values[name][rows[0]]:g}"
                )
        if WEIGHT_COLUMN in values:
            has_sizes = ~np.isnan(values[TOKEN_COLUMNS[0]] + values[TOKEN_COLUMNS[1]])
            warn_missing(np.isnan(weights) & has_sizes, f"of {source} have no {WEIGHT_COLUMN}, and count for nothing")
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return queries


def grid_queries(prompt_sizes: Iterable[int], output_sizes: Iterable[int]) -> pd.DataFrame:
    """Every pair of a prompt and an output size: ``num_prompt_tokens``, ``num_output_tokens``."""
    pairs = [(p, o) for p in prompt_sizes for o in output_sizes]
    if not pairs:
        raise ValueError("a grid of queries has at least one prompt size and one output size")
    return pd.DataFrame(pairs, columns=TOKEN_COLUMNS)


def _plain_names(names) -> list[str]:
    """Names of columns without the spaces around them, those that only differ from ours in their case as ours."""
    names = [name.strip() for name in names]
    if any(name == "" for name in names[1:]):
        warnings.warn("queries: a column without a name is not read", MissingValueWarning, stacklevel=4)
    plain = [one if (one := name.casefold().replace(" ", "_")) in _OURS - set(names) else name for name in names]
    for name in sorted(_OURS - set(plain)):
        if near := difflib.get_close_matches(name, [one for one in plain if one not in _OURS], n=1, cutoff=0.8):
            message = f"queries: column {near[0]!r} is not read; if it is the {name}, give --columns {name}={near[0]}"
            warnings.warn(message, MissingValueWarning, stacklevel=4)
    return plain


def _without_separators(column) -> pd.Series:
    """A column of texts such as "1,024" as numbers; any other as it is."""
    texts = column.dropna()
    if not pd.api.types.is_string_dtype(texts) or not texts.astype(str).str.fullmatch(_NUMBER).all():
        return column
    return pd.to_numeric(column.str.replace(",", ""), errors="coerce")


def _read(source) -> pd.DataFrame:
    if str(source) == "-":
        return _read_file(sys.stdin.buffer, "")
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
    return _read_file(path, path.suffix)


def _read_file(source, suffix) -> pd.DataFrame:
    from pyarrow import csv

    try:
        match suffix:
            case ".parquet":
                return pd.read_parquet(source, page_checksum_verification=True)
            case ".json" | ".jsonl":
                text = Path(source).read_bytes()
                for part in text.splitlines() if suffix == ".jsonl" else [text]:
                    # Of a key that stands twice pandas takes the last.
                    if part.strip():
                        parse_json(part)
                return pd.read_json(source, lines=suffix == ".jsonl")
        # Stricter than pandas, for which a row may lack fields: such a row is refused with its number.
        return csv.read_csv(source).to_pandas()
    except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:
        # A file that may not be read has a number of the system's; one that is cut off has none.
        if getattr(error, "errno", None) is not None:
            raise
        raise ValueError(f"not a table of queries ({error})") from error
