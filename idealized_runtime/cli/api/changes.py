"""Test what has changed since the sweep before: each setting, the denoised parameters, and from four logs on whether it
is more than such sweeps scatter."""

import itertools
from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import print_json, print_tables, say

EXAMPLES = "example: idealized-runtime api changes logs/api/NAME-monday.jsonl logs/api/NAME-tuesday.jsonl\n"


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="LOG", help="two logs or more, in any order")
    add_shared(parser, "--level", help="of intervals and tests (default: 0.95)")
    add_shared(parser, "--json")


def run(arguments) -> int:
    """Print whether the newest sweep differs from the one before, and from all before it."""
    from idealized_runtime.api.changes import compare_parameters, compare_sweeps, compare_with_history

    sweeps, level = _read_sweeps(arguments.sweeps), arguments.level
    earlier, later = sweeps[-2:]
    tables = {"settings": compare_sweeps(earlier, later, level=level)}
    try:
        tables["parameters"] = compare_parameters(earlier, later, level=level).reset_index()
    except ValueError as error:
        say(f"denoised parameters are not compared: {error}")
    if len(sweeps) > 3:
        tables["history"] = compare_with_history(sweeps, level=level).to_frame().T.infer_objects()
    else:
        say(
            "two logs tell whether they differ by more than their own blocks scatter, not how much days differ: give "
            "four logs or more"
        )
    starts = {"earlier": earlier["sent_at"].min(), "later": later["sent_at"].min()}
    if arguments.json:
        print_json({**starts, "level": level, **tables})
        return DONE
    print("{later:%Y-%m-%d %H:%M} against {earlier:%Y-%m-%d %H:%M} (UTC)".format(**starts))
    print_tables(tables)
    return DONE


def _read_sweeps(paths) -> list:
    """Requests of several logs, oldest first.

    Raises
    ------
    ValueError
        There is one log only, one does not say when its requests were sent, or two hold the same ones.
    """
    from idealized_runtime.records import read_requests

    if len(paths) < 2:
        raise ValueError("changes are between two sweeps or more; got one log")
    sweeps = [read_requests(path) for path in paths]
    for path, sweep in zip(paths, sweeps, strict=True):
        if sweep["sent_at"].isna().any():
            raise ValueError(f"{path}: does not say when its requests were sent: neither earlier nor later than others")
    for (first, earlier), (second, later) in itertools.combinations(zip(paths, sweeps, strict=True), 2):
        if num_shared := len(earlier.merge(later, on=["sent_at", "runtime_s"])):
            raise ValueError(
                f"{first} and {second} hold the same requests, {num_shared} of them: changes are between two sweeps"
            )
    return sorted(sweeps, key=lambda sweep: sweep["sent_at"].min())
