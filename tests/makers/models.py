"""Small models and what they generate."""

import torch

from idealized_runtime.architectures import Architecture
from makers.parallel_worker import LLAMA
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.sampling import Sampling

CPU = torch.device("cpu")

GPT = Architecture("tiny", 2, 64, 4, vocab_size=96, max_position_embeddings=40)

# Every option of an Architecture alone, then together.
OPTIONS = {
    "gpt2": {},
    "rmsnorm": {"normalization": "RMSNorm"},
    "epsilon": {"layernorm_epsilon": 0.5},
    "rope": {"position_embedding_type": "rope"},
    "rotary base": {"position_embedding_type": "rope", "rotary_base": 50.0},
    "swiglu": {"swiglu": True},
    "ffn size": {"ffn_hidden_size": 100},
    "grouped query": {"num_query_groups": 2},
    "multi-query": {"num_query_groups": 1},
    "no bias": {"add_bias_linear": False, "add_qkv_bias": False},
    "qkv bias only": {"add_bias_linear": False, "add_qkv_bias": True},
    "untied": {"untie_embeddings_and_output_weights": True},
    "llama": LLAMA,
    "qwen2": {**LLAMA, "add_qkv_bias": True, "untie_embeddings_and_output_weights": False},
    "gpt-j-like": {"position_embedding_type": "rope", "num_query_groups": 1, "swiglu": True},
}


def build(architecture, dtype=torch.float32):
    """Model whose every parameter counts: Megatron's own biases are zero and its weights small."""
    model = build_model(architecture, device=CPU, dtype=dtype, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm_weight = "norm" in name and name.endswith("weight")
        parameter.copy_(1 + 0.3 * noise if is_norm_weight else 0.3 * noise)
    return model


def random_tokens(*shape, vocab_size=96):
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits_with_cache(engine, tokens, num_prompt_tokens):
    """Logits from the last prompt position on, as generation sees them: one pass, then one a token."""
    batch_size, num_tokens = tokens.shape
    engine.reset(batch_size, num_tokens)
    logits = [engine.encode(tokens[:, :num_prompt_tokens])]
    logits += [engine.decode(tokens[:, i : i + 1], i) for i in range(num_prompt_tokens, num_tokens)]
    return torch.stack(logits, dim=1)


@torch.inference_mode()
def greedy(engine, prompts, num_output_tokens):
    engine.reset(prompts.shape[0], prompts.shape[1] + num_output_tokens - 1)
    return generate(engine, prompts, num_output_tokens, Sampling(top_k=1), generator=torch.Generator())
