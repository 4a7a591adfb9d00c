import gc
import weakref
from dataclasses import replace

import pytest
import torch
from makers import LLAMA
from makers_torch import CPU, GPT, OPTIONS, build, logits_with_cache, random_tokens
from megatron.core.fusions import fused_softmax
from transformers import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from megatron_lm import device as devices
from megatron_lm import timing
from megatron_lm.engines import PORTABLE_ENGINES, load_engine, onednn, products
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import Sampling, sample
from megatron_lm.timing import time_trials


@pytest.fixture(scope="module", autouse=True)
def megatron():
    with ProcessGrid(devices.select_device("cpu")):
        # Timing collects garbage first: what imports left behind need not be searched each time.
        gc.freeze()
        yield
        gc.unfreeze()


@torch.inference_mode()
def logits_without_cache(model, tokens):
    """Megatron's GPTModel over all positions at once, shape (batch, tokens, vocabulary)."""
    batch_size, num_tokens = tokens.shape
    mask = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool).triu(diagonal=1)
    return model(tokens, torch.arange(num_tokens).expand(batch_size, -1), mask)


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cached_decoding_gives_the_logits_of_a_full_pass(options, engine_name):
    architecture = replace(GPT, **options)
    model = build(architecture)
    engine = load_engine(engine_name)(model, architecture)
    tokens = random_tokens(2, 17)
    full = logits_without_cache(model, tokens)
    # The second and third sizes reuse memory of the first: what it left there must not show.
    for num_tokens, num_prompt_tokens in ((17, 9), (17, 1), (12, 12)):
        cached = logits_with_cache(engine, tokens[:, :num_tokens], num_prompt_tokens)
        assert cached.shape == (2, num_tokens - num_prompt_tokens + 1, 96)
        torch.testing.assert_close(cached, full[:, num_prompt_tokens - 1 : num_tokens], atol=1e-4, rtol=0)
    assert full.std() > 0.5, "logits this flat would hide a fault"


@pytest.mark.parametrize("way", ["3 parts", "transposed", "onednn", "packed"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_products_give_the_same_logits_in_every_way(options, way, monkeypatch):
    architecture, tokens = replace(GPT, **options), random_tokens(2, 17)
    engine = load_engine("sdpa")(build(architecture), architecture)
    whole = logits_with_cache(engine, tokens, 9)
    monkeypatch.setattr(products, "_LEAST_BYTES", 0)
    by_way = {"whole": 2.0, "packed": 2.0, way: 1.0}
    monkeypatch.setattr(products, "_least_s", lambda num_rows, by_shape, packed: dict.fromkeys(by_shape, by_way))
    assert way in engine.tune([1, 2, 4], None).values()
    torch.testing.assert_close(logits_with_cache(engine, tokens, 9), whole, atol=5e-5, rtol=0)
    # What is packed needs no second timing, and no second layout.
    assert "packed" not in engine.tune([1, 2, 4], None).values()
    torch.testing.assert_close(logits_with_cache(engine, tokens, 9), whole, atol=5e-5, rtol=0)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("finds_rows", [True, False])
def test_packed_weights_take_the_place_of_those_of_the_model(options, finds_rows, monkeypatch):
    architecture, tokens = replace(GPT, **options), random_tokens(2, 17)
    model = build(architecture)
    weights = {name: weakref.ref(value) for name, value in model.named_parameters() if value.dim() == 2}
    shapes = {name: weight().shape for name, weight in weights.items()}
    finds_rows &= onednn.can_be_looked_up(model.embedding.word_embeddings.weight)
    engine = load_engine("sdpa")(model, architecture)
    whole = logits_with_cache(engine, tokens, 9)
    del model
    gc.collect()
    monkeypatch.setattr(products, "_LEAST_BYTES", 0)
    monkeypatch.setattr(products, "_least_s", lambda num_rows, by_shape, packed: dict.fromkeys(by_shape, PACKED_WINS))
    monkeypatch.setattr(products, "can_be_looked_up", lambda weight: finds_rows)
    engine.tune([1], None)
    kept = {name for name, weight in weights.items() if weight() is not None}
    is_kept = architecture.untie_embeddings_and_output_weights or not finds_rows
    assert ("embedding.word_embeddings.weight" in kept) == is_kept
    # Never beside the matrix itself.
    assert engine._output_weight.is_mkldnn == (architecture.untie_embeddings_and_output_weights or finds_rows)
    allowed = {f"embedding.{kind}_embeddings.weight" for kind in ("word", "position")}
    if not finds_rows:
        # One layout for all of a shape.
        allowed |= {name for name, shape in shapes.items() if shape == shapes["embedding.word_embeddings.weight"]}
    assert kept <= allowed
    torch.testing.assert_close(logits_with_cache(engine, tokens, 9), whole, atol=5e-5, rtol=0)


PACKED_WINS = {"whole": 2.0, "packed": 1.0}


def test_embeddings_of_positions_which_nothing_multiplies_are_not_timed(monkeypatch):
    monkeypatch.setattr(products, "_LEAST_BYTES", 0)
    found = load_engine("sdpa")(build(GPT), GPT).tune([1], None)
    assert f"1 row, {GPT.vocab_size} x {GPT.hidden_size}" in found
    assert f"1 row, {GPT.max_position_embeddings} x {GPT.hidden_size}" not in found


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
@pytest.mark.parametrize("options", [{}, LLAMA], ids=["gpt2", "llama"])
def test_cached_decoding_in_bfloat16_is_as_near_to_float32_as_a_full_pass(options, engine_name):
    architecture = replace(GPT, **options)
    exact = logits_without_cache(build(architecture), tokens := random_tokens(2, 14))
    model = build(architecture, torch.bfloat16)
    full = logits_without_cache(model, tokens).float()
    cached = logits_with_cache(load_engine(engine_name)(model, architecture), tokens, 6)
    assert cached.dtype == torch.bfloat16
    full_error = (full - exact)[:, 5:].abs().mean()
    assert (cached.float() - exact[:, 5:]).abs().mean() < 2 * full_error
    assert full_error < 0.05 * exact.std()


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
def test_engine_takes_another_batch_size_after_a_reset(engine_name):
    model = build(GPT)
    engine = load_engine(engine_name)(model, GPT)
    for batch_size in (1, 3, 2):
        tokens = random_tokens(batch_size, 10)
        cached = logits_with_cache(engine, tokens, 4)
        torch.testing.assert_close(cached, logits_without_cache(model, tokens)[:, 3:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
def test_engine_fills_the_whole_context(engine_name):
    architecture = replace(GPT, max_position_embeddings=12)
    model = build(architecture)
    tokens = random_tokens(1, 12)
    cached = logits_with_cache(load_engine(engine_name)(model, architecture), tokens, 11)
    torch.testing.assert_close(cached, logits_without_cache(model, tokens)[:, 10:], atol=1e-4, rtol=0)


def test_same_seed_builds_the_same_weights():
    first, again, other = (
        build_model(GPT, device=CPU, dtype=torch.float32, seed=seed).state_dict() for seed in (5, 5, 6)
    )
    weights = [name for name, value in first.items() if isinstance(value, torch.Tensor) and value.ndim == 2]
    assert weights
    for name in weights:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parameters_are_those_the_architecture_counts(options):
    architecture = replace(GPT, **options)
    model = build_model(architecture, device=CPU, dtype=torch.float32, seed=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.num_params
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


# Generation.


class FixedEngine:
    """Always the same logits; keeps what it was given."""

    def __init__(self, logits):
        self._logits = logits
        self.encoded, self.decoded = [], []

    def encode(self, tokens, first_sequence=0):
        self.encoded.append(tokens.clone())
        return self._logits[first_sequence : first_sequence + len(tokens)]

    def decode(self, tokens, num_cached_tokens, first_sequence=0):
        self.decoded.append(tokens.clone())
        return self._logits[first_sequence : first_sequence + len(tokens)]


@pytest.mark.parametrize("num_output_tokens", [1, 2, 9])
def test_output_takes_one_prompt_pass_and_a_pass_for_each_further_token(num_output_tokens):
    engine = FixedEngine(torch.randn(3, 11, generator=torch.Generator().manual_seed(0)))
    prompts = random_tokens(3, 5, vocab_size=11)
    outputs = generate(engine, prompts, num_output_tokens, Sampling(), generator=torch.Generator().manual_seed(0))
    assert outputs.shape == (3, num_output_tokens)
    assert outputs.dtype == torch.int64
    assert len(engine.encoded) == 1
    assert torch.equal(engine.encoded[0], prompts)
    # Every token but the last is fed back, alone and in order.
    assert len(engine.decoded) == num_output_tokens - 1
    assert all(tokens.shape == (3, 1) for tokens in engine.decoded)
    if engine.decoded:
        assert torch.equal(torch.cat(engine.decoded, dim=1), outputs[:, :-1])


@pytest.mark.parametrize("token_id", [0, 1, 2, 10])
def test_no_token_ends_a_sequence_early(token_id):
    logits = torch.full((1, 11), -100.0)
    logits[:, token_id] = 100.0
    outputs = generate(FixedEngine(logits), random_tokens(1, 2), 6, Sampling(), generator=torch.Generator())
    assert outputs.tolist() == [[token_id] * 6]


# Sampling.

VOCAB_SIZE = 12
NUM_DRAWS = 40_000


def draw(logits, sampling, seed=0):
    """Frequencies of ``NUM_DRAWS`` draws from the same logits."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sample(logits.expand(NUM_DRAWS, -1), sampling, generator)
    assert tokens.shape == (NUM_DRAWS, 1)
    assert tokens.dtype == torch.int64
    return torch.bincount(tokens.flatten(), minlength=logits.shape[-1]) / NUM_DRAWS


def hugging_face_probabilities(logits, sampling):
    scores = logits[None]
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    for warper in warpers:
        scores = warper(None, scores)
    return torch.softmax(scores, dim=-1)[0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0),
        Sampling(top_k=2),
        Sampling(top_k=VOCAB_SIZE),
        Sampling(top_k=1000),
        Sampling(top_p=0.3),
        Sampling(top_p=0.9),
        Sampling(top_p=1.0),
        Sampling(top_p=1e-9),
        Sampling(temperature=2.0, top_k=5),
        Sampling(temperature=0.7, top_p=0.8),
        Sampling(top_k=4, top_p=0.7),
        Sampling(temperature=1.5, top_k=6, top_p=0.85),
        Sampling(temperature=0.5, top_k=1, top_p=0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_are_drawn_as_hugging_face_would(sampling, dtype):
    logits = torch.linspace(-1.6, 1.4, VOCAB_SIZE)[
        torch.randperm(VOCAB_SIZE, generator=torch.Generator().manual_seed(7))
    ]
    logits = logits.to(dtype)
    expected = hugging_face_probabilities(logits.float(), sampling)
    frequencies = draw(logits, sampling)
    assert not frequencies[expected == 0].any(), "a token was drawn that is not among those kept"
    standard_error = (expected * (1 - expected) / NUM_DRAWS).sqrt()
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=4.5 * float(standard_error.max()) + 1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sampling", [Sampling(top_k=7), Sampling(top_p=0.6), Sampling(temperature=0.8, top_p=0.4)])
def test_kept_tokens_are_those_of_hugging_face(sampling, seed, monkeypatch):
    logits = 2 * torch.randn(4, 300, generator=torch.Generator().manual_seed(seed))
    seen = []
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda *a, **k: seen.append(softmax(*a, **k)) or seen[-1].clone())
    sample(logits, sampling, torch.Generator())
    # The last one is drawn from.
    drawn_from = seen[-1]
    expected = torch.stack([hugging_face_probabilities(row, sampling) for row in logits])
    torch.testing.assert_close(drawn_from, expected)
    assert torch.equal(drawn_from > 0, expected > 0)


def test_each_sequence_has_draws_of_its_own():
    tokens = sample(torch.zeros(1000, VOCAB_SIZE), Sampling(), torch.Generator().manual_seed(0))
    assert len(set(tokens.flatten().tolist())) == VOCAB_SIZE


def test_draws_are_those_of_multinomial():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    expected = torch.multinomial(logits.softmax(dim=-1), 1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample(logits, Sampling(), torch.Generator().manual_seed(1)), expected)


def test_seed_repeats_the_draws():
    logits = torch.zeros(50, 1000)
    first, again, other = (
        sample(logits, Sampling(top_p=0.9), torch.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sampling_leaves_the_logits_as_they_are():
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    sample(logits, Sampling(temperature=0.5, top_k=5, top_p=0.5), torch.Generator())
    assert torch.equal(logits, before)


@pytest.mark.parametrize("options", [{}, {"temperature": 1e-6}, {"top_p": 0.5}, {"temperature": 1e30}])
def test_top_1_is_greedy(options):
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    tokens = sample(logits, Sampling(top_k=1, **options), torch.Generator())
    assert torch.equal(tokens, logits.argmax(dim=-1, keepdim=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"temperature": -1.0}, "--temperature must be above 0"),
        ({"temperature": float("nan")}, "--temperature must be above 0"),
        ({"top_k": -1}, "--top-k must be at least 0"),
        ({"top_p": -0.1}, r"--top-p must lie in \[0, 1\]"),
        ({"top_p": 1.5}, r"--top-p must lie in \[0, 1\]"),
    ],
)
def test_sampling_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


# Timing.


class Clock:
    """A clock that only moves when told to; keeps the order of what is done to it."""

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        self.events = []
        monkeypatch.setattr(timing, "perf_counter", self._read)
        monkeypatch.setattr(timing, "synchronize", lambda device: self.events.append("synchronize"))

    def _read(self):
        self.events.append("clock")
        return self.now_s

    def advance(self, seconds, event):
        self.now_s += seconds
        self.events.append(event)


def test_every_trial_is_kept_and_warm_ups_stand_apart(monkeypatch):
    clock = Clock(monkeypatch)
    durations_s = iter([(5.0, 0.5), (1.0, 0.5), (0.1 + 0.2, 0.5), (2.0**-30, 2.0**-20), (3.0, 0.0)])

    def work(split):
        prompt_s, generation_s = next(durations_s)
        clock.advance(prompt_s, "prompts")
        split()
        clock.advance(generation_s, "tokens")
        return len(clock.events)

    trials = time_trials(
        work,
        device=CPU,
        num_warmup=2,
        num_trials=3,
        barrier=lambda: clock.advance(1000.0, "barrier"),
        on_trial=lambda: clock.advance(100.0, "on_trial"),
    )
    assert trials.warmups_s == pytest.approx([5.5, 1.5])
    assert trials.runtimes_s == pytest.approx([0.8, 2.0**-30 + 2.0**-20, 3.0])
    assert trials.prompt_encoding_times_s == pytest.approx([0.3, 2.0**-30, 3.0])
    assert trials.generation_times_s == pytest.approx([0.5, 2.0**-20, 0.0])
    assert trials.result == len(clock.events) - 3, "the result is that of the last run"


def test_device_is_idle_whenever_the_clock_is_read(monkeypatch):
    clock = Clock(monkeypatch)
    time_trials(lambda split: clock.advance(1.0, "work") or split(), device=CPU, num_warmup=1, num_trials=2)
    # On the way the clock is read without waiting: that would take time of the device's.
    assert clock.events == ["synchronize", "clock", "work", "clock", "synchronize", "clock"] * 3


@pytest.mark.parametrize(("num_warmup", "num_trials"), [(0, 1), (0, 4), (3, 2)])
def test_work_runs_as_often_as_asked(num_warmup, num_trials):
    runs = []
    trials = time_trials(lambda split: runs.append(split()), device=CPU, num_warmup=num_warmup, num_trials=num_trials)
    assert (len(trials.warmups_s), len(trials.runtimes_s)) == (num_warmup, num_trials)
    assert len(runs) == num_warmup + num_trials
    assert all(seconds > 0 for seconds in trials.warmups_s + trials.runtimes_s)


def test_garbage_collection_and_autograd_are_off_inside():
    states = []
    time_trials(
        lambda split: states.append((gc.isenabled(), torch.is_inference_mode_enabled())) or split(),
        device=CPU, num_warmup=1, num_trials=1,
    )  # fmt: skip
    assert states == [(False, True)] * 2
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_garbage_collection_is_on_again_after_an_error(error):
    def fail(split):
        raise error

    with pytest.raises(error):
        time_trials(fail, device=CPU, num_warmup=0, num_trials=1)
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


def test_garbage_collection_that_was_off_stays_off():
    gc.disable()
    try:
        time_trials(lambda split: split(), device=CPU, num_warmup=0, num_trials=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


# Device.


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="--fp16 needs a CUDA device; on a CPU use --bf16"):
        devices.select_dtype(CPU, "float16")


def test_data_type_is_that_of_the_flag():
    assert devices.select_dtype(CPU, "float32") == torch.float32
    assert devices.select_dtype(CPU, "bfloat16") == torch.bfloat16
    assert devices.select_dtype(torch.device("cuda"), "float16") == torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="--device cuda: torch finds no CUDA device"):
        devices.select_device("cuda")


def test_cuda_is_itself_again_after_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    try:
        assert devices.select_device("cpu") == torch.cuda.current_device()
        devices.select_device("cuda")
        for function in (torch.cuda.current_device, fused_softmax.get_sliding_window_causal_mask):
            assert not function.__module__.startswith("megatron_lm")
    finally:
        devices.select_device("cpu")


def test_allocation_that_fails_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**50)
    assert devices.is_out_of_memory(failed.value)
    assert devices.is_out_of_memory(MemoryError())
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert devices.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    with pytest.raises(RuntimeError) as failed:
        torch.zeros(2) @ torch.zeros(3)
    assert not devices.is_out_of_memory(failed.value)
