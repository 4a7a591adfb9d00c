"""Checks of what a caller gives: the message names the quantity, what was given and what is allowed."""

import numpy as np


def check_positive(**values):
    """Refuse anything that is not a positive finite number; arrays name their first such element."""
    _check(values, _is_positive, _POSITIVE)


def check_positive_or_missing(**values):
    """As :func:`check_positive`, but NaN and NA stand for missing elements of arrays and columns, and pass."""
    _check(values, lambda array: _is_positive(array) | ((array.ndim > 0) & np.isnan(array)), _POSITIVE)


def check_not_negative(**values):
    """Refuse negative, infinite and missing numbers."""
    _check(values, lambda array: np.isfinite(array) & (array >= 0), "zero or a positive finite number")


def check_share(**values):
    """Refuse what does not lie in (0, 1]."""
    _check(values, _is_share, "in (0, 1]")


def check_utilization(**values):
    """Refuse what is no share of a peak rate: MFU lies in (0, 1]."""
    _check(values, _is_share, "in (0, 1], a share of the peak rate")


def check_columns(frame, needed, *, name="timings"):
    """Refuse a frame that lacks columns."""
    if absent := [column for column in needed if column not in frame]:
        there = ", ".join(map(str, frame.columns))
        raise ValueError(
            f"{name} lack the column(s) {', '.join(absent)}; needed: {', '.join(needed)}; there are: {there}"
        )


_POSITIVE = "a positive finite number"


def _is_positive(array):
    return np.isfinite(array) & (array > 0)


def _is_share(array):
    return (array > 0) & (array <= 1)


def _check(values, is_allowed, allowed):
    for name, value in values.items():
        if value is None:
            raise ValueError(f"{name} is not known (None): give it")
        try:
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be a number, or an array or column of them; got {value!r:.60}") from error
        bad = ~is_allowed(array)
        if bad.any():
            raise ValueError(f"{name} must be {allowed}; got {array[bad].flat[0]:g}")
