"""The size that reaches a loss with the fewest FLOPs, 6 N D for training and 2 N T for inference."""

from idealized_runtime.cli.lifetime.flags import add_answer, add_inference_tokens, add_loss

EXAMPLES = """\
how is loss 1.947 reached with the least compute, if the model will serve 2e12 tokens?
  idealized-runtime lifetime compute-optimal --loss 1.947 --inference-tokens 2e12
what follows from the law of my own training runs, with intervals?
  idealized-runtime lifetime compute-optimal --loss 2.5 --coefficients law.json
"""


def add_arguments(parser):
    """Flags of the command."""
    add_loss(parser)
    add_inference_tokens(parser, default=2e12)
    add_answer(parser)


def run(arguments) -> int:
    """Print the size of fewest lifetime FLOPs."""
    from idealized_runtime.cli.lifetime.answers import answer_optimum
    from idealized_runtime.lifetime.costs import flop_costs

    demand = arguments.num_inference_tokens
    rows = [("Inference tokens", f"{demand:.3e}")]
    assumed = {"demand": {"num_inference_tokens": demand}}
    return answer_optimum(arguments, "(Lifetime) Compute-Optimal", flop_costs(demand), None, assumed, rows)
