"""The size that reaches a loss for the least money, training and inference on rented accelerators.

Inference is priced at guessed utilisations; as timed, with --parameters; or as it is served, with --plan: at the batch
that meets objectives, by step times that are predicted from logs or stand in a parameter file, beside the guess and one
query at a time.
"""

import argparse

from idealized_runtime.checks import device_rate, not_negative_number, positive_number
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.lifetime.flags import add_answer, add_hardware, add_loss, add_requests
from idealized_runtime.cli.serving.flags import add_objectives

EXAMPLES = """\
how is loss 1.947 reached for the least money, on these accelerators?
  idealized-runtime lifetime cost-optimal --loss 1.947 --inference-reqs 1e10 --input-tok 1000 --output-tok 250 \\
      --train-gpu-type A100_80 --train-gpu-cost 1.40 --inference-gpu-type A100_40 --inference-dtype int8 \\
      --inference-gpu-cost 0.60 --train-mfu 0.5 --prefill-mfu 0.4 --generation-mfu 0.2
and with inference priced by measured runtimes instead of guessed utilisations, with intervals?
  idealized-runtime lifetime cost-optimal --loss 2.1 --inference-reqs 1e9 --input-tok 128 --output-tok 64 \\
      --train-gpu-type A100_80 --parameters processed_jsons/a100.json
and served as it is done, many at once, within objectives, with kilowatt hours and CO2?
  idealized-runtime lifetime cost-optimal --plan --logs a100 --objective ttft:p95=2 tpot:p95=0.2 --loss 2.1 \\
      --inference-reqs 1e9 --input-tok 128 --output-tok 64 --train-gpu-type A100_80
"""
_MEASURED_FLAGS = {"queries": "--queries", "columns": "--columns", "extrapolate": "--extrapolate", "models": "--model",
                   "num_accelerators": "--num-accelerators"}  # fmt: skip
_PLANNED_FLAGS = {"logs": "--logs", "software": "--software", "hardware": "--hardware", "objectives": "--objective",
                  "workload": "--workload", "power_watts": "--power-watts", "pue": "--pue",
                  "training_power_watts": "--train-power-watts",
                  "kg_co2e_per_kwh": "--grid-kg-co2e-per-kwh"}  # fmt: skip


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
    group = parser.add_argument_group(
        "planned inference", "Servers of models of at least four sizes, each as full as the objectives allow, with "
        "--plan: their step times are predicted from --logs, or stand in the file of --parameters.")  # fmt: skip
    group.add_argument("--plan", action="store_true", help="price a query at the largest rate that a replica bears "
                       "within the objectives; --queries, --model, --num-accelerators count here, too")  # fmt: skip
    add_shared(group, "--logs", help="folder of timing logs, or a stack that comes with the package (a100, v100, "
               "cpu): its models, or those of --model, by name or path of a config.json, are predicted")  # fmt: skip
    add_shared(group, "--software")
    add_shared(group, "--hardware", help="row of the accelerators whose memory, price and power count (default: that "
               "which was timed); --inference-gpu-cost goes before its price")  # fmt: skip
    add_objectives(group)
    add_shared(group, "--power-watts")
    group.add_argument("--train-power-watts", dest="training_power_watts", type=device_rate, metavar="W",
                       help="draw of one accelerator that trains (default: its maximum)")  # fmt: skip
    group.add_argument("--pue", type=positive_number, metavar="X", help="what the data centre draws over what its "
                       "machines do (default: 1.56, Uptime Institute's survey of 2024)")  # fmt: skip
    group.add_argument("--grid-kg-co2e-per-kwh", dest="kg_co2e_per_kwh", type=not_negative_number, metavar="KG",
                       help="of the grid (default: 0.473, the world in 2024 by Ember)")  # fmt: skip
    add_answer(parser)


def run(arguments) -> int:
    """Print the size of least lifetime cost, inference as guessed, as measured or as planned."""
    if arguments.plan:
        from idealized_runtime.cli.lifetime.planned import answer_planned

        return answer_planned(arguments)
    if given := _given(arguments, _PLANNED_FLAGS):
        raise ValueError(f"{given} with --plan")
    if arguments.parameters is not None:
        from idealized_runtime.cli.lifetime.measured import answer_measured

        return answer_measured(arguments)
    if given := _given(arguments, _MEASURED_FLAGS):
        raise ValueError(f"{given} with --parameters: guessed costs depend on means alone")
    from idealized_runtime.cli.lifetime.answers import answer_optimum, costs_of
    from idealized_runtime.cli.lifetime.report import rental_row, request_rows

    flops, usd, assumed = costs_of(arguments)
    rentals = [rental_row(side.capitalize(), assumed[side]) for side in ("training", "inference")]
    return answer_optimum(arguments, "Cost-Optimal", flops, usd, assumed, [*request_rows(assumed["demand"]), *rentals])


def _given(arguments, flags) -> str:
    """Those of the flags that are given, with the verb of a sentence; empty where none is."""
    given = [flag for name, flag in flags.items() if getattr(arguments, name) not in (None, [], False)]
    return given and f"{', '.join(given)} {'go' if len(given) > 1 else 'goes'}"


def _accelerators(text) -> tuple[str | None, int]:
    """Name of a model, None for all of them, and its number of accelerators."""
    name, equals, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1 or (equals and not name):
        raise argparse.ArgumentTypeError(f"must be N or NAME=N, N an integer of at least 1; got {text!r}")
    return name or None, int(number)
