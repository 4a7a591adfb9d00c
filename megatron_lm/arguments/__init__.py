"""The driver's command line: Megatron's flag names, checked and resolved. Imports neither torch nor Megatron."""

import argparse

from idealized_runtime.architectures import require_buildable
from megatron_lm import ranks
from megatron_lm.arguments.architecture import resolve_architecture, resolve_slices
from megatron_lm.arguments.checks import check_engine, check_parallelism, complete
from megatron_lm.arguments.flags import PROGRAM, add_flags, build_parser
from megatron_lm.arguments.sampling import Sampling

__all__ = ["PROGRAM", "Sampling", "add_flags", "build_parser", "parse_arguments"]


def parse_arguments(argv=None, *, program: str = PROGRAM, num_ranks: int | None = None) -> argparse.Namespace:
    """Arguments of the driver, checked, with ``architecture`` and ``sampling`` resolved to objects.

    Parameters
    ----------
    argv : list of str, optional
        Those of this process where they are not given.
    program : str
        Its name in messages.
    num_ranks : int, optional
        Processes that share the model out; those that torchrun started where it is not given.

    Raises
    ------
    ValueError
        They are refused; the message says which, and the remedy.
    """
    arguments = build_parser(program).parse_args(argv)
    complete(arguments)
    arguments.architecture = resolve_architecture(arguments)
    require_buildable(arguments.architecture, tensor_parallel_size=arguments.tensor_model_parallel_size)
    arguments.num_layers_profiled = resolve_slices(arguments)
    check_parallelism(arguments, ranks.num_ranks() if num_ranks is None else num_ranks)
    check_engine(arguments)
    return arguments
