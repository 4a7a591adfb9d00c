"""Commands for load, summaries, changes and imports: their flags, and what they print."""

import itertools
import json
import secrets
from pathlib import Path

from idealized_runtime.cli.api.sending import add_endpoint_arguments, run_sweep, say, saying_warnings

_OBJECTIVE_HELP = "seconds that a request may take: ttft=0.5 tpot=0.05 e2e=10; prints goodput"


def add_parsers(commands):
    """Add the commands to the parser of ``python -m idealized_runtime.api``."""
    _add_load(commands)
    summarise = commands.add_parser(
        "summary", help="percentiles, throughput and goodput of a log or of another tool's file"
    )
    summarise.set_defaults(run=run_summary)
    summarise.add_argument("file", type=Path, help="a log, or what `import` takes")
    _add_objectives(summarise)
    changes = commands.add_parser("changes", help="test what has changed between the same sweeps at different times")
    changes.set_defaults(run=run_changes)
    changes.add_argument("sweeps", type=Path, nargs="+", metavar="LOG", help="two logs or more, in any order")
    changes.add_argument("--level", type=float, default=0.95, help="of intervals and tests (0.95)")
    imports = commands.add_parser("import", help="results of vllm bench serve, GuideLLM, AIPerf and HELM as a log")
    imports.set_defaults(run=run_import)
    imports.add_argument("file", type=Path, help="a result, report or export, or a folder of HELM runs")
    imports.add_argument("--hardware", help="what the model ran on, which the file does not say")
    imports.add_argument("--log", type=Path, help="log to write, which every other command reads")


def _add_load(commands):
    parser = commands.add_parser("load", help="time requests at so many in parallel, or at a rate")
    # A request that is refused under load is a result.
    add_endpoint_arguments(parser)
    parser.set_defaults(run=run_load, max_retries=0)
    sweep = parser.add_argument_group("load")
    sweep.add_argument("--all-num-input-tokens", type=int, nargs="+", required=True, metavar="P", help="prompt sizes")
    sweep.add_argument("--all-num-output-tokens", type=int, nargs="+", required=True, metavar="O", help="output sizes")
    sweep.add_argument("--all-num-parallel", type=int, nargs="+", default=[], metavar="N", help="closed loops")
    sweep.add_argument("--all-rates", type=float, nargs="+", default=[], metavar="R", help="open loops, requests/s")
    sweep.add_argument("--num-requests", type=int, default=100, help="of each size at each load (100)")
    sweep.add_argument("--num-warmup", type=int, default=4, help="uncounted ones before them, at the same load (4)")
    sweep.add_argument("--num-repetitions", type=int, default=1, help="passes through all loads (1)")
    sweep.add_argument(
        "--seed", type=int, help="of prompts, order and arrivals; by chance, so that no run repeats another's"
    )
    sweep.add_argument("--log", type=Path, required=True, help="where every request goes: logs/<name>/<model>.jsonl")
    _add_objectives(parser)


def _add_objectives(parser):
    parser.add_argument("--objective", nargs="+", default=[], metavar="NAME=SECONDS", help=_OBJECTIVE_HELP)


def run_load(arguments) -> int:
    """Time what the log lacks of a load sweep, and summarise it."""
    objectives = read_objectives(arguments.objective)
    return run_sweep(arguments, _make_sweep) or _print_summary(_read(arguments.log), objectives)


def _make_sweep(arguments):
    from idealized_runtime.api.load import LoadRunner, LoadSweep

    sweep = LoadSweep(
        all_num_prompt_tokens=tuple(arguments.all_num_input_tokens),
        all_num_output_tokens=tuple(arguments.all_num_output_tokens),
        all_num_parallel=tuple(arguments.all_num_parallel),
        all_rates_per_s=tuple(arguments.all_rates),
        num_requests=arguments.num_requests,
        num_warmup=arguments.num_warmup,
        num_repetitions=arguments.num_repetitions,
        seed=secrets.randbits(32) if arguments.seed is None else arguments.seed,
    )
    return sweep, LoadRunner


def run_summary(arguments) -> int:
    """Print percentiles, throughput, goodput and what speaks against them."""
    objectives = read_objectives(arguments.objective)
    if _is_log(arguments.file):
        return _print_summary(_read(arguments.file), objectives)
    from idealized_runtime.api.statistics import summarize_file
    from idealized_runtime.records.importers import import_requests, import_totals

    if objectives or not import_totals(arguments.file):
        return _print_summary(import_requests(arguments.file), objectives)
    _print_percentiles(summarize_file(arguments.file))
    return 0


def run_changes(arguments) -> int:
    """Print whether the newest sweep differs from the one before, and from all before it."""
    from idealized_runtime.api.changes import compare_parameters, compare_sweeps, compare_with_history

    if len(arguments.sweeps) < 2:
        raise ValueError("changes are between two sweeps or more; got one log")
    if not 0 < arguments.level < 1:
        raise ValueError(f"--level must lie between 0 and 1; got {arguments.level}")
    sweeps = _read_sweeps(arguments.sweeps)
    earlier, later = sweeps[-2:]
    print(f"{later['sent_at'].min():%Y-%m-%d %H:%M} against {earlier['sent_at'].min():%Y-%m-%d %H:%M} (UTC)")
    print(_table(compare_sweeps(earlier, later, level=arguments.level)))
    try:
        print(_table(compare_parameters(earlier, later, level=arguments.level).reset_index()))
    except ValueError as error:
        say(f"denoised parameters are not compared: {error}")
    if len(sweeps) > 3:
        history = compare_with_history(sweeps, level=arguments.level)
        print(_table(history.to_frame().T))
    return 0


def _read_sweeps(paths) -> list:
    """Requests of several logs, oldest first.

    Raises
    ------
    ValueError
        A log does not say when its requests were sent, or two hold the same ones.
    """
    sweeps = [_read(path) for path in paths]
    for path, sweep in zip(paths, sweeps, strict=True):
        if sweep["sent_at"].isna().any():
            raise ValueError(f"{path}: does not say when its requests were sent: neither earlier nor later than others")
    for (first, earlier), (second, later) in itertools.combinations(zip(paths, sweeps, strict=True), 2):
        if num_shared := len(earlier.merge(later, on=["sent_at", "runtime_s"])):
            raise ValueError(
                f"{first} and {second} hold the same requests, {num_shared} of them: changes are between two sweeps"
            )
    return sorted(sweeps, key=lambda sweep: sweep["sent_at"].min())


def run_import(arguments) -> int:
    """Summarise another tool's requests, and write them as a log where asked to."""
    from idealized_runtime.records import Journal
    from idealized_runtime.records.importers import import_requests

    requests = import_requests(arguments.file, hardware=arguments.hardware)
    if arguments.log is not None:
        header, trials = _read_loggable(arguments.file, arguments.hardware)
        with Journal(arguments.log, header) as journal:
            if num_trials := len(journal.log.trials):
                raise ValueError(f"{arguments.log} holds {num_trials} trials already; give another --log")
            for trial in trials:
                journal.append("trial", trial, is_waiting=False)
            journal.finish()
    return _print_summary(requests, {})


def _read_loggable(path, hardware) -> tuple[dict, list[dict]]:
    """Header and trials of another tool's file.

    Raises
    ------
    ValueError
        They make no log; the message says why.
    """
    from idealized_runtime.records import Journal
    from idealized_runtime.records.importers import import_trials

    parts = import_trials(path, hardware=hardware)
    if any(part.header != parts[0].header for part in parts):
        raise ValueError(f"{path} holds runs of several models, protocols or hardware, and a log one: split it")
    trials = [trial for part in parts for trial in part.trials]
    # A journal that keeps nothing refuses what one of a file would refuse in its midst.
    unwritten = Journal(None, parts[0].header)
    for number, trial in enumerate(trials):
        unwritten.append("trial", trial, where=f"{path}: request {number}")
    return parts[0].header, trials


def read_objectives(given) -> dict[str, float]:
    """Objectives of the command line, in seconds by name.

    Raises
    ------
    ValueError
        One is not NAME=SECONDS.
    """
    objectives = {}
    for text in given:
        name, _, seconds = text.partition("=")
        try:
            objectives[name] = float(seconds)
        except ValueError as error:
            raise ValueError(f"--objective takes NAME=SECONDS, such as ttft=0.5; got {text!r}") from error
    if objectives:
        from idealized_runtime.api.statistics import check_objectives

        check_objectives(objectives)
    return objectives


def _is_log(path) -> bool:
    """Whether a file begins with the header of a log."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            return json.loads(file.readline()).get("record") == "header"
        except (ValueError, AttributeError):
            return False


def _read(path):
    from idealized_runtime.records import read_requests

    with saying_warnings():
        return read_requests(path)


def _print_summary(requests, objectives) -> int:
    from idealized_runtime.api.load import describe_load
    from idealized_runtime.api.statistics import GROUP, LOAD, measure_goodput, measure_throughput, summarize_requests
    from idealized_runtime.api.validity import check_requests

    # A point of ours has one size; other tools mix sizes at a load, and parts of it are not what the server bore.
    by = ["model", *LOAD] if _is_mixed(requests) else GROUP
    _print_percentiles(summarize_requests(requests, by=by))
    print(_table(measure_throughput(requests, by=by)))
    if objectives:
        print(_table(measure_goodput(requests, objectives, by=by)))
    has_models = requests["model"].nunique() > 1
    for finding in check_requests(requests, by=by).to_dict("records"):
        model = f"{finding['model']}: " if has_models else ""
        say(f"{finding['check']}: {model}{describe_load(finding)}: {finding['message']}")
    return 0


def _is_mixed(requests) -> bool:
    from idealized_runtime.records.definitions import IMPORTED

    return requests["definitions"].isin(IMPORTED).any()


def _print_percentiles(summary):
    wanted = [name for name in summary if not name.endswith(("_lower", "_upper")) or name.startswith("p99")]
    print(_table(summary[wanted]))


def _table(frame) -> str:
    """A table for a terminal; columns that hold nothing are left out."""
    return frame.dropna(axis="columns", how="all").round(4).to_string(index=False, na_rep="") + "\n"
