"""Autoregressive text generation: one pass over the prompt, then one pass a token."""

import torch

from megatron_lm.engines import Engine
from megatron_lm.sampling import Sampling, sample


def generate(
    engine: Engine,
    prompts: torch.Tensor,
    num_output_tokens: int,
    sampling: Sampling,
    *,
    generator: torch.Generator,
) -> torch.Tensor:
    """Generate exactly ``num_output_tokens`` tokens a prompt; no token ends a sequence early.

    The pass over the prompt yields the first output token, each of the ``num_output_tokens - 1``
    passes over a single token one more (section 3.1 of arXiv:2305.02440).

    Parameters
    ----------
    engine : Engine
        Reset for this many sequences of at least prompt + output - 1 positions.
    prompts : int64 tensor of shape (batch, num_prompt_tokens)
    num_output_tokens : int
    sampling : Sampling
    generator : torch.Generator
        On the device of the prompts.

    Returns
    -------
    int64 tensor of shape (batch, num_output_tokens)
    """
    tokens = sample(engine.encode(prompts), sampling, generator)
    outputs = [tokens]
    for _ in range(num_output_tokens - 1):
        tokens = sample(engine.decode(tokens), sampling, generator)
        outputs.append(tokens)
    return torch.cat(outputs, dim=1)
