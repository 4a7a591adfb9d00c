"""Autoregressive text generation: passes over the prompts, then passes over a token each, in micro-batches."""

from collections.abc import Callable

import torch

from megatron_lm.engines.protocol import Engine
from megatron_lm.parallel import ProcessGrid
from megatron_lm.pipeline import StageLinks
from megatron_lm.sampling import Sampling, sample


def generate(
    engine: Engine,
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
    """Generate exactly ``num_output_tokens`` tokens a prompt; no token ends a sequence early.

    The pass over the prompt yields the first output token, each of the ``num_output_tokens - 1``
    passes over a single token one more (section 3.1 of arXiv:2305.02440). All prompts are encoded
    before the second token of any is generated. With pipeline stages, each works on a micro-batch while
    the stage after it works on the micro-batch before; sampled tokens return from the last to the first.

    Parameters
    ----------
    engine : Engine
        Reset for this many sequences of at least prompt + output - 1 positions.
    prompts : int64 tensor of shape (batch, num_prompt_tokens)
        The same on every rank.
    num_output_tokens : int
    sampling : Sampling
    generator : torch.Generator
        On the device of the prompts, in the same state on every rank. Draws are made a micro-batch at a
        time: with other micro-batches the same seed samples other tokens.
    micro_batch_size, token_micro_batch_size : int, optional
        Sequences encoded together, and those that generate a token together; divisors of the batch,
        by default the batch.
    grid : ProcessGrid, optional
        The pipeline; by default there is one stage.
    on_prompts_encoded : callable
        Called when the first tokens of all sequences are there: on the first stage of a pipeline the
        moment that ends the prompt encoding time, on others without meaning.

    Returns
    -------
    int64 tensor of shape (batch, num_output_tokens)
        Whole on the first and on the last stage.
    """
    run = _Generation(
        engine, prompts, num_output_tokens,
        micro_batch_size or len(prompts), token_micro_batch_size or len(prompts),
        lambda logits: sample(logits, sampling, generator), grid,
    )  # fmt: skip
    run.encode_prompts()
    on_prompts_encoded()
    run.generate_tokens()
    return run.tokens


class _Generation:
    """One stage's part in generating one batch."""

    def __init__(self, engine, prompts, num_output_tokens, micro_batch_size, token_micro_batch_size, draw, grid):
        self._engine, self._prompts, self._draw = engine, prompts, draw
        batch_size, self._num_prompt_tokens = prompts.shape
        self._prompt_slices = _slices(batch_size, micro_batch_size)
        self._token_slices = _slices(batch_size, token_micro_batch_size)
        self._is_first = grid is None or grid.is_first_stage
        self._is_last = grid is None or grid.is_last_stage
        self._links = None if grid is None or grid.num_stages == 1 else self._link(grid, num_output_tokens)
        self.tokens = prompts.new_empty(batch_size, num_output_tokens)

    def _link(self, grid, num_output_tokens):
        num_rounds = num_output_tokens - 1
        sizes = [(s.stop - s.start, self._num_prompt_tokens) for s in self._prompt_slices]
        sizes += [(s.stop - s.start, 1) for s in self._token_slices] * num_rounds
        hidden_shapes = [self._engine.hidden_shape(*size) for size in sizes]
        return StageLinks(grid, hidden_shapes, [(size, 1) for size, _ in sizes], self._engine.dtype)

    def encode_prompts(self):
        for sequences in self._prompt_slices:
            self._step(0, sequences)
        for sequences in self._prompt_slices:
            self._collect(0, sequences)

    def generate_tokens(self):
        num_output_tokens = self.tokens.shape[1]
        for column in range(1, num_output_tokens):
            for sequences in self._token_slices:
                if column > 1:
                    # As late as can be: meanwhile the token passes through the stages behind this one.
                    self._collect(column - 1, sequences)
                self._step(column, sequences)
        if num_output_tokens > 1:
            for sequences in self._token_slices:
                self._collect(num_output_tokens - 1, sequences)
        if self._links is not None:
            self._links.flush()

    def _step(self, column, sequences):
        """Pass of some sequences through this stage, which on the last one gives their tokens of ``column``."""
        if not self._is_first:
            inputs = self._links.hidden_in.take()
        elif column == 0:
            inputs = self._prompts[sequences]
        else:
            inputs = self.tokens[sequences, column - 1 : column]
        if column == 0:
            outputs = self._engine.encode(inputs, sequences.start)
        else:
            outputs = self._engine.decode(inputs, self._num_prompt_tokens + column - 1, sequences.start)
        if not self._is_last:
            self._links.hidden_out.put(outputs)
            return
        tokens = self._draw(outputs)
        self.tokens[sequences, column : column + 1] = tokens
        if self._links is not None:
            self._links.tokens_out.put(tokens)

    def _collect(self, column, sequences):
        """On the first stage of a pipeline, the tokens that the last one has sampled."""
        if self._links is not None and self._is_first:
            self.tokens[sequences, column : column + 1] = self._links.tokens_in.take()


def _slices(batch_size, micro_batch_size) -> list[slice]:
    return [slice(first, first + micro_batch_size) for first in range(0, batch_size, micro_batch_size)]
