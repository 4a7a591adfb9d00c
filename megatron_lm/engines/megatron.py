"""The engine ``megatron``: Megatron's own static inference engine, made to generate a given number of tokens."""

from collections.abc import Callable
from functools import partial

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.inference.engines import static_engine
from megatron.core.inference.inference_request import InferenceRequest
from megatron.core.inference.model_inference_wrappers.gpt.gpt_inference_wrapper import GPTInferenceWrapper
from megatron.core.inference.model_inference_wrappers.inference_wrapper_config import InferenceWrapperConfig
from megatron.core.inference.sampling_params import SamplingParams
from megatron.core.inference.scheduler import Scheduler
from megatron.core.inference.text_generation_controllers.text_generation_controller import TextGenerationController
from megatron.core.models.gpt import GPTModel
from tqdm import tqdm

from idealized_runtime.architectures import Architecture
from megatron_lm.arguments import Sampling
from megatron_lm.parallel import ProcessGrid


class MegatronEngine:
    """Megatron's ``StaticInferenceEngine``, whose own loop runs the passes and samples.

    It generates a batch as a whole, on one process, and needs CUDA. Sampling is Megatron's: in the data
    type of the model, by top-k or by top-p.
    """

    def __init__(self, model: GPTModel, architecture: Architecture):
        self._model = model
        self._architecture = architecture
        self._engine: static_engine.StaticInferenceEngine | None = None
        self._size = (0, 0)

    def tune(self, all_num_rows, known=None):
        return None

    def reset(self, batch_size: int, max_sequence_length: int):
        """Provide for this many sequences of this length; the KV cache is kept where it has that size."""
        if self._size != (batch_size, max_sequence_length):
            # Freed before the new one comes, and not taken for it should that fail.
            self._engine, self._size = None, (0, 0)
            # Its length counts the last token as well, which no pass reads.
            self._engine = self._new_engine(batch_size, max_sequence_length + 1)
            self._size = (batch_size, max_sequence_length)
        # It would keep the requests of every run, and go on with those of one that failed.
        self._engine.scheduler = Scheduler(max_batch_size=batch_size)

    def generate(
        self,
        prompts: torch.Tensor,
        num_output_tokens: int,
        sampling: Sampling,
        *,
        generator: torch.Generator,
        micro_batch_size: int | None = None,
        token_micro_batch_size: int | None = None,
        grid: ProcessGrid | None = None,
        on_prompts_encoded: Callable[[], None] = lambda: None,
    ) -> torch.Tensor:
        """As :func:`megatron_lm.generation.generate`, for an uncut batch that is as large as the last reset said."""
        sizes = {len(prompts), micro_batch_size or len(prompts), token_micro_batch_size or len(prompts)}
        if len(sizes) > 1 or (grid is not None and grid.size > 1):
            raise ValueError("Megatron's engine generates a batch as a whole, on one process")
        controller = self._engine.controller
        controller.sampling_rng, controller.on_first_tokens = generator, on_prompts_encoded
        parameters = _sampling_parameters(sampling, num_output_tokens)
        requests = [
            InferenceRequest(request_id=i, prompt="", prompt_tokens=prompt, sampling_params=parameters)
            for i, prompt in enumerate(prompts.tolist())
        ]
        completed = self._engine.generate(inference_requests=requests)
        return torch.stack([request.generated_tokens for request in completed])

    def _new_engine(self, batch_size, num_positions):
        config = InferenceWrapperConfig(
            hidden_size=self._architecture.hidden_size,
            params_dtype=self._model.config.params_dtype,
            # It cuts no batch into micro-batches.
            inference_batch_times_seqlen_threshold=-1,
            padded_vocab_size=self._architecture.vocab_size,
            inference_max_requests=batch_size,
            inference_max_seq_length=num_positions,
        )
        wrapper = _Wrapper(self._model, config, StaticInferenceContext.from_config(config))
        wrapper.first_position = self._architecture.num_extra_positions
        # What Megatron calls legacy is its static engine; without it the dynamic one would run under its name.
        return _Engine(_Controller(wrapper, _TokenIds()), legacy=True)


class _Engine(static_engine.StaticInferenceEngine):
    """Draws no progress bar of its own within the timed region."""

    def run_engine(self):
        shown, static_engine.tqdm = static_engine.tqdm, partial(tqdm, disable=True)
        try:
            super().run_engine()
        finally:
            static_engine.tqdm = shown


class _Wrapper(GPTInferenceWrapper):
    """Counts positions from where the model's table of them has its first one."""

    first_position = 0

    def prep_inference_input(self, prompts_tokens):
        inputs = super().prep_inference_input(prompts_tokens)
        return {**inputs, "position_ids": inputs["position_ids"] + self.first_position}


class _Controller(TextGenerationController):
    """Tells when the first tokens of a run have been sampled: the moment that ends the prompt encoding."""

    on_first_tokens: Callable[[], None] | None = None

    def sample_from_logits(self, *args, **kwargs):
        tokens = super().sample_from_logits(*args, **kwargs)
        if self.on_first_tokens is not None:
            tell, self.on_first_tokens = self.on_first_tokens, None
            tell()
        return tokens


class _TokenIds:
    """The tokenizer that Megatron asks for: prompts are token ids, and no text is made of those that come out."""

    # Pads the places of tokens yet to come, all of which are generated.
    eod = 0

    def detokenize(self, tokens):
        return ""


def _sampling_parameters(sampling, num_output_tokens):
    parameters = SamplingParams(
        temperature=float(sampling.temperature),
        top_k=sampling.top_k,
        top_p=float(sampling.top_p),
        num_tokens_to_generate=num_output_tokens,
    )
    # Not a field of its class, but what its loop looks for.
    parameters.add_attributes({"no_early_termination": True})
    return parameters
