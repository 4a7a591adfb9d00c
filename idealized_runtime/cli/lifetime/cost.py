"""What training a model costs in dollars, and with --inference-reqs what serving it costs."""

from idealized_runtime.cli.lifetime.flags import add_answer, add_hardware, add_properties, add_requests

EXAMPLES = """\
what do training and serving a Chinchilla-optimal 30 B model cost?
  idealized-runtime lifetime cost --chinchilla --model 30e9 --inference-reqs 1e9 --input-tok 500 --output-tok 100
"""


def add_arguments(parser):
    """Flags of the command."""
    add_properties(parser)
    add_hardware(parser)
    add_requests(parser, default=0.0)
    add_answer(parser)


def run(arguments) -> int:
    """Print the properties, and what they cost."""
    from idealized_runtime.cli.lifetime.answers import answer_model, costs_of
    from idealized_runtime.cli.lifetime.report import rental_row, request_rows

    flops, usd, assumed = costs_of(arguments)
    rows = [rental_row("Training", assumed["training"])]
    if arguments.num_requests:
        rows += [*request_rows(assumed["demand"]), rental_row("Inference", assumed["inference"])]
    return answer_model(arguments, flops, usd, assumed, rows, has_demand=arguments.num_requests > 0)
