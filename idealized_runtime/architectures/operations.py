"""Exact operations of matrix products for an Architecture."""

import numpy as np

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.counting import as_tokens, check_fits, evaluate, is_scalar
from idealized_runtime.architectures.params import count_embedding_projection, count_layer_matrices
from idealized_runtime.architectures.windows import num_attended, sum_over_layers, twice_attended_up_to

ATTENTION = ("square", "causal", "none")
LOGITS = ("last", "all", "none")


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
        the pairs that the causal mask and the windows keep, p (p + 1) / 2 without windows, the least a kernel
        can do; or none.
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
    per_token, per_logit = _flops_per_token(architecture), _flops_per_logit(architecture)
    once = per_logit if logits == "last" else 0
    per_token += per_logit if logits == "all" else 0
    # Of a pair: a multiple of 2, so that half of it is exact.
    half = 0 if attention == "none" else _prompt_flops_per_pair(architecture) // 2

    def count(p):
        if attention == "square":
            twice_attended = 2 * architecture.num_layers * p * p
        else:
            twice_attended = sum_over_layers(architecture, twice_attended_up_to, p)
        return batch_size * (once + per_token * p + half * twice_attended)

    return evaluate(count, num_prompt_tokens, "num_prompt_tokens", batch_size)


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
        Floating-point operations of matrix products. With multi-latent attention, the query is brought to the
        cached latents (arXiv:2405.04434, section 2.1.2); nothing of the context is projected again.
    """
    _check_choice("attention", attention, ATTENTION)
    _check_choice("logits", logits, LOGITS)
    per_token = _flops_per_token(architecture) + (0 if logits == "none" else _flops_per_logit(architecture))
    per_pair = 0 if attention == "none" else _decode_flops_per_pair(architecture)
    return _count_output_token(architecture, num_context_tokens, batch_size, per_token, per_pair)


def least_output_token_flops(architecture: Architecture, num_context_tokens, *, batch_size: int = 1):
    """:func:`output_token_flops` by whichever cache takes fewer: of latents, or of the keys and values made of them.

    The latter are many more bytes to read, but fewer operations where a latent is wider than a head.
    """
    per_token = _flops_per_token(architecture) + _flops_per_logit(architecture)
    per_pair = min(_decode_flops_per_pair(architecture), _prompt_flops_per_pair(architecture))
    return _count_output_token(architecture, num_context_tokens, batch_size, per_token, per_pair)


def _count_output_token(architecture, num_context_tokens, batch_size, per_token, per_pair):
    def count(n):
        return batch_size * (per_token + per_pair * sum_over_layers(architecture, num_attended, n))

    return evaluate(count, num_context_tokens, "num_context_tokens", batch_size)


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
    p, o = as_tokens(num_prompt_tokens, "num_prompt_tokens"), as_tokens(num_output_tokens, "num_output_tokens")
    if not is_scalar(p) or not is_scalar(o):
        largest = query_flops(architecture, int(np.max(p)), int(np.max(o)), attention=attention, logits=logits)
        check_fits(largest, "num_prompt_tokens and num_output_tokens")
    if attention == "none":
        return encoding + (o - 1) * per_token
    # Contexts p + 1, ..., p + o - 1.
    half = _decode_flops_per_pair(architecture) // 2
    twice = sum_over_layers(architecture, twice_attended_up_to, p + o - 1)
    return encoding + (o - 1) * per_token + half * (twice - sum_over_layers(architecture, twice_attended_up_to, p))


def _flops_per_token(architecture):
    """Operations of all layers for each token, attention scores left out: two for each weight of a matrix."""
    matrices = count_layer_matrices(architecture, architecture.moe_router_topk)
    return 2 * (matrices + count_embedding_projection(architecture))


def _flops_per_logit(architecture):
    embedding_size = architecture.embedding_size or architecture.hidden_size
    return 2 * (embedding_size * architecture.vocab_size + count_embedding_projection(architecture))


def _prompt_flops_per_pair(architecture):
    """Scores and weighted values, for every attention head: sharing keys among heads saves bytes, not operations."""
    value_size = architecture.v_head_dim or architecture.head_dim
    return 2 * architecture.num_attention_heads * (architecture.head_dim + value_size)


def _decode_flops_per_pair(architecture):
    """As for a prompt, but latents stand for keys and values where they are what is cached."""
    if not architecture.multi_latent_attention:
        return _prompt_flops_per_pair(architecture)
    latent_sizes = 2 * architecture.kv_lora_rank + architecture.qk_pos_emb_head_dim
    return 2 * architecture.num_attention_heads * latent_sizes


def _check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")
