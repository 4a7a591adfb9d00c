"""The engine ``fused+graph``: ``sdpa+graph`` whose decode steps are Triton kernels, six a layer."""

from megatron_lm.static_decoding import GraphEngine


class FusedEngine(GraphEngine):
    """``sdpa+graph`` that generates the tokens of one sequence with :mod:`megatron_lm.fused_kernels`.

    For layers of Llama's kind: RMSNorm, rotary positions, SwiGLU, no bias but of queries, keys and values. Prompts are
    encoded as by ``sdpa``.

    Raises
    ------
    ValueError
        There is no Triton.
    """

    def __init__(self, model, architecture):
        try:
            from megatron_lm import fused_kernels
        except ImportError as error:
            raise ValueError(f"--inference-engine fused+graph needs Triton ({error}); use sdpa+graph") from error
        super().__init__(model, architecture)
        self._kernels = fused_kernels

    def _decode_static(self, inputs, position, sequences, num_slots):
        if len(inputs) > 1:
            raise ValueError(f"one sequence at a time; got {len(inputs)}")
        hidden = self._embed(inputs, position).view(-1)
        for layer, cache in zip(self._layers, self._caches, strict=True):
            keys, values = cache[:, sequences.start]
            heads = self._linear(hidden, layer.qkv, norm=layer.norm_1)
            attended = self._kernels.attend(
                heads.view(len(keys), self._heads_per_group + 2, -1), keys, values, position,
                self._rotary.table, self._rotary.num_turned, num_slots,
            )  # fmt: skip
            self._linear(attended, layer.projection, add_to=hidden)
            up = self._linear(hidden, layer.up, norm=layer.norm_2, is_gated=True)
            self._linear(up, layer.down, add_to=hidden)
        logits = self._linear(hidden, (self._output_weight,), norm=self._final_norm)
        return logits.unsqueeze(0)[:, : self._architecture.vocab_size]

    def _linear(self, inputs, parameters, norm=(None,), **options):
        epsilon = self._architecture.layernorm_epsilon
        return self._kernels.linear(inputs, *parameters, norm=norm[0], epsilon=epsilon, **options)
