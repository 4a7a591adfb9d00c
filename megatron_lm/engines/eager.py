"""The engine ``eager``: Megatron's layers as they come."""

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.models.gpt import GPTModel

from idealized_runtime.architectures import Architecture


class EagerEngine:
    """Megatron's layers as they come."""

    def __init__(self, model: GPTModel, architecture: Architecture):
        self._model = model
        self._architecture = architecture
        self.dtype = model.config.params_dtype
        first = architecture.num_extra_positions
        self._positions = torch.arange(
            first, first + architecture.max_position_embeddings, device=next(model.parameters()).device
        )
        self._context: StaticInferenceContext | None = None
        self._mask = None

    def tune(self, all_num_rows, known=None):
        return None

    def reset(self, batch_size, max_sequence_length):
        context = self._context
        if context is None or (context.max_batch_size, context.max_sequence_length) != (
            batch_size,
            max_sequence_length,
        ):
            self._context = StaticInferenceContext(batch_size, max_sequence_length)

    def encode(self, inputs, first_sequence=0):
        self._context.enable_prefill_mode()
        num_tokens = inputs.shape[1] if self._model.pre_process else inputs.shape[0]
        if self._mask is None or self._mask.shape[-1] != num_tokens:
            # Megatron's own default mask is made on CUDA only.
            ones = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool, device=inputs.device)
            self._mask = ones.triu(diagonal=1)
        return self._forward(inputs, self._mask, 0, first_sequence)

    def decode(self, inputs, num_cached_tokens, first_sequence=0):
        self._context.enable_decode_mode()
        return self._forward(inputs, None, num_cached_tokens, first_sequence)

    def _forward(self, inputs, mask, start, first_sequence):
        # Megatron leaves it to its caller to say where in the cache this pass stands.
        self._context.sequence_len_offset = start
        self._context.batch_size_offset = first_sequence
        tokens = positions = None
        if self._model.pre_process:
            tokens, positions = inputs, self._positions[start : start + inputs.shape[1]].expand_as(inputs)
        else:
            self._model.set_input_tensor(inputs)
        outputs = self._model(
            tokens, positions, mask, inference_context=self._context, runtime_gather_output=True
        )  # (sequences, 1, vocabulary): the context asks for the last position only
        return outputs[:, -1, : self._architecture.vocab_size] if self._model.post_process else outputs

    def hidden_shape(self, num_sequences, num_tokens):
        return num_tokens, num_sequences, self._architecture.hidden_size
