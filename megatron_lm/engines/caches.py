"""KV caches of all layers as the pass of one token a sequence sees them.

A view takes as long as a small kernel, and each layer needs several: those of all layers are made at once.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch


class TokenCache(NamedTuple):
    """Slots of one layer's cache that a new token reads, and what writes its own; rows are groups of sequences."""

    # Of shape (rows, 1, slots, head_dim).
    keys: torch.Tensor
    values: torch.Tensor
    # Added to the scores of the slots, or None.
    mask: torch.Tensor | None
    # Takes the key and the value of each row, of shape (rows, 1, 2, head_dim).
    write: Callable[[torch.Tensor], object]


def token_caches(caches: torch.Tensor, positions, windows: list, seen: dict) -> list[TokenCache]:
    """Cache of each layer for a token at ``positions``.

    Parameters
    ----------
    caches : tensor of shape (layers, 2, sequences, groups, slots, head_dim)
    positions : slice or int64 tensor of shape (1,)
        The slot of the token.
    windows : list
        Of each layer, a key of ``seen``.
    seen : dict
        Slots (a slice) and their mask by window.
    """
    rows = caches.flatten(2, 3).unsqueeze(3)
    if isinstance(positions, slice):
        writers = [place.copy_ for place in rows[:, :, :, 0, positions].permute(0, 2, 3, 1, 4).unbind()]
    else:
        writers = [partial(_write_at, cache, positions) for cache in rows.unbind()]
    read = {}
    for window, (slots, mask) in seen.items():
        keys, values = rows[..., slots, :].unbind(1)
        read[window] = keys.unbind(), values.unbind(), mask
    layers = []
    for i, (window, write) in enumerate(zip(windows, writers, strict=True)):
        keys, values, mask = read[window]
        layers.append(TokenCache(keys[i], values[i], mask, write))
    return layers


def write_latents(cache: torch.Tensor, latents: torch.Tensor, positions):
    """Put latents of shape (1, sequences, 1, 1, width) at ``positions``, as above, of a layer's cache."""
    if isinstance(positions, slice):
        cache[:, :, :, positions] = latents
    else:
        cache.index_copy_(3, positions, latents)


def _write_at(cache, positions, key_and_value):
    cache.index_copy_(3, positions, key_and_value.permute(2, 0, 1, 3).unsqueeze(3))
