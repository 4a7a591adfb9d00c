"""The command: fit the logs of some hardware, or one batch size of them, and write the parameter file."""

import argparse
import sys

from idealized_runtime.cli.main import warnings_as_lines

_PROGRAM = "python -m idealized_runtime.fits"


def main(argv=None) -> int:
    """Fit the logs of a folder and print what was found; the exit code is 0, or 2 for what cannot be fitted."""
    arguments = _build_parser().parse_args(argv)
    try:
        with warnings_as_lines(_PROGRAM):
            _fit(arguments)
    except (ValueError, OSError) as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _fit(arguments):
    from idealized_runtime.architectures.registry import by_helm_name
    from idealized_runtime.fits import write_parameters
    from idealized_runtime.fits.tables import prompt_encoding_table, time_per_output_token_table
    from idealized_runtime.measurements.timed_models import fit_models, read_timed_models

    fits = fit_models(read_timed_models(arguments.hardware, arguments.models), batch_size=arguments.batch_size)
    print(time_per_output_token_table(fits).round(4).to_string())
    print("\nprompt encoding times, ms\n" + prompt_encoding_table(fits).to_string())
    if arguments.parameters is not None:
        write_parameters(arguments.parameters, by_helm_name(fits))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Time per output token and prompt encoding times of every model that was timed on some hardware, "
        "with 95 % intervals where the timings tell them.",
        epilog=f"Example: {_PROGRAM} cpu_batch --batch-size 32 --parameters processed_jsons/cpu_batch32.json",
        allow_abbrev=False,
    )
    parser.add_argument("hardware", help="a folder of logs: a path, or a name such as cpu, local, a100")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--batch-size", type=int, metavar="B", help="sequences: which batches to fit, of logs that hold several"
    )
    parser.add_argument("--parameters", metavar="FILE", help="write the parameter file")
    return parser
