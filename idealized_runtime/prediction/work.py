"""What a pass through a model asks of one device: bytes, operations, launches and messages."""

import math
from dataclasses import dataclass, fields

import numpy as np

from idealized_runtime.architectures import (
    Architecture,
    kv_cache_bytes,
    output_token_flops,
    prompt_encoding_flops,
    weight_bytes_read,
)
from idealized_runtime.architectures.devices import num_cache_shares
from idealized_runtime.architectures.memory import BYTES_PER_ELEMENT, STORED
from idealized_runtime.fits.interpolation import TILE_SHARE, coordinate

# Tensor cores read 16 bytes at a time; rows of half-precision matrices that are no multiple of it are read piecemeal.
ALIGNED_BYTES = 16
# Attention and feed-forward network each end in one sum over the devices that share a layer.
_ALL_REDUCES_PER_LAYER = 2


@dataclass(frozen=True)
class Placement:
    """How a model is laid out on a machine.

    Parameters
    ----------
    dtype : str
        Of weights, cache and activations.
    is_stored : bool
        Weights and cache are those of the formats that the configuration names; ``dtype`` is that of all else.
    is_cuda : bool
    tensor_parallel_size, pipeline_parallel_size : int
    slices : float
        Above 1 where a slice of the layers was timed and its time multiplied: 3 for 35 of 105 layers.
    """

    dtype: str
    is_cuda: bool
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    slices: float = 1.0
    is_stored: bool = False

    @property
    def memory_dtype(self) -> str:
        """Of weights and cache, as functions of bytes take it."""
        return STORED if self.is_stored else self.dtype

    @property
    def num_accelerators(self) -> int:
        """Devices that answer a query together; several wait for each other's messages."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True)
class Work:
    """Passes, one an entry of each array: the prompt of a query, or one output token. Counts are of one device."""

    is_prompt: np.ndarray
    num_tokens: np.ndarray
    num_layers: np.ndarray
    layer_bytes: np.ndarray  # weights and cache that all layers read
    weight_bytes: np.ndarray  # the weights among them
    layer_flops: np.ndarray
    head_bytes: np.ndarray  # of the projection onto the vocabulary, for one position
    num_messages: np.ndarray
    message_bytes: np.ndarray
    is_tensor_parallel: np.ndarray
    is_misaligned: np.ndarray
    slices: np.ndarray

    @classmethod
    def concatenate(cls, works) -> "Work":
        """The passes of several, one after the other."""
        works = list(works)
        return cls(**{f.name: np.concatenate([getattr(work, f.name) for work in works]) for f in fields(cls)})


def prompt_work(architecture: Architecture, num_prompt_tokens: np.ndarray, placement: Placement) -> Work:
    """Passes that encode prompts of one sequence; ``num_prompt_tokens`` is one-dimensional."""
    p = np.asarray(num_prompt_tokens, dtype=float)
    # Kernels on tensor cores work in tiles of tokens, as the rule between profiled sizes has it.
    in_tiles = coordinate(p, TILE_SHARE) if placement.is_cuda else p
    products = prompt_encoding_flops(architecture, in_tiles, attention="none", logits="none")
    attention = prompt_encoding_flops(architecture, p, logits="none") - prompt_encoding_flops(
        architecture, p, attention="none", logits="none"
    )
    weights = _prompt_weight_bytes(architecture, p, placement.memory_dtype)
    return _work(architecture, p, placement, weights=weights, cache=0 * p, flops=products + attention, is_prompt=True)


def token_work(architecture: Architecture, num_context_tokens: np.ndarray, placement: Placement) -> Work:
    """Passes that give one further output token of one sequence, after so many tokens (itself included)."""
    context = np.asarray(num_context_tokens, dtype=float)
    weights = np.full(context.shape, float(weight_bytes_read(architecture, dtype=placement.memory_dtype)))
    cache = kv_cache_bytes(architecture, context, dtype=placement.memory_dtype)
    flops = output_token_flops(architecture, context, logits="none")
    return _work(
        architecture, np.ones_like(context), placement, weights=weights, cache=cache, flops=flops, is_prompt=False
    )


def is_misaligned(architecture: Architecture, placement: Placement) -> bool:
    """Whether a device's share of the feed-forward network is no multiple of what tensor cores read at a time."""
    if not placement.is_cuda:
        return False
    width = architecture.ffn_hidden_size if architecture.num_experts is None else architecture.moe_ffn_hidden_size
    return width / placement.tensor_parallel_size * BYTES_PER_ELEMENT[placement.dtype] % ALIGNED_BYTES != 0


def _prompt_weight_bytes(architecture, num_tokens, dtype) -> np.ndarray:
    """Weights that the pass of a prompt reads, the output projection included.

    Of experts, as many as tokens visit on average when a router without preferences sends each of them on its own.
    """
    num_experts, topk = architecture.num_experts, architecture.moe_router_topk
    one = float(weight_bytes_read(architecture, dtype=dtype))
    if num_experts is None or num_experts == topk:
        return np.full(num_tokens.shape, one)
    # Tokens that visit different experts, as long as there are any left.
    every = float(weight_bytes_read(architecture, batch_size=math.ceil(num_experts / topk), dtype=dtype))
    visited = num_experts * (1 - (1 - topk / num_experts) ** num_tokens)
    return one + (every - one) * (visited - topk) / (num_experts - topk)


def _work(architecture, num_tokens, placement, *, weights, cache, flops, is_prompt) -> Work:
    element_bytes = BYTES_PER_ELEMENT[placement.dtype]
    width, slices = placement.tensor_parallel_size, placement.slices
    cache = cache / num_cache_shares(architecture, width)
    head = architecture.vocab_size * (architecture.embedding_size or architecture.hidden_size) * element_bytes
    num_layers = architecture.num_layers / slices
    num_reduced = _ALL_REDUCES_PER_LAYER * num_layers * (width > 1)
    num_handed_on = placement.pipeline_parallel_size - 1
    # A ring all-reduce sends each element 2 (t - 1) / t times.
    num_copies = num_reduced * 2 * (width - 1) / width + num_handed_on
    entries = {
        "is_prompt": is_prompt,
        "num_tokens": num_tokens,
        "num_layers": num_layers,
        "layer_bytes": ((weights - head) / width + cache) / slices,
        "weight_bytes": (weights - head) / width / slices,
        "layer_flops": flops / width / slices,
        "head_bytes": head / width,
        "num_messages": num_reduced + num_handed_on,
        "message_bytes": num_copies * num_tokens * architecture.hidden_size * element_bytes,
        "is_tensor_parallel": width > 1,
        "is_misaligned": is_misaligned(architecture, placement),
        "slices": slices,
    }
    return Work(**{name: np.broadcast_to(value, num_tokens.shape) for name, value in entries.items()})


def step_work(architecture, placement, *, num_sequences, num_context_tokens, num_prompt_tokens) -> Work:
    """Steps of a server that generate a token of each of some sequences and encode so many tokens of prompts.

    Parameters
    ----------
    num_sequences, num_context_tokens, num_prompt_tokens : array, one-dimensional
        Sequences that generate, tokens before each of them, prompt tokens encoded in the same step; of one length.
    """
    n, context, p = (
        np.asarray(values, dtype=float) for values in (num_sequences, num_context_tokens, num_prompt_tokens)
    )
    tokens = n + p
    weights = _prompt_weight_bytes(architecture, tokens, placement.memory_dtype)
    cache = n * kv_cache_bytes(architecture, context, dtype=placement.memory_dtype)
    flops = n * output_token_flops(architecture, context, logits="none") + np.where(
        p > 0, prompt_encoding_flops(architecture, np.maximum(p, 1), logits="none"), 0.0
    )
    return _work(architecture, tokens, placement, weights=weights, cache=cache, flops=flops, is_prompt=p > 0)
