"""Refusals of what a caller or a file gives, as numbers, columns or words of a flag; and warnings of what is missing.

A message names the quantity, what was given and what is allowed. Imports numpy late: flags need none of it.
"""

import argparse
import json
import math
import sys
import warnings


def printable(text) -> str:
    """The same text, what a terminal would obey instead of showing it escaped; line ends and tabs stay."""
    # File names that are not UTF-8 have characters that no stream can encode; they are not printable either.
    return "".join(it if it.isprintable() or it in "\n\t" else it.encode("unicode_escape").decode() for it in str(text))


def parse_json(text: str | bytes):
    """What a JSON text says, numbers that are not finite included.

    Raises
    ------
    ValueError
        It is not JSON in UTF-8, is nested too deeply, or an object has a key twice, of which one would not count.
    """
    import msgspec

    try:
        # Several times as fast, but silent on a key that stands twice: then there are fewer of them than in the text.
        value = msgspec.json.decode(text)
        colon, spaced = ('":', '" :') if isinstance(text, str) else (b'":', b'" :')
        if spaced not in text and text.count(colon) == msgspec.json.encode(value).count(b'":'):
            return value
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        pass  # Numbers that are not finite, unusual text, or a fault: the other one tells.
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_json_texts(text: str) -> list:
    """What several JSON texts say, one behind the other; each as :func:`parse_json`."""
    decoder, values, place = json.JSONDecoder(object_pairs_hook=_without_repetition), [], 0
    text = text.strip()
    try:
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            values.append(value)
            place = json.decoder.WHITESPACE.match(text, place).end()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return values


def _without_repetition(pairs):
    # One line of a log has the names of another: they are kept once.
    values = {sys.intern(name): value for name, value in pairs}
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.60} stands twice in an object")
    return values


def is_integer(value, least: int) -> bool:
    """Whether a value of a file is an integer of at least ``least``, and no larger than arrays hold."""
    # True is an integer to Python.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def is_number(value) -> bool:
    """Whether a value of a file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def did_you_mean(given: str, known) -> str:
    """What a message says behind an unknown name: the nearest of the known ones in brackets; empty if none is near."""
    from difflib import get_close_matches

    near = get_close_matches(given, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def check_positive(**values):
    """Refuse anything that is not a positive finite number; arrays name their first such element."""
    _check(values, _is_positive, _POSITIVE)


def check_positive_or_missing(**values):
    """As :func:`check_positive`, but NaN and NA stand for missing elements of arrays and columns, and pass."""
    _check(values, lambda array: _is_positive(array) | ((array.ndim > 0) & (array != array)), _POSITIVE)


def check_not_negative(**values):
    """Refuse negative, infinite and missing numbers."""
    _check(values, lambda array: (array >= 0) & (array < math.inf), "zero or a positive finite number")


def check_share(**values):
    """Refuse what does not lie in (0, 1]."""
    _check(values, _is_share, "in (0, 1]")


def check_utilization(**values):
    """Refuse what is no share of a peak rate: MFU lies in (0, 1]."""
    _check(values, _is_share, "in (0, 1], a share of the peak rate")


def check_columns(frame, needed, *, name="timings"):
    """Refuse a frame that lacks columns; ``name`` says in the message what it holds, or the file it was read from."""
    if absent := [column for column in needed if column not in frame]:
        there = ", ".join(map(str, frame.columns))
        raise ValueError(f"{name}: no column {', '.join(absent)}; needed: {', '.join(needed)}; there are: {there}")


def numeric_columns(frame, needed, *, name="timings") -> list:
    """The needed columns as arrays of floats, NaN where a value is missing; refuse absent ones and other values.

    The message has the first row, counted from 1, that holds something else.
    """
    check_columns(frame, needed, name=name)
    return [_floats(frame[column], name) for column in needed]


def _floats(column, name):
    import numpy as np
    import pandas as pd

    if (kind := pd.api.types.infer_dtype(column)) not in _NUMERIC_KINDS:
        is_text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
        # Where every text reads as a number, the first one is as wrong as any other.
        row = int(np.flatnonzero(is_text if is_text.any() else column.notna())[0])
        raise ValueError(
            f"{name}: column {column.name} must hold numbers; it holds {kind} values, the first in row {row + 1} of "
            f"{len(column)}: {column.iloc[row]!r}. Write numbers plainly, as 1024, and nothing where one is missing"
        )
    return column.to_numpy(dtype=float, na_value=np.nan)


def token_array(name: str, values):
    """Numbers of tokens, of the type they were given in; refuse what is no number, below 1 or not finite."""
    import numpy as np

    tokens = np.asarray(values)
    if tokens.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold numbers; got an array of type {tokens.dtype}")
    # NaN fails the comparison, and so is refused.
    if tokens.size and not (tokens.min() >= 1 and tokens.max() < math.inf):
        bad = tokens[~((tokens >= 1) & (tokens < math.inf))]
        raise ValueError(f"{name} must be finite and at least 1; got {bad[:3].tolist()}")
    return tokens


def check_range(name: str, values, sizes, *, remedy="Profile that size, or pass extrapolate=True"):
    """Refuse values outside the range of the profiled sizes, which ascend."""
    low, high = sizes[0], sizes[-1]
    if values.size and not (values.min() >= low and values.max() <= high):
        outside = values[(values < low) | (values > high)]
        raise ValueError(
            f"{name} must lie in [{low:.10g}, {high:.10g}], the profiled range; {outside.size} of {values.size} lie "
            f"outside, the first is {outside.flat[0]:.10g}. {remedy}"
        )


_POSITIVE = "a positive finite number"
# Dollars an hour or watts: a wafer of Cerebras draws some 23,000 W, and no other accelerator a tenth of it.
_MOST_OF_A_DEVICE = 100_000
# As pandas calls them, of columns of objects too.
_NUMERIC_KINDS = {"integer", "floating", "mixed-integer-float", "decimal", "empty"}


def _is_positive(array):
    return (array > 0) & (array < math.inf)


def _is_share(array):
    return (array > 0) & (array <= 1)


def _check(values, is_allowed, allowed):
    import numpy as np

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


def positive_int(text: str) -> int:
    """Type of a flag: an integer of at least 1."""
    return _integer_of_flag(text, 1)


def whole_number(text: str) -> int:
    """Type of a flag: an integer of at least 0."""
    return _integer_of_flag(text, 0)


def positive_number(text: str) -> float:
    """Type of a flag: a finite number above 0."""
    return _number_of_flag(text, lambda value: value > 0, "a positive number")


def not_negative_number(text: str) -> float:
    """Type of a flag: a finite number of at least 0."""
    return _number_of_flag(text, lambda value: value >= 0, "zero or a positive number")


def device_rate(text: str) -> float:
    """Type of a flag: dollars an hour, or watts, of one accelerator, none of which has more than 100,000."""
    return _number_of_flag(
        text, lambda value: 0 < value <= _MOST_OF_A_DEVICE, f"a positive number of at most {_MOST_OF_A_DEVICE:,}"
    )


def share_of_peak(text: str) -> float:
    """Type of a flag: a utilisation, in (0, 1]."""
    return _number_of_flag(text, lambda value: 0 < value <= 1, "in (0, 1], a share of the peak rate")


def open_share(text: str) -> float:
    """Type of a flag: a level or a share between 0 and 1, both excluded."""
    return _number_of_flag(text, lambda value: 0 < value < 1, "between 0 and 1")


def renamed_columns(text: str) -> dict[str, str]:
    """Type of a flag: our names of columns and theirs, ``OURS=THEIRS,...``."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(ours and theirs for ours, _, theirs in pairs):
        raise argparse.ArgumentTypeError(f"must be OURS=THEIRS, several of them with commas between; got {text!r}")
    for names in ([ours.strip() for ours, _, _ in pairs], [theirs.strip() for *_, theirs in pairs]):
        if twice := [name for name in names if names.count(name) > 1]:
            raise argparse.ArgumentTypeError(f"names {twice[0]} twice; got {text!r}")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _integer_of_flag(text, least) -> int:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    # 1e6 is a whole number, too.
    if not (math.isfinite(number) and number == int(number) >= least):
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}; got {text!r}")
    return int(text) if text.isdecimal() else int(number)


def _number_of_flag(text, is_allowed, allowed) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and is_allowed(value)):
        raise argparse.ArgumentTypeError(f"must be {allowed}; got {text!r}")
    return value


class MissingValueWarning(UserWarning):
    """Rows that have no result, because something they need is missing."""


def warn_missing(is_missing, cause: str, *, labels=None, stacklevel: int = 2):
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
    import numpy as np

    num_missing = int(np.count_nonzero(is_missing))
    if num_missing:
        named = "" if labels is None else ": " + _counts(np.asarray(labels, dtype=object)[is_missing])
        warnings.warn(
            f"{num_missing} of {len(is_missing)} rows {cause}{named}", MissingValueWarning, stacklevel=stacklevel + 1
        )


def _counts(labels, most=8):
    import pandas as pd

    counts = pd.Series(labels).value_counts(dropna=False, sort=False)
    named = ", ".join(
        ("(no name)" if pd.isna(label) else str(label)) + (f" ({count})" if count > 1 else "")
        for label, count in counts.head(most).items()
    )
    return named + (f" and {len(counts) - most} more" if len(counts) > most else "")
