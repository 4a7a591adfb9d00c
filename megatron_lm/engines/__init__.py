"""Inference engines: how one model turns tokens into logits. Each is a software stack that a log names.

``eager``  Megatron's layers as they come: its modules, its unfused attention, its static KV cache. Two blocks
           stand side by side where a family has them so, which Megatron does not.
``sdpa``   The same operations on the same parameters as plain torch calls, with torch's fused
           attention. What it leaves out is overhead of a single forward pass at inference: the
           autograd function around each linear layer (a 3-D matmul and an add instead of one
           fused multiply-add), the dropout-add wrapper, and a pass through every expert of a
           layer, one after the other, for the few that a token visits. Multi-latent attention
           caches latents, where ``eager`` caches the keys and values made of them.
"""

from typing import Protocol

import torch

from megatron_lm.engines.eager import EagerEngine
from megatron_lm.engines.sdpa import SdpaEngine

__all__ = ["ENGINES", "EagerEngine", "Engine", "SdpaEngine"]


class Engine(Protocol):
    """What generation needs of an engine.

    The first stage of a pipeline takes tokens, int64 of shape (sequences, tokens), the others what the stage
    before them gave. The last stage gives logits of the last position, of shape (sequences, vocabulary), the
    others hidden states of shape ``hidden_shape``. ``first_sequence`` is the place of these sequences in
    the batch, whose other sequences keep what they have cached.
    """

    dtype: torch.dtype

    def reset(self, batch_size: int, max_sequence_length: int):
        """Provide an empty KV cache for this many sequences of this length; memory is reused where it fits."""

    def encode(self, inputs: torch.Tensor, first_sequence: int = 0) -> torch.Tensor:
        """Pass of whole prompts."""

    def decode(self, inputs: torch.Tensor, num_cached_tokens: int, first_sequence: int = 0) -> torch.Tensor:
        """Pass of one more token a sequence, after ``num_cached_tokens`` others."""

    def hidden_shape(self, num_sequences: int, num_tokens: int) -> tuple[int, ...]:
        """Shape of the hidden states that pass between stages."""


ENGINES = {"sdpa": SdpaEngine, "eager": EagerEngine}
