import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import Architecture, get_architecture, output_token_bytes
from idealized_runtime.architectures.devices import device_bytes, parallelism_needed
from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.measurements.shipped import SHIPPED_STACKS, read_shipped, read_stack, write_shipped
from idealized_runtime.measurements.timed_models import TimedModel, read_timed_models
from idealized_runtime.prediction import (
    MessagesNotTimedError,
    PredictedRuntime,
    PredictionError,
    StackTimes,
    coverage_table,
    fit_predictor,
    fit_stack_times,
    leave_one_model_out,
    left_out_summary,
    left_out_table,
    predict_model,
    predict_priced,
    prediction_error,
    prediction_table,
)
from idealized_runtime.prediction.work import Placement, is_misaligned, prompt_work, token_work
from idealized_runtime.queries.price import price

CUDA, CPU = Placement("float16", is_cuda=True), Placement("float32", is_cuda=False)
TIMES = StackTimes(
    byte_s=1 / 1.5e12, flop_s=1 / 2e14, many_tokens_byte_s=1e-13, launch_s=6e-4, prompt_launch_s=6e-5, fixed_s=3e-3,
    token_s=9e-6,
)  # fmt: skip
PARALLEL_TIMES = dataclasses.replace(TIMES, tensor_parallel_launch_s=2e-4, message_s=1e-4, message_byte_s=8e-12)
SIZES = {"small": (12, 1024), "deep": (60, 2048), "wide": (24, 8192), "widest": (32, 16384), "middle": (40, 5120)}
NEW = Architecture("new", num_layers=30, hidden_size=6144, num_attention_heads=64)
pytestmark = pytest.mark.filterwarnings("ignore::idealized_runtime.records.RepeatedSettingWarning")


def shape(name):
    num_layers, hidden_size = SIZES[name]
    return Architecture(name, num_layers=num_layers, hidden_size=hidden_size, num_attention_heads=hidden_size // 64)


def timed(architecture, times, placement, *, noise=0.0, seed=0):
    """A log without rounding of what these times say, with relative noise that all runtimes of a model share."""
    sizes = pd.MultiIndex.from_product([[1, 16, 64, 128, 256, 512, 1024], [1, 2, 16]]).to_frame(index=False)
    sizes.columns = ["num_prompt_tokens", "num_output_tokens"]
    exact = PredictedRuntime(architecture, placement, times, (1, 1024))
    factor = np.exp(noise * np.random.default_rng(seed).standard_normal())
    runtimes = sizes.assign(
        runtime_s=factor * exact.predict(sizes["num_prompt_tokens"], sizes["num_output_tokens"]),
        runtime_std_s=1e-6, num_trials=10, runtime_min_s=np.nan, runtime_resolution_s=0.0, batch_size=1,
    )  # fmt: skip
    return TimedModel(
        architecture.name, "box", "stack", runtimes, architecture, placement.dtype, placement.is_cuda,
        placement.tensor_parallel_size, placement.pipeline_parallel_size,
        round(architecture.num_layers / placement.slices),
    )  # fmt: skip


def stack(times=TIMES, placement=CUDA, names=tuple(SIZES), **options):
    return [timed(shape(name), times, placement, seed=seed, **options) for seed, name in enumerate(names)]


@pytest.fixture(scope="module")
def a100(published):
    return fit_predictor(read_timed_models("a100").values())


@pytest.fixture(scope="module")
def cpu():
    return fit_predictor(read_timed_models("cpu").values())


def test_pass_reads_and_computes_its_share_of_each_layer_on_one_device():
    one, eight = (token_work(NEW, [100], dataclasses.replace(CUDA, tensor_parallel_size=n)) for n in (1, 8))
    for name in ("layer_bytes", "layer_flops", "head_bytes"):
        assert getattr(eight, name) == pytest.approx(getattr(one, name) / 8), name
    whole = output_token_bytes(NEW, 100)
    assert one.layer_bytes + one.head_bytes == pytest.approx(whole)


def test_shared_layers_send_two_messages_each_and_stages_one_in_between():
    assert token_work(NEW, [1], CUDA).num_messages == 0
    shared = prompt_work(NEW, [10], dataclasses.replace(CUDA, tensor_parallel_size=4))
    assert shared.num_messages == 2 * NEW.num_layers
    assert shared.message_bytes == pytest.approx(2 * NEW.num_layers * 1.5 * 10 * NEW.hidden_size * 2)
    staged = prompt_work(NEW, [10], dataclasses.replace(CUDA, pipeline_parallel_size=3))
    assert (staged.num_messages, staged.message_bytes) == (2, 2 * 10 * NEW.hidden_size * 2)


def test_timed_slice_has_its_own_layers_and_counts_as_often_as_it_fits():
    work, whole = (token_work(NEW, [1], dataclasses.replace(CUDA, slices=n)) for n in (3.0, 1.0))
    assert (work.num_layers, work.slices) == (10, 3)
    assert work.layer_bytes == pytest.approx(whole.layer_bytes / 3)
    assert work.head_bytes == whole.head_bytes


def test_only_a_feed_forward_share_of_odd_width_is_misaligned():
    yalm = get_architecture("yalm")
    assert is_misaligned(yalm, dataclasses.replace(CUDA, tensor_parallel_size=4))
    assert not is_misaligned(get_architecture("davinci"), dataclasses.replace(CUDA, tensor_parallel_size=8))
    assert not is_misaligned(yalm, CPU)


def test_experts_that_a_prompt_visits_are_read_and_computed():
    experts = dataclasses.replace(NEW, num_experts=8, moe_router_topk=2)
    one, many = prompt_work(experts, [1, 100], CUDA).weight_bytes
    assert 3 * one < many < 4 * one
    dense = prompt_work(NEW, [100], CUDA).layer_flops
    assert 1.5 * dense < prompt_work(experts, [100], CUDA).layer_flops < 2 * dense


def test_tokens_of_a_prompt_visit_the_same_expert_by_chance():
    experts = dataclasses.replace(NEW, num_experts=8, moe_router_topk=2)
    one, two, many = prompt_work(experts, [1, 2, 1000], CUDA).weight_bytes
    # Of the 6 experts that the first token leaves out, the second visits each with probability 2 / 8.
    assert (two - one) / (many - one) == pytest.approx(1 / 4)
    every = output_token_bytes(experts, 1, batch_size=4) - output_token_bytes(experts, 1)
    cache = output_token_bytes(NEW, 2) - output_token_bytes(NEW, 1)
    assert many - one == pytest.approx(every - 3 * cache)


def test_launches_hide_behind_the_device_on_cuda_and_add_to_it_on_a_cpu():
    work = token_work(NEW, [1], CUDA)
    launching, reading = StackTimes(launch_s=1e-3), StackTimes(byte_s=1e-12)
    both = StackTimes(launch_s=1e-3, byte_s=1e-12)
    host_s, device_s = (times.pass_time_s(work, is_cuda=True) for times in (launching, reading))
    head_s = work.head_bytes * 1e-12
    assert both.pass_time_s(work, is_cuda=True) == pytest.approx(np.maximum(host_s, device_s - head_s) + head_s)
    assert both.pass_time_s(work, is_cuda=False) == pytest.approx(host_s + device_s)


@pytest.mark.parametrize("placement", [CUDA, CPU], ids=["cuda", "cpu"])
def test_runtime_of_a_new_model_follows_from_noiseless_logs_of_others(placement):
    times = TIMES if placement.is_cuda else StackTimes(byte_s=4e-11, flop_s=3e-12, launch_s=3e-4, fixed_s=1e-3)
    predicted = predict_model(NEW, fit_predictor(stack(times, placement)))
    exact = PredictedRuntime(NEW, placement, times, (1, 1024))
    query = np.array([1, 100, 1000]), np.array([1, 30, 2])
    assert predicted.predict(*query) == pytest.approx(exact.predict(*query), rel=5e-3)


def test_messages_are_told_apart_from_launches_and_bytes():
    models = [
        timed(shape(name), PARALLEL_TIMES, dataclasses.replace(CUDA, tensor_parallel_size=width))
        for name in SIZES
        for width in (1, 8)
    ]
    placement = dataclasses.replace(CUDA, tensor_parallel_size=4)
    exact = PredictedRuntime(NEW, placement, PARALLEL_TIMES, (1, 1024))
    fitted = dataclasses.replace(exact, times=fit_stack_times(models))
    query = np.array([1, 100, 1000]), np.array([1, 30, 2])
    assert fitted.predict(*query) == pytest.approx(exact.predict(*query), rel=1e-2)


def test_one_odd_model_bends_the_others_less_than_its_own_error():
    models = stack()
    odd = models[4].runtimes.assign(runtime_s=2 * models[4].runtimes["runtime_s"])
    models[4] = dataclasses.replace(models[4], runtimes=odd)
    exact = PredictedRuntime(NEW, CUDA, TIMES, (1, 1024))
    assert predict_model(NEW, fit_predictor(models)).predict(512, 16) == pytest.approx(exact.predict(512, 16), rel=0.1)


def test_no_fitted_time_is_negative_or_beats_the_rates_of_the_machine(a100, cpu):
    for predictor in (a100, cpu):
        assert min(dataclasses.asdict(predictor.times).values()) >= 0
    assert 1 / a100.times.byte_s <= 2039e9
    assert 1 / a100.times.flop_s <= 312e12


def test_least_times_are_of_the_best_rates_that_a_log_holds():
    rates = [
        {"memory_bytes_per_s": rate, "matmul_flops_per_s": {"float16": 1e15}} for rate in (1e12, 1e13, 1e13, 1e13, 1e13)
    ]
    models = [dataclasses.replace(model, machine_rates=rate) for model, rate in zip(stack(), rates, strict=True)]
    assert 1 / fit_stack_times(models).byte_s == pytest.approx(1.5e12, rel=0.02)
    slow = [dataclasses.replace(model, machine_rates=rates[0]) for model in stack()]
    # An honest measurement may exceed measured rates by 15 %.
    assert 1 / fit_stack_times(slow).byte_s == pytest.approx(1.15e12, rel=1e-3)


def test_time_that_no_log_tells_of_is_zero_and_messages_are_then_refused():
    predictor = fit_predictor(stack())
    assert predictor.times.message_s == predictor.times.misaligned == 0
    with pytest.raises(ValueError, match=r"every log of this stack is of one device.*Time one model on several"):
        predict_model(NEW, predictor, tensor_parallel_size=2)


def test_one_model_is_too_few():
    with pytest.raises(ValueError, match="at least 2 models of one stack; there are 1: small"):
        fit_predictor(stack(names=("small",)))


def test_models_of_two_stacks_are_refused():
    models = stack()
    models[1] = dataclasses.replace(models[1], software="other")
    with pytest.raises(ValueError, match="timed with other on box; stack on box"):
        fit_predictor(models)


def test_interval_holds_the_estimate_and_widens_with_its_level():
    error = PredictionError(prompt=0.1, token=0.05, num_models=5)
    predicted = PredictedRuntime(NEW, CUDA, TIMES, (1, 1024), error)
    estimate_s = predicted.predict(100, 20)
    narrow, wide = (predicted.predict_interval(100, 20, level=level) for level in (0.5, 0.95))
    assert wide[0] < narrow[0] < estimate_s < narrow[1] < wide[1]
    # Student's 97.5 % quantile with 5 degrees of freedom.
    lower_s, upper_s = predicted.predict_interval(100, 1)
    assert upper_s == pytest.approx(predicted.prompt_encoding_time_s(100) * np.exp(2.5706 * 0.1), rel=1e-4)
    assert lower_s == pytest.approx(predicted.prompt_encoding_time_s(100) / np.exp(2.5706 * 0.1), rel=1e-4)
    token_s = predicted.output_token_s(100)
    assert predicted.output_token_interval_s(100)[1] == pytest.approx(token_s * np.exp(2.5706 * 0.05), rel=1e-4)


def test_two_models_predict_without_an_interval():
    predicted = predict_model(NEW, fit_predictor(stack(names=("small", "wide"))))
    assert predicted.predict(100, 20) > 0
    with pytest.raises(ValueError, match="too few models were timed to leave one out"):
        predicted.predict_interval(100, 20)


def test_interval_is_as_wide_as_models_scatter():
    errors = [prediction_error(leave_one_model_out(stack(noise=noise)).values()) for noise in (0.0, 0.1)]
    assert errors[0].token < 0.02
    assert 0.03 < errors[1].token < 0.5
    assert errors[1].num_models == 5


def test_prompt_beyond_the_logs_is_refused_or_warned_of():
    predicted = PredictedRuntime(NEW, CUDA, TIMES, (1, 1024))
    assert list(predicted.is_extrapolated([1, 1024, 1025])) == [False, False, True]
    with pytest.raises(ValueError, match=r"must lie in \[1, 1024\].*first is 2000"):
        predicted.predict([5, 2000], 1)
    assert predicted.predict(2000, 1, extrapolate=True) > predicted.predict(1024, 1)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (np.nan, ValueError), ("10", TypeError)])
def test_what_is_no_number_of_tokens_is_refused(value, error):
    with pytest.raises(error, match="num_output_tokens"):
        PredictedRuntime(NEW, CUDA, TIMES, (1, 1024)).predict(10, value)


def test_queries_broadcast_and_scalars_give_floats():
    predicted = PredictedRuntime(NEW, CUDA, TIMES, (1, 1024))
    assert isinstance(predicted.predict(10, 5), float)
    grid = predicted.predict(np.array([[10], [20]]), np.array([1, 2, 3]))
    assert grid.shape == (2, 3)
    assert grid[1, 2] == predicted.predict(20, 3)


def test_predicted_runtime_prices_queries_as_a_fitted_model_does():
    predicted = PredictedRuntime(NEW, CUDA, TIMES, (1, 1024))
    queries = pd.DataFrame({"num_prompt_tokens": [10.5, 2000], "num_output_tokens": [5, 5]})
    priced = price(queries, predicted, num_accelerators=2, price_usd_per_hour=3.6)
    assert priced.missing == {"beyond the profiled prompt sizes": 1}
    assert priced.table["runtime_s"][0] == predicted.predict(10.5, 5)
    assert priced.table["cost_usd"][0] == pytest.approx(2e-3 * predicted.predict(10.5, 5))
    assert priced.table.loc[1, ["runtime_s", "cost_usd"]].isna().all()


def test_kinds_of_models_that_no_log_is_of_are_named():
    gated = dataclasses.replace(NEW, hidden_size=32768, swiglu=True)
    caveats = " / ".join(predict_model(gated, fit_predictor(stack())).caveats)
    assert "no timed model has gated feed-forward networks" in caveats
    assert "the largest that was timed reads" in caveats
    odd = dataclasses.replace(NEW, ffn_hidden_size=6001)
    assert "not aligned" in " / ".join(predict_model(odd, fit_predictor(stack())).caveats)
    assert predict_model(NEW, fit_predictor(stack())).caveats == ()


FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


def test_weights_of_a_quantised_checkpoint_are_read_as_they_are_stored_and_it_is_said():
    plain, quantised = (
        predict_model(
            dataclasses.replace(NEW, uncounted_options=options), fit_predictor(stack()), num_context_tokens=64
        )
        for options in ({}, FP8)
    )
    works = [token_work(model.architecture, np.array([64.0]), model.placement) for model in (plain, quantised)]
    # A byte a weight, and four a block of 128 x 128; the cache and the head keep their 16 bits.
    assert works[1].weight_bytes / works[0].weight_bytes == pytest.approx(0.5 * (1 + 4 / 128**2), rel=1e-3)
    assert works[1].layer_bytes - works[1].weight_bytes == pytest.approx(works[0].layer_bytes - works[0].weight_bytes)
    assert works[1].head_bytes == works[0].head_bytes
    assert quantised.output_token_s(64) < plain.output_token_s(64)
    (caveat,) = quantised.caveats
    assert caveat.startswith("its weights are read as its configuration stores them, quantised, in 1.0")
    back = PredictedRuntime.from_json(json.loads(json.dumps(quantised.to_json())))
    assert back.output_token_s(64) == quantised.output_token_s(64)


def test_quantised_checkpoint_takes_the_devices_that_hold_what_is_stored(a100):
    large = dataclasses.replace(NEW, num_layers=96)
    plain, quantised = (
        predict_model(dataclasses.replace(large, uncounted_options=options), a100, num_context_tokens=64).placement
        for options in ({}, FP8)
    )
    assert (plain.num_accelerators, quantised.num_accelerators) == (2, 1)
    assert not plain.is_stored
    assert quantised.is_stored


@pytest.mark.parametrize(
    ("options", "placement"), [({"quant_method": "eetq"}, CUDA), (FP8["quantization_config"], CPU)]
)
def test_format_that_is_not_counted_or_a_stack_of_32_bits_takes_all_weights_in_its_own_type(options, placement):
    quantised = dataclasses.replace(NEW, uncounted_options={"quantization_config": options})
    predicted = predict_model(quantised, fit_predictor(stack(placement=placement)))
    assert predicted.caveats == (
        f"its configuration quantises weights; this is the time with all of them in {placement.dtype}",
    )
    assert predicted.output_token_s(64) == predict_model(NEW, fit_predictor(stack(placement=placement))).output_token_s(
        64
    )


def test_width_that_was_not_timed_is_named(a100):
    assert any("of size 2 was not timed, only of 1, 4, 8" in caveat for caveat in
               predict_model(NEW, a100, tensor_parallel_size=2).caveats)  # fmt: skip


def test_stages_that_were_not_timed_are_named(a100):
    caveats = predict_model(NEW, a100, tensor_parallel_size=8, pipeline_parallel_size=3).caveats
    assert any("pipeline parallelism of size 3 was not timed, only of 1" in caveat for caveat in caveats)


def test_devices_that_cannot_share_the_model_are_refused(a100):
    with pytest.raises(ValueError, match="must divide num_attention_heads of new, 64; got 3"):
        predict_model(NEW, a100, tensor_parallel_size=3)
    with pytest.raises(ValueError, match=r"must lie in \[1, 30\], the layers of new; got 31"):
        predict_model(NEW, a100, pipeline_parallel_size=31)


@pytest.mark.parametrize(
    ("name", "memory_bytes", "devices"),
    [
        ("davinci", 80e9, (8, 1)),
        # Stages need not hold equally many layers: 105 make 2 stages, a prime number of them 3.
        ("tnlg-v2", 80e9, (8, 2)),
        ("deepseek-v3", 80e9, (8, 3)),
        # 14 heads are shared by 2 devices, 71 heads by none.
        ("qwen2.5-0.5b", 0.3e9, (2, 2)),
        ("falcon-7b", 8e9, (1, 2)),
    ],
)
def test_fewest_devices_can_share_heads_and_layers(name, memory_bytes, devices):
    accelerator = Accelerator("box", memory_bytes=memory_bytes, sources={"memory_bytes": "made up"})
    found = parallelism_needed(
        get_architecture(name), accelerator and accelerator.memory_bytes, num_context_tokens=100, dtype="float16"
    )
    assert found == devices


KV4 = Architecture(
    "kv4", 94, 4096, 64, 151936, 40960, 12288, num_query_groups=4, kv_channels=128, num_experts=128, moe_router_topk=8,
    moe_ffn_hidden_size=1536, swiglu=True, normalization="RMSNorm", position_embedding_type="rope",
    add_bias_linear=False, add_qkv_bias=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "width", "per_token"),
    [
        # Bytes of keys and values in half precision: a head a rank, and copies of it beyond four ranks.
        (KV4, 4, 94 * 2 * 128 * 2),
        (KV4, 8, 94 * 2 * 128 * 2),
        (dataclasses.replace(KV4, num_query_groups=1), 8, 94 * 2 * 128 * 2),
        (dataclasses.replace(KV4, num_query_groups=64), 8, 94 * 2 * 8 * 128 * 2),
        # A latent of 512 and a shared key of 64.
        (get_architecture("deepseek-r1"), 8, 70272),
    ],
)  # fmt: skip
def test_ranks_beyond_the_key_value_heads_hold_copies_and_each_holds_all_of_a_latent(architecture, width, per_token):
    placement = dataclasses.replace(CUDA, tensor_parallel_size=width)
    first, second = token_work(architecture, [1, 2], placement).layer_bytes
    assert second - first == pytest.approx(per_token)
    shorter, longer = (
        device_bytes(architecture, num_context_tokens=n, tensor_parallel_size=width) for n in (1000, 2000)
    )
    assert longer - shorter == pytest.approx(1000 * per_token)


def test_devices_that_engines_would_refuse_are_not_chosen_and_refused_where_they_are_given(a100):
    dense = dataclasses.replace(KV4, num_experts=None, moe_router_topk=None, moe_ffn_hidden_size=None)
    assert sizes_of(predict_model(dense, a100, num_accelerators=8)) == (4, 2)
    with pytest.raises(ValueError, match="tensor_parallel_size must divide num_query_groups of kv4, 4; got 8"):
        predict_model(dense, a100, tensor_parallel_size=8)
    with pytest.raises(ValueError, match="num_accelerators must be tensor_parallel_size 4 x pipeline_parallel_size 2"):
        predict_model(dense, a100, num_accelerators=9, tensor_parallel_size=4, pipeline_parallel_size=2)


def sizes_of(predicted):
    return predicted.placement.tensor_parallel_size, predicted.placement.pipeline_parallel_size


@pytest.mark.parametrize(("name", "num_stages"), [("mixtral-8x7b", 2), ("deepseek-v3", 21)])
def test_experts_and_latents_that_megatron_does_not_share_out_are_shared_by_layers(a100, name, num_stages):
    architecture = get_architecture(name)
    assert sizes_of(predict_model(architecture, a100, num_context_tokens=4096)) == (1, num_stages)
    assert sizes_of(predict_model(architecture, a100, num_accelerators=8)) == (1, 8)
    with pytest.raises(ValueError, match=r"not shared out among tensor parallel ranks by Megatron-LM 2022; got .* 2: "):
        predict_model(architecture, a100, tensor_parallel_size=2)


def test_stack_whose_software_shares_out_experts_may_share_a_layer(a100):
    served = dataclasses.replace(
        a100, models=tuple(dataclasses.replace(model, software="vllm 0.9") for model in a100.models)
    )
    assert sizes_of(predict_model(get_architecture("mixtral-8x7b"), served, num_context_tokens=4096)) == (2, 1)


@pytest.mark.parametrize("name", SHIPPED_STACKS)
def test_stack_that_is_shipped_is_what_the_logs_give(name, published, tmp_path, monkeypatch, request):
    predictor = request.getfixturevalue(name) if name != "v100" else fit_predictor(read_timed_models(name).values())
    shipped = read_shipped(name)
    monkeypatch.setattr("idealized_runtime.measurements.shipped._FOLDER", tmp_path)
    write_shipped(name, predictor.models, predictor.together)
    anew = read_shipped.__wrapped__(name)
    assert list(anew) == list(shipped)
    for model in anew:
        assert_near(shipped[model].timed, anew[model].timed, 1e-6)
    assert_near(shipped[model].together, predictor.together, 1e-3)


def assert_near(value, expected, rel):
    if isinstance(expected, dict | list):
        assert len(value) == len(expected)
        for name, it in expected.items() if isinstance(expected, dict) else enumerate(expected):
            assert_near(value[name], it, rel)
    else:
        assert value == (pytest.approx(expected, rel=rel) if isinstance(expected, float) else expected)


def test_shipped_stack_predicts_as_its_logs_do(cpu, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("idealized_runtime.measurements.published.ROOT", tmp_path)
    monkeypatch.setenv("PUBLISHED_DATA", "/nowhere")
    shipped = fit_predictor(read_stack("cpu").values())
    new = dataclasses.replace(NEW, num_layers=6, hidden_size=512, num_attention_heads=8, num_query_groups=8)
    for ours, theirs in zip(*(predict_model(new, it).predict_interval(100, 20) for it in (shipped, cpu)), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    priced = predict_priced(new, shipped, price_usd_per_hour=1.0)
    assert priced.origin == "predicted from coefficients shipped with this package"
    with pytest.raises(
        FileNotFoundError, match=r"no timing logs of hardware 'h9'.*come with this package for a100, cpu"
    ):
        read_stack("h9")
    with pytest.raises(ValueError, match=r"cpu has no gpt2-smal \(did you mean gpt2-small\?\)"):
        read_stack("cpu", ["gpt2-smal"])
    with pytest.raises(ValueError, match=r"cpu: the coefficients in this package are of .*got software 'x'"):
        read_stack("cpu", software="x")


def test_left_out_models_on_a100_are_predicted_within_the_targets(a100):
    summary = left_out_summary(a100.left_out)
    assert len(a100.left_out) == 13
    assert summary.loc["time_per_output_token", "median"] <= 5
    assert summary.loc["time_per_output_token", "max"] <= 15
    assert summary.loc["prompt_encoding_time", "median"] <= 8
    assert summary.loc["query", "median"] <= 5


def test_left_out_models_on_the_cpu_are_predicted_within_the_targets(cpu):
    summary = left_out_summary(cpu.left_out)
    assert len(cpu.left_out) == 4
    assert summary.loc["time_per_output_token", "median"] <= 5
    assert summary.loc["time_per_output_token", "max"] <= 15
    assert summary.loc["prompt_encoding_time", "median"] <= 8


def test_intervals_from_the_other_models_hold_the_left_out_ones_on_a100(a100):
    covered = coverage_table(a100.left_out)
    assert list(covered.index[~covered["is_identified"]]) == ["yalm"]
    assert covered["covered_percent"].drop("yalm").min() >= 95
    assert 90 <= covered["covered_percent"].mean() <= 99


def test_left_out_model_is_not_peeked_at():
    models = stack()
    wild = dataclasses.replace(
        models[2], runtimes=models[2].runtimes.assign(runtime_s=2 * models[2].runtimes["runtime_s"])
    )
    plain, changed = (leave_one_model_out([*models[:2], third, *models[3:]]) for third in (models[2], wild))
    assert changed["wide"].predicted.times == plain["wide"].predicted.times
    assert left_out_table(changed).loc["wide", "time_per_output_token"] == pytest.approx(-50, abs=1)


def test_table_leaves_out_what_needs_messages_that_were_not_timed(a100):
    predictor = fit_predictor(model for model in a100.models if model.tensor_parallel_size == 1)
    query = {"num_prompt_tokens": 512, "num_output_tokens": 64}
    assert list(prediction_table(predictor, [get_architecture("davinci"), NEW], **query).index) == ["new"]
    with pytest.raises(MessagesNotTimedError):
        prediction_table(predictor, [get_architecture("davinci")], **query)


def test_table_prices_a_query_on_as_few_devices_as_hold_the_model(a100):
    table = prediction_table(a100, [get_architecture("davinci"), NEW], num_prompt_tokens=512, num_output_tokens=64)
    assert list(table["num_accelerators"]) == [8, 1]
    runtime_s = table.loc["davinci", "runtime_s"]
    assert runtime_s == predict_model(get_architecture("davinci"), a100, tensor_parallel_size=8).predict(512, 64)
    assert table.loc["davinci", "cost_usd_per_1000_queries"] == pytest.approx(1000 * runtime_s * 8 * 4.096 / 3600)
    assert (table["runtime_s_lower"] < table["runtime_s"]).all()
    assert (table["runtime_s"] < table["runtime_s_upper"]).all()
