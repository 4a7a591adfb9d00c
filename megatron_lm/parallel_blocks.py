"""Layers whose attention and feed-forward network read the same hidden state, as in GPT-NeoX and Falcon."""

from megatron.core.transformer.transformer_layer import TransformerLayer


class ParallelBlocksLayer(TransformerLayer):
    """Megatron's layer, with its feed-forward network beside its attention instead of after it."""

    def forward(self, hidden_states, *args, **options):
        """As that of Megatron's layer."""
        options.pop("dynamic_inference_decode_only", None)
        self._attended, context = self._forward_attention(hidden_states, *args, **options)
        return self._forward_mlp(hidden_states, options.get("inference_context")), context

    def _forward_post_mlp(self, mlp_output_with_bias, residual):
        # Kept no longer: at long prompts the hidden states of all layers would take gigabytes.
        attended, self._attended = self._attended, None
        return super()._forward_post_mlp(mlp_output_with_bias, attended)


def put_blocks_side_by_side(block_spec):
    """Let every layer of Megatron's specification be one of these."""
    for layer in block_spec.layer_specs:
        layer.module = ParallelBlocksLayer


def share_norms(model):
    """Let the two blocks of a layer share one norm."""
    for layer in model.decoder.layers:
        layer.pre_mlp_layernorm = layer.input_layernorm
