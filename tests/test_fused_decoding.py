"""The fused kernels on a CPU, where Triton is and interprets: TRITON_INTERPRET=1 pytest tests/test_fused_decoding.py.

test_gpu.py compiles them.
"""

import importlib.util
import os
from dataclasses import replace

import pytest
import torch
from test_generation import GPT, LLAMA, build, logits_with_cache, random_tokens
from test_static_decoding import refusal

from megatron_lm import device as devices
from megatron_lm import static_decoding
from megatron_lm.engines import EagerEngine
from megatron_lm.fused_decoding import FusedEngine
from megatron_lm.parallel import ProcessGrid

HAS_TRITON = importlib.util.find_spec("triton") is not None
# Megatron imports Triton: to set the variable here would be too late where another test module came first.
interprets = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton, and TRITON_INTERPRET=1"
)
LLAMA_LIKE = replace(GPT, **LLAMA)
ENGINE = ["--inference-engine", "fused+graph"]
SHAPE = ["--swiglu", "--normalization", "RMSNorm", "--position-embedding-type", "rope", "--disable-bias-linear",
         "--hidden-size", "64"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def megatron():
    with ProcessGrid(devices.select_device("cpu")):
        yield


def fused_engine(model, architecture):
    engine = FusedEngine(model, architecture)
    engine._captures = False
    return engine


@interprets
@pytest.mark.parametrize(
    "options",
    [{}, {"add_qkv_bias": True}, {"num_query_groups": 4}, {"num_query_groups": 1, "ffn_hidden_size": 100}],
    ids=["llama", "qwen2", "a group a head", "multi-query"],
)
def test_fused_steps_give_the_logits_of_eager(options):
    architecture = replace(LLAMA_LIKE, **options)
    model, tokens = build(architecture), random_tokens(1, 12)
    expected = logits_with_cache(EagerEngine(model, architecture), tokens, 5)
    found = logits_with_cache(fused_engine(model, architecture), tokens, 5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@interprets
def test_chunks_of_the_cache_are_put_together(monkeypatch):
    from megatron_lm import fused_kernels

    monkeypatch.setattr(fused_kernels, "CHUNK_TOKENS", 16)
    monkeypatch.setattr(static_decoding, "BUCKET_TOKENS", 24)
    model, tokens = build(LLAMA_LIKE), random_tokens(1, 40)
    # Up to three chunks; the last of two buckets ends in the middle of one, and at first nothing of it is seen.
    expected = logits_with_cache(EagerEngine(model, LLAMA_LIKE), tokens, 30)
    found = logits_with_cache(fused_engine(model, LLAMA_LIKE), tokens, 30)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@interprets
def test_fused_steps_in_float16_are_near_to_eager():
    # The interpreter multiplies matrices of bfloat16 as if they were integers.
    model, tokens = build(LLAMA_LIKE, torch.float16), random_tokens(1, 12)
    expected = logits_with_cache(EagerEngine(model, LLAMA_LIKE), tokens, 5).float()
    found = logits_with_cache(fused_engine(model, LLAMA_LIKE), tokens, 5)
    assert found.dtype == torch.float16
    assert (found.float() - expected).norm() < 5e-3 * expected.norm()


@pytest.mark.skipif(HAS_TRITON, reason="there is Triton")
def test_engine_without_triton_is_refused():
    with pytest.raises(ValueError, match=r"fused\+graph needs Triton \(No module named 'triton'\); use sdpa\+graph"):
        FusedEngine(build(LLAMA_LIKE), LLAMA_LIKE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (SHAPE[1:], "has kernels for layers like Llama's; gpt-l2-h64-a4 has no SwiGLU: use sdpa+graph"),
        (SHAPE[:-3] + SHAPE[-2:], "has biases: use sdpa+graph"),
        ([], "has LayerNorm, positions that are not rotary, no SwiGLU, biases, heads of 8: use sdpa+graph"),
        ([*SHAPE, "--micro-batch-size", "2"], "of one sequence at a time: --token-micro-batch-size 1; got 2"),
        ([*SHAPE, "--num-warmup", "0"], "captures its graphs in warm-up runs: --num-warmup at least 1"),
        ([*SHAPE, "--device", "cpu"], "needs CUDA; with --device cpu use sdpa or eager"),
    ],
)
def test_what_is_not_fused_is_refused(argv, message, capsys):
    assert refusal([*argv, *ENGINE], capsys).endswith(message)
