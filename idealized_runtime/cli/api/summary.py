"""Percentiles with intervals, throughput, goodput of a log or of what `import` takes; and what speaks against them."""

import argparse
import json
from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import print_json, print_tables, say

EXAMPLES = "example: idealized-runtime api summary logs/api/NAME-load.jsonl --objective ttft=0.5 e2e=2\n"


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("file", type=Path, help="a log, or what `import` takes")
    add_objectives(parser)
    add_shared(parser, "--json")


def add_objectives(parser):
    """The flag of what a request may take."""
    parser.add_argument("--objective", nargs="+", type=_objective, default=[], metavar="NAME=SECONDS",
                        help="seconds that a request may take: ttft=0.5 tpot=0.05 e2e=10; prints goodput")  # fmt: skip


def run(arguments) -> int:
    """Summarise our log, or another tool's requests or totals."""
    from idealized_runtime.api.statistics import totals_table
    from idealized_runtime.records import read_requests
    from idealized_runtime.records.importers import import_requests, import_totals

    objectives = objectives_of(arguments)
    if header_of(arguments.file) is not None:
        return print_summary(read_requests(arguments.file), objectives, as_json=arguments.json)
    totals = import_totals(arguments.file)
    if objectives or not totals:
        return print_summary(import_requests(arguments.file), objectives, as_json=arguments.json)
    _print_tables({"percentiles": totals_table(totals)}, as_json=arguments.json)
    return DONE


def objectives_of(arguments) -> dict[str, float]:
    """What a request may take, in seconds by name; refused is what none has a time of."""
    from idealized_runtime.api.statistics import check_objectives

    if arguments.objective:
        check_objectives(dict(arguments.objective))
    return dict(arguments.objective)


def _objective(text) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    try:
        return name, float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be NAME=SECONDS, such as ttft=0.5; got {text!r}") from None


def header_of(path) -> dict | None:
    """Header of a log of ours, JSON Lines; None for any other file."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return None
    return first if isinstance(first, dict) and first.get("record") == "header" else None


def print_summary(requests, objectives, *, as_json: bool) -> int:
    """Print percentiles, throughput, goodput under the objectives, and beside them what speaks against them."""
    from idealized_runtime.api.load import describe_load
    from idealized_runtime.api.statistics import GROUP, LOAD, measure_goodput, measure_throughput, summarize_requests
    from idealized_runtime.api.validity import check_requests
    from idealized_runtime.records.definitions import IMPORTED

    # A point of ours has one size; other tools mix sizes at a load, and parts of it are not what the server bore.
    by = ["model", *LOAD] if requests["definitions"].isin(IMPORTED).any() else GROUP
    tables = {"percentiles": summarize_requests(requests, by=by), "throughput": measure_throughput(requests, by=by)}
    if objectives:
        tables["goodput"] = measure_goodput(requests, objectives, by=by)
    findings = check_requests(requests, by=by)
    _print_tables(tables | ({"findings": findings} if as_json else {}), as_json=as_json)
    has_models = requests["model"].nunique() > 1
    for finding in findings.to_dict("records"):
        model = f"{finding['model']}: " if has_models else ""
        say(f"{finding['check']}: {model}{describe_load(finding)}: {finding['message']}")
    return DONE


def _print_tables(tables, *, as_json):
    if as_json:
        print_json(tables)
        return
    summary = tables["percentiles"]
    wanted = [name for name in summary if not name.endswith(("_lower", "_upper")) or name.startswith("p99")]
    print_tables({**tables, "percentiles": summary[wanted]})
