"""A model's missing properties, from two of --model, --data, --compute and --loss; from one with --chinchilla."""

from idealized_runtime.cli.lifetime.flags import add_answer, add_inference_tokens, add_properties

EXAMPLES = """\
which loss does a 70 B model reach on 1e12 tokens?
  idealized-runtime lifetime model --model 70e9 --data 1e12
what is the best model of 1e24 training FLOPs?
  idealized-runtime lifetime model --chinchilla --compute 1e24
"""


def add_arguments(parser):
    """Flags of the command."""
    add_properties(parser)
    add_inference_tokens(parser, default=0.0)
    add_answer(parser)


def run(arguments) -> int:
    """Print the properties, counted in FLOPs."""
    from idealized_runtime.cli.lifetime.answers import answer_model
    from idealized_runtime.lifetime.costs import flop_costs

    demand = arguments.num_inference_tokens
    rows = [("Inference tokens", f"{demand:.3e}")] if demand else []
    assumed = {"demand": {"num_inference_tokens": demand}}
    return answer_model(arguments, flop_costs(demand), None, assumed, rows, has_demand=demand > 0)
