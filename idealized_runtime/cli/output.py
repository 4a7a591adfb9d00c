"""The two printers, a table for a terminal and JSON, and the file that an answer is written to.

Text goes to a terminal through this module alone: names in it may come from files and servers.
"""

import contextlib
import json
import math
import shutil
import sys
import textwrap
import warnings

from idealized_runtime.checks import printable

FORMATS = (".csv", ".json", ".parquet", ".tex", ".md")
# Of a line that goes to no terminal.
_MOST_CHARACTERS = 120


def show(text: str = ""):
    """Print a part of the answer, what is no text for a terminal escaped."""
    print(printable(text))


def print_table(frame, *, with_index: bool = False):
    """Print a table for a terminal: numbers to four significant digits, columns that hold nothing left out.

    One that is wider than the terminal is turned on its side or, where it has too many rows for that, cut into several,
    each with the first columns that tell its rows apart; columns of one value are said once, before it.
    """
    from idealized_runtime.records.table_files import as_cell

    room = shutil.get_terminal_size((_MOST_CHARACTERS, 0)).columns if sys.stdout.isatty() else _MOST_CHARACTERS
    frame = (frame.reset_index() if with_index else frame).dropna(axis="columns", how="all")
    columns = [
        [as_cell(name), *map(as_cell, values.astype(object).where(values.notna(), None))]
        for name, values in frame.items()
    ]
    turned = [list(row) for row in zip(*columns, strict=True)]
    if _width(columns) <= room:
        _print_columns(columns)
    elif _width(turned) <= room:
        _print_columns(turned)
    else:
        shared = [column for column in columns if len(set(column[1:])) == 1]
        if shared:
            show(textwrap.fill(", ".join(f"{name} {value}" for name, value, *_ in shared), room))
        columns = [[_shortened(cell, room // 3) for cell in column] for column in columns if column not in shared]
        rows = list(zip(*columns, strict=True))
        num_keys = next((n for n in range(1, len(columns)) if len({row[:n] for row in rows}) == len(rows)), 1)
        keys, others = columns[:num_keys], columns[num_keys:]
        if _width(keys) > 2 * room // 3:
            keys, others = [["row", *map(str, range(1, len(rows)))]], columns
        num_left = len(others)
        while others:
            if len(others) < num_left:
                show()
            num_fitting = max(1, sum(_width([*keys, *others[: n + 1]]) <= room for n in range(len(others))))
            _print_columns([*keys, *others[:num_fitting]])
            others = others[num_fitting:]


def _shortened(cell, most) -> str:
    return cell if len(cell) <= most else f"{cell[: most // 2]}…{cell[most // 2 + 1 - most :]}"


def _width(columns) -> int:
    return sum(max(map(len, column)) + 2 for column in columns) - 2


def _print_columns(columns):
    widths = [max(map(len, column)) for column in columns]
    for first, *others in zip(*columns, strict=True):
        cells = (f"{it:>{width}}" for it, width in zip(others, widths[1:], strict=True))
        show("  ".join([f"{first:{widths[0]}}", *cells]))


def print_tables(tables: dict):
    """Print tables by name, one below the other."""
    for table in tables.values():
        print_table(table)
        show()


def print_rows(rows):
    """Print labels and values in two columns; of a row that is a string, the string."""
    rows = list(rows)
    width = max((len(row[0]) for row in rows if not isinstance(row, str)), default=0) + 2
    for row in rows:
        show(row if isinstance(row, str) else f"{row[0] + ':':{width}}{row[1]}")


def bounded(value, bounds=None, form: str = ".4g") -> str:
    """A number, and behind it in brackets the ``lower`` and ``upper`` bound of its interval where there is one."""
    known = bounds if bounds and bounds["lower"] is not None else None
    return f"{value:{form}}" + (f"   [{known['lower']:{form}}, {known['upper']:{form}}]" if known else "")


@contextlib.contextmanager
def findings_in_a_line(logs):
    """Count what speaks against the logs of others that a model is predicted from; where it is one thing, say it."""
    from idealized_runtime.records import SuspiciousLogWarning

    with warnings.catch_warnings(record=True) as caught:
        yield
    findings = [it for it in caught if issubclass(it.category, SuspiciousLogWarning)]
    if len(findings) > 1:
        said = f"{logs}: {len(findings)} findings speak against its logs; `idealized-runtime fit {logs}` names them"
        caught = [it for it in caught if it not in findings]
        warnings.warn(said, SuspiciousLogWarning, stacklevel=3)
    for it in caught:
        warnings.warn(it.message, stacklevel=3)


def say(sentence: str):
    """Print beside the answer, which goes to standard output."""
    print(printable(sentence), file=sys.stderr, flush=True)


def progress_bar(total: int, what: str):
    """A bar on the terminal of so many things of which each takes a while; none for one, or where nobody watches."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, file=sys.stderr, disable=not sys.stderr.isatty() or total < 2)


def print_answer(data: dict, rows, *, as_json: bool):
    """Print an answer as JSON, or as rows that were read from the same data; neither shows an infinite number."""
    data = plain(data)
    if as_json:
        print_json(data)
    else:
        print_rows(rows)


def print_json(data: dict):
    """Print one JSON object, unrounded; a table is a list of its rows.

    Raises
    ------
    OverflowError
        A number is not finite: JSON has no infinity, and null would say that it is not known.
    """
    print(json.dumps(plain(data), indent=2, allow_nan=False, default=str))


def plain(data):
    """The same data of plain Python values, which JSON can hold; what is missing (NaN) as None."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    if hasattr(data, "to_dict"):
        return plain(data.astype(object).where(data.notna(), None).to_dict("records"))
    value = data.tolist() if hasattr(data, "tolist") else data
    if isinstance(value, list):
        return plain(value)
    if isinstance(value, float) and math.isinf(value):
        raise OverflowError(f"a number is {value}")
    return None if isinstance(value, float) and math.isnan(value) else value


def check_format(path, formats=FORMATS):
    """Refuse a file to write, before anything is computed, whose ending names no format."""
    if path.suffix not in formats:
        raise ValueError(f"{path}: written are {', '.join(formats)}, by the ending; got {path.suffix or 'none'!r}")


def write_table(frame, path):
    """Write a table to a file, in the format that its ending names; the file is replaced as a whole."""
    from idealized_runtime.records.files import replacing
    from idealized_runtime.records.table_files import table_text

    check_format(path)
    with replacing(path) as part:
        match path.suffix:
            case ".csv":
                # A million rows need not be in memory as text, too.
                frame.to_csv(part, index=False)
            case ".json":
                rows = json.dumps(plain(frame), indent=2, allow_nan=False, default=str)
                part.write_text(f"{rows}\n", encoding="utf-8")
            case ".parquet":
                frame.to_parquet(part, index=False, write_page_checksum=True)
            case suffix:
                part.write_text(table_text(frame, suffix), encoding="utf-8")
