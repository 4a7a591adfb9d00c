"""The house: rooms stand on floors, a lower one imports no higher one, and torch stays in its room."""

import ast

import pytest

from idealized_runtime.measurements.published import ROOT

# From the ground up; rooms of one floor know nothing of each other.
FLOORS = (
    {"checks", "statistics"},
    {"architectures"},
    {"hardware"},
    {"records"},
    {"fits"},
    {"measurements"},
    {"queries"},
    {"prediction"},
    {"serving"},
    {"comparisons", "design"},
    {"lifetime", "api"},
    {"reproductions"},
    {"plots"},
    {"notebooks"},
    {"page"},
    {"cli"},
)
ROOMS = [room for floor in FLOORS for room in sorted(floor)]


def imported_modules(path):
    """Names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(room):
    folder = ROOT / "idealized_runtime" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_name_at_the_top_is_a_room():
    found = {
        path.stem for path in (ROOT / "idealized_runtime").iterdir() if path.name not in ("__pycache__", "py.typed")
    }
    assert found - {"__init__", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_stands_below(room):
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    below = {room}.union(*FLOORS[:floor])
    upwards = [
        f"{path.relative_to(ROOT)} -> {name}"
        for path in files_of(room)
        for name in imported_modules(path)
        if name.startswith("idealized_runtime.") and name.split(".")[1] not in below
    ]
    assert upwards == []


# Builds, without memory, what transformers knows and the library does not; only when asked for such a model.
BUILDS = ROOT / "idealized_runtime" / "architectures" / "hf" / "built.py"


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_library_never_imports_torch_or_the_driver(room):
    names = [name for path in files_of(room) if path != BUILDS for name in imported_modules(path)]
    assert [name for name in names if name.split(".")[0] in ("torch", "megatron", "megatron_lm")] == []


def test_every_room_says_in_one_sentence_what_it_is():
    for room in ROOMS:
        docstring = ast.get_docstring(ast.parse(next(iter(files_of(room))).read_text(encoding="utf-8")))
        assert docstring, room
        assert docstring.splitlines()[0].endswith((".", ":")), room
