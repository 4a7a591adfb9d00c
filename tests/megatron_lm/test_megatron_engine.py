"""Megatron's static inference engine on a CPU, by stand-ins for the CUDA calls in it; test_gpu.py runs it as it is."""

import json
import re
from dataclasses import replace

import pytest
import torch
from makers_torch import CASES, GPT, LLAMA, build, build_family, random_tokens
from megatron.core.fusions import fused_softmax

from megatron_lm import device as devices
from megatron_lm.arguments import Sampling, parse_arguments
from megatron_lm.engines.eager import EagerEngine
from megatron_lm.engines.megatron import MegatronEngine
from megatron_lm.generation import generate
from megatron_lm.parallel import ProcessGrid

SIZES = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "4", "--vocab-size", "96"]
SWEEP = ["--all-num-input-tokens", "4", "--all-num-output-tokens", "3", "--inference-engine", "megatron"]


@pytest.fixture(scope="module", autouse=True)
def megatron():
    with ProcessGrid(devices.select_device("cpu")):
        yield


class Event:
    """Of no time at all. A class: annotations elsewhere name it as a type."""

    def __init__(self, enable_timing):
        pass

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 0.0


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """What Megatron does on CUDA by name: moves, events for its own latencies, and the causal mask."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        fused_softmax, "get_default_causal_mask", lambda n: torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)
    )


@torch.inference_mode()
def run(engine, prompts, num_output_tokens, sampling=Sampling(top_k=1), seed=0, **options):  # noqa: B008
    engine.reset(len(prompts), prompts.shape[1] + num_output_tokens - 1)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(engine, MegatronEngine):
        return engine.generate(prompts, num_output_tokens, sampling, generator=generator, **options)
    return generate(engine, prompts, num_output_tokens, sampling, generator=generator, **options)


@pytest.mark.parametrize("options", [{}, LLAMA], ids=["gpt2", "llama"])
def test_greedy_tokens_are_those_of_eager(options):
    architecture = replace(GPT, **options)
    model = build(architecture)
    engine, eager = MegatronEngine(model, architecture), EagerEngine(model, architecture)
    # Another batch size, another length, one token only, and the whole context.
    for batch_size, num_prompt_tokens, num_output_tokens in ((2, 6, 9), (3, 6, 9), (3, 4, 1), (1, 31, 10)):
        prompts = random_tokens(batch_size, num_prompt_tokens)
        expected = run(eager, prompts, num_output_tokens)
        assert run(engine, prompts, num_output_tokens).tolist() == expected.tolist()


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_are_those_of_eager_for_each_family(case):
    model, architecture = build_family(case)
    prompts = random_tokens(2, 6)
    expected = run(EagerEngine(model, architecture), prompts, 12)
    assert run(MegatronEngine(model, architecture), prompts, 12).tolist() == expected.tolist()


@pytest.mark.parametrize("token_id", [0, 1, 95])
def test_no_token_ends_a_sequence_early(token_id, monkeypatch):
    engine = MegatronEngine(build(GPT), GPT)
    logits = torch.zeros(1, 1, 96).index_fill_(2, torch.tensor([token_id]), 1.0)
    monkeypatch.setattr(engine._model, "forward", lambda *args, **kwargs: logits)
    assert run(engine, random_tokens(1, 3), 5).tolist() == [[token_id] * 5]


@pytest.mark.parametrize("name", ["micro_batch_size", "token_micro_batch_size"])
def test_batch_that_is_to_be_cut_is_refused(name):
    with pytest.raises(ValueError, match="a batch as a whole, on one process"):
        run(MegatronEngine(build(GPT), GPT), random_tokens(2, 3), 2, **{name: 1})


def test_prompts_are_encoded_when_the_first_tokens_are_sampled(monkeypatch):
    engine = MegatronEngine(build(GPT), GPT)
    events = []
    monkeypatch.setattr(engine._model, "forward", recorded(engine._model.forward, events, "pass"))
    monkeypatch.setattr(torch, "multinomial", recorded(torch.multinomial, events, "draw"))
    for _ in range(2):
        run(engine, random_tokens(2, 5), 3, Sampling(), on_prompts_encoded=lambda: events.append("encoded"))
    assert events == ["pass", "draw", "encoded", "pass", "draw", "pass", "draw"] * 2


def recorded(function, events, name):
    def call(*args, **kwargs):
        events.append(name)
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=5), Sampling(temperature=0.5, top_p=0.8)], ids=str)
def test_seed_repeats_the_draws(sampling):
    engine = MegatronEngine(build(GPT), GPT)
    first, again, other = (run(engine, random_tokens(2, 4), 12, sampling, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_run_that_failed_leaves_nothing_to_the_next(monkeypatch):
    engine = MegatronEngine(build(GPT), GPT)
    prompts = random_tokens(2, 5)
    with monkeypatch.context() as broken:
        broken.setattr(engine._model, "forward", lambda *args, **kwargs: fail())
        with pytest.raises(torch.OutOfMemoryError):
            run(engine, prompts, 4)
    assert run(engine, prompts, 4).shape == (2, 4)
    assert len(engine._engine.scheduler.completed_request_pool) == 2


def fail():
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_no_progress_bar_is_drawn_within_the_timed_region(capfd):
    run(MegatronEngine(build(GPT), GPT), random_tokens(1, 3), 2)
    assert "static requests" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--global-batch-size", "4", "--micro-batch-size", "2"], "generates a batch as a whole"),
        (["--top-k", "4", "--top-p", "0.5"], "takes --top-k or --top-p, not both"),
        (["--top-k", "128"], "--top-k must be below the vocabulary, 128; got 128"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(argv, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_arguments([*SIZES, *SWEEP, *argv])


def test_sweep_records_what_the_engine_generates(tmp_path, monkeypatch, capsys):
    import generate_text

    log = tmp_path / "tiny.jsonl"
    monkeypatch.setattr(devices, "require_device_of", lambda engine, device: None)
    monkeypatch.setattr(devices, "limit_host_memory", lambda device: None)
    argv = [*SIZES, *SWEEP, "--num-warmup", "1", "--num-trials", "2", "--global-batch-size", "2", "--log", str(log)]
    assert generate_text.main(argv) == 0
    lines = map(json.loads, log.read_text().splitlines())
    (setting,) = (line for line in lines if line["record"] == "setting")
    assert len(setting["output_token_ids"]) == 3
    assert all(0 < part < whole for part, whole in zip(
        setting["prompt_encoding_times_s"], setting["runtimes_s"], strict=True
    ))  # fmt: skip
