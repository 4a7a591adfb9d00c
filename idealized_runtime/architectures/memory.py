"""Bytes of weights, of the cache, and of what one output token reads."""

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.counting import check_batch_size, evaluate
from idealized_runtime.architectures.windows import num_attended, sum_over_layers

BYTES_PER_ELEMENT = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}


def weight_bytes(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes of all weights, experts and embeddings included, all of one data type.

    So too where a configuration quantises some: the experts of gpt-oss-20b in 4 bits make its file 14 GB, not 42.
    """
    return architecture.num_params * _element_bytes(dtype)


def kv_cache_bytes_per_token(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes of keys and values, or of latents, that one token of one sequence leaves in the cache, over all layers.

    Windowed layers drop a token when the window has passed it: see :func:`kv_cache_bytes`.
    """
    return architecture.num_layers * _cached_per_layer(architecture) * _element_bytes(dtype)


def kv_cache_bytes(architecture: Architecture, num_context_tokens, *, batch_size: int = 1, dtype: str = "float16"):
    """Bytes of the cache that the next token reads; layers with a window keep no more than the window.

    Parameters
    ----------
    num_context_tokens : int, float or array
        Tokens so far, in each of the ``batch_size`` sequences.

    Returns
    -------
    int, float or ndarray
        Bytes.
    """
    per_layer = _cached_per_layer(architecture) * _element_bytes(dtype)

    def count(n):
        return batch_size * per_layer * sum_over_layers(architecture, num_attended, n)

    return evaluate(count, num_context_tokens, "num_context_tokens", batch_size)


def output_token_bytes(
    architecture: Architecture,
    num_context_tokens,
    *,
    batch_size: int = 1,
    dtype: str = "float16",
    kv_cache_dtype: str | None = None,
):
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
    num_experts = architecture.num_experts
    if num_experts is not None:
        num_experts = min(num_experts, batch_size * architecture.moe_router_topk)
    num_weights = architecture.count_params(num_experts)
    if architecture.untie_embeddings_and_output_weights:
        embedding_size = architecture.embedding_size or architecture.hidden_size
        num_weights += (batch_size - architecture.vocab_size) * embedding_size
    if architecture.position_embedding_type == "learned_absolute":
        # The sequences of a batch advance together, at one position.
        num_positions = architecture.max_position_embeddings + architecture.num_extra_positions
        num_weights += (1 - num_positions) * architecture.hidden_size
    return num_weights * _element_bytes(dtype)


def _cached_per_layer(architecture):
    """Numbers that one token leaves in the cache of one layer."""
    if architecture.multi_latent_attention:
        return architecture.kv_lora_rank + architecture.qk_pos_emb_head_dim
    return 2 * architecture.num_query_groups * architecture.head_dim


def _element_bytes(dtype):
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"dtype must be one of {tuple(BYTES_PER_ELEMENT)}; got {dtype!r}")
    return BYTES_PER_ELEMENT[dtype]
