import numpy as np
import pytest

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.ml_energy import ASSUMED_PROMPT_TOKENS, read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.power import mean_step_s
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.served import (
    predict_served,
    predict_served_priced,
    predict_served_steps,
    served_table,
)

LLAMA = get_architecture("llama-3.1-8b")
GPT_OSS = get_architecture("gpt-oss-20b")


def served(architecture=LLAMA, hardware="H100", **options):
    return predict_served(architecture, hardware=hardware, software="vllm", **options)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "nemotron-nano-9b-v2"])
@pytest.mark.parametrize("num_sequences", [1, 16, 200])
def test_line_goes_through_the_steps(name, num_sequences):
    model = served(get_architecture(name))
    steps = model.steps(Scheduler(max_num_seqs=256))
    generating_s, _ = model.step_s(num_sequences, 1000)
    line_s = steps.seconds(num_sequences=num_sequences, num_cached_tokens=1000 * num_sequences)
    assert line_s == pytest.approx(generating_s, rel=0.06)
    with_prompt_s = sum(model.step_s(num_sequences, 1000, requests_per_step=1, num_prompt_tokens=1024))
    line_s = steps.seconds(
        num_sequences=num_sequences + 1, num_cached_tokens=1000 * num_sequences, num_prompt_tokens=1024
    )
    assert line_s == pytest.approx(with_prompt_s, rel=0.35)


def test_steps_know_their_origin_errors_and_room():
    steps = predict_served_steps(LLAMA, hardware="H100", software="vllm")
    assert (steps.origin, steps.hardware, steps.software) == ("predicted", "H100", "vllm 0.11.1")
    assert steps.num_accelerators == 1
    # 72 GB without 16 of weights, by 131 kB a token.
    assert steps.scheduler.cache_tokens == pytest.approx((72e9 - 16.06e9) / 131072, rel=0.01)
    relative = np.sqrt(np.diag(steps.covariance))[:4] / steps.coefficients[:4]
    known = served().known
    h100 = get_accelerator("H100")
    assert relative[[0, 2, 3]] == pytest.approx(known.half_width(h100, "steps") / 1.96, rel=1e-3)
    assert relative[1] == pytest.approx(known.half_width(h100, "prompts") / 1.96, rel=1e-3)
    drawn = np.array([draw.coefficients for draw in steps.draws(200, 0)])
    assert drawn[:, 0].std() / steps.fixed_s == pytest.approx(relative[0], rel=0.2)


def test_published_servers_are_met_within_intervals():
    points = usable_points(read_ml_energy())
    points = points[(points["model"] == "Qwen/Qwen3-14B") & (points["task"] == "lm-arena-chat")]
    model, step_s = served(get_architecture("qwen3-14b")), mean_step_s(points)
    for row, measured_s in zip(points.itertuples(), step_s, strict=True):
        runtimes = model.runtimes(round(row.concurrency))
        sizes = ASSUMED_PROMPT_TOKENS[row.task], row.num_output_tokens
        lower_s, upper_s = runtimes.output_token_interval_s(*sizes)
        assert lower_s < measured_s < upper_s
        assert runtimes.output_token_s(*sizes) == pytest.approx(measured_s, rel=0.2)
        watts = model.watts(row.concurrency, *sizes)
        assert watts.lower < row.power_watts / row.num_accelerators < watts.upper


def test_queries_at_a_time_share_the_devices_and_wait_for_each_other():
    alone, many = (served().runtimes(number) for number in (1, 32))
    assert alone.predict(300, 100) < many.predict(300, 100) < 32 * alone.predict(300, 100)
    # Alone, nobody else's prompt is encoded.
    longer_s = alone.predict([300, 301], 100)
    assert longer_s[1] - longer_s[0] < 1e-4
    priced = [
        predict_served_priced(LLAMA, hardware="H100", num_prompt_tokens=300, num_output_tokens=100, concurrency=number)
        for number in (1, 32)
    ]
    assert [model.batch_size for model in priced] == [1, 32]
    assert "32 at a time" in priced[1].conditions()
    assert priced[0].power_watts.value < priced[1].power_watts.value <= 700


def test_arrays_are_answered_as_numbers_are():
    runtimes = served().runtimes(8)
    p, o = np.array([10, 500, 3000]), np.array([1, 7, 300])
    lower_s, upper_s = runtimes.predict_interval(p, o, level=0.8)
    for place in range(3):
        assert runtimes.predict(p, o)[place] == pytest.approx(runtimes.predict(int(p[place]), int(o[place])))
        assert lower_s[place] < runtimes.predict(p, o)[place] < upper_s[place]
    with pytest.raises(ValueError, match="9000"):
        runtimes.predict(9000, 1)
    assert runtimes.predict(9000, 1, extrapolate=True) > runtimes.predict(8000, 1)


def test_other_machine_is_wider_and_marked():
    here, there = (served(hardware=name) for name in ("H100", "L40S"))
    assert not here.is_moved
    assert there.is_moved
    assert any("nothing was measured on L40S" in caveat for caveat in there.caveats)
    assert not any("nothing was measured" in caveat for caveat in served(hardware="B200").caveats)
    lower_s, upper_s = there.runtimes().predict_interval(1, 100)
    assert upper_s / lower_s > 2 > np.divide(*here.runtimes().predict_interval(1, 100)[::-1])
    # It reads at 864 GB/s instead of 3350, and launches as before.
    ratio = there.runtimes().output_token_s(1, 10) / here.runtimes().output_token_s(1, 10)
    assert 3 < ratio < 3350 / 864


@pytest.mark.parametrize("hardware", ["H200", "L40S", "L4", "A10G", "RTX 4090", "B200", "GB200", "MI300X", "A100-80GB"])
def test_machines_that_people_ask_for_are_answered(hardware):
    model = served(get_architecture("qwen3-4b"), hardware)
    assert model.steps().origin == "predicted"
    assert model.watts(8, 300, 100).value <= get_accelerator(hardware).power_watts


def test_watts_that_no_data_sheet_gives_are_unknown():
    assert get_accelerator("GB300").power_watts is None
    assert served(hardware="GB300").watts(8, 300, 100) is None


def test_machine_without_a_data_sheet_is_refused():
    with pytest.raises(ValueError, match="with a data sheet only, and cpu has none"):
        served(hardware="cpu")


def test_weights_are_read_as_they_are_stored():
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
              "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
              "tie_word_embeddings": False, "max_position_embeddings": 8192}  # fmt: skip
    full, fp8, awq = (
        served(Architecture.from_hf_config(config | more, name="own"))
        for more in (
            {},
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
        )
    )
    assert [model.dtype for model in (full, fp8, awq)] == ["bfloat16", "stored as fp8", "stored as awq"]
    assert (fp8.weights.is_quantised, awq.weights.is_quantised) == (True, False)
    assert awq.weights.feed_forward == pytest.approx(0.52, abs=0.01)
    token_s = [model.runtimes().output_token_s(1, 10) for model in (full, fp8, awq)]
    assert token_s[0] > token_s[1] > token_s[2] > token_s[0] / 4
    assert any("fewer than 8 bits" in caveat for caveat in awq.caveats)
    asked = served(Architecture.from_hf_config(config, name="own"), dtype="float8")
    assert asked.dtype == "float8"
    assert asked.runtimes().output_token_s(1, 10) == pytest.approx(token_s[1], rel=0.02)


def test_no_bound_is_below_what_reading_the_weights_takes():
    for hardware in ("H100", "B200", "L4"):
        model = served(hardware=hardware)
        # 8.03 B weights of 2 bytes, of which a token reads one row of the embeddings.
        least_s = 2 * (8.03e9 - 128256 * 4096) / model.accelerator.memory_bandwidth_bytes_per_s
        runtimes = model.runtimes()
        lower_s, upper_s = runtimes.output_token_interval_s(1, 2)
        assert least_s <= lower_s * 1.001 < runtimes.output_token_s(1, 2) < upper_s
        assert 100 * least_s <= runtimes.predict_interval(1, 100)[0] * 1.001 < runtimes.predict(1, 100)


def test_weights_of_four_and_of_sixteen_bits_are_not_taken_for_such_of_eight():
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
              "intermediate_size": 7168, "vocab_size": 128256, "max_position_embeddings": 8192}  # fmt: skip
    groups = {"all": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}}
    stored = {"quant_method": "modelopt", "config_groups": groups, "ignore": ["*self_attn*"]}
    mixed = served(Architecture.from_hf_config(config | {"quantization_config": stored}, name="own"))
    assert 0.9 < mixed.weights.feed_forward < 1.3
    assert not mixed.weights.is_quantised
    assert any("fewer than 8 bits" in caveat for caveat in mixed.caveats)
    assert not any("no products of 8 bits" in caveat for caveat in mixed.caveats)


def test_registry_row_is_in_the_data_type_that_it_was_served_in():
    assert served(GPT_OSS).dtype == "mxfp4"
    assert served(GPT_OSS, dtype="bfloat16").tensor_parallel_size == 1
    # Which was served in two, on devices that each have a copy of a key-value head.
    both = served(get_architecture("qwen3-235b-a22b"))
    assert (both.dtype, both.tensor_parallel_size) == ("bfloat16", 8)
    with pytest.raises(ValueError, match=r"mxfp4 stores experts in 4 bits, and llama-3.1-8b has none"):
        served(dtype="mxfp4")
    with pytest.raises(ValueError, match=r"dtype must be one of bfloat16, float8, mxfp4.*got 'int3'"):
        served(dtype="int3")


def test_devices_hold_the_model_and_its_queries():
    llama_70b = get_architecture("llama-3.1-70b")
    assert served(llama_70b, num_context_tokens=2000).tensor_parallel_size == 2
    assert served(llama_70b, num_context_tokens=2000, num_sequences=64).tensor_parallel_size == 4
    with pytest.raises(ValueError, match=r"llama-3.1-70b does not fit 1 x H100 of 80 GB: .* room for 0 tokens"):
        served(llama_70b, tensor_parallel_size=1)
    with pytest.raises(
        ValueError, match=r"which 3 devices cannot share \(tensor_parallel_size\): allowed are 1, 2, 4, 8"
    ):
        served(llama_70b, tensor_parallel_size=3)
    with pytest.raises(ValueError, match="does not fit 8 x RTX 4090"):
        served(get_architecture("llama-3.1-405b"), "RTX 4090")
    with pytest.raises(ValueError, match="takes 131072 tokens of context"):
        served(num_context_tokens=200_000)


def test_what_lies_beyond_the_measurements_is_said():
    model = served()
    assert model.extrapolations(concurrency=64, num_prompt_tokens=512, num_context_tokens=1000) == ()
    (beyond,) = model.extrapolations(concurrency=1)
    assert beyond == "batches of 1 were not measured, only of about 7.9 to 1024"
    assert any("405.9 B" in caveat for caveat in served(get_architecture("gpt2-small")).caveats)


def test_table_has_what_each_machine_holds():
    models = [get_architecture(name) for name in ("qwen3-4b", "llama-3.1-405b")]
    table = served_table(
        models, ["H100", "L4", "GB300"], software="vllm", num_prompt_tokens=500, num_output_tokens=100, concurrency=8
    )
    # 811 GB of weights are more than 8 H100 have.
    assert set(table.index) == {
        ("qwen3-4b", "H100"), ("qwen3-4b", "L4"), ("qwen3-4b", "GB300"), ("llama-3.1-405b", "GB300"),
    }  # fmt: skip
    row = table.loc[("qwen3-4b", "H100")]
    runtimes = served(models[0]).runtimes(8)
    device_s = runtimes.predict(500, 100) / 8 / 100
    assert row["usd_per_million_output_tokens"] == pytest.approx(1e6 * device_s * 6.88 / 3600)
    assert row["time_per_output_token_ms"] == pytest.approx(1e3 * runtimes.output_token_s(500, 100))
    assert (table["time_per_output_token_ms_lower"] < table["time_per_output_token_ms"]).all()
    assert np.isnan(table.loc[("qwen3-4b", "GB300"), "usd_per_million_output_tokens"])


def test_layers_that_no_served_model_has_are_named():
    assert not any("its layers may take otherwise" in caveat for caveat in served(GPT_OSS).caveats)
    latent = served(get_architecture("deepseek-v2-lite"))
    (said,) = [caveat for caveat in latent.caveats if "its layers may take otherwise" in caveat]
    assert said.startswith("no model that was served on H100 has latent attention")
