"""Multi-latent attention of the engine ``sdpa``, whose cache holds latents (arXiv:2405.04434, section 2.1).

Keys and values of a prompt are projected from its latents. The query of a new token is brought to the latents of
its context instead, and what it finds there is brought to the values: nothing of the context is projected again.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from idealized_runtime.architectures import Architecture
from megatron_lm.layer_functions import LATENT_NORM_EPSILON, yarn_scale


class LatentAttention:
    """Attention of one layer, on the parameters of Megatron's ``MLASelfAttention``, the last projection left out."""

    def __init__(self, attention, architecture: Architecture, linear: Callable):
        self._linear = linear
        self._sizes = architecture.qk_head_dim, architecture.qk_pos_emb_head_dim, architecture.v_head_dim
        self._rank, self._num_heads = architecture.kv_lora_rank, architecture.num_attention_heads
        scaling = architecture.uncounted_options.get("rope_scaling")
        # YaRN makes the score of a query and a key larger where its factor of the whole head is not 1.
        scale = 1.0 if scaling is None else yarn_scale(scaling, scaling.get("mscale_all_dim") or 0.0)
        self._scale = scale**2 / math.sqrt(architecture.head_dim)
        if architecture.q_lora_rank is None:
            self._query_down, self._query_norm, self._query_up = None, None, attention.linear_q_proj.weight
        else:
            self._query_down, self._query_up = attention.linear_q_down_proj.weight, attention.linear_q_up_proj.weight
            self._query_norm = attention.q_layernorm.weight
        self._down, self._norm = attention.linear_kv_down_proj.weight, attention.kv_layernorm.weight
        self._up = attention.linear_kv_up_proj.weight

    def attend_prompt(self, hidden: torch.Tensor, cache: torch.Tensor, turn: Callable, end: int) -> torch.Tensor:
        """Attention of whole prompts of ``end`` tokens; (tokens, hidden) -> (tokens, heads * v_head_dim).

        Parameters
        ----------
        cache : tensor of shape (1, sequences, 1, slots, kv_lora_rank + qk_pos_emb_head_dim)
            Is given the latents.
        turn : callable
            Turns what has a rotary position, of shape (tokens, heads, qk_pos_emb_head_dim).
        """
        query, latents = self._project(hidden, turn)
        cache[0, :, 0, :end] = latents.unflatten(0, (-1, end))
        latent, position = latents.split((self._rank, self._sizes[1]), dim=-1)
        keys, values = self._heads(self._linear(latent, self._up)).split((self._sizes[0], self._sizes[2]), dim=-1)
        keys = torch.cat((keys, position.unsqueeze(1).expand(-1, self._num_heads, -1)), dim=-1)
        query, keys, values = (heads.unflatten(0, (-1, end)).transpose(1, 2) for heads in (query, keys, values))
        attended = F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=self._scale)
        return attended.transpose(1, 2).reshape(len(hidden), -1)

    def attend_token(self, hidden, cache, turn, write: Callable, slots: slice, mask=None) -> torch.Tensor:
        """Attention of one token a sequence; (sequences, hidden) -> (sequences, heads * v_head_dim).

        Parameters
        ----------
        cache, turn
            As for prompts.
        write : callable
            Puts latents, of shape (1, sequences, 1, 1, width), where they belong in the cache.
        slots, mask
            Of the cache, those that are read; and what is added to their scores, of shape (1, slots).
        """
        query, latents = self._project(hidden, turn)
        write(cache, latents.view(1, -1, 1, 1, latents.shape[-1]))
        key_up, value_up = self._up.view(self._num_heads, -1, self._rank).split((self._sizes[0], self._sizes[2]), dim=1)
        content, position = query.split(self._sizes[:2], dim=-1)
        query = torch.cat((torch.einsum("bhd,hdr->bhr", content, key_up), position), dim=-1)
        # All heads read the same latents: two matrix products, which spread over a device as a fused attention with
        # one key head for all, wider than most are made for, would not.
        context = cache[0, :, 0, slots]
        scores = query * self._scale @ context.mT
        weights = (scores if mask is None else scores + mask).softmax(dim=-1)
        return torch.einsum("bhr,hvr->bhv", weights @ context[..., : self._rank], value_up).flatten(1)

    def _project(self, hidden, turn):
        """Queries of shape (tokens, heads, qk_head_dim + qk_pos_emb_head_dim), and latents with the shared key."""
        query = hidden
        if self._query_down is not None:
            query = _normalize(self._linear(hidden, self._query_down), self._query_norm)
        content, position = self._heads(self._linear(query, self._query_up)).split(self._sizes[:2], dim=-1)
        latent, shared = self._linear(hidden, self._down).split((self._rank, self._sizes[1]), dim=-1)
        query = torch.cat((content, turn(position)), dim=-1)
        return query, torch.cat((_normalize(latent, self._norm), turn(shared.unsqueeze(1)).squeeze(1)), dim=-1)

    def _heads(self, hidden):
        return hidden.view(len(hidden), self._num_heads, -1)


def _normalize(hidden, weight):
    return F.rms_norm(hidden, hidden.shape[-1:], weight, LATENT_NORM_EPSILON)
