"""Decode steps of static shapes, run uncaptured and recorded on a CPU; test_gpu.py has the CUDA graphs."""

from dataclasses import replace

import pytest
import torch
from makers_torch import (
    CASES,
    CPU,
    GPT,
    LLAMA,
    OPTIONS,
    RecordedGraph,
    build,
    build_family,
    logits_with_cache,
    random_tokens,
    stand_in_for_cuda_graphs,
)

from idealized_runtime.architectures import get_architecture
from megatron_lm import device as devices
from megatron_lm.arguments import Sampling, parse_arguments
from megatron_lm.engines import graph
from megatron_lm.engines.eager import EagerEngine
from megatron_lm.engines.graph import GraphEngine
from megatron_lm.engines.sdpa import SdpaEngine
from megatron_lm.generation import generate
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import sample

SIZES = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "4", "--vocab-size", "96"]
SWEEP = ["--all-num-input-tokens", "4", "--all-num-output-tokens", "3"]


@pytest.fixture(scope="module", autouse=True)
def megatron():
    with ProcessGrid(devices.select_device("cpu")):
        yield


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    """Buckets that the tests' few tokens cross."""
    monkeypatch.setattr(graph, "BUCKET_TOKENS", 8)


@pytest.fixture(params=["uncaptured", "recorded"])
def graph_engine(request, monkeypatch):
    """The engine of a model, its steps run as they come, or once and then from their recording."""
    if request.param == "recorded":
        stand_in_for_cuda_graphs(monkeypatch)

    def make(model, architecture):
        engine = GraphEngine(model, architecture)
        engine._captures = request.param == "recorded"
        return engine

    return make


@torch.inference_mode()
def greedy(engine, prompts, num_output_tokens, **cuts):
    engine.reset(len(prompts), prompts.shape[1] + num_output_tokens - 1)
    return generate(engine, prompts, num_output_tokens, Sampling(top_k=1), generator=torch.Generator(), **cuts)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_static_steps_give_the_logits_of_eager(options, graph_engine):
    architecture = replace(GPT, **options)
    model = build(architecture)
    tokens = random_tokens(2, 26)
    eager, engine = EagerEngine(model, architecture), graph_engine(model, architecture)
    # Buckets of 8, 16, 24 and 32 tokens; then steps that are there already, over what the first run left behind.
    for num_tokens, num_prompt_tokens in ((26, 1), (26, 13), (25, 7)):
        expected = logits_with_cache(eager, tokens[:, :num_tokens], num_prompt_tokens)
        found = logits_with_cache(clone_outputs(engine), tokens[:, :num_tokens], num_prompt_tokens)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.5, "logits this flat would hide a fault"


@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_give_the_logits_of_eager_for_each_family(case, monkeypatch):
    stand_in_for_cuda_graphs(monkeypatch)
    model, architecture = build_family(case)
    engine = GraphEngine(model, architecture)
    engine._captures = True
    tokens = random_tokens(2, 20)
    expected = logits_with_cache(EagerEngine(model, architecture), tokens, 3)
    torch.testing.assert_close(logits_with_cache(clone_outputs(engine), tokens, 3), expected, atol=1e-4, rtol=0)


def clone_outputs(engine):
    """The engine, with logits that outlast its next step: a captured one gives all of them in the same place."""
    if not hasattr(engine, "is_cloned"):
        decode = engine.decode
        engine.decode, engine.is_cloned = (lambda *arguments: decode(*arguments).clone()), True
    return engine


def test_static_steps_in_bfloat16_are_near_to_eager(graph_engine):
    architecture = replace(GPT, **LLAMA)
    model = build(architecture, torch.bfloat16)
    expected = logits_with_cache(EagerEngine(model, architecture), random_tokens(2, 20), 5).float()
    found = logits_with_cache(clone_outputs(graph_engine(model, architecture)), random_tokens(2, 20), 5)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.04 * expected.norm()


@pytest.mark.parametrize("cut", [(4, 4), (4, 1), (2, 2), (1, 2)])
def test_micro_batches_give_the_tokens_of_eager(cut, graph_engine):
    architecture = replace(GPT, **LLAMA)
    model, prompts = build(architecture), random_tokens(4, 6)
    cuts = {"micro_batch_size": cut[0], "token_micro_batch_size": cut[1]}
    expected = greedy(EagerEngine(model, architecture), prompts, 20)
    assert greedy(graph_engine(model, architecture), prompts, 20, **cuts).tolist() == expected.tolist()
    assert len(set(expected.flatten().tolist())) > 4, "a constant answer would show little"


@pytest.mark.parametrize("engine_class", [SdpaEngine, GraphEngine])
# The widths of Mixtral's experts are not those of grouped products in bfloat16.
@pytest.mark.parametrize("case", [case for case in CASES if "mixtral" not in case])
def test_no_pass_waits_for_the_device_or_leaves_it(case, engine_class):
    model, architecture = build_family(case)
    # Of a tensor on meta no value can be read, and no operation mixes it with one of a CPU. There and on CUDA, products
    # of groups of rows are without loops in bfloat16 alone.
    model.to("meta", torch.bfloat16)
    engine = engine_class(model, architecture)
    prompts = random_tokens(2, 5).to("meta")
    tokens = greedy(engine, prompts, 12, micro_batch_size=1)
    assert tokens.device.type == "meta"
    assert tokens.shape == (2, 12)


@pytest.mark.parametrize(
    ("dtype", "capability"), [(torch.float16, (9, 0)), (torch.bfloat16, (8, 0)), (torch.bfloat16, (12, 0))]
)
def test_experts_that_a_graph_cannot_hold_are_refused(dtype, capability):
    architecture = get_architecture("mixtral-8x7b")
    graph.require_capturable_experts(architecture, torch.bfloat16, (9, 0))
    with pytest.raises(ValueError, match=rf"mixtral-8x7b: .* got {dtype} on {capability[0]}\.0: use sdpa"):
        graph.require_capturable_experts(architecture, dtype, capability)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(temperature=0.5, top_p=0.9)])
def test_sampling_does_not_wait_for_the_device(sampling):
    assert sample(torch.empty(2, 96, device="meta"), sampling, None).device.type == "meta"


def test_whole_context_is_filled_where_no_bucket_ends_with_it(graph_engine):
    architecture = replace(GPT, max_position_embeddings=19)
    model, prompts = build(architecture), random_tokens(1, 10)
    expected = greedy(EagerEngine(model, architecture), prompts, 10)
    assert greedy(graph_engine(model, architecture), prompts, 10).tolist() == expected.tolist()


def test_memory_that_was_never_written_does_not_show(monkeypatch):
    model, prompts = build(GPT), random_tokens(1, 3)
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *shape: new_empty(self, *shape).fill_(torch.nan))
    engine = GraphEngine(model, GPT)
    assert torch.isfinite(logits_with_cache(engine, prompts, 1)).all()


def test_each_micro_batch_and_bucket_is_captured_once(monkeypatch):
    stand_in_for_cuda_graphs(monkeypatch)
    engine = GraphEngine(build(GPT), GPT)
    engine._captures = True
    # Positions 6 to 24, of buckets 8, 16, 24 and 32; two micro-batches.
    for _ in range(3):
        greedy(engine, random_tokens(4, 6), 20, token_micro_batch_size=2)
        assert RecordedGraph.captured == 8


def test_graphs_go_with_the_cache_that_they_read(monkeypatch):
    stand_in_for_cuda_graphs(monkeypatch)
    model = build(GPT)
    engine = GraphEngine(model, GPT)
    engine._captures = True
    prompts = random_tokens(2, 3)
    captured = []
    for num_output_tokens in (5, 6, 7, 5):
        tokens = greedy(engine, prompts, num_output_tokens)
        assert tokens.tolist() == greedy(EagerEngine(model, GPT), prompts, num_output_tokens).tolist()
        captured.append(RecordedGraph.captured)
    # 7, 8, 9 and 7 positions: the cache is replaced where the bucket is another.
    assert captured == [1, 1, 3, 4]


@pytest.mark.parametrize("engine", ["sdpa+graph", "megatron"])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--device", "cpu"], "needs CUDA; with --device cpu use sdpa or eager"),
        (["--tensor-model-parallel-size", "2"], "runs on one process"),
        (["--pipeline-model-parallel-size", "2"], "runs on one process"),
    ],
)
def test_what_an_engine_for_cuda_cannot_do_is_refused(engine, argv, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2" if "parallel" in argv[0] else "1")
    assert refusal([*argv, "--inference-engine", engine]) == f"--inference-engine {engine} {message}"


def refusal(argv) -> str:
    """What the driver says to these arguments, up to the remedy."""
    with pytest.raises(ValueError, match="--inference-engine") as refused:
        parse_arguments([*SIZES, *SWEEP, *argv])
    return str(refused.value).split("; over several")[0]


def test_graphs_are_not_captured_in_a_trial():
    said = refusal(["--inference-engine", "sdpa+graph", "--num-warmup", "0"])
    assert said.endswith("captures its graphs in warm-up runs: --num-warmup at least 1")


@pytest.mark.parametrize("engine", ["sdpa+graph", "megatron"])
def test_engine_for_cuda_is_refused_by_name_where_there_is_none(engine):
    with pytest.raises(ValueError, match=rf"--inference-engine {engine}".replace("+", r"\+") + " needs CUDA"):
        devices.require_device_of(engine, CPU)
    devices.require_device_of(engine, torch.device("cuda", 0))
    devices.require_device_of("sdpa", CPU)
