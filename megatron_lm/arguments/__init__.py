"""The driver's command line: Megatron's flag names, checked and resolved. Imports neither torch nor Megatron."""

import argparse
import time

from idealized_runtime.architectures import require_buildable
from megatron_lm import ranks
from megatron_lm.arguments.architecture import resolve_architecture, resolve_slices
from megatron_lm.arguments.checks import check_engine, check_parallelism, complete
from megatron_lm.arguments.flags import CUDA_ENGINE_NAMES, ENGINE_NAMES, build_parser
from megatron_lm.arguments.sampling import Sampling

__all__ = ["CUDA_ENGINE_NAMES", "ENGINE_NAMES", "Sampling", "build_parser", "parse_arguments"]

_OTHER_RANKS_WAIT_S = 2.0


def parse_arguments(argv=None) -> argparse.Namespace:
    """Arguments of generate_text.py, checked, with ``architecture`` and ``sampling`` resolved to objects."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        complete(arguments)
        arguments.architecture = resolve_architecture(arguments)
        require_buildable(arguments.architecture, tensor_parallel_size=arguments.tensor_model_parallel_size)
        arguments.num_layers_profiled = resolve_slices(arguments)
        check_parallelism(arguments)
        check_engine(arguments)
    except ValueError as error:
        # Every rank sees the same fault: rank 0 is given the time to be the one that says so.
        time.sleep(_OTHER_RANKS_WAIT_S if ranks.rank() > 0 else 0)
        parser.error(str(error))
    return arguments
