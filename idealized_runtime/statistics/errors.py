"""Errors of predictions, and their summaries."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def with_errors(measured: pd.DataFrame, predicted_s) -> pd.DataFrame:
    """Measured settings with what was predicted: ``predicted_s``, ``relative_error`` = predicted / measured - 1.

    Parameters
    ----------
    measured : DataFrame
        ``runtime_s`` and whatever else.
    predicted_s : array
        A prediction a row.
    """
    return measured.assign(predicted_s=predicted_s, relative_error=predicted_s / measured["runtime_s"] - 1)


def summarize_errors(errors) -> dict[str, float]:
    """``median``, ``p95`` and ``max`` of the magnitudes of errors; NaN where there are none."""
    magnitudes = np.abs(np.asarray(errors, dtype=float))
    values = np.percentile(magnitudes, [50, 95, 100]).tolist() if magnitudes.size else [np.nan] * 3
    return dict(zip(("median", "p95", "max"), values, strict=True))


def error_table(errors: Mapping[str, Sequence]) -> pd.DataFrame:
    """Summary of relative errors, a row for each name.

    Returns
    -------
    DataFrame
        ``num_settings``; ``median_percent``, ``p95_percent``, ``max_percent`` of the magnitudes, missing where there
        are none.
    """
    rows = {
        name: {"num_settings": len(values)}
        | {f"{statistic}_percent": 100 * value for statistic, value in summarize_errors(values).items()}
        for name, values in errors.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def left_out_error_table(rows: pd.DataFrame, is_covered, by: str | pd.Series | None = None) -> pd.DataFrame:
    """Magnitudes of the relative errors of what was left out, and how much of it its intervals hold, in per cent.

    Parameters
    ----------
    rows : DataFrame
        ``relative_error`` and whatever else.
    is_covered : array
        One a row: 0 or 1, or NaN where there is no interval.
    by : str or Series, optional
        Column, or values a row, to tell rows apart by; all together where it is not given.

    Returns
    -------
    DataFrame
        ``median_percent, p90_percent, max_percent, num_points, covered_percent``.
    """
    rows = rows.assign(is_covered=is_covered)
    table = {}
    for name, part in [("all", rows)] if by is None else rows.groupby(by):
        values = 100 * np.quantile(part["relative_error"].abs(), [0.5, 0.9, 1.0])
        table[name] = dict(zip(("median_percent", "p90_percent", "max_percent"), values, strict=True)) | {
            "num_points": len(part), "covered_percent": 100 * part["is_covered"].mean(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index").astype({"num_points": int})
