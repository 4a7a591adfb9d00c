"""Percentiles with intervals, throughput, goodput of a log or of what `import` takes; and what speaks against them."""

import argparse
from pathlib import Path

from idealized_runtime.checks import parse_json
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import print_json, print_tables, say, show

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
    from idealized_runtime.records import read_requests
    from idealized_runtime.records.importers import import_file

    objectives = objectives_of(arguments)
    if header_of(arguments.file) is not None:
        return print_summary(read_requests(arguments.file), objectives, as_json=arguments.json)
    return print_imported(arguments.file, import_file(arguments.file), objectives, as_json=arguments.json)


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
            first = parse_json(file.readline())
        except ValueError:
            return None
    return first if isinstance(first, dict) and first.get("record") == "header" else None


def is_of_load(header) -> bool:
    """Whether a log with this header is of requests under load, and not of a sweep of sizes."""
    return "all_num_parallel" in (header.get("sweep") or {})


def print_imported(path, imported, objectives, *, as_json: bool) -> int:
    """Print what another tool's file holds, and what the file tells of its own numbers."""
    import pandas as pd

    from idealized_runtime.api.statistics import totals_table

    counted = f"{len(imported.requests)} requests" if len(imported.requests) else "no single requests"
    say(f"{path}: {', '.join(imported.tools)}, {counted}" + "; totals" * bool(imported.totals))
    if not imported.requests.empty:
        return print_summary(imported.requests, objectives, imported=imported, as_json=as_json)
    if objectives:
        raise ValueError(f"{path}: holds totals only, and no requests that could meet an objective")
    throughput = pd.DataFrame(imported.throughput)
    _print({"percentiles": totals_table(imported.totals), "throughput": throughput}, imported.findings, as_json=as_json)
    return DONE


def print_summary(requests, objectives, *, imported=None, as_json: bool) -> int:
    """Print percentiles, throughput, goodput under the objectives, and beside them what speaks against them."""
    import pandas as pd

    from idealized_runtime.api.statistics import (
        GROUP,
        LOAD,
        measure_goodput,
        measure_throughput,
        mixes_sizes,
        summarize_requests,
    )
    from idealized_runtime.api.validity import check_load

    # Where sizes are mixed at a load, parts of it are not what the server bore.
    by = ["model", *LOAD] if mixes_sizes(requests) else GROUP
    tables = {"percentiles": summarize_requests(requests, by=by), "throughput": measure_throughput(requests, by=by)}
    if objectives:
        tables["goodput"] = measure_goodput(requests, objectives, by=by)
    findings = check_load(requests, by=by).to_dict("records")
    if imported is not None:
        findings += imported.findings
        if imported.throughput:
            # Of a sample of the requests the tool alone knows what the server did.
            own = pd.DataFrame(imported.throughput).reindex(columns=tables["throughput"].columns)
            measured = tables["throughput"]
            known = pd.MultiIndex.from_frame(own[by].astype(object))
            measured = measured[~pd.MultiIndex.from_frame(measured[by].astype(object)).isin(known)]
            tables["throughput"] = pd.concat([measured.astype(object), own.astype(object)]) if len(measured) else own
    if objectives and not as_json:
        limits = ", ".join(f"{name} <= {limit_s:g} s" for name, limit_s in objectives.items())
        show(f"goodput counts answers whole and as asked for with {limits}; sizes p and o are in tokens")
    _print(tables | ({"objectives": objectives} if objectives and as_json else {}), findings, as_json=as_json)
    if tables["percentiles"].empty:
        say(f"nothing is summarised: none of {len(requests)} requests counts")
        return NOTHING_DONE
    return DONE


def _print(tables, findings, *, as_json):
    if as_json:
        print_json({**tables, "findings": findings})
    else:
        summary = tables["percentiles"]
        wanted = [name for name in summary if not name.endswith(("_lower", "_upper")) or name.startswith("p99")]
        print_tables({**tables, "percentiles": summary[wanted]})
    from idealized_runtime.api.load import describe_load

    has_models = len({finding["model"] for finding in findings if "model" in finding}) > 1
    # Of as many settings as a sweep has it is said once.
    first, *others = [finding for finding in findings if finding["check"] == "few_requests"] or [None]
    for finding in (finding for finding in findings if not any(finding is other for other in others)):
        model = f"{finding['model']}: " if has_models and "model" in finding else ""
        load = f"{describe_load(finding)}: " if "load" in finding else ""
        rest = f"; and so of {len(others)} more" if others and finding is first else ""
        say(f"{finding['check']}: {model}{load}{finding['message']}{rest}")
