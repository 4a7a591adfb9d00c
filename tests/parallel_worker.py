"""What test_parallel.py runs on every rank: logits and tokens of small models, kept in a file a rank."""

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from makers import LLAMA
from megatron.core import parallel_state

from idealized_runtime.architectures import Architecture
from megatron_lm import device as devices
from megatron_lm.engines import PORTABLE_ENGINES, load_engine, products
from megatron_lm.generation import generate
from megatron_lm.model import _shard, _sharded_dimension, _whole_name, build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import Sampling

# An odd vocabulary: tensor parallelism has to pad it.
GPT = Architecture("tiny", 4, 64, 4, vocab_size=97, max_position_embeddings=40)
ARCHITECTURES = {
    "gpt2": GPT,
    "llama": replace(GPT, **LLAMA),
    "qwen2": replace(GPT, **{**LLAMA, "add_qkv_bias": True, "untie_embeddings_and_output_weights": False}),
    # Layers that differ: each stage must have its own.
    "experts": replace(
        GPT, **LLAMA, num_experts=4, moe_router_topk=2, moe_ffn_hidden_size=24, moe_layer_freq=(1, 0, 1, 1),
        moe_shared_expert_intermediate_size=40, moe_shared_expert_gate=True, qk_layernorm="per_head", window_size=3,
        window_attn_skip_freq=(0, 1, 1, 0),
    ),
    "gpt_oss": replace(
        GPT, **{**LLAMA, "add_bias_linear": True, "add_qkv_bias": True}, num_experts=4, moe_router_topk=2,
        moe_ffn_hidden_size=24, softmax_type="learnable", window_size=3, window_attn_skip_freq=2,
        uncounted_options={
            "activation_func": "clamped swiglu",
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
        },
    ),
    "deepseek": replace(
        GPT, **{**LLAMA, "num_query_groups": 4}, num_experts=4, moe_router_topk=2, moe_ffn_hidden_size=24,
        moe_layer_freq=(0, 1, 1, 1), moe_shared_expert_intermediate_size=24, q_lora_rank=28, kv_lora_rank=20,
        qk_head_dim=16, qk_pos_emb_head_dim=8, v_head_dim=12,
        uncounted_options={
            "rotary_interleaved": True, "moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True,
            "moe_router_num_groups": 2, "moe_router_group_topk": 1, "moe_router_topk_scaling_factor": 2.5,
        },
    ),
    "parallel blocks": replace(GPT, parallel_blocks=True, norms_per_layer=1, num_query_groups=2),
    "biases": replace(GPT, add_attention_bias=False, add_qkv_bias=False, add_output_layer_bias=True,
                      untie_embeddings_and_output_weights=True),
    "sinks": replace(GPT, **LLAMA, softmax_type="learnable"),
}  # fmt: skip
# Of one, all that can be is packed for its products.
ENGINES = (*PORTABLE_ENGINES, "sdpa, packed")
# (micro-batch size of prompts, of tokens) of a batch of four
CUTS = [(4, 4), (1, 2), (2, 1)]
CASES = [(name, engine, cut) for name in ARCHITECTURES for engine in ENGINES for cut in CUTS]
NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS = 7, 6


def can_be_shared_out(name, tensor_parallel_size):
    """Experts are not shared out among tensor parallel ranks."""
    return ARCHITECTURES[name].num_experts is None or tensor_parallel_size == 1


def fill_with_noise(model, architecture):
    """Every parameter counts, and has the same value however the model is shared out."""
    group = tensor_group()
    for name, parameter in model.named_parameters():
        is_column_bias = parameter.ndim == 1 and any(
            part in name for part in ("linear_qkv", "linear_fc1", "softmax_offset", "output_layer")
        )
        shape = list(parameter.shape)
        dimension = 0 if is_column_bias else _sharded_dimension(name) if parameter.ndim > 1 else None
        if dimension is not None:
            shape[dimension] *= group.size()
        whole_name = _whole_name(name, model)
        if "word_embeddings" in whole_name or "output_layer" in whole_name:
            shape[0] = architecture.vocab_size
        seed = int.from_bytes(hashlib.sha256(whole_name.encode()).digest()[:4], "big")
        noise = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        whole = 1 + noise if "norm" in name and name.endswith("weight") else noise
        if is_column_bias:
            num_parts = 2 if "linear_fc1" in name and architecture.swiglu else 1
            # The vocabulary is padded.
            whole = torch.nn.functional.pad(whole, (0, -len(whole) % group.size()))
            parts = [part.chunk(group.size())[group.rank()] for part in whole.chunk(num_parts)]
            parameter.copy_(torch.cat(parts))
        else:
            parameter.copy_(_shard(name, whole, architecture, group) if parameter.ndim > 1 else whole)


def tensor_group():
    return parallel_state.get_tensor_model_parallel_group()


@torch.inference_mode()
def run_cases(grid):
    """By case: greedy tokens, and the logits of every pass that gives any on this rank."""
    prompts = torch.randint(97, (4, NUM_PROMPT_TOKENS), generator=torch.Generator().manual_seed(3))
    answers = {}
    for name, architecture in ARCHITECTURES.items():
        if not can_be_shared_out(name, grid.tensor_parallel_size):
            continue
        model = build_model(architecture, device=grid.device, dtype=torch.float32, seed=1, grid=grid)
        initial = {_whole_name(key, model): value.clone() for key, value in model.named_parameters()}
        fill_with_noise(model, architecture)
        for engine_name in ENGINES:
            for cut in CUTS:
                tokens, logits = generate_once(new_engine(engine_name, model, architecture), prompts, cut, grid)
                answers[name, engine_name, cut] = {"tokens": tokens, "logits": logits}
        answers[name] = initial
    return answers


def new_engine(name, model, architecture):
    name, *is_packed = name.split(", ")
    engine = load_engine(name)(model, architecture)
    if is_packed:
        by_way = {"whole": 2.0, "packed": 1.0}
        with (
            mock.patch.object(products, "_LEAST_BYTES", 0),
            mock.patch.object(products, "_least_s", lambda num_rows, by_shape, packed: dict.fromkeys(by_shape, by_way)),
        ):
            assert "packed" in engine.tune({1, NUM_PROMPT_TOKENS}).values()
    return engine


def generate_once(engine, prompts, cut, grid):
    logits = []
    for method in ("encode", "decode"):
        setattr(engine, method, recorded(getattr(engine, method), logits))
    engine.reset(len(prompts), NUM_PROMPT_TOKENS + NUM_OUTPUT_TOKENS - 1)
    tokens = generate(
        engine, prompts, NUM_OUTPUT_TOKENS, Sampling(top_k=1), generator=torch.Generator(),
        micro_batch_size=cut[0], token_micro_batch_size=cut[1], grid=grid,
    )  # fmt: skip
    return tokens, logits if grid.is_last_stage else None


def recorded(method, outputs):
    def call(*arguments):
        output = method(*arguments)
        outputs.append(output.clone())
        return output

    return call


def main():
    folder = Path(sys.argv[1])
    for number, argument in enumerate(sys.argv[2:]):
        # A grid has the store to itself, as after a restart.
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
        with ProcessGrid(devices.select_device("cpu"), *map(int, argument.split("x"))) as grid:
            torch.save(run_cases(grid), folder / f"{argument}-rank{grid.rank}.pt")


if __name__ == "__main__":
    main()
