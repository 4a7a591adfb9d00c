"""What needs a CUDA device. The CPU twins are in test_{generation,driver,graph,megatron_engine}.py."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import load_log, read_log

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
TINY = Architecture("tiny", 2, 64, 4, vocab_size=256, max_position_embeddings=64)


@pytest.fixture(scope="module")
def cuda():
    from megatron_lm.device import select_device
    from megatron_lm.parallel import ProcessGrid

    device = select_device("cuda")
    with ProcessGrid(device):
        yield device


TOLERANCES = [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_engines_give_the_same_logits(cuda, dtype, tolerance):
    from megatron_lm.engines import load_engine
    from megatron_lm.model import build_model

    model = build_model(TINY, device=cuda, dtype=dtype, seed=0)
    logits = {name: cached_logits(load_engine(name)(model, TINY), cuda) for name in ("sdpa", "eager", "sdpa+graph")}
    for name in ("sdpa", "sdpa+graph"):
        error = (logits[name] - logits["eager"]).norm() / logits["eager"].norm()
        assert error < tolerance, name


# By what a decode step does that no other does: turned and grouped heads, norms of heads, a window, blocks side by
# side, latents; experts, the last with sinks.
LLAMA = {"position_embedding_type": "rope", "normalization": "RMSNorm", "num_query_groups": 2, "swiglu": True,
         "add_bias_linear": False, "add_qkv_bias": False}  # fmt: skip
EXPERTS = {"num_experts": 8, "moe_router_topk": 3, "moe_ffn_hidden_size": 24}
FAMILIES = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "qk_layernorm": "per_head", "kv_channels": 24},
    "mistral": {**LLAMA, "window_size": 5},
    "falcon": {**LLAMA, "num_query_groups": 1, "parallel_blocks": True, "norms_per_layer": 1, "swiglu": False},
    "deepseek": {**LLAMA, "num_query_groups": 4, "kv_lora_rank": 24, "q_lora_rank": 32, "qk_head_dim": 16,
                 "qk_pos_emb_head_dim": 8, "v_head_dim": 16, "uncounted_options": {"rotary_interleaved": True}},
    "qwen3_moe": {**LLAMA, **EXPERTS},
    "gpt_oss": {**LLAMA, **EXPERTS, "softmax_type": "learnable", "window_size": 5, "window_attn_skip_freq": 2},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_engines_give_the_same_logits_for_each_family(cuda, family):
    from megatron_lm.engines import load_engine

    architecture = replace(TINY, **FAMILIES[family])
    has_experts = architecture.num_experts is not None
    if has_experts and torch.cuda.get_device_capability(cuda)[0] not in (9, 10):
        pytest.skip("this device has no products of groups of rows that a graph can hold")
    dtype, tolerance = (torch.bfloat16, 5e-2) if has_experts else (torch.float32, 1e-4)
    model = noisy_model(cuda, architecture, dtype)
    logits = {
        name: cached_logits(load_engine(name)(model, architecture), cuda) for name in ("sdpa", "eager", "sdpa+graph")
    }
    for name in ("sdpa", "sdpa+graph"):
        errors = (logits[name] - logits["eager"]).norm(dim=-1) / logits["eager"].norm(dim=-1)
        # The last bits of bfloat16 may send a token to another expert: most of them agree.
        assert (errors.median() if has_experts else errors.max()) < tolerance, name


@torch.inference_mode()
def cached_logits(engine, device):
    """Logits of a prompt's last position and of the tokens after it, in float32."""
    tokens = torch.randint(TINY.vocab_size, (2, 24), generator=torch.Generator().manual_seed(3)).to(device)
    engine.reset(2, 24)
    steps = [engine.encode(tokens[:, :8])]
    # A captured step gives its logits in the same place each time.
    steps += [engine.decode(tokens[:, i : i + 1], i).clone() for i in range(8, 24)]
    return torch.stack(steps).float()


@pytest.mark.parametrize("token_micro_batch_size", [4, 2])
def test_replayed_graphs_give_the_tokens_of_eager_over_several_buckets(cuda, monkeypatch, token_micro_batch_size):
    from megatron_lm.engines import graph
    from megatron_lm.engines.eager import EagerEngine

    monkeypatch.setattr(graph, "BUCKET_TOKENS", 16)
    model = noisy_model(cuda)
    prompts = torch.randint(TINY.vocab_size, (4, 10), device=cuda)
    expected = greedy(EagerEngine(model, TINY), prompts, 40)
    engine = graph.GraphEngine(model, TINY)
    for _ in range(3):
        assert greedy(engine, prompts, 40, token_micro_batch_size).tolist() == expected.tolist()


def test_static_engine_of_megatron_gives_the_tokens_of_eager(cuda):
    from megatron_lm.arguments import Sampling
    from megatron_lm.engines.eager import EagerEngine
    from megatron_lm.engines.megatron import MegatronEngine

    model = noisy_model(cuda)
    prompts = torch.randint(TINY.vocab_size, (3, 10), device=cuda)
    engine = MegatronEngine(model, TINY)
    for num_output_tokens in (1, 40):
        engine.reset(3, 10 + num_output_tokens - 1)
        generator = torch.Generator(cuda)
        tokens = engine.generate(prompts, num_output_tokens, Sampling(top_k=1), generator=generator)
        assert tokens.tolist() == greedy(EagerEngine(model, TINY), prompts, num_output_tokens).tolist()


def noisy_model(device, architecture=TINY, dtype=torch.float32):
    """Model every parameter of which counts; in float32 its greedy tokens vary, and do not hang on the last bits."""
    from megatron_lm.model import build_model

    model = build_model(architecture, device=device, dtype=dtype, seed=0)
    generator = torch.Generator(device).manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, dtype=dtype, device=device, generator=generator))
    return model


@torch.inference_mode()
def greedy(engine, prompts, num_output_tokens, token_micro_batch_size=None):
    from megatron_lm.arguments import Sampling
    from megatron_lm.generation import generate

    engine.reset(len(prompts), prompts.shape[1] + num_output_tokens - 1)
    return generate(
        engine, prompts, num_output_tokens, Sampling(top_k=1), generator=torch.Generator(prompts.device),
        token_micro_batch_size=token_micro_batch_size,
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["--fp16", "--bf16"])
@pytest.mark.parametrize("engine", ["sdpa", "eager", "sdpa+graph", "megatron"])
def test_driver_times_on_the_device(tmp_path, flag, engine):
    log = tmp_path / "tiny.jsonl"
    command = [sys.executable, "generate_text.py", "--num-layers", "2", "--hidden-size", "64",
               "--num-attention-heads", "4", "--max-position-embeddings", "64", "--all-num-input-tokens", "1", "16",
               "--all-num-output-tokens", "1", "4", "--num-warmup", "1", "--num-trials", "3", "--top-p", "0.9",
               "--device", "cuda", flag, "--inference-engine", engine, "--log", str(log)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert len(read_log(log)) == 4
    header = load_log(log).header
    assert header["hardware"] == torch.cuda.get_device_name()
    assert header["environment"]["gpu"]["memory_bytes"] > 0
    assert "cuda" in json.dumps(header["software"])
