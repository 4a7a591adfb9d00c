"""The command line: reads and checks arguments; :mod:`commands` answers. Imports nothing that takes time."""

import argparse
import json
import math
import sys
from importlib import import_module

from idealized_runtime.cli.lifetime.flags import DEFAULT_HARDWARE
from idealized_runtime.cli.main import warnings_as_lines

PROGRAM = "python -m idealized_runtime.lifetime"
DESCRIPTION = """\
What should be trained? Sizes a language model for its whole life: training it, then serving it.

A scaling law L(N, D) = E + A / N^alpha + B / D^beta says how good a model of N parameters is after D training
tokens. Many pairs (N, D) reach one loss; training alone is cheapest at the Chinchilla size, training and
serving together at a smaller one that is trained longer.
"""
EXAMPLES = f"""\
examples:
  which loss does a 70 B model reach on 1e12 tokens?
    {PROGRAM} model --model 70e9 --data 1e12
  how is that loss reached with the least compute, if the model will serve 2e12 tokens?
    {PROGRAM} compute-optimal --loss 1.947 --inference-tokens 2e12
  and for the least money, on these accelerators?
    {PROGRAM} cost-optimal --loss 1.947 --inference-reqs 1e10 --input-tok 1000 --output-tok 250 \\
        --train-gpu-type A100_80 --train-gpu-cost 1.40 --inference-gpu-type A100_40 --inference-dtype int8 \\
        --inference-gpu-cost 0.60 --train-mfu 0.5 --prefill-mfu 0.4 --generation-mfu 0.2
  and with inference priced by measured runtimes instead of guessed utilisations, with intervals?
    {PROGRAM} cost-optimal --loss 2.1 --inference-reqs 1e9 --input-tok 128 --output-tok 64 \\
        --train-gpu-type A100_80 --parameters processed_jsons/a100.json
  what do training and serving a Chinchilla-optimal 30 B model cost?
    {PROGRAM} cost --chinchilla --model 30e9 --inference-reqs 1e9 --input-tok 500 --output-tok 100
  what is the law of my own training runs, and what follows from it, with intervals?
    {PROGRAM} fit --data trainingresults.csv --out law.json
    {PROGRAM} compute-optimal --loss 2.5 --coefficients law.json

Flags may be spelled with underscores, as arXiv:2401.00448's scripts spell them. COMMAND --help lists those of a
command; --json prints the same answer as data. Sizes beyond the training runs of a scaling law are warned of, and
refused a hundred times below or 1e5 times above them. Bad input exits with status 2.
"""


def main(argv=None) -> int:
    """Run the command line; returns the exit status: 0, or 2 for input that has no answer."""
    arguments = build_parser().parse_args(_with_dashes(sys.argv[1:] if argv is None else argv))
    commands = import_module("idealized_runtime.cli.lifetime.commands")
    try:
        with warnings_as_lines(f"{PROGRAM} {arguments.command}"):
            report = getattr(commands, arguments.command.replace("-", "_"))(arguments)
    except (ValueError, OSError) as error:
        return _fail(arguments, error)
    except OverflowError:
        return _fail(arguments, "these coefficients and sizes lead to numbers beyond 1e308: check them")
    print(json.dumps(report.data, indent=2) if arguments.json else report.text)
    return 0


def _fail(arguments, message) -> int:
    print(f"{PROGRAM} {arguments.command}: error: {message}", file=sys.stderr)
    return 2


def _with_dashes(argv):
    """The command and the flags in their dashed spelling, negative numbers joined to their flag.

    Argparse would take ``-1e9`` for a flag, and then could not say what is wrong with it.
    """
    spelled = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if word.startswith("--") or not spelled:
            spelled.append(flag.replace("_", "-") + equals + value)
        elif spelled[-1].startswith("--") and _is_negative_number(word):
            spelled[-1] += f"={word}"
        else:
            spelled.append(word)
    return spelled


def _is_negative_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all five commands."""
    parser = _Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_compute_optimal(commands)
    _add_cost_optimal(commands)
    _add_model(commands)
    _add_cost(commands)
    _add_fit(commands)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print the answer as JSON, unrounded")
    return parser


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)


def _add_compute_optimal(commands):
    parser = commands.add_parser(
        "compute-optimal",
        help="the size that reaches a loss with the fewest FLOPs over training and inference",
        description="The size that reaches a loss with the fewest FLOPs, 6 N D for training and 2 N T for inference.",
    )
    parser.add_argument("--loss", type=positive, required=True, help="loss to reach, nats a token")
    parser.add_argument(
        # --tokens is the README's spelling of the original, beside its script's.
        "--inference-tokens", "--tokens", type=not_negative, default=2e12, metavar="T",
        help="prompt and output tokens over the model's life (default: %(default)g)",
    )  # fmt: skip
    _add_coefficients(parser)


def _add_cost_optimal(commands):
    parser = commands.add_parser(
        "cost-optimal",
        help="the size that reaches a loss for the least money over training and inference",
        description="The size that reaches a loss for the least money, training and inference on rented accelerators.",
    )
    parser.add_argument("--loss", type=positive, required=True, help="loss to reach, nats a token")
    _add_hardware(parser)
    _add_requests(parser, default=1e10)
    _add_measured(parser)
    _add_coefficients(parser)


def _add_model(commands):
    parser = commands.add_parser(
        "model",
        help="a model's missing properties: size, training tokens, compute, loss",
        description="A model's missing properties, from two of --model, --data, --compute and --loss; from one with "
        "--chinchilla.",
    )
    _add_properties(parser)
    parser.add_argument(
        "--inference-tokens", type=not_negative, default=0.0, metavar="T",
        help="also count the FLOPs of serving so many tokens",
    )  # fmt: skip
    _add_coefficients(parser)


def _add_cost(commands):
    parser = commands.add_parser(
        "cost",
        help="what training a model costs, and what serving it costs",
        description="What training a model costs in dollars, and with --inference-reqs what serving it costs.",
    )
    _add_properties(parser)
    _add_hardware(parser)
    _add_requests(parser, default=0.0)
    _add_coefficients(parser)


def _add_fit(commands):
    parser = commands.add_parser(
        "fit",
        help="the scaling law of your own training runs, with bootstrap intervals",
        description="Least Huber loss between predicted and observed log losses, from 4500 starts (arXiv:2203.15556, "
        "section D.2), then refits to resampled runs.",
    )
    parser.add_argument("--data", required=True, metavar="CSV", help="training runs, one a row, with a header")
    for what, default in (("params", "Parameters"), ("tokens", "Tokens"), ("loss", "Smoothed Loss")):
        parser.add_argument(f"--{what}-column", default=default, metavar="NAME", help="default: %(default)r")
    parser.add_argument("--cutoff", type=positive, metavar="R", help="leave out runs of more than R tokens a parameter")
    parser.add_argument("--delta", type=positive, default=1e-3, help="of the Huber loss (default: %(default)g)")
    parser.add_argument(
        "--draws",
        type=count,
        default=1000,
        metavar="K",
        help="bootstrap refits (default: %(default)s; 0: no intervals)",
    )
    parser.add_argument("--seed", type=count, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--level", type=share, default=0.95, help="of the intervals (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="write law and draws here, for --coefficients of other commands")


def _add_properties(parser):
    group = parser.add_argument_group("the model")
    group.add_argument("--model", type=positive, dest="num_params", metavar="N", help="parameters")
    group.add_argument("--data", type=positive, dest="num_training_tokens", metavar="D", help="training tokens")
    group.add_argument("--compute", type=positive, dest="training_flops", metavar="C", help="training FLOPs")
    group.add_argument("--loss", type=positive, metavar="L", help="final training loss, nats a token")
    group.add_argument(
        "--chinchilla", action=argparse.BooleanOptionalAction, default=False,
        help="take the size that reaches its loss with the fewest training FLOPs; one property then fixes it",
    )  # fmt: skip


def _add_hardware(parser):
    group = parser.add_argument_group("hardware", "Prices in dollars an hour of one accelerator; without one, what "
                                      "arXiv:2401.00448 assumes, else the dated price of the accelerator.")  # fmt: skip
    for side, (accelerator, dtype) in DEFAULT_HARDWARE.items():
        # None where the flag is not given: with --parameters the default is what was measured.
        group.add_argument(f"--{side}-gpu-type", metavar="NAME",
                           help=f"such as A100_40, A100_80, H100, V100-32GB (default: {accelerator})")  # fmt: skip
        group.add_argument(f"--{side}-gpu-cost", type=positive, metavar="USD", help="price an hour")
        group.add_argument(f"--{side}-dtype", metavar="TYPE",
                           help=f"bf16, fp16, fp8, int8: what the accelerator has (default: {dtype})")  # fmt: skip
    for flag, default, what in (
        ("--train-mfu", 0.5, "training"), ("--prefill-mfu", 0.5, "prompts"), ("--generation-mfu", 0.01, "output tokens")
    ):  # fmt: skip
        group.add_argument(flag, type=utilization, default=default, metavar="MFU",
                           help=f"utilisation for {what}, in (0, 1] (default: %(default)s)")  # fmt: skip


def _add_requests(parser, default):
    group = parser.add_argument_group("inference demand")
    group.add_argument("--inference-reqs", type=not_negative, default=default, metavar="R",
                       help="requests over the model's life (default: %(default)g)")  # fmt: skip
    for flag, default_tokens, what in (("--input-tok", 70.0, "prompt"), ("--output-tok", 215.0, "output")):
        group.add_argument(flag, type=not_negative, default=default_tokens, metavar="TOKENS",
                           help=f"mean {what} tokens a request (default: %(default)g, of LMSys chats)")  # fmt: skip


def _add_measured(parser):
    group = parser.add_argument_group(
        "measured inference", "Timed models in place of the utilisations of inference, which become the guess to "
        "compare with; the accelerator and its type are then those that were measured.")  # fmt: skip
    group.add_argument("--parameters", metavar="FILE",
                       help="runtimes of at least four models, such as processed_jsons/a100.json")  # fmt: skip
    group.add_argument("--queries", metavar="CSV",
                       help="sizes of the requests (columns num_prompt_tokens, num_output_tokens; weight) "
                       "in place of the means")  # fmt: skip
    group.add_argument("--extrapolate", action="store_true", help="allow prompts longer than those timed")
    group.add_argument("--models", nargs="+", metavar="NAME", help="only these models of the file")
    group.add_argument("--num-accelerators", nargs="+", type=accelerators, metavar="N|NAME=N",
                       help="that hold a model while a query runs: of the one named, or of all others; needed where "
                       "file and logs do not say, as with HELM's parameters")  # fmt: skip


def _add_coefficients(parser):
    group = parser.add_argument_group("scaling law")
    group.add_argument("--coefficients", default="chinchilla", metavar="NAME|FILE",
                       help="chinchilla (default), hoffmann-2022, hoffmann-2022-tex, epoch, or a file that "
                       "`fit --out` wrote: then with intervals")  # fmt: skip
    group.add_argument("--level", type=share, default=0.95, help="of the intervals (default: %(default)s)")
    for name in ("A", "B", "E", "alpha", "beta"):
        allowed = not_negative if name == "E" else positive
        group.add_argument(f"--{name}", type=allowed, help="this coefficient instead of the set's")


def accelerators(text) -> tuple[str | None, int]:
    """Name of a model, None for all of them, and its number of accelerators."""
    name, equals, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1 or (equals and not name):
        raise argparse.ArgumentTypeError(f"must be N or NAME=N, N an integer of at least 1; got {text!r}")
    return name or None, int(number)


def _number(text, is_allowed, allowed):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and is_allowed(value)):
        raise argparse.ArgumentTypeError(f"must be {allowed}; got {text!r}")
    return value


def positive(text):
    """A positive finite number."""
    return _number(text, lambda value: value > 0, "a positive number")


def not_negative(text):
    """Zero or a positive finite number."""
    return _number(text, lambda value: value >= 0, "zero or a positive number")


def utilization(text):
    """A share of the peak rate, in (0, 1]."""
    return _number(text, lambda value: 0 < value <= 1, "in (0, 1], a share of the peak rate")


def share(text):
    """A share between 0 and 1, both excluded."""
    return _number(text, lambda value: 0 < value < 1, "between 0 and 1")


def count(text):
    """A whole number, not negative."""
    return int(_number(text, lambda value: value >= 0 and value == int(value), "a whole number, 0 or more"))
