"""One mutation: made, read by its command, and judged."""

import contextlib
import io
import json
import math
import shutil
import signal
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idealized_runtime.cli.main import main
from tests.mutations.kinds import KINDS, Kind, write_fixtures
from tests.mutations.mutators import MUTATORS

CPU_LIMIT_S, TIME_LIMIT_S = 10, 200
# As far as a number may move without a word.
TOLERANCE = 0.01
TRACEBACK, HANG, SILENT, ANOTHER, TOLD, SAME = "traceback", "hang", "silent", "another good file", "told", "no change"
RAW = "control characters"
FAULTS = (TRACEBACK, HANG, RAW, SILENT)
# What says how sure a number is: an answer of its own.
_ERRORS = ("standard_errors", "intervals", "residuals")


class _TimeLimit(BaseException):
    pass


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation."""

    kind: str
    mutator: str
    number: int
    verdict: str
    detail: str = ""


class Trials:
    """Mutations of every kind in a folder; the same number gives the same mutation."""

    def __init__(self, folder: Path, kinds=KINDS, *, seed: int = 0):
        self.folder, self.kinds, self.seed = folder, kinds, seed
        folder.mkdir(exist_ok=True)
        write_fixtures(folder / "fixtures")
        self.good = {}
        for kind in kinds:
            path = self._written(kind, folder / "good")
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".ipynb")
            self.good[kind.name] = path, files or [path], _read(kind, path, folder)
            if self.good[kind.name][2].failure or self.good[kind.name][2].code:
                raise RuntimeError(f"{kind.name}: the good file is not read: {self.good[kind.name][2]}")

    def _written(self, kind, folder):
        path = folder / (kind.name.replace(" ", "_") + kind.suffix)
        path.parent.mkdir(exist_ok=True)
        if kind.name == "parameters":
            shutil.copy(self.folder / "fixtures" / "own.json", path)
        else:
            kind.write(path)
        return path

    def run(self, number: int) -> Outcome:
        """Make the mutation of this number, read it, and judge it."""
        rng = np.random.default_rng([self.seed, number])
        kind = self.kinds[number % len(self.kinds)]
        path, files, good = self.good[kind.name]
        file = files[int(rng.integers(len(files)))]
        data, mutated = file.read_bytes(), None
        while mutated is None or mutated == data:
            mutator = MUTATORS[int(rng.integers(len(MUTATORS)))]
            mutated = mutator(rng, data)
        # A name of its own: nothing that was read before stands in for it.
        place = self.folder / str(number)
        place.mkdir()
        bad = place / path.name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, bad)
        (bad / file.relative_to(path) if path.is_dir() else bad).write_bytes(mutated)
        try:
            verdict, detail = _judge(kind, good, _read(kind, bad, self.folder), data, mutated)
        finally:
            shutil.rmtree(place)
        return Outcome(kind.name, mutator.__name__, number, verdict, detail)


@dataclass(frozen=True)
class _Reading:
    numbers: dict
    said: frozenset
    code: int = 0
    failure: str = ""


def _read(kind: Kind, path, folder) -> _Reading:
    """What a command says of a file, within the time limit."""

    def stop(*_):
        raise _TimeLimit

    out, err = io.StringIO(), io.StringIO()
    # Of the processor: other programs may hold a machine up. What waits for ever takes none.
    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, TIME_LIMIT_S),
        signal.SIGALRM: (signal.ITIMER_REAL, 20 * TIME_LIMIT_S),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit_s in timers.values():
        signal.setitimer(timer, limit_s)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            if kind.call is not None:
                code, answer = 0, kind.call(path)
            else:
                code = main(
                    [
                        word.replace("{fixtures}", str(folder / "fixtures")).replace("{}", str(path))
                        for word in kind.words
                    ]
                )
                answer = json.loads(out.getvalue()) if code == 0 and "--json" in kind.words else {}
    except _TimeLimit:
        return _Reading({}, frozenset(), failure=HANG)
    except (ValueError, TypeError, OSError) as error:
        if kind.call is None:
            return _Reading({}, frozenset(), failure=_last_line(error))
        # As the error policy of the command has it.
        code, answer = 2, {}
        err.write(f"error: {error}\n")
    except Exception as error:
        return _Reading({}, frozenset(), failure=_last_line(error))
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
    text = err.getvalue() + "".join(f"{warning.message}\n" for warning in caught)
    said = frozenset(line.replace(str(path), "") for line in text.splitlines())
    if kind.call is None and not all(letter.isprintable() or letter == "\n" for letter in text):
        return _Reading({}, said, failure=f"{RAW}: {text[:200]!r}")
    return _Reading(dict(_numbers(answer, kind.keys)), said, code)


def _last_line(error) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:100]} ({Path(place.filename).name}:{place.lineno})"


def _numbers(answer, keys, name="", *, is_asked=False):
    is_asked = is_asked or not keys
    items = answer.items() if isinstance(answer, dict) else enumerate(answer) if isinstance(answer, list) else ()
    for key, value in items:
        if key in _ERRORS:
            continue
        yield from _numbers(value, keys, f"{name}.{key}", is_asked=is_asked or key in keys)
    if is_asked and isinstance(answer, (int, float)) and not isinstance(answer, bool):
        yield name, answer


def _judge(kind, good, read, data, mutated) -> tuple[str, str]:
    if read.failure:
        return next((fault for fault in (HANG, RAW) if read.failure.startswith(fault)), TRACEBACK), read.failure
    if read.code or read.said - good.said:
        return TOLD, ""
    moved = [
        f"{name[-60:]}: {good.numbers.get(name)} -> {read.numbers.get(name)}"
        for name in sorted({*good.numbers, *read.numbers})
        if not _is_near(good.numbers.get(name), read.numbers.get(name))
    ]
    if not moved:
        return SAME, ""
    return (ANOTHER if _is_another(kind, data, mutated) else SILENT), f"{moved[0]} ({len(moved)} numbers)"


def _is_near(one, other):
    return one is not None and other is not None and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)


def _is_another(kind, data, mutated) -> bool:
    """Whether all that differs stands in free places, and is plausible there."""
    if not kind.free:
        return False
    try:
        before, after = _table(kind, data), _table(kind, mutated)
    except (ValueError, RecursionError, KeyError, IndexError):
        return False
    if before.keys() != after.keys():
        # A line or an element more or fewer: each of those that are there must be one of before.
        names = {_row_free(name) for name in before}
        if "rows" not in kind.free or not {_row_free(name) for name in after} <= names:
            # A key that is gone has the default of its class; a prompt size may be another.
            is_size = kind.name == "helm parameters" and all(_prompt_sizes(after))
            if not is_size and not (kind.name == "config" and set(after) < set(before)):
                return False
    return all(
        _is_plausible(kind, name, before.get(name), value) for name, value in after.items() if before.get(name) != value
    )


def _prompt_sizes(table):
    return (name[-1].isdecimal() for name in table if "runtime_for_prompt_tokens" in name)


def _row_free(name):
    return tuple(part for part in name if not isinstance(part, int))


def _is_plausible(kind, name, old, new):
    key = next((part for part in reversed(name) if not isinstance(part, int)), None)
    # Prompt sizes are keys of a parameter file.
    key = "prompt size" if str(key).isdecimal() else key
    if key not in kind.free or not isinstance(new, (int, float)):
        # Whatever stands beside the numbers: names of instances, order of rows.
        return key not in kind.free and "rows" in kind.free
    least, most = kind.free[key]
    if key in ("runtimes_s", "runtime_s", "seconds"):
        least, most = least * old, most * old
    return least <= new <= most


def _table(kind, data) -> dict:
    """Values of a file by place: path of keys in JSON, row and column of a CSV."""
    text = data.decode("utf-8")
    if kind.suffix == ".csv":
        first, *lines = text.splitlines()
        names = [name.strip() for name in first.split(",")]
        rows = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines if line]
        return dict(_leaves(rows))
    if kind.suffix == ".log":
        lines = list(enumerate(text.splitlines()))
        seconds = {
            (n, "seconds"): float(line.split(": ")[-1].split()[0]) for n, line in lines if line.startswith("Run")
        }
        return seconds | {(number, "line"): line.rpartition(": ")[0] for number, line in lines}
    trees = [json.loads(line) for line in text.splitlines()] if kind.suffix == ".jsonl" else json.loads(text)
    return dict(_leaves(trees))


def _leaves(tree, name=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield name, tree
        return
    for key, value in items:
        yield from _leaves(value, (*name, key))
