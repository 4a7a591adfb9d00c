import dataclasses
import re

import numpy as np
import pytest
from makers import TOY, write_toy_log

from idealized_runtime.architectures import Architecture, output_token_bytes, output_token_flops, prompt_encoding_flops
from idealized_runtime.hardware.rates import CUDA_CACHE_BYTES, MachineRates
from idealized_runtime.hardware.roofline import Roofline
from idealized_runtime.measurements.floors import (
    floor_distances,
    machine_rates,
    roofline_of,
    roofline_table,
)
from idealized_runtime.measurements.timed_models import read_timed_model, read_timed_models
from idealized_runtime.records import ImplausibleLogError

BIG = Architecture("big", num_layers=32, hidden_size=4096, num_attention_heads=32)
EXPERTS = dataclasses.replace(BIG, num_experts=8, moe_router_topk=2)
RATES = MachineRates(memory_bytes_per_s=1e12, matmul_flops_per_s=1e14, cache_bytes=0.0, is_measured=False)
pytestmark = pytest.mark.filterwarnings("ignore::idealized_runtime.records.RepeatedSettingWarning")


def roofline(architecture=BIG, **changes):
    fields = {"rates": RATES, "dtype": "float16", **changes}
    return Roofline(architecture, **fields)


def test_one_output_token_takes_at_least_the_reading_of_weights_and_cache():
    assert roofline().output_token_s(100) == pytest.approx(output_token_bytes(BIG, 100) / 1e12)


def test_long_prompt_takes_at_least_the_computing_of_causal_attention():
    assert roofline().prompt_encoding_s(2048) == pytest.approx(
        prompt_encoding_flops(BIG, 2048, attention="causal") / 1e14
    )


def test_short_prompt_takes_at_least_the_reading_of_the_weights():
    weights = 2 * output_token_bytes(BIG, 1) - output_token_bytes(BIG, 2)
    assert roofline().prompt_encoding_s(1) == pytest.approx(weights / 1e12)


def test_batch_reads_the_weights_once_and_the_cache_of_every_sequence():
    cache = output_token_bytes(BIG, 2) - output_token_bytes(BIG, 1)
    more_s = roofline().output_token_s(1000, batch_size=4) - roofline().output_token_s(1000)
    assert more_s == pytest.approx(3 * 1000 * cache / 1e12)


def test_large_batch_is_bound_by_computing():
    assert roofline().output_token_s(1, batch_size=4096) == pytest.approx(4096 * output_token_flops(BIG, 1) / 1e14)


def test_floor_of_latent_attention_holds_for_a_cache_of_latents_and_for_one_of_keys_and_values():
    sizes = {"kv_lora_rank": 512, "qk_head_dim": 128, "qk_pos_emb_head_dim": 64, "v_head_dim": 128}
    options = {"add_bias_linear": False, "add_qkv_bias": False, "normalization": "RMSNorm"}
    latent = dataclasses.replace(BIG, position_embedding_type="rope", **sizes, **options)
    # Reading: of latents. Computing: of 32 heads in 32 layers with keys 192 and values 128 wide.
    assert roofline(latent).output_token_s(10**6) == pytest.approx(output_token_bytes(latent, 10**6) / 1e12)
    computing = dataclasses.replace(RATES, memory_bytes_per_s=1e30)
    per_pair_s = roofline(latent, rates=computing).output_token_s(2) - roofline(latent, rates=computing).output_token_s(
        1
    )
    assert per_pair_s == pytest.approx(2 * 32 * 32 * (192 + 128) / 1e14, rel=1e-3)


def test_tensor_parallelism_divides_a_floor_and_pipeline_stages_only_what_a_batch_adds():
    one_s = roofline().output_token_s(100)
    assert roofline(tensor_parallel_size=4).output_token_s(100) == pytest.approx(one_s / 4)
    assert roofline(pipeline_parallel_size=4).output_token_s(100) == pytest.approx(one_s)
    batch = {"num_context_tokens": 1, "batch_size": 4096}
    piped_s = roofline(pipeline_parallel_size=4).output_token_s(**batch)
    assert piped_s == pytest.approx(roofline().output_token_s(**batch) / 4)


def test_experts_of_a_batch_may_all_be_the_same():
    reading = dataclasses.replace(RATES, matmul_flops_per_s=None)
    weights = {b: roofline(EXPERTS, rates=reading).prompt_encoding_s(64, batch_size=b) for b in (1, 8)}
    assert weights[1] == weights[8] == pytest.approx(roofline(EXPERTS).output_token_s(1), rel=1e-3)


def test_query_takes_at_least_its_prompt_and_its_further_tokens():
    floor_s = roofline().query_s([1, 512], 10)
    parts_s = roofline().prompt_encoding_s(np.array([1, 512])) + 9 * roofline().output_token_s(np.array([2, 513]))
    assert floor_s == pytest.approx(parts_s)


def test_rates_in_the_log_come_before_those_of_the_accelerator(tmp_path):
    path = write_toy_log(tmp_path / "a.jsonl", hardware="NVIDIA H200", dtype="bfloat16")
    assert machine_rates(read_timed_model(path)).memory_bytes_per_s == 4800e9
    rates = {"memory_bytes_per_s": 4e12, "matmul_flops_per_s": {"bfloat16": 7e14}, "cache_bytes": 5e7}
    path = write_toy_log(
        tmp_path / "b.jsonl", hardware="NVIDIA H200", dtype="bfloat16", environment={"machine_rates": rates}
    )
    assert machine_rates(read_timed_model(path)) == MachineRates(4e12, 7e14, 5e7, is_measured=True)


def timed_toy(path, *, memory_bytes_per_s, flops_per_s=1e15, cache_bytes=1.0):
    """TOY with 1.1 s a prompt token of 1, on a machine of these rates."""
    rates = {
        "memory_bytes_per_s": memory_bytes_per_s, "matmul_flops_per_s": {"float32": flops_per_s},
        "cache_bytes": cache_bytes,
    }  # fmt: skip
    return read_timed_model(write_toy_log(path, environment={"machine_rates": rates}))


def test_runtime_below_the_time_to_read_the_weights_is_refused(tmp_path):
    with pytest.raises(ImplausibleLogError, match=r"below_floor: 6 of 6 .*p=1 o=1 1\.1 s, .*clock.*busy"):
        timed_toy(tmp_path / "toy.jsonl", memory_bytes_per_s=1e3)


def test_runtime_below_the_time_to_compute_is_refused(tmp_path):
    with pytest.raises(ImplausibleLogError, match="below_floor"):
        timed_toy(tmp_path / "toy.jsonl", memory_bytes_per_s=1e15, flops_per_s=1e3)


def test_measured_rate_may_be_exceeded_by_its_tolerance(tmp_path):
    num_bytes = 2 * output_token_bytes(TOY, 1, dtype="float32") - output_token_bytes(TOY, 2, dtype="float32")
    # Two passes in the 1.12 s of p = 1, o = 2.
    reading_takes_the_runtime = 2 * num_bytes / 1.12
    timed_toy(tmp_path / "toy.jsonl", memory_bytes_per_s=reading_takes_the_runtime * 0.95)
    with pytest.raises(ImplausibleLogError, match="below_floor"):
        timed_toy(tmp_path / "toy2.jsonl", memory_bytes_per_s=reading_takes_the_runtime * 0.8)


def test_model_that_fits_the_cache_is_not_held_to_reading(tmp_path):
    timed_toy(tmp_path / "toy.jsonl", memory_bytes_per_s=1e3, cache_bytes=1e9)


def test_log_of_an_unknown_machine_passes_and_has_no_floor(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.jsonl"))
    assert roofline_of(model) is None
    assert np.isnan(roofline_table({"toy": model}).loc["toy", "token_over_floor"])


def test_table_divides_fitted_times_by_their_floors(tmp_path):
    model = timed_toy(tmp_path / "toy.jsonl", memory_bytes_per_s=1e12)
    row = roofline_table({"toy": model}, num_prompt_tokens=2).loc["toy"]
    assert row["time_per_output_token_ms"] == pytest.approx(20)
    assert row["token_over_floor"] == pytest.approx(row["time_per_output_token_ms"] / row["token_floor_ms"])
    assert row["prompt_encoding_time_ms"] == pytest.approx(1200)
    assert row["prompt_over_floor"] == pytest.approx(1200 / row["prompt_floor_ms"])


def test_distance_of_every_fitted_time_is_its_ratio_to_its_floor(tmp_path):
    rates = {"memory_bytes_per_s": 1e12, "matmul_flops_per_s": {}}
    path = write_toy_log(tmp_path / "box" / "toy.jsonl", environment={"machine_rates": rates})
    distances = floor_distances(read_timed_models(path.parent))["toy"]
    floors = roofline_of(read_timed_model(path))
    assert list(distances.index) == ["output token", 1, 2, 4]
    assert distances["output token"] == pytest.approx(0.02 / floors.output_token_s(3))
    assert distances[4] == pytest.approx(1.4 / floors.prompt_encoding_s(4))


def test_distance_is_missing_where_a_log_does_not_tell_its_data_type(tmp_path):
    sentences = [
        f"Runtime for {{'num_input_tokens': {p}, 'num_output_tokens': {o}}}: {p + o}.000 seconds +- 0.001\n"
        for p in (1, 2)
        for o in (1, 2)
    ]
    (tmp_path / "old.log").write_text("".join(sentences))
    assert floor_distances(read_timed_models(tmp_path))["old"].isna().all()


@pytest.mark.parametrize("hardware", ["a100", "v100", "cpu"])
def test_no_published_or_committed_log_is_faster_than_its_machine(hardware):
    models = read_timed_models(hardware)
    table = roofline_table(models)
    assert (table[["token_over_floor", "prompt_over_floor"]] > 1).all(axis=None)


def test_published_a100_log_claimed_to_be_three_times_as_fast_is_refused(published, tmp_path):
    path = published / "helm-efficiency" / "logs" / "a100" / "gpt_neox_20b.log"
    assert machine_rates(read_timed_model(path)).cache_bytes == CUDA_CACHE_BYTES
    faster = tmp_path / "a100" / path.name
    faster.parent.mkdir()
    third = re.sub(r"(: )(\d+\.\d{3})( seconds)", lambda it: f"{it[1]}{float(it[2]) / 3:.3f}{it[3]}", path.read_text())
    faster.write_text(third)
    with pytest.raises(ImplausibleLogError, match="below_floor: 270 of 270 settings"):
        read_timed_model(faster)
