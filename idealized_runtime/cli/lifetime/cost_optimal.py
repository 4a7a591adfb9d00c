"""The size that reaches a loss for the least money, training and inference on rented accelerators."""

import argparse

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.lifetime.flags import add_answer, add_hardware, add_loss, add_requests

EXAMPLES = """\
how is loss 1.947 reached for the least money, on these accelerators?
  idealized-runtime lifetime cost-optimal --loss 1.947 --inference-reqs 1e10 --input-tok 1000 --output-tok 250 \\
      --train-gpu-type A100_80 --train-gpu-cost 1.40 --inference-gpu-type A100_40 --inference-dtype int8 \\
      --inference-gpu-cost 0.60 --train-mfu 0.5 --prefill-mfu 0.4 --generation-mfu 0.2
and with inference priced by measured runtimes instead of guessed utilisations, with intervals?
  idealized-runtime lifetime cost-optimal --loss 2.1 --inference-reqs 1e9 --input-tok 128 --output-tok 64 \\
      --train-gpu-type A100_80 --parameters processed_jsons/a100.json
"""
_MEASURED_FLAGS = {"queries": "--queries", "columns": "--columns", "extrapolate": "--extrapolate", "models": "--model",
                   "num_accelerators": "--num-accelerators"}  # fmt: skip


def add_arguments(parser):
    """Flags of the command."""
    add_loss(parser)
    add_hardware(parser)
    add_requests(parser, default=1e10)
    group = parser.add_argument_group(
        "measured inference", "Timed models in place of the utilisations of inference, which become the guess to "
        "compare with; the accelerator and its type are then those that were measured.")  # fmt: skip
    add_shared(group, "--parameters", help="runtimes of at least four models, such as processed_jsons/a100.json")
    add_shared(group, "--queries", help="sizes of the requests (a CSV: num_prompt_tokens, num_output_tokens; weight) "
               "in place of the means")  # fmt: skip
    add_shared(group, "--columns", "--extrapolate")
    add_shared(group, "--model", dest="models", nargs="+", action="extend", help="only these models of the file")
    add_shared(group, "--num-accelerators", nargs="+", type=_accelerators, metavar="N|NAME=N",
               help="that hold a model while a query runs: of the one named, or of all others; needed where "
               "file and logs do not say, as with HELM's parameters")  # fmt: skip
    add_answer(parser)


def run(arguments) -> int:
    """Print the size of least lifetime cost, inference as guessed or as measured."""
    if arguments.parameters is not None:
        from idealized_runtime.cli.lifetime.measured import answer_measured

        return answer_measured(arguments)
    if given := [flag for name, flag in _MEASURED_FLAGS.items() if getattr(arguments, name)]:
        verb = "go" if len(given) > 1 else "goes"
        raise ValueError(f"{', '.join(given)} {verb} with --parameters: guessed costs depend on means alone")
    from idealized_runtime.cli.lifetime.answers import answer_optimum, costs_of
    from idealized_runtime.cli.lifetime.report import rental_row, request_rows

    flops, usd, assumed = costs_of(arguments)
    rentals = [rental_row(side.capitalize(), assumed[side]) for side in ("training", "inference")]
    return answer_optimum(arguments, "Cost-Optimal", flops, usd, assumed, [*request_rows(assumed["demand"]), *rentals])


def _accelerators(text) -> tuple[str | None, int]:
    """Name of a model, None for all of them, and its number of accelerators."""
    name, equals, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1 or (equals and not name):
        raise argparse.ArgumentTypeError(f"must be N or NAME=N, N an integer of at least 1; got {text!r}")
    return name or None, int(number)
