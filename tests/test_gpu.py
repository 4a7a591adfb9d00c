"""What needs a CUDA device. The CPU twins are in test_{generation,driver,static_decoding,megatron_engine}.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import load_log, read_log

ROOT = Path(__file__).resolve().parent.parent
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
    from megatron_lm.engines import ENGINES
    from megatron_lm.model import build_model
    from megatron_lm.static_decoding import GraphEngine

    model = build_model(TINY, device=cuda, dtype=dtype, seed=0)
    tokens = torch.randint(TINY.vocab_size, (2, 12), device=cuda)
    logits = {}
    with torch.inference_mode():
        for name, engine_class in {**ENGINES, "sdpa+graph": GraphEngine}.items():
            engine = engine_class(model, TINY)
            engine.reset(2, 12)
            steps = [engine.encode(tokens[:, :8])]
            # A captured step gives its logits in the same place each time.
            steps += [engine.decode(tokens[:, i : i + 1], i).clone() for i in range(8, 12)]
            logits[name] = torch.stack(steps).float()
    for name in ("sdpa", "sdpa+graph"):
        error = (logits[name] - logits["eager"]).norm() / logits["eager"].norm()
        assert error < tolerance, name


@pytest.mark.parametrize("token_micro_batch_size", [4, 2])
def test_replayed_graphs_give_the_tokens_of_eager_over_several_buckets(cuda, monkeypatch, token_micro_batch_size):
    from megatron_lm import static_decoding
    from megatron_lm.engines import EagerEngine

    monkeypatch.setattr(static_decoding, "BUCKET_TOKENS", 16)
    model = noisy_model(cuda)
    prompts = torch.randint(TINY.vocab_size, (4, 10), device=cuda)
    expected = greedy(EagerEngine(model, TINY), prompts, 40)
    engine = static_decoding.GraphEngine(model, TINY)
    for _ in range(3):
        assert greedy(engine, prompts, 40, token_micro_batch_size).tolist() == expected.tolist()


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("num_prompt_tokens", [5, 300])
def test_fused_kernels_give_the_logits_of_sdpa(cuda, dtype, tolerance, num_prompt_tokens):
    from megatron_lm.engines import SdpaEngine
    from megatron_lm.fused_decoding import FusedEngine
    from megatron_lm.model import build_model

    architecture = Architecture(
        "llama-like", 2, 256, 8, vocab_size=1000, max_position_embeddings=512, num_query_groups=2, ffn_hidden_size=600,
        normalization="RMSNorm", position_embedding_type="rope", swiglu=True, add_bias_linear=False, add_qkv_bias=True,
        untie_embeddings_and_output_weights=True,
    )  # fmt: skip
    model = build_model(architecture, device=cuda, dtype=dtype, seed=0)
    tokens = torch.randint(1000, (1, num_prompt_tokens + 3), device=cuda)
    logits = []
    with torch.inference_mode():
        for engine in (SdpaEngine(model, architecture), FusedEngine(model, architecture)):
            engine.reset(1, tokens.shape[1])
            engine.encode(tokens[:, :num_prompt_tokens])
            steps = range(num_prompt_tokens, tokens.shape[1])
            logits.append(torch.stack([engine.decode(tokens[:, i : i + 1], i).float() for i in steps]))
    assert (logits[1] - logits[0]).norm() < tolerance * logits[0].norm()


def test_static_engine_of_megatron_gives_the_tokens_of_eager(cuda):
    from megatron_lm.arguments import Sampling
    from megatron_lm.engines import EagerEngine
    from megatron_lm.megatron_engine import MegatronEngine

    model = noisy_model(cuda)
    prompts = torch.randint(TINY.vocab_size, (3, 10), device=cuda)
    engine = MegatronEngine(model, TINY)
    for num_output_tokens in (1, 40):
        engine.reset(3, 10 + num_output_tokens - 1)
        generator = torch.Generator(cuda)
        tokens = engine.generate(prompts, num_output_tokens, Sampling(top_k=1), generator=generator)
        assert tokens.tolist() == greedy(EagerEngine(model, TINY), prompts, num_output_tokens).tolist()


def noisy_model(device):
    """Model in float32 whose greedy tokens vary, and do not hang on the last bits."""
    from megatron_lm.model import build_model

    model = build_model(TINY, device=device, dtype=torch.float32, seed=0)
    generator = torch.Generator(device).manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, device=device, generator=generator))
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
