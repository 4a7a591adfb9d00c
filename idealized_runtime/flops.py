"""Operations and bytes of prompt encoding and of output tokens.

Two kinds of count, both of matrix products only, a multiplication and an addition being two operations:

- The closed forms of arXiv:2305.02440 (sections 3.1 and A), for an ungated feed-forward network four
  times as wide as the model, one key-value head per attention head, and no output projection.
- Exact counts for an :class:`~idealized_runtime.architectures.Architecture`: its own feed-forward width,
  gating, experts, key-value heads and vocabulary. They equal PyTorch's ``FlopCounterMode``.

Counts are integers for integer token counts (of any size for a scalar, int64 for an array) and real
numbers for real ones, such as means over queries.
"""

import numpy as np

from idealized_runtime.architectures import Architecture

ATTENTION = ("square", "causal", "none")
LOGITS = ("last", "all", "none")
BYTES_PER_ELEMENT = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}


def paper_prompt_encoding_flops(architecture: Architecture, num_prompt_tokens, *, batch_size: int = 1):
    """The paper's 24 b p h^2 l (1 + p / 6h): full p x p attention, no output projection.

    Parameters
    ----------
    architecture : Architecture
        Only ``hidden_size`` and ``num_layers`` count.
    num_prompt_tokens : int, float or array
        p, in each of the ``batch_size`` sequences.

    Returns
    -------
    int, float or ndarray
        Floating-point operations. Source: arXiv:2305.02440, section 3.1.1.
    """
    per_token, per_pair = _paper_coefficients(architecture)
    return _polynomial(num_prompt_tokens, "num_prompt_tokens", 0, per_token, per_pair, batch_size=batch_size)


def paper_output_token_flops(architecture: Architecture, num_context_tokens, *, batch_size: int = 1):
    """The paper's 24 b h^2 l (1 + i / 6h), for the output token that follows i others.

    Parameters
    ----------
    num_context_tokens : int, float or array
        i: tokens so far, prompt included.

    Returns
    -------
    int, float or ndarray
        Floating-point operations. Source: arXiv:2305.02440, section A.2.
    """
    per_token, per_pair = _paper_coefficients(architecture)
    return _polynomial(num_context_tokens, "num_context_tokens", per_token, per_pair, batch_size=batch_size)


def paper_flops_without_attention(architecture: Architecture, num_tokens):
    """24 h^2 l for each token: the FLOPs drawn in the paper's Figure 9, which leave the attention term out.

    Parameters
    ----------
    num_tokens : int, float or array
        Tokens of a query, prompt and output together; means over queries are allowed.

    Returns
    -------
    int, float or ndarray
        Floating-point operations.
    """
    return _polynomial(num_tokens, "num_tokens", 0, _paper_coefficients(architecture)[0])


def prompt_encoding_flops(
    architecture: Architecture,
    num_prompt_tokens,
    *,
    batch_size: int = 1,
    attention: str = "square",
    logits: str = "last",
):
    """Exact operations of encoding prompts, which yields the first output token.

    Parameters
    ----------
    architecture : Architecture
    num_prompt_tokens : int, float or array
        p, in each of the ``batch_size`` sequences.
    attention : {"square", "causal", "none"}
        Query-key pairs that count: all p^2, as plain kernels compute, the paper writes and PyTorch counts;
        the p (p + 1) / 2 pairs a causal mask keeps, the least a kernel can do; or none.
    logits : {"last", "all", "none"}
        Positions that are projected onto the vocabulary. Generation needs the last one only.

    Returns
    -------
    int, float or ndarray
        Floating-point operations of matrix products.

    Raises
    ------
    ValueError
        An unknown ``attention`` or ``logits``, or fewer than one token or sequence.
    OverflowError
        An array of integers whose counts do not fit 64 bits.
    """
    _check_choice("attention", attention, ATTENTION)
    _check_choice("logits", logits, LOGITS)
    per_token, per_pair = _exact_coefficients(architecture, attention)
    per_logit = 2 * architecture.hidden_size * architecture.vocab_size
    if attention == "causal":
        # p (p + 1) / 2 pairs; per_pair is a multiple of 4, so halving it is exact.
        per_pair //= 2
        per_token += per_pair
    per_token += per_logit if logits == "all" else 0
    coefficients = (per_logit if logits == "last" else 0, per_token, per_pair)
    return _polynomial(num_prompt_tokens, "num_prompt_tokens", *coefficients, batch_size=batch_size)


def output_token_flops(
    architecture: Architecture,
    num_context_tokens,
    *,
    batch_size: int = 1,
    attention: str = "square",
    logits: str = "last",
):
    """Exact operations of one further output token, keys and values of earlier tokens being cached.

    Parameters
    ----------
    architecture : Architecture
    num_context_tokens : int, float or array
        Tokens so far, prompt included: what the newest of them attends to, itself included. The second
        output token of a prompt of p has p + 1.
    attention, logits : str
        As in :func:`prompt_encoding_flops`; with one position, ``"square"`` and ``"causal"`` agree, and so
        do ``"last"`` and ``"all"``.

    Returns
    -------
    int, float or ndarray
        Floating-point operations of matrix products.
    """
    _check_choice("attention", attention, ATTENTION)
    _check_choice("logits", logits, LOGITS)
    per_token, per_pair = _exact_coefficients(architecture, attention)
    per_token += 0 if logits == "none" else 2 * architecture.hidden_size * architecture.vocab_size
    return _polynomial(num_context_tokens, "num_context_tokens", per_token, per_pair, batch_size=batch_size)


def query_flops(
    architecture: Architecture,
    num_prompt_tokens: int,
    num_output_tokens: int,
    *,
    attention: str = "square",
    logits: str = "last",
):
    """Exact operations of one query: prompt encoding, then ``num_output_tokens - 1`` further tokens.

    Parameters
    ----------
    num_prompt_tokens, num_output_tokens : int
        p and o, at least 1 each. Arrays broadcast.

    Returns
    -------
    int or ndarray
        Floating-point operations of matrix products.
    """
    encoding = prompt_encoding_flops(architecture, num_prompt_tokens, attention=attention, logits=logits)
    per_token = output_token_flops(architecture, 1, attention="none", logits=logits)
    per_pair = _exact_coefficients(architecture, attention)[1]
    p, o = _tokens(num_prompt_tokens, "num_prompt_tokens"), _tokens(num_output_tokens, "num_output_tokens")
    if not _is_scalar(p) or not _is_scalar(o):
        largest = query_flops(architecture, int(np.max(p)), int(np.max(o)), attention=attention, logits=logits)
        _check_fits(largest, "num_prompt_tokens and num_output_tokens")
    # Contexts p + 1, ..., p + o - 1 add up to (o - 1) (2 p + o) / 2; per_pair is a multiple of 4.
    return encoding + (o - 1) * per_token + (o - 1) * (2 * p + o) * (per_pair // 2)


def weight_bytes(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes of all weights, experts and embeddings included."""
    return architecture.num_params * _element_bytes(dtype)


def kv_cache_bytes_per_token(architecture: Architecture, *, dtype: str = "float16") -> int:
    """Bytes of keys and values that one token of one sequence leaves in the cache, over all layers."""
    return 2 * architecture.num_layers * architecture.num_query_groups * architecture.head_dim * _element_bytes(dtype)


def output_token_bytes(
    architecture: Architecture,
    num_context_tokens,
    *,
    batch_size: int = 1,
    dtype: str = "float16",
    kv_cache_dtype: str | None = None,
):
    """Bytes that must be read for one further output token of each sequence.

    Every weight in use once, whatever the batch, and the keys and values of the context of each sequence.
    Of an embedding table only the rows of the tokens are read, unless it is the output projection too.
    Of experts, those that ``batch_size`` tokens visit when no two choose the same one (an upper bound
    above one sequence). Activations stay on the chip.

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
    _check_batch_size(batch_size)
    weights = _num_weights_read(architecture, batch_size) * _element_bytes(dtype)
    per_context_token = batch_size * kv_cache_bytes_per_token(architecture, dtype=kv_cache_dtype or dtype)
    return _polynomial(num_context_tokens, "num_context_tokens", weights, per_context_token)


def _num_weights_read(architecture, batch_size):
    num_experts = architecture.num_experts
    if num_experts is not None:
        num_experts = min(num_experts, batch_size * architecture.moe_router_topk)
    num_weights = architecture.count_params(num_experts)
    if architecture.untie_embeddings_and_output_weights:
        num_weights += (batch_size - architecture.vocab_size) * architecture.hidden_size
    if architecture.position_embedding_type == "learned_absolute":
        # The sequences of a batch advance together, at one position.
        num_weights += (1 - architecture.max_position_embeddings) * architecture.hidden_size
    return num_weights


def _paper_coefficients(architecture):
    h, num_layers = architecture.hidden_size, architecture.num_layers
    return 24 * h * h * num_layers, 4 * h * num_layers


def _exact_coefficients(architecture, attention):
    """Operations of all layers for each token, and for each query-key pair."""
    h = architecture.hidden_size
    kv_size = architecture.num_query_groups * architecture.head_dim
    num_ffn_matrices = 3 if architecture.swiglu else 2
    ffn = num_ffn_matrices * h * architecture.ffn_hidden_size
    if architecture.num_experts is not None:
        experts = architecture.moe_router_topk * num_ffn_matrices * h * architecture.moe_ffn_hidden_size
        ffn = experts + h * architecture.num_experts
    per_token = 2 * architecture.num_layers * (h * (h + 2 * kv_size) + h * h + ffn)
    # Scores and weighted values, for every attention head: sharing keys among heads saves bytes, not operations.
    per_pair = 0 if attention == "none" else 4 * architecture.num_layers * h
    return per_token, per_pair


def _polynomial(tokens, name, *coefficients, batch_size=1):
    """batch_size (c0 + c1 n + c2 n^2 + ...), exact where n is an integer."""
    _check_batch_size(batch_size)
    n = _tokens(tokens, name)
    coefficients = [batch_size * coefficient for coefficient in coefficients]
    if not _is_scalar(n) and n.dtype.kind == "i" and n.size:
        _check_fits(_horner(int(n.max()), coefficients), name)
    return _horner(n, coefficients)


def _is_scalar(n):
    return not isinstance(n, np.ndarray)


def _check_fits(largest_count, name):
    """NumPy's integers overflow without a word."""
    if largest_count > np.iinfo(np.int64).max:
        raise OverflowError(f"the largest count, {largest_count}, does not fit 64 bits: give {name} as real numbers")


def _horner(n, coefficients):
    total = coefficients[-1] + 0 * n
    for coefficient in reversed(coefficients[:-1]):
        total = total * n + coefficient
    return total


def _tokens(tokens, name):
    """A Python number, or an array of int64 or float64, of at least one token."""
    values = np.asarray(tokens)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers; got {tokens!r:.60}")
    if not np.all(values >= 1):
        raise ValueError(f"{name} must be at least 1; got {values[~(values >= 1)].ravel()[:3].tolist()}")
    if values.ndim == 0:
        return values.item()
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _check_batch_size(batch_size):
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1; got {batch_size!r}")


def _check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")


def _element_bytes(dtype):
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"dtype must be one of {tuple(BYTES_PER_ELEMENT)}; got {dtype!r}")
    return BYTES_PER_ELEMENT[dtype]
