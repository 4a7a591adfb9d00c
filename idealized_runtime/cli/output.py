"""The two printers, a table for a terminal and JSON, and the file that an answer is written to."""

import json
import math

_FORMATS = (".csv", ".json", ".parquet", ".tex")


def print_table(frame, *, digits: int = 4, with_index: bool = False):
    """Print a table for a terminal: numbers to so many significant digits, columns that hold nothing left out."""
    shown = frame.dropna(axis="columns", how="all")
    print(shown.to_string(index=with_index, na_rep="-", float_format=lambda value: f"{value:.{digits}g}"))


def print_json(data: dict):
    """Print one JSON object, unrounded.

    Raises
    ------
    OverflowError
        A number is not finite: JSON has no infinity, and null would say that it is not known.
    """
    print(json.dumps(plain(data), indent=2, allow_nan=False))


def plain(data):
    """The same data of plain Python values, which JSON can hold; what is missing (NaN) as None."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    value = data.item() if hasattr(data, "item") else data
    if isinstance(value, float) and math.isinf(value):
        raise OverflowError(f"a number is {value}: the sizes asked for multiply to more than a float holds")
    return None if isinstance(value, float) and math.isnan(value) else value


def check_format(path):
    """Refuse a file to write, before anything is computed, whose ending names no format."""
    if path.suffix not in _FORMATS:
        raise ValueError(f"{path}: written are {', '.join(_FORMATS)}, by the ending; got {path.suffix or 'none'!r}")


def write_table(frame, path):
    """Write a table to a file, in the format that its ending names; the file is replaced as a whole."""
    from idealized_runtime.records.files import replacing

    check_format(path)
    with replacing(path) as part:
        match path.suffix:
            case ".csv":
                frame.to_csv(part, index=False)
            case ".json":
                frame.to_json(part, orient="records", indent=2, double_precision=15)
            case ".parquet":
                frame.to_parquet(part, index=False)
            case ".tex":
                frame.to_latex(part, index=False, float_format="%.4g")
