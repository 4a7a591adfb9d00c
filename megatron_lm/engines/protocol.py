"""What generation needs of an inference engine."""

from collections.abc import Collection
from typing import Protocol

import torch


class Engine(Protocol):
    """Turns tokens into logits, with a cache of what it has seen.

    The first stage of a pipeline takes tokens, int64 of shape (sequences, tokens), the others what the stage
    before them gave. The last stage gives logits of the last position, of shape (sequences, vocabulary), the
    others hidden states of shape ``hidden_shape``. ``first_sequence`` is the place of these sequences in
    the batch, whose other sequences keep what they have cached.
    """

    dtype: torch.dtype

    def tune(self, all_num_rows: Collection[int], known: dict | None = None) -> dict | None:
        """Choose, by short timings, how products of so many rows are made; None where there is nothing to choose.

        ``known`` is what an earlier run of the same log has chosen.
        """

    def reset(self, batch_size: int, max_sequence_length: int):
        """Provide an empty KV cache for this many sequences of this length; memory is reused where it fits."""

    def encode(self, inputs: torch.Tensor, first_sequence: int = 0) -> torch.Tensor:
        """Pass of whole prompts."""

    def decode(self, inputs: torch.Tensor, num_cached_tokens: int, first_sequence: int = 0) -> torch.Tensor:
        """Pass of one more token a sequence, after ``num_cached_tokens`` others."""

    def hidden_shape(self, num_sequences: int, num_tokens: int) -> tuple[int, ...]:
        """Shape of the hidden states that pass between stages."""
