"""The driver's command line: Megatron's flag names, checked and resolved. Imports neither torch nor Megatron."""

import argparse

from idealized_runtime.architectures import require_buildable
from megatron_lm import ranks
from megatron_lm.arguments.architecture import resolve_architecture, resolve_slices
from megatron_lm.arguments.checks import check_engine, check_goal, check_parallelism, complete
from megatron_lm.arguments.flags import build_parser
from megatron_lm.arguments.sampling import Sampling

__all__ = ["Sampling", "build_parser", "parse_arguments", "resolve"]


def parse_arguments(argv, *, num_ranks: int | None = None) -> argparse.Namespace:
    """Arguments of a command line of the driver, resolved as by :func:`resolve`."""
    arguments = build_parser().parse_args(argv)
    resolve(arguments, num_ranks)
    return arguments


def resolve(arguments: argparse.Namespace, num_ranks: int | None = None):
    """Check the driver's arguments, fill in what follows from them, and make objects of model and sampling.

    Parameters
    ----------
    arguments : Namespace
        Is given ``architecture``, ``num_layers_profiled``, ``batchings``, ``sampling`` and ``goal`` (None where every
        setting is timed equally often), among others.
    num_ranks : int, optional
        Processes that share the model out; those that torchrun started where it is not given.

    Raises
    ------
    ValueError
        They are refused; the message says which, and the remedy.
    """
    complete(arguments)
    arguments.architecture = resolve_architecture(arguments)
    require_buildable(arguments.architecture, tensor_parallel_size=arguments.tensor_model_parallel_size)
    arguments.num_layers_profiled = resolve_slices(arguments)
    check_parallelism(arguments, ranks.num_ranks() if num_ranks is None else num_ranks)
    check_engine(arguments)
    check_goal(arguments)
