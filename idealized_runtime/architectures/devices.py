"""Devices that a model needs: the fewest whose memory holds its weights and the cache of one sequence."""

import math

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.memory import kv_cache_bytes_per_token, weight_bytes
from idealized_runtime.checks import check_positive

# Tensor parallelism stays within one server (arXiv:2305.02440, section 3.2).
MAX_TENSOR_PARALLEL_SIZE = 8


def num_accelerators_needed(architecture: Architecture, memory_bytes: float, **options) -> int:
    """Fewest devices that hold a model: the product of the two sizes of :func:`parallelism_needed`, asked alike."""
    return math.prod(parallelism_needed(architecture, memory_bytes, **options))


def parallelism_needed(
    architecture: Architecture,
    memory_bytes: float | None,
    *,
    num_context_tokens: int | None = None,
    dtype: str = "float16",
    even_stages: bool = False,
) -> tuple[int, int]:
    """Tensor and pipeline parallel size of the fewest devices that hold weights and cache of one sequence.

    Tensor parallelism splits every layer over 1, 2, 4 or 8 devices of a server, where that divides the
    attention heads; beyond one server the layers are shared out among pipeline stages, and the stage with the
    most of them must fit.

    Parameters
    ----------
    architecture : Architecture
    memory_bytes : float
        Of one device; one device where it is not known (None). All of it counts: activations and the software's own
        needs come on top.
    num_context_tokens : int, optional
        Length of the sequence; the longest the model takes where it is not given.
    dtype : str
        Of weights and cache.
    even_stages : bool
        All stages have as many layers, as in Megatron of 2023 and in Table 1: their number divides the layers.

    Raises
    ------
    ValueError
        One layer does not fit one server, or a number is not positive.
    """
    if memory_bytes is None:
        return 1, 1
    if num_context_tokens is None:
        num_context_tokens = architecture.max_position_embeddings
    check_positive(memory_bytes=memory_bytes, num_context_tokens=num_context_tokens)
    total_bytes = sequence_bytes(architecture, num_context_tokens=num_context_tokens, dtype=dtype)
    num_layers, widths = architecture.num_layers, tensor_parallel_sizes(architecture)
    depths = [depth for depth in range(2, num_layers + 1) if not (even_stages and num_layers % depth)]
    for width, depth in [*((width, 1) for width in widths), *((widths[-1], depth) for depth in depths)]:
        # Embeddings count as spread over all layers.
        if -(-num_layers // depth) * total_bytes <= num_layers * width * memory_bytes:
            return width, depth
    raise ValueError(
        f"{architecture.name}: {total_bytes / num_layers:.3g} bytes a layer do not fit "
        f"{widths[-1]} devices of {memory_bytes:.3g} bytes"
    )


def tensor_parallel_sizes(architecture: Architecture) -> list[int]:
    """Numbers of devices of one server that can share a layer, ascending."""
    return [size for size in (1, 2, 4, MAX_TENSOR_PARALLEL_SIZE) if architecture.num_attention_heads % size == 0]


def sequence_bytes(architecture: Architecture, *, num_context_tokens: int, dtype: str = "float16") -> int:
    """Bytes of the weights and of the cache of one sequence."""
    cache_bytes = kv_cache_bytes_per_token(architecture, dtype=dtype) * num_context_tokens
    return weight_bytes(architecture, dtype=dtype) + cache_bytes
