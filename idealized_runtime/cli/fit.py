"""Time per output token and prompt encoding times of every model of some logs, with intervals where the timings tell
them; and the parameter file that everything after the fit reads.

Logs of an API are fitted to its denoised runtimes, what a query takes there when nothing disturbs it.
"""

import warnings

from idealized_runtime.checks import positive_int
from idealized_runtime.cli.api.fit import ESTIMATORS
from idealized_runtime.cli.api.summary import header_of, is_of_load
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, print_json, print_table

EXAMPLES = """\
examples: idealized-runtime fit a100 --out processed_jsons/a100.json
          idealized-runtime fit cpu_batch --batch-size 32 --out processed_jsons/cpu_batch32.json
          idealized-runtime fit logs/api/NAME.jsonl --estimator frontier --out processed_jsons/api.json
"""


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("logs", nargs="+", metavar="LOGS",
                        help="folders of logs, by path or name (cpu, local, a100), or single logs")  # fmt: skip
    add_shared(parser, "--model", dest="models", action="append", help="only this one; several times for several")
    add_shared(parser, "--software", "--accept")
    parser.add_argument("--batch-size", type=positive_int, metavar="B",
                        help="sequences: which batches to fit, of logs that hold several")  # fmt: skip
    parser.add_argument("--estimator", choices=ESTIMATORS,
                        help="of the denoised runtimes of an API (minimum, the paper's)")  # fmt: skip
    add_shared(parser, "--out", help="parameter file to write, with HELM's keys")
    add_shared(parser, "--level", "--json")


def run(arguments) -> int:
    """Fit the logs, print what was found, and write the parameter file where asked to."""
    from idealized_runtime.architectures.registry import by_helm_name
    from idealized_runtime.fits import write_parameters
    from idealized_runtime.fits.tables import note_lines, prompt_encoding_table, time_per_output_token_table
    from idealized_runtime.records import SuspiciousLogWarning

    if arguments.out is not None:
        check_format(arguments.out, (".json",))
    api_logs = [_api_logs(logs, arguments.models) for logs in arguments.logs]
    for flag, given, is_of_apis in (
        ("--estimator", arguments.estimator, True),
        ("--software", arguments.software, False),
        ("--batch-size", arguments.batch_size, False),
    ):
        if given is not None and not any(bool(paths) is is_of_apis for paths in api_logs):
            kinds = ("logs of APIs", "logs timed in process")
            of, held = kinds if is_of_apis else reversed(kinds)
            raise ValueError(f"{flag} is for {of}; {', '.join(arguments.logs)}: {held}")
    fits, sources, machines = {}, {}, {}
    for logs, paths in zip(arguments.logs, api_logs, strict=True):
        for name, fit, path, hardware in _fits_of(logs, paths, arguments):
            if name in fits:
                raise ValueError(f"{path or logs}: a second log of {name}; give the one to fit")
            fits[name] = fit
            machines.setdefault(hardware, []).append(name)
            if path is not None:
                sources[name] = path
    if not fits:
        raise ValueError(f"{', '.join(arguments.logs)}: no log is left to go by")
    if len(machines) > 1:
        named = "; ".join(f"{hardware}: {', '.join(names)}" for hardware, names in machines.items())
        warnings.warn(f"one table of {len(machines)} machines: {named}", SuspiciousLogWarning, stacklevel=2)
    # Before anything is printed: what reads standard output may stop, and the file is what was asked for.
    if arguments.out is not None:
        write_parameters(arguments.out, by_helm_name(fits), sources=by_helm_name(sources))
    if arguments.json:
        print_json({name: fit.to_json() for name, fit in fits.items()})
    else:
        print_table(time_per_output_token_table(fits, level=arguments.level), with_index=True)
        print("\nprompt encoding times, ms")
        print_table(prompt_encoding_table(fits, level=arguments.level), with_index=True)
        print("".join(f"\nnote: {line}" for line in note_lines(fits)))
    return DONE


def _api_logs(logs, models) -> list:
    """The logs of a folder, or one log, where they are of APIs; none where they were timed in process."""
    from idealized_runtime.measurements.folders import find_logs

    paths = find_logs(logs, models)
    api_logs = [path for path in paths if (header_of(path) or {}).get("kind") == "api"]
    if 0 < len(api_logs) < len(paths):
        raise ValueError(f"{logs} holds logs of APIs and of models timed in process: give them one by one")
    return api_logs


def _fits_of(logs, api_logs, arguments):
    """Name, fit, of an API its log, and hardware of each model of a folder or of one log.

    A fit of what was timed in process names its log itself.
    """
    from idealized_runtime.fits import RuntimeModel
    from idealized_runtime.fits.denoised import fit_denoised
    from idealized_runtime.measurements.timed_models import fit_models, read_timed_models
    from idealized_runtime.records import IncompleteLogWarning, NothingTimedError, read_trials

    headers = {path: header_of(path) for path in api_logs}
    swept = {header.get("model") for header in headers.values() if not is_of_load(header)}
    for path, header in headers.items():
        if is_of_load(header) and header.get("model") in swept:
            said = f"left out: {path}: requests under load; {header['model']} is fitted to its sweep of sizes beside it"
            warnings.warn(said, IncompleteLogWarning, stacklevel=2)
            continue
        try:
            trials = read_trials(path, accept=arguments.accept)
        except NothingTimedError as error:
            if len(api_logs) == 1:
                raise
            warnings.warn(f"left out: {error}", IncompleteLogWarning, stacklevel=2)
            continue
        try:
            fit = fit_denoised(trials, estimator=arguments.estimator or ESTIMATORS[0], fit=RuntimeModel.fit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        yield str(trials["model"].iloc[0]), fit, path, str(trials["hardware"].iloc[0])
    if not api_logs:
        timed = read_timed_models(logs, arguments.models, software=arguments.software, accept=arguments.accept)
        fits = fit_models(timed, batch_size=arguments.batch_size)
        yield from ((name, fit, None, timed[name].hardware) for name, fit in fits.items())
