"""Damage, seeded: what disks, editors, spreadsheets, other programs and attackers do to a file.

Every mutator takes a generator and the bytes of a file and returns other bytes, or None where it finds nothing to do.
"""

import json
import re

NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
ODD_TEXTS = (b"\x1b[31mred", b"\xe2\x80\xaemirrored", b"\x00", b"\x07", b"\xc2\x9b2J", b"|", b"x" * 300)
ODD_VALUES = ("text", "", [], {}, None, True, [1.0], {"a": 1}, -1, 0, 0.5, 10**30, "nan", "1,024", "x" * 300, "\x1b[2J")
DEPTH = 20_000


def _span(rng, data, most=200):
    start = int(rng.integers(len(data)))
    return start, start + int(rng.integers(1, most))


def flip_bit(rng, data):
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def cut_off(rng, data):
    return data[: int(rng.integers(len(data)))]


def cut_out(rng, data):
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def double(rng, data):
    start, end = _span(rng, data)
    return data[:end] + data[start:]


def insert_odd_text(rng, data):
    place = int(rng.integers(len(data)))
    return data[:place] + ODD_TEXTS[int(rng.integers(len(ODD_TEXTS)))] + data[place:]


def encode_otherwise(rng, data):
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    ways = (text.encode("utf-8-sig"), text.encode("utf-16"), text.replace("\n", "\r\n").encode(), text.encode("utf-32"))
    return ways[int(rng.integers(len(ways)))]


def _lines(change):
    def mutate(rng, data):
        lines = data.splitlines(keepends=True)
        if len(lines) < 2:
            return None
        return b"".join(change(rng, lines))

    mutate.__name__ = change.__name__
    return mutate


@_lines
def drop_line(rng, lines):
    del lines[int(rng.integers(len(lines)))]
    return lines


@_lines
def repeat_line(rng, lines):
    place = int(rng.integers(len(lines)))
    lines.insert(int(rng.integers(len(lines))), lines[place])
    return lines


@_lines
def swap_lines(rng, lines):
    one, other = rng.integers(len(lines), size=2)
    lines[one], lines[other] = lines[other], lines[one]
    return lines


@_lines
def cut_line(rng, lines):
    place = int(rng.integers(len(lines)))
    lines[place] = lines[place][: int(rng.integers(len(lines[place])))] + b"\n"
    return lines


def _number(change):
    def mutate(rng, data):
        if b"\x00" in data or not (found := list(NUMBER.finditer(data))):
            return None
        match = found[int(rng.integers(len(found)))]
        return data[: match.start()] + change(rng, match[0].decode()).encode() + data[match.end() :]

    mutate.__name__ = change.__name__
    return mutate


@_number
def change_digit(rng, number):
    digits = [place for place, letter in enumerate(number) if letter.isdecimal()]
    place = digits[int(rng.integers(len(digits)))]
    return number[:place] + str(int(rng.integers(10))) + number[place + 1 :]


@_number
def scale_number(rng, number):
    return repr(float(number) * (1000.0, 1e-3, 60.0, 1e6)[int(rng.integers(4))])


@_number
def flip_sign(rng, number):
    return number[1:] if number[0] == "-" else f"-{number}"


@_number
def write_extreme(rng, number):
    return ("1e400", "-1e400", "NaN", "Infinity", "1e300", "1e-300", "0", "9" * 400)[int(rng.integers(8))]


@_number
def write_as_spreadsheet(rng, number):
    if "." in number:
        return number.replace(".", ",")
    return f"{number[:-3]},{number[-3:]}" if len(number) > 3 else f"{number},000"


@_number
def quote_number(rng, number):
    return f'"{number}"'


def _json(change):
    """A change of one place of a JSON file, or of one line of JSON Lines."""

    def mutate(rng, data):
        for is_whole in (True, False):
            parts = [data] if is_whole else data.splitlines(keepends=True)
            place = int(rng.integers(len(parts))) if parts else 0
            try:
                tree = json.loads(parts[place])
            except (ValueError, IndexError):
                continue
            places = list(_places(tree))
            if not places:
                continue
            change(rng, *places[int(rng.integers(len(places)))])
            text = json.dumps(tree, indent=2 if is_whole and b"\n" in data.strip() else None)
            text = text.replace('"!again!', '"').replace('"!deep!"', "[" * DEPTH + "]" * DEPTH)
            parts[place] = text.encode() + (b"" if is_whole else b"\n")
            return b"".join(parts)
        return None

    mutate.__name__ = change.__name__
    return mutate


def _places(tree):
    """Pairs of an object or list and a key of it, of every value in a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@_json
def drop_key(rng, parent, key):
    del parent[key]


@_json
def rename_key(rng, parent, key):
    if isinstance(parent, dict):
        parent[f"{key}s" if rng.random() < 0.5 else f" {key}"] = parent.pop(key)
    else:
        parent.insert(key, parent[key])


@_json
def repeat_key(rng, parent, key):
    if isinstance(parent, dict):
        parent[f"!again!{key}"] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    else:
        parent.append(parent[key])


@_json
def swap_type(rng, parent, key):
    parent[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]


@_json
def nest_deeply(rng, parent, key):
    parent[key] = "!deep!"


def change_header(rng, data):
    """Of a CSV: a name with a space before it, of other case, twice, or gone."""
    first, newline, rest = data.partition(b"\n")
    names = first.split(b",")
    if len(names) < 2 or b"{" in first:
        return None
    place = int(rng.integers(len(names)))
    names[place] = (b" " + names[place], names[place].upper(), names[place - 1], b"")[int(rng.integers(4))]
    return b",".join(names) + newline + rest


MUTATORS = (
    flip_bit, cut_off, cut_out, double, insert_odd_text, encode_otherwise, drop_line, repeat_line, swap_lines, cut_line,
    change_digit, scale_number, flip_sign, write_extreme, write_as_spreadsheet, quote_number,
    drop_key, rename_key, repeat_key, swap_type, nest_deeply, change_header,
)  # fmt: skip
