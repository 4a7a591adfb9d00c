"""Exact operations of matrix products for an Architecture."""

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.counting import as_tokens, check_fits, evaluate, is_scalar
from idealized_runtime.architectures.windows import num_attended, num_entries, sum_over_contexts, twice_attended_up_to

ATTENTION = ("square", "causal", "none")
LOGITS = ("last", "all", "none")


def prompt_encoding_flops(
    architecture: Architecture,
    num_prompt_tokens: ArrayLike,
    *,
    batch_size: int = 1,
    attention: str = "square",
    logits: str = "last",
) -> int | np.ndarray:
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

    def count_pairs(context, p):
        # Of a pair: a multiple of 2, so that half of it is exact.
        half = context.prompt_flops // 2
        return half * (2 * p * num_entries(context, p) if attention == "square" else twice_attended_up_to(context, p))

    def count(p):
        pairs = 0 if attention == "none" else sum_over_contexts(architecture, count_pairs, p)
        return batch_size * (once + per_token * p + pairs)

    return evaluate(count, num_prompt_tokens, "num_prompt_tokens", batch_size)


def output_token_flops(
    architecture: Architecture,
    num_context_tokens: ArrayLike,
    *,
    batch_size: int = 1,
    attention: str = "square",
    logits: str = "last",
) -> int | np.ndarray:
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
    return _count_output_token(
        architecture, num_context_tokens, batch_size, per_token, _flops_of_entries if attention != "none" else None
    )


def least_output_token_flops(architecture: Architecture, num_context_tokens, *, batch_size: int = 1):
    """:func:`output_token_flops` by whichever cache takes fewer: of latents, or of the keys and values made of them.

    The latter are many more bytes to read, but fewer operations where a latent is wider than a head.
    """
    per_token = _flops_per_token(architecture) + _flops_per_logit(architecture)

    def least(context, n):
        return min(context.prompt_flops, context.token_flops) * num_attended(context, n)

    return _count_output_token(architecture, num_context_tokens, batch_size, per_token, least)


def _flops_of_entries(context, n):
    return context.token_flops * num_attended(context, n)


def _count_output_token(architecture, num_context_tokens, batch_size, per_token, of_context):
    def count(n):
        pairs = 0 * n if of_context is None else sum_over_contexts(architecture, of_context, n)
        return batch_size * (per_token + pairs)

    return evaluate(count, num_context_tokens, "num_context_tokens", batch_size)


def query_flops(
    architecture: Architecture,
    num_prompt_tokens: int,
    num_output_tokens: int,
    *,
    attention: str = "square",
    logits: str = "last",
) -> int:
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

    def count_pairs(context, n):
        return context.token_flops // 2 * twice_attended_up_to(context, n)

    # Contexts p + 1, ..., p + o - 1.
    pairs = sum_over_contexts(architecture, count_pairs, p + o - 1) - sum_over_contexts(architecture, count_pairs, p)
    return encoding + (o - 1) * per_token + pairs


def _flops_per_token(architecture):
    """Operations of all layers for each token, attention scores left out."""
    layers = sum(number * part.flops_per_token() for part, number in architecture.blocks)
    return layers + 2 * _embedding_projection(architecture)


def _flops_per_logit(architecture):
    embedding_size = architecture.embedding_size or architecture.hidden_size
    return 2 * (embedding_size * architecture.vocab_size + _embedding_projection(architecture))


def _embedding_projection(architecture):
    """Weights of the matrix between embeddings and hidden states, of which there is one at either end; mostly none."""
    return (architecture.embedding_size or 0) * architecture.hidden_size


def _check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")
