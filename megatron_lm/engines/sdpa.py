"""The engine ``sdpa``: Megatron's parameters walked with plain torch calls and torch's fused attention."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from idealized_runtime.architectures import Architecture
from megatron_lm.engines.caches import token_caches, write_latents
from megatron_lm.engines.layers import layer_parameters, norm_parameters
from megatron_lm.engines.onednn import PackedRows
from megatron_lm.engines.products import Products
from megatron_lm.engines.rotary import Rotary
from megatron_lm.engines.shards import Shards
from megatron_lm.engines.sinks import attend_prompt_with_sinks, attend_token_with_sinks
from megatron_lm.layer_functions import activation_function, clamped_gate

# Of attention of a single token: without a mask the first, which reads the cache in as many chunks as fill the device;
# with one the second, a block for each group. cuDNN's, which torch would prefer on Hopper, is planned anew for every
# length of the cache.
_TOKEN_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class SdpaEngine:
    """Megatron's parameters walked with plain torch calls and torch's fused attention."""

    def __init__(self, model: GPTModel, architecture: Architecture):
        self._architecture = architecture
        self._products = Products()
        self._shards = Shards(parallel_state.get_tensor_model_parallel_group(), self._products)
        self._activation, self._clamped_gate = activation_function(architecture), clamped_gate(architecture)
        self._layers = [
            layer_parameters(layer, architecture, self._activate, self._products) for layer in model.decoder.layers
        ]
        self._is_parallel = architecture.parallel_blocks
        self._is_first_stage, self._is_last_stage = model.pre_process, model.post_process
        # Not a parameter, which would outlive its layout.
        self._like = next(model.parameters()).new_empty(0)
        self.dtype = self._like.dtype
        self._attends_in_float32 = self._like.device.type == "cpu" and self.dtype != torch.float32
        uses_rope = architecture.position_embedding_type == "rope"
        self._rotary = Rotary(architecture, self._like) if uses_rope else None
        if self._is_first_stage:
            word_embeddings = model.embedding.word_embeddings.weight
            self._num_embeddings, self._look_up = len(word_embeddings), partial(F.embedding, weight=word_embeddings)
            self._embedding_multiplier = architecture.uncounted_options.get("embedding_multiplier")
            if not uses_rope:
                self._position_embeddings = model.embedding.position_embeddings.weight[
                    architecture.num_extra_positions :
                ]
        if self._is_last_stage:
            self._final_norm = norm_parameters(model.decoder.final_layernorm)
            self._output_bias = model.output_layer.bias
            # Where they are tied and stand on one stage, the output layer keeps no weight of its own.
            weight = model.output_layer.weight
            self._output_weight = word_embeddings if weight is None else weight
        self._is_tied = self._is_first_stage and self._is_last_stage and self._output_weight is word_embeddings
        linears = {id(weight) for layer in self._layers for weight, _ in layer.linears.values()}
        self._whole = [m for m in model.decoder.parameters() if m.dim() == 2 and id(m) not in linears]
        # Not torch.nn.functional's, which is a Python function around this.
        self._norm = torch.layer_norm if architecture.normalization == "LayerNorm" else torch.rms_norm
        self._num_query_groups = architecture.num_query_groups // self._shards.count
        self._heads_per_group = architecture.num_attention_heads // architecture.num_query_groups
        # Of every layer keys and values, (2, sequences, groups, tokens, head_dim): side by side, to be written at once.
        # Or latents, (1, sequences, 1, tokens, width). In one tensor, so that one view serves all layers.
        self._caches: torch.Tensor | None = None
        self._cache_size = (0, 0)
        self._window_mask: torch.Tensor | None = None

    def tune(self, all_num_rows, known=None):
        if self._like.is_cuda:
            # One kernel reads a matrix with all of the device.
            return None
        packable = [weight for layer in self._layers for weight, _ in layer.linears.values() if not weight.is_mkldnn]
        outputs = [self._output_weight] if self._is_last_stage and not self._output_weight.is_mkldnn else []
        packable += outputs
        found = self._products.tune(
            [*self._whole, *packable], all_num_rows, known, packable, looked_up=outputs if self._is_tied else ()
        )
        # A weight is let go before the next is packed: there is never a second copy of all.
        del packable, outputs
        for layer in self._layers:
            layer.pack(self._products)
        if self._is_last_stage:
            self._output_weight = self._products.packed(self._output_weight)
            if self._is_tied and self._output_weight.is_mkldnn:
                self._look_up = PackedRows(self._output_weight)
        return found

    def reset(self, batch_size, max_sequence_length):
        if self._cache_size != (batch_size, max_sequence_length):
            # Freed before the new one is allocated, and not taken for it should that fail.
            self._caches, self._cache_size = None, (0, 0)
            architecture = self._architecture
            shape = (2, batch_size, self._num_query_groups, max_sequence_length, architecture.head_dim)
            if architecture.multi_latent_attention:
                width = architecture.kv_lora_rank + architecture.qk_pos_emb_head_dim
                shape = (1, batch_size, 1, max_sequence_length, width)
            self._caches = self._like.new_empty((len(self._layers), *shape))
            self._cache_size = (batch_size, max_sequence_length)

    def encode(self, inputs, first_sequence=0):
        return self._forward(inputs, 0, first_sequence)

    def decode(self, inputs, num_cached_tokens, first_sequence=0):
        return self._forward(inputs, num_cached_tokens, first_sequence)

    def hidden_shape(self, num_sequences, num_tokens):
        return num_sequences, num_tokens, self._architecture.hidden_size

    def _forward(self, inputs, start, first_sequence):
        num_sequences, num_tokens = inputs.shape[:2]
        sequences = slice(first_sequence, first_sequence + num_sequences)
        positions = slice(start, start + num_tokens)
        if num_tokens > 1:
            angles = self._rotary and self._rotary.angles(positions, num_sequences)
            caches = self._caches[:, :, sequences].unbind()
            return self._walk(inputs, positions, caches, partial(self._attend, angles=angles, end=positions.stop))
        return self._decode_token(inputs, positions, sequences, self._seen(positions.stop))

    def _seen(self, end) -> dict:
        """Slots of the cache that the newest of ``end`` tokens attends to, by window; and their mask, here none."""
        windows = {layer.window for layer in self._layers}
        return {window: (slice(0 if window is None else max(0, end - window), end), None) for window in windows}

    def _decode_token(self, inputs, positions, sequences, seen):
        """Pass of a token a sequence, at ``positions``: a slice, or an index on the device."""
        turns = self._rotary and self._rotary.matrices(positions, self._heads_per_group + 1)
        caches = self._caches[:, :, sequences]
        if self._architecture.multi_latent_attention:
            attend = partial(self._attend_token_by_latents, positions=positions, turn=turns[0], seen=seen)
            caches = caches.unbind()
        else:
            attend = partial(self._attend_token, turns=turns)
            caches = token_caches(caches, positions, [layer.window for layer in self._layers], seen)
        with sdpa_kernel(_TOKEN_BACKENDS):
            return self._walk(inputs, positions, caches, attend)

    def _walk(self, inputs, positions, caches, attend: Callable):
        """Pass of tokens at ``positions``, whatever indexes a table of them, through embedding, layers and logits.

        ``attend`` is given a layer, the one of ``caches`` that is its, and the normalised hidden states.
        """
        batch_size, num_tokens = inputs.shape[:2]
        hidden = self._embed(inputs, positions) if self._is_first_stage else inputs
        # Two dimensions let each linear layer be one fused multiply-add; in place, so that its result is added by it.
        hidden = hidden.view(batch_size * num_tokens, -1)
        for layer, cache in zip(self._layers, caches, strict=True):
            normalized = self._normalize(hidden, layer.norm_1)
            beside = normalized
            if self._is_parallel and self._architecture.norms_per_layer > 1:
                beside = self._normalize(hidden, layer.norm_2)
            self._shards.add_linear(hidden, attend(layer, cache, normalized), *layer.projection)
            # A block beside the attention reads the hidden state to which that had added nothing yet.
            normalized = beside if self._is_parallel else self._normalize(hidden, layer.norm_2)
            if layer.experts is not None:
                hidden.add_(layer.experts(normalized))
            else:
                self._shards.add_linear(
                    hidden, self._activate(self._products.linear(normalized, *layer.up)), *layer.down
                )
        hidden = hidden.view(batch_size, num_tokens, -1)
        if not self._is_last_stage:
            return hidden
        last = self._normalize(hidden[:, -1], self._final_norm)
        logits = self._shards.gather(self._products.linear(last, self._output_weight, self._output_bias))
        return logits[:, : self._architecture.vocab_size]

    def _embed(self, tokens, positions):
        hidden = self._shards.embed(tokens, self._look_up, self._num_embeddings)
        if self._embedding_multiplier is not None:
            hidden = hidden * self._embedding_multiplier
        return hidden if self._rotary else hidden + self._position_embeddings[positions]

    def _normalize(self, hidden, parameters):
        return self._norm(hidden, parameters[0].shape, *parameters, self._architecture.layernorm_epsilon)

    def _heads(self, layer, hidden, num_groups):
        """Heads of shape (..., num_groups, heads of a group, head_dim): query heads, then the key, then the value."""
        # As Megatron keeps them.
        shape = (-1, num_groups, self._heads_per_group + 2, self._architecture.head_dim)
        heads = self._products.linear(hidden, *layer.qkv).reshape(shape)
        if layer.query_norm is None:
            return heads
        query, key, value = heads.split((self._heads_per_group, 1, 1), dim=2)
        return torch.cat((self._normalize(query, layer.query_norm), self._normalize(key, layer.key_norm), value), dim=2)

    def _attend(self, layer, cache, hidden, angles, end):
        """Self-attention of prompts, the tokens up to ``end``; (tokens, hidden) -> (tokens, heads)."""
        if layer.latents is not None:
            turn = self._rotary.turn
            return layer.latents.attend_prompt(hidden, cache, lambda x: turn(x.unsqueeze(1), angles).squeeze(1), end)
        heads = self._heads(layer, hidden, self._num_query_groups)
        query_and_key = heads[:, :, :-1] if angles is None else self._rotary.turn(heads[:, :, :-1], angles)
        query, key, value = (
            tensor.unflatten(0, (-1, end)).flatten(2, 3).transpose(1, 2)
            for tensor in (query_and_key[:, :, :-1], query_and_key[:, :, -1:], heads[:, :, -1:])
        )
        cache[0, :, :, :end], cache[1, :, :, :end] = key, value
        mask = self._mask_of_window(layer.window, end) if layer.window is not None and end > layer.window else None
        if layer.sinks is not None:
            attended = attend_prompt_with_sinks(query, key, value, layer.sinks, mask)
        else:
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=self._heads_per_group > 1
            )
        return attended.transpose(1, 2).reshape(len(heads), -1)

    def _attend_token(self, layer, cache, hidden, turns):
        """Self-attention of one token a sequence over slots of the cache; (sequences, hidden) -> (sequences, heads)."""
        # As rows of one query, the heads of a group read its keys once, by kernels that know no groups; and each group
        # as a batch of its own, they come out in the order of the projection.
        heads = self._heads(layer, hidden, 1)
        if turns is not None:
            turned = torch.empty_like(heads)
            rows, turned_rows = (tensor.squeeze(1).transpose(0, 1) for tensor in (heads, turned))
            torch.bmm(rows, turns, out=turned_rows)
            heads = turned
        query, key_and_value = heads.split((self._heads_per_group, 2), dim=2)
        cache.write(key_and_value)
        operands = query, cache.keys, cache.values, cache.mask
        if layer.sinks is not None:
            attended = attend_token_with_sinks(*operands[:3], layer.sinks, cache.mask)
        elif self._attends_in_float32:
            # Of a single query, bringing the cache to float32 and its products take half as long as those of bfloat16.
            operands = [None if operand is None else operand.float() for operand in operands]
            attended = F.scaled_dot_product_attention(*operands).to(query.dtype)
        else:
            attended = F.scaled_dot_product_attention(*operands)
        return attended.reshape(hidden.size(0), -1)

    def _attend_token_by_latents(self, layer, cache, hidden, positions, turn, seen):
        write = partial(write_latents, positions=positions)
        return layer.latents.attend_token(hidden, cache, lambda heads: heads @ turn, write, *seen[layer.window])

    def _mask_of_window(self, window, num_tokens):
        """Whether a token (row) attends to another (column): to itself and the ``window - 1`` before it."""
        if self._window_mask is None or len(self._window_mask) != num_tokens:
            ones = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=self._like.device)
            self._window_mask = ones.tril().triu(1 - window)
        return self._window_mask

    def _activate(self, up):
        if self._architecture.swiglu:
            gate, up = up.chunk(2, dim=-1)
            if self._clamped_gate is not None:
                limit, offset = self._clamped_gate
                gate, up = gate.clamp(max=limit), up.clamp(-limit, limit) + offset
            return self._activation(gate) * up
        return self._activation(up)
