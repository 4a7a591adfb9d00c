"""Inference engines: how one model turns tokens into logits. Each is a software stack that a log names.

``eager``  Megatron's layers as they come: its modules, its unfused attention, its static KV cache.
``sdpa``   The same operations on the same parameters as plain torch calls, with torch's fused
           attention. What it leaves out is overhead of a single forward pass at inference: the
           autograd function around each linear layer (a 3-D matmul and an add instead of one
           fused multiply-add) and the dropout-add wrapper.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.models.gpt import GPTModel

from idealized_runtime.architectures import Architecture


class Engine(Protocol):
    """What generation needs of an engine. Token tensors are int64 of shape (batch, tokens)."""

    def reset(self, batch_size: int, max_sequence_length: int):
        """Provide an empty KV cache for this many sequences of this length; memory is reused where it fits."""

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode whole prompts; logits of their last position, shape (batch, vocabulary)."""

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode one more token a sequence, shape (batch, 1); logits, shape (batch, vocabulary)."""


class EagerEngine:
    """Megatron's layers as they come."""

    def __init__(self, model: GPTModel, architecture: Architecture):
        self._model = model
        self._positions = torch.arange(architecture.max_position_embeddings, device=_device(model))
        self._context: StaticInferenceContext | None = None
        self._mask = None

    def reset(self, batch_size, max_sequence_length):
        context = self._context
        if context is None or (context.max_batch_size, context.max_sequence_length) != (
            batch_size,
            max_sequence_length,
        ):
            self._context = StaticInferenceContext(batch_size, max_sequence_length)
        self._context.reset()

    def encode(self, tokens):
        num_tokens = tokens.shape[1]
        if self._mask is None or self._mask.shape[-1] != num_tokens:
            # Megatron's own default mask is made on CUDA only.
            ones = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool, device=tokens.device)
            self._mask = ones.triu(diagonal=1)
        logits = self._forward(tokens, self._mask)
        self._context.enable_decode_mode()
        return logits

    def decode(self, tokens):
        return self._forward(tokens, None)

    def _forward(self, tokens, mask):
        start = self._context.sequence_len_offset
        positions = self._positions[start : start + tokens.shape[1]].expand_as(tokens)
        logits = self._model(
            tokens, positions, mask, inference_context=self._context, runtime_gather_output=True
        )  # (batch, 1, vocabulary): the context asks for the last position only
        # Megatron leaves it to its caller to advance the cache.
        self._context.sequence_len_offset += tokens.shape[1]
        return logits[:, -1]


@dataclass
class _Layer:
    """Parameters of one Transformer layer, as Megatron stores them."""

    norm_1: tuple
    qkv: tuple
    projection: tuple
    norm_2: tuple
    up: tuple
    down: tuple


class SdpaEngine:
    """Megatron's parameters walked with plain torch calls and torch's fused attention."""

    def __init__(self, model: GPTModel, architecture: Architecture):
        self._architecture = architecture
        self._layers = [_layer_parameters(layer) for layer in model.decoder.layers]
        self._final_norm = _norm_parameters(model.decoder.final_layernorm)
        self._word_embeddings = model.embedding.word_embeddings.weight
        self._uses_rope = architecture.position_embedding_type == "rope"
        self._position_embeddings = None if self._uses_rope else model.embedding.position_embeddings.weight
        self._rotary = _rotary_table(architecture, self._word_embeddings) if self._uses_rope else None
        shared = model.share_embeddings_and_output_weights
        self._output_weight = self._word_embeddings if shared else model.output_layer.weight
        self._norm = F.layer_norm if architecture.normalization == "LayerNorm" else _rms_norm
        self._heads_per_group = architecture.num_attention_heads // architecture.num_query_groups
        self._caches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._cache_size = (0, 0)
        self._num_cached = 0

    def reset(self, batch_size, max_sequence_length):
        if self._cache_size != (batch_size, max_sequence_length):
            # Freed before the new one is allocated, and not taken for it should that fail.
            self._caches, self._cache_size = [], (0, 0)
            shape = (batch_size, self._architecture.num_query_groups, max_sequence_length, self._architecture.head_dim)
            self._caches = [
                (self._word_embeddings.new_empty(shape), self._word_embeddings.new_empty(shape)) for _ in self._layers
            ]
            self._cache_size = (batch_size, max_sequence_length)
        self._num_cached = 0

    def encode(self, tokens):
        return self._forward(tokens)

    def decode(self, tokens):
        return self._forward(tokens)

    def _forward(self, tokens):
        batch_size, num_tokens = tokens.shape
        start, end = self._num_cached, self._num_cached + num_tokens
        hidden = F.embedding(tokens, self._word_embeddings)
        if not self._uses_rope:
            hidden = hidden + self._position_embeddings[start:end]
        # Two dimensions let each linear layer be one fused multiply-add.
        hidden = hidden.view(batch_size * num_tokens, -1)
        for layer, cache in zip(self._layers, self._caches, strict=True):
            attended = self._attend(layer, cache, self._normalize(hidden, layer.norm_1), batch_size, start, end)
            hidden = hidden + F.linear(attended, *layer.projection)
            hidden = hidden + self._feed_forward(layer, self._normalize(hidden, layer.norm_2))
        self._num_cached = end
        last = hidden.view(batch_size, num_tokens, -1)[:, -1]
        return F.linear(self._normalize(last, self._final_norm), self._output_weight)

    def _normalize(self, hidden, parameters):
        return self._norm(hidden, hidden.shape[-1:], *parameters, self._architecture.layernorm_epsilon)

    def _attend(self, layer, cache, hidden, batch_size, start, end):
        """Self-attention of positions ``start`` to ``end``; (tokens, hidden) -> (tokens, hidden)."""
        # Megatron keeps, for each query group, its query heads, its key head and its value head together.
        heads = F.linear(hidden, *layer.qkv).view(
            batch_size, end - start, self._architecture.num_query_groups, self._heads_per_group + 2, -1
        )
        query = heads[:, :, :, :-2].flatten(2, 3).transpose(1, 2)
        key, value = heads[:, :, :, -2].transpose(1, 2), heads[:, :, :, -1].transpose(1, 2)
        if self._uses_rope:
            cosine, sine = self._rotary[0][start:end], self._rotary[1][start:end]
            query, key = _rotate(query, cosine, sine), _rotate(key, cosine, sine)
        keys, values = cache
        keys[:, :, start:end] = key
        values[:, :, start:end] = value
        attended = F.scaled_dot_product_attention(
            query,
            keys[:, :, :end],
            values[:, :, :end],
            is_causal=end - start > 1,
            enable_gqa=self._heads_per_group > 1,
        )
        return attended.transpose(1, 2).reshape(hidden.shape[0], -1)

    def _feed_forward(self, layer, hidden):
        up = F.linear(hidden, *layer.up)
        if self._architecture.swiglu:
            gate, up = up.chunk(2, dim=-1)
            return F.linear(F.silu(gate) * up, *layer.down)
        return F.linear(F.gelu(up, approximate="tanh"), *layer.down)


ENGINES = {"sdpa": SdpaEngine, "eager": EagerEngine}


def _device(model):
    return next(model.parameters()).device


def _layer_parameters(layer) -> _Layer:
    attention, mlp = layer.self_attention, layer.mlp
    return _Layer(
        norm_1=_norm_parameters(layer.input_layernorm),
        qkv=_linear_parameters(attention.linear_qkv),
        projection=_linear_parameters(attention.linear_proj),
        norm_2=_norm_parameters(layer.pre_mlp_layernorm),
        up=_linear_parameters(mlp.linear_fc1),
        down=_linear_parameters(mlp.linear_fc2),
    )


def _linear_parameters(module) -> tuple:
    return module.weight, getattr(module, "bias", None)


def _norm_parameters(module) -> tuple:
    bias = getattr(module, "bias", None)
    return (module.weight,) if bias is None else (module.weight, bias)


def _rms_norm(hidden, shape, weight, epsilon):
    return F.rms_norm(hidden, shape, weight, epsilon)


def _rotary_table(architecture, like) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every position's rotary angles, each of shape (positions, head_dim)."""
    exponents = torch.arange(0, architecture.head_dim, 2, dtype=torch.float32, device=like.device)
    frequencies = 1.0 / architecture.rotary_base ** (exponents / architecture.head_dim)
    positions = torch.arange(architecture.max_position_embeddings, dtype=torch.float32, device=like.device)
    angles = torch.outer(positions, frequencies).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _rotate(heads, cosine, sine):
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine
