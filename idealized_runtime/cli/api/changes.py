"""Test what has changed since the sweep before: each setting, the denoised parameters, and from four logs on whether it
is more than such sweeps scatter."""

import itertools
from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import print_json, print_tables, say, show

EXAMPLES = "example: idealized-runtime api changes logs/api/NAME-monday.jsonl logs/api/NAME-tuesday.jsonl\n"


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="LOG", help="two logs or more, in any order")
    parser.add_argument("--difference", dest="difference_percent", type=float, metavar="PERCENT",
                        help="say how many blocks of each sweep tell a difference of so much")  # fmt: skip
    add_shared(parser, "--level", help="of intervals and tests (default: 0.95)")
    add_shared(parser, "--json")


def run(arguments) -> int:
    """Print whether the newest sweep differs from the one before, and from all before it."""
    from idealized_runtime.api.changes import compare_parameters, compare_sweeps, compare_with_history, power_of_sweeps

    sweeps, level = _read_sweeps(arguments.sweeps), arguments.level
    earlier, later = sweeps[-2:]
    power = power_of_sweeps(earlier, later, difference_percent=arguments.difference_percent, level=level)
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
        print_json({**starts, "level": level, **tables, "power": power})
        return DONE
    print("{later:%Y-%m-%d %H:%M} against {earlier:%Y-%m-%d %H:%M} (UTC)".format(**starts))
    print_tables(tables)
    show(
        f"Blocks scatter by {power['block_scatter_percent']:.2g} %: two such sweeps tell a difference from "
        f"{power['smallest_difference_percent']:.2g} % on, with probability 0.8."
    )
    if "num_blocks" in power:
        takes = "more blocks than can be told from these" if power["num_blocks"] is None else power["num_blocks"]
        show(f"A difference of {arguments.difference_percent:g} % takes {takes} blocks of each sweep.")
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
