"""Command line: time a model behind an API, and fit what was timed."""

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path

from idealized_runtime.cli.api.load_commands import add_parsers as add_load_parsers
from idealized_runtime.cli.api.sending import FAILED, add_endpoint_arguments, kept, run_sweep, say, saying_warnings

_PROGRAM = "idealized_runtime.api"
# Exit codes beside those of a sweep; argparse's is 2 too. A refused key or model is bad input.
BAD_INPUT, INTERRUPTED = 2, 130
ESTIMATORS = ("minimum", "second_smallest", "quantile", "frontier")
_EPILOG = (
    "exit codes: 0 done, 1 requests failed, 2 bad input or a refused key or model, 3 budget spent, 130 interrupted"
)


def main(argv=None) -> int:
    """Run the command line; its exit code."""
    arguments = build_parser().parse_args(argv)
    # A scheduler's stop signal ends a sweep as Ctrl-C does, which shells keep from background jobs. asyncio lets what
    # is under way end in order for that one only; for the other, an exception anywhere would lose a request.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {kept(arguments)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """Parser of ``python -m idealized_runtime.api``; a command adds its own with ``add_parser``."""
    parser = argparse.ArgumentParser(prog=f"python -m {_PROGRAM}", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_profile(commands)
    _add_fit(commands)
    add_load_parsers(commands)
    return parser


def _add_profile(commands):
    parser = commands.add_parser(
        "profile", help="time synthetic prompts of known size; a run that was cut off goes on", epilog=_EPILOG
    )
    parser.set_defaults(run=run_profile)
    add_endpoint_arguments(parser)
    sizes = parser.add_argument_group("sweep")
    sizes.add_argument("--all-num-input-tokens", type=int, nargs="+", required=True, metavar="P", help="prompt sizes")
    sizes.add_argument("--all-num-output-tokens", type=int, nargs="+", required=True, metavar="O", help="output sizes")
    sizes.add_argument("--num-trials", type=int, default=10, help="timed requests a setting (10)")
    sizes.add_argument("--num-warmup", type=int, default=1, help="untimed requests a setting (1)")
    sizes.add_argument("--seed", type=int, help="of prompts and order; by chance, so that no run repeats another's")
    sizes.add_argument("--log", type=Path, required=True, help="where every request goes: logs/<name>/<model>.jsonl")


def _add_fit(commands):
    parser = commands.add_parser("fit", help="denoised parameters of a log, and their figure", epilog=_EPILOG)
    parser.set_defaults(run=run_fit)
    parser.add_argument("log", type=Path)
    parser.add_argument("--estimator", choices=ESTIMATORS, default="minimum", help="(minimum, the paper's)")
    parser.add_argument("--parameters", type=Path, help="parameter file to write, with HELM's keys")
    parser.add_argument("--figure", type=Path, help="figure to write, as .pdf and .png")


def run_profile(arguments) -> int:
    """Time what the log lacks, and print the sentence of every setting."""
    return run_sweep(arguments, _make_sweep) or _summarise(arguments.log)


def _make_sweep(arguments):
    from idealized_runtime.api.profile import Profiler, Sweep

    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    sweep = Sweep(tuple(arguments.all_num_input_tokens), tuple(arguments.all_num_output_tokens),
                  arguments.num_trials, arguments.num_warmup, seed)  # fmt: skip
    return sweep, Profiler


def run_fit(arguments) -> int:
    """Print the denoised parameters of a log; write them and their figure where asked to."""
    from idealized_runtime.api.fit import fit_log, parameter_lines, save_fit_figure
    from idealized_runtime.fits import write_parameters

    trials, model = fit_log(arguments.log, estimator=arguments.estimator)
    name = str(trials["model"].iloc[0])
    print("\n".join(parameter_lines(model, trials, estimator=arguments.estimator)))
    if arguments.parameters is not None:
        write_parameters(arguments.parameters, {name: model}, sources={name: arguments.log})
    if arguments.figure is not None:
        save_fit_figure(trials, model, arguments.figure)
    return 0


def _summarise(path) -> int:
    """Print the sentence of 2023 for every setting; whether there is any."""
    from idealized_runtime.records import LogFormatError, read_trials, runtime_sentence

    try:
        with saying_warnings():
            trials = read_trials(path)
    except LogFormatError as error:
        say(str(error))
        return FAILED
    for (p, o), group in trials.groupby(["num_prompt_tokens", "num_output_tokens"]):
        runtimes_s = group["runtime_s"].tolist()
        setting = {"num_prompt_tokens": int(p), "num_output_tokens": int(o), "runtimes_s": runtimes_s}
        print(runtime_sentence(setting))
    return 0
