"""Devices that a model needs, and how they share it: the fewest whose memory holds weights and cache of a sequence."""

import math

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.memory import kv_cache_bytes_per_token, state_bytes, weight_bytes
from idealized_runtime.checks import check_positive

# Tensor parallelism stays within one server (arXiv:2305.02440, section 3.2).
MAX_TENSOR_PARALLEL_SIZE = 8
_ENDLESS_TOKENS = 10**12
_SHARED_SIZES = ("num_attention_heads", "num_query_groups", "ffn_hidden_size")


def check_tensor_parallel_size(architecture: Architecture, size: int, *, name: str = "tensor_parallel_size"):
    """Refuse a number of devices that cannot share a layer, as the engines do: heads, key-value groups, widths.

    Raises
    ------
    ValueError
        The message has ``name``, as the size is called, and the numbers that can.
    """
    sizes = {shared: getattr(architecture, shared) for shared in _SHARED_SIZES}
    for shared, shared_size in sizes.items():
        if size < 1 or shared_size % size:
            most = math.gcd(*sizes.values())
            allowed = ", ".join(str(width) for width in range(1, most + 1) if most % width == 0)
            raise ValueError(
                f"{name} must divide {shared} of {architecture.name}, {shared_size}; got {size}: allowed are {allowed}"
            )


def tensor_parallel_sizes(architecture: Architecture) -> list[int]:
    """Numbers of devices of one server that can share a layer, ascending."""
    sizes = (1, 2, 4, MAX_TENSOR_PARALLEL_SIZE)
    return [size for size in sizes if not any(getattr(architecture, shared) % size for shared in _SHARED_SIZES)]


def num_cache_shares(architecture: Architecture, tensor_parallel_size: int) -> int:
    """Parts that tensor parallelism divides the cache into.

    Ranks beyond the key-value heads hold copies of them, and every rank holds all of a latent.
    """
    return 1 if architecture.multi_latent_attention else min(tensor_parallel_size, architecture.num_query_groups)


def device_bytes(
    architecture: Architecture,
    *,
    num_context_tokens: int,
    num_sequences: int = 1,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    dtype: str = "float16",
) -> float:
    """Bytes that the fullest device holds of the weights, of a cache of so many tokens, and of sequences' states.

    Embeddings count as spread over all layers. Activations and the software's own needs come on top.
    """
    cache_bytes = kv_cache_bytes_per_token(architecture, dtype=dtype) * num_context_tokens
    cache_bytes += state_bytes(architecture, dtype=dtype) * num_sequences
    whole = weight_bytes(architecture, dtype=dtype) / tensor_parallel_size
    whole += cache_bytes / num_cache_shares(architecture, tensor_parallel_size)
    return whole * -(-architecture.num_layers // pipeline_parallel_size) / architecture.num_layers


def cache_tokens_left(architecture: Architecture, memory_bytes: float, *, share: float = 0.9, **layout) -> int:
    """Tokens of all sequences together that a server's cache has room for beside the weights; 0 where they do not fit.

    Where a token leaves nothing in the cache, in state spaces alone, they are more than any server is asked for.

    Parameters
    ----------
    architecture : Architecture
    memory_bytes : float
        Of one device.
    share : float
        Of the memory that the server takes for weights and cache (vLLM's gpu_memory_utilization, 0.9 by default).
    **layout
        ``num_sequences, tensor_parallel_size, pipeline_parallel_size, dtype`` of :func:`device_bytes`.
    """
    weights, with_token = (device_bytes(architecture, num_context_tokens=tokens, **layout) for tokens in (0, 1))
    left = share * memory_bytes - weights
    if with_token == weights:
        return _ENDLESS_TOKENS if left >= 0 else 0
    return max(0, int(left / (with_token - weights)))


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
    max_tensor_parallel_size: int = MAX_TENSOR_PARALLEL_SIZE,
) -> tuple[int, int]:
    """Tensor and pipeline parallel size of the fewest devices that hold weights and cache of one sequence.

    Tensor parallelism splits every layer over 1, 2, 4 or 8 devices of a server, those of
    :func:`tensor_parallel_sizes`; beyond, the layers are shared out among pipeline stages, and the stage with the
    most of them must fit.

    Parameters
    ----------
    architecture : Architecture
    memory_bytes : float
        Of one device; one device where it is not known (None).
    num_context_tokens : int, optional
        Length of the sequence; the longest the model takes where it is not given.
    dtype : str
        Of weights and cache; ``"stored"`` as the configuration has them.
    even_stages : bool
        All stages have as many layers, as in Megatron of 2023 and in Table 1: their number divides the layers.
    max_tensor_parallel_size : int
        Devices that share a layer at most; 1 where the software does not share one out.

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
    num_layers = architecture.num_layers
    widths = [size for size in tensor_parallel_sizes(architecture) if size <= max_tensor_parallel_size]
    depths = [depth for depth in range(2, num_layers + 1) if not (even_stages and num_layers % depth)]
    whole = {
        width: device_bytes(
            architecture, num_context_tokens=num_context_tokens, dtype=dtype, tensor_parallel_size=width
        )
        for width in widths
    }
    for width, depth in [*((width, 1) for width in widths), *((widths[-1], depth) for depth in depths)]:
        if whole[width] * -(-num_layers // depth) <= num_layers * memory_bytes:
            return width, depth
    raise ValueError(
        f"{architecture.name}: {whole[widths[-1]] * widths[-1] / num_layers:.3g} bytes a layer do not fit "
        f"{widths[-1]} devices of {memory_bytes:.3g} bytes"
    )
