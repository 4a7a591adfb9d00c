"""Bytes of weights, of the cache, and of what one output token reads."""

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.counting import check_batch_size, evaluate
from idealized_runtime.architectures.formats import cache_dtype, stored_bytes
from idealized_runtime.architectures.parts import POSITIONS, outer_part
from idealized_runtime.architectures.windows import num_attended, num_kept, sum_over_contexts

BYTES_PER_ELEMENT = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}


# What a configuration says for weights and cache, instead of one data type for all.
STORED = "stored"


def weight_bytes(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes of all weights, experts and embeddings included, all of one data type.

    With ``dtype = "stored"`` those of the formats that its configuration names, scales included: the experts of
    gpt-oss-20b in 4 bits make it 14 GB instead of 42.
    """
    if dtype == STORED:
        return stored_bytes(architecture)
    return architecture.num_params * _element_bytes(dtype)


def kv_cache_bytes_per_token(architecture: Architecture, *, dtype: str = "float16") -> int | float:
    """Bytes of keys and values, or of latents, that one token of one sequence leaves in the cache, over all layers.

    Windowed layers drop a token when the window has passed it, and an entry may stand for several tokens: see
    :func:`kv_cache_bytes`.
    """
    entries = [
        (number * context.numbers, context.stride)
        for part, number in architecture.blocks
        for context in part.contexts
        if context.kept != "elsewhere"
    ]
    numbers = sum(count if stride == 1 else count / stride for count, stride in entries)
    return numbers * _element_bytes(cache_dtype(architecture) if dtype == STORED else dtype)


def kv_cache_bytes(
    architecture: Architecture, num_context_tokens: ArrayLike, *, batch_size: int = 1, dtype: str = "float16"
) -> float | np.ndarray:
    """Bytes of the cache that the next token reads, states of :func:`state_bytes` included.

    Layers with a window keep no more than the window; sparse ones keep all, and read what they select.

    Parameters
    ----------
    num_context_tokens : int, float or array
        Tokens so far, in each of the ``batch_size`` sequences.

    Returns
    -------
    int, float or ndarray
        Bytes.
    """
    return _cache_bytes(architecture, num_attended, num_context_tokens, batch_size, dtype)


def kept_bytes(
    architecture: Architecture, num_context_tokens: ArrayLike, *, batch_size: int = 1, dtype: str = "float16"
) -> float | np.ndarray:
    """Bytes that sequences of so many tokens occupy: what of their cache is kept, and their states.

    Asked like :func:`kv_cache_bytes`, from which it differs where attention is sparse, or a layer reads another's
    cache.
    """
    return _cache_bytes(architecture, num_kept, num_context_tokens, batch_size, dtype)


def state_bytes(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes that a sequence keeps however long it is: states of linear attention, state spaces, short convolutions."""
    dtype = cache_dtype(architecture) if dtype == STORED else dtype
    return sum(number * part.state * _element_bytes(part.state_dtype or dtype) for part, number in architecture.blocks)


def _cache_bytes(architecture, num_counted, num_context_tokens, batch_size, dtype):
    dtype = cache_dtype(architecture) if dtype == STORED else dtype
    element_bytes, state = _element_bytes(dtype), state_bytes(architecture, dtype=dtype)

    def count_numbers(context, n):
        return context.numbers * num_counted(context, n)

    def count(n):
        return batch_size * (element_bytes * sum_over_contexts(architecture, count_numbers, n) + state)

    return evaluate(count, num_context_tokens, "num_context_tokens", batch_size)


def output_token_bytes(
    architecture: Architecture,
    num_context_tokens: ArrayLike,
    *,
    batch_size: int = 1,
    dtype: str = "float16",
    kv_cache_dtype: str | None = None,
) -> float | np.ndarray:
    """Bytes that must be read for one further output token of each sequence.

    The weights of :func:`weight_bytes_read`, and the cache of the context of each sequence. Activations stay on the
    chip.

    Parameters
    ----------
    architecture : Architecture
    num_context_tokens : int, float or array
        Tokens so far, prompt and newest token included, in each of the ``batch_size`` sequences.
    dtype, kv_cache_dtype : str
        Of the weights; of the cache (as the weights where it is not given).

    Returns
    -------
    int, float or ndarray
        Bytes. Divided by the memory bandwidth, a lower bound of the time per output token.
    """
    check_batch_size(batch_size)
    weights = weight_bytes_read(architecture, batch_size=batch_size, dtype=dtype)
    cache_dtype = kv_cache_dtype or dtype
    return weights + kv_cache_bytes(architecture, num_context_tokens, batch_size=batch_size, dtype=cache_dtype)


def weight_bytes_read(architecture: Architecture, *, batch_size: int = 1, dtype: str = "float16") -> int:
    """Bytes of the weights that one further token of each sequence needs: each in use once, whatever the batch.

    Of an embedding table only the rows of the tokens are read, unless it is the output projection too.
    Of experts, those that ``batch_size`` tokens visit when no two choose the same one (an upper bound
    above one sequence).
    """
    topk, num_experts = architecture.moe_router_topk, architecture.num_experts
    visited = None if num_experts is None else min(num_experts, batch_size * topk)
    if dtype == STORED:
        return stored_bytes(architecture, num_experts=visited, num_rows=batch_size)
    num_weights = architecture.count_params(visited)
    for part, number in [(outer_part(architecture), 1), *architecture.blocks]:
        for table in part.matrices:
            if table.is_table:
                # The sequences of a batch advance together, at one position.
                num_rows = 1 if table.name == POSITIONS else batch_size
                num_weights += number * (num_rows - table.num_rows) * table.num_columns
    return num_weights * _element_bytes(dtype)


def _element_bytes(dtype):
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"dtype must be one of {(*BYTES_PER_ELEMENT, STORED)}; got {dtype!r}")
    return BYTES_PER_ELEMENT[dtype]
