import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture, kv_cache_bytes
from idealized_runtime.architectures.memory import state_bytes
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.measurements.ml_energy import ASSUMED_PROMPT_TOKENS, read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.measurements.served_models import served_architecture
from idealized_runtime.serving.power import mean_step_s
from idealized_runtime.serving.served_work import WeightFormat, served_work, weight_format, work_of_points
from idealized_runtime.serving.stacks import (
    TooFewArchitecturesError,
    fit_stack,
    leave_architectures_out,
)
from idealized_runtime.serving.steps import share_visited

# id, devices, devices of the experts
SERVERS = [
    ("Qwen/Qwen3-8B", 1, 1), ("Qwen/Qwen3-14B", 1, 1), ("Qwen/Qwen3-32B", 2, 1),
    ("meta-llama/Llama-3.1-8B-Instruct", 1, 1), ("meta-llama/Llama-3.1-70B-Instruct", 4, 1),
    ("meta-llama/Llama-3.3-70B-Instruct", 4, 1), ("google/gemma-3-27b-it", 2, 1), ("openai/gpt-oss-120b", 2, 1),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", 2, 2), ("Qwen/Qwen3-235B-A22B-Instruct-2507", 8, 8),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 4, 4),
]  # fmt: skip
TIMES = {
    "layers": 2e-5, "expert_layers": 5e-5, "weight_bytes": 1 / 2.5e12, "expert_bytes": 1 / 3e12,
    "cache_bytes": 1 / 2.8e12, "sequences": 6e-5, "message_widths": 1e-6,
}  # fmt: skip


def make_points():
    rows = [
        {"model": model, "tensor_parallel_size": devices, "expert_parallel_size": experts, "concurrency": float(batch)}
        for model, devices, experts in SERVERS
        for batch in (8, 16, 32, 64, 128, 256)
    ]
    points = pd.DataFrame(rows).assign(dtype="bfloat16", num_context_tokens=800.0)
    sizes = np.resize([300.0, 1100.0, 4000.0], len(points))
    return points.assign(requests_per_step=points["concurrency"] / 500, num_prompt_tokens=sizes)


PROMPT_TIMES = {
    "begun_layers": 5e-5, "begun_state_layers": 0.0, "prompt_flops": 2e-15, "prompt_expert_flops": 6e-15,
    "prompt_widths": 4e-8,
}  # fmt: skip


@pytest.fixture(scope="module")
def generated():
    """Counts of steps, times that are a line in them, and mean times with those of the prompts that begin."""
    work = work_of_points(make_points())
    times_s = work[list(TIMES)].to_numpy() @ np.array(list(TIMES.values()))
    prompts_s = work[list(PROMPT_TIMES)].to_numpy() @ np.array(list(PROMPT_TIMES.values()))
    return work, times_s, times_s + prompts_s + work["begun_expert_bytes"].to_numpy() * TIMES["expert_bytes"]


def test_dense_model_is_read_once_a_step_over_its_devices():
    architecture = get_architecture("llama-3.1-70b")
    work = served_work(architecture, WeightFormat(), num_sequences=16, num_context_tokens=1000, tensor_parallel_size=4)
    read = architecture.num_params - architecture.vocab_size * architecture.hidden_size
    assert work["weight_bytes"] == pytest.approx(2 * read / 4, rel=1e-4)
    # 8 key-value heads of 128, keys and values, two bytes.
    assert work["cache_bytes"] == 16 * 1000 * 80 * 2 * 8 * 128 * 2 / 4
    assert work["message_bytes"] == 2 * 80 * 8192 * 2 * 16
    assert work["expert_bytes"] == work["expert_layers"] == 0


def test_experts_are_read_as_far_as_they_are_visited_and_the_busiest_device_counts():
    architecture = get_architecture("qwen3-30b-a3b")
    sizes = {"num_sequences": 8, "num_context_tokens": 100}
    whole = architecture.count_params(128) - architecture.count_params(0)
    one = served_work(architecture, WeightFormat(), **sizes)
    assert one["expert_bytes"] == pytest.approx(2 * whole * share_visited(8, 8 / 128))
    assert one["mean_expert_bytes"] == one["expert_bytes"]
    split = served_work(architecture, WeightFormat(), **sizes, tensor_parallel_size=4, expert_parallel_size=4)
    assert split["mean_expert_bytes"] == pytest.approx(one["expert_bytes"] / 4)
    # The largest of four normal values is 1.029 deviations above their mean.
    deviation = np.sqrt(32 * share_visited(8, 1 / 16) * (1 - share_visited(8, 1 / 16)))
    assert split["expert_bytes"] == pytest.approx(
        one["expert_bytes"] / 4 + 1.0294 * deviation * 2 * whole / 128, rel=1e-3
    )


def test_device_never_reads_more_experts_than_it_has():
    architecture = get_architecture("llama-4-scout")
    work = served_work(
        architecture, WeightFormat(), num_sequences=64, num_context_tokens=100, tensor_parallel_size=8,
        expert_parallel_size=8,
    )  # fmt: skip
    whole = architecture.count_params(16) - architecture.count_params(0)
    assert work["expert_bytes"] <= 2 * whole / 8


def test_four_bit_experts_take_a_quarter_of_the_bytes_and_nothing_else_less():
    architecture = get_architecture("gpt-oss-20b")
    full, four_bits = (
        served_work(architecture, weight_format("openai/gpt-oss-20b", dtype), num_sequences=8, num_context_tokens=100)
        for dtype in ("bfloat16", "mxfp4")
    )
    assert four_bits["expert_bytes"] / full["expert_bytes"] == pytest.approx(4.25 / 16)
    assert four_bits["weight_bytes"] == full["weight_bytes"]


def test_checkpoint_that_quantises_feed_forward_networks_only_keeps_its_attention():
    some = weight_format("meta-llama/Llama-3.1-405B-Instruct-FP8", "float8")
    assert some == WeightFormat(2.0, 1.0, 1.0, is_quantised=True)
    architecture = get_architecture("llama-3.1-405b")
    read = {
        form: served_work(architecture, form, num_sequences=1, num_context_tokens=1)["weight_bytes"]
        for form in (WeightFormat(), some, weight_format("org/other", "float8"))
    }
    full, part, all_of_it = read.values()
    assert full > part > all_of_it > full / 2


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"bytes of weights are known of bfloat16, .*got 'int3'"):
        weight_format("org/model", "int3")


def test_model_that_is_not_counted_has_no_counts():
    work = work_of_points(make_points().head(2).assign(model="org/unknown"))
    assert work["layers"].isna().all()


def test_times_of_a_stack_are_recovered(generated):
    work, times_s, _ = generated
    stack = fit_stack(work, times_s)
    assert {name: stack.times[name] for name in TIMES} == pytest.approx(TIMES, rel=0.02)
    assert stack.seconds(work) == pytest.approx(times_s, rel=1e-3)


def test_what_prompts_take_is_recovered_from_mean_steps(generated):
    work, times_s, mean_times_s = generated
    stack = fit_stack(work, times_s, mean_times_s=mean_times_s, accelerator=get_accelerator("H100"))
    assert stack.prompt_times == pytest.approx(PROMPT_TIMES, rel=0.05, abs=1e-12)
    assert stack.seconds(work) + stack.prompt_seconds(work) == pytest.approx(mean_times_s, rel=2e-3)


def test_no_prompt_is_encoded_beyond_the_peak_rate(generated):
    """Prompts that cost nothing beside the experts they visit: their operations still take what the machine needs."""
    work, times_s, _ = generated
    read_s = work["begun_expert_bytes"].to_numpy() * TIMES["expert_bytes"]
    h100 = get_accelerator("H100")
    stack = fit_stack(work, times_s, mean_times_s=times_s + read_s, accelerator=h100)
    assert stack.prompt_times["prompt_flops"] == pytest.approx(1 / h100.peak_flops("bfloat16"))


def test_architecture_is_predicted_from_others(generated):
    work, times_s, _ = generated
    table = leave_architectures_out(work, times_s).table()
    assert table["median_percent"].item() < 0.5


def test_one_architecture_under_two_ids_is_left_out_whole(generated):
    work, times_s, _ = generated
    rows = leave_architectures_out(work, times_s).rows
    assert rows["architecture"].nunique() == len(SERVERS) - 1


@pytest.mark.parametrize("source", ["generated", "published"])
@pytest.mark.parametrize("of", ["generating", "mean"])
def test_measurements_of_an_architecture_never_tell_of_itself(source, of, request):
    """Its times tripled, its own predictions stay, to the last digit; others move."""
    work, times_s, mean_times_s = request.getfixturevalue(source)
    name = "llama-3.1-70b"
    factor = np.where(work["architecture"] == name, 3.0, 1.0)
    before, after = (
        leave_architectures_out(
            work, times_s * scale, mean_times_s=None if of == "generating" else mean_times_s * scale
        ).rows["predicted_s"]
        for scale in (1.0, factor)
    )
    is_own = (work.loc[before.index, "architecture"] == name).to_numpy()
    assert is_own.any()
    assert (before == after)[is_own].all()
    assert (before != after)[~is_own].any()


def test_other_machine_reads_by_its_data_sheet_and_launches_as_before(generated):
    work, times_s, mean_times_s = generated
    stack = fit_stack(work, times_s, mean_times_s=mean_times_s)
    h100, b200 = get_accelerator("H100"), get_accelerator("B200")
    moved = stack.moved_to(b200, origin=h100)
    assert moved.times["cache_bytes"] / stack.times["cache_bytes"] == pytest.approx(3350 / 8000)
    assert moved.prompt_times["prompt_flops"] / stack.prompt_times["prompt_flops"] == pytest.approx(989 / 2250)
    assert moved.times["layers"] == stack.times["layers"]
    assert stack.moved_to(h100, origin=h100).times == stack.times
    with pytest.raises(ValueError, match="bandwidth of H100 or paper is not known"):
        stack.moved_to(Accelerator("paper"), origin=h100)


def test_too_few_architectures_are_refused(generated):
    work, times_s, _ = generated
    few = work["architecture"].isin(["qwen3-8b", "qwen3-14b", "qwen3-32b"]).to_numpy()
    with pytest.raises(TooFewArchitecturesError, match="takes 4 architectures; got 3"):
        leave_architectures_out(work[few], times_s[few])
    with pytest.raises(TooFewArchitecturesError, match="at least 3 architectures; got none"):
        fit_stack(work[:0], times_s[:0])


@pytest.fixture(scope="module")
def published():
    """Counts of the steps of the leaderboard on H100, their median and their mean times."""
    points = usable_points(read_ml_energy())
    points = points[points["hardware"] == "H100"]
    work = work_of_points(points, num_prompt_tokens=ASSUMED_PROMPT_TOKENS)
    is_counted = work["layers"].notna()
    points = points[is_counted]
    return work[is_counted], points["time_per_output_token_s"].to_numpy(), mean_step_s(points).to_numpy()


def test_published_architectures_left_out(published):
    work, times_s, _ = published
    left_out = leave_architectures_out(work, times_s)
    table = left_out.table()
    assert table["median_percent"].item() <= 6.8
    assert table["p90_percent"].item() <= 22
    assert 90 <= table["covered_percent"].item() <= 98
    dense_and_hybrid = left_out.table(left_out.rows["expert_layers"] == 0).loc[True]
    assert dense_and_hybrid["median_percent"] <= 5
    assert dense_and_hybrid["p90_percent"] <= 11.5
    assert left_out.rows["terms"].str.split().str.len().max() <= 11


def test_states_are_read_and_written():
    architecture = served_architecture("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    sizes = {"num_sequences": 4, "num_context_tokens": 1000}
    work = served_work(architecture, WeightFormat(), **sizes)
    cached = kv_cache_bytes(architecture, 1000, dtype="bfloat16")
    assert work["cache_bytes"] == 4 * (cached + state_bytes(architecture, dtype="bfloat16"))
    # 27 layers with 128 heads of 80 x 128 numbers in float32, at least.
    assert work["cache_bytes"] > 2 * 4 * 27 * 128 * 80 * 128 * 4


def test_mean_steps_of_published_architectures_left_out(published):
    work, times_s, mean_times_s = published
    left_out = leave_architectures_out(work, times_s, mean_times_s=mean_times_s, accelerator=get_accelerator("H100"))
    table, rows = left_out.table(), left_out.rows
    assert table["median_percent"].item() <= 6.8
    assert table["p90_percent"].item() <= 15
    assert 90 <= table["covered_percent"].item() <= 98
    # What prompts add is told by less: half of it within a third.
    is_much = rows["prompt_s"] > 0.05 * rows["step_s"]
    errors = (rows["predicted_prompt_s"] / rows["prompt_s"] - 1)[is_much].abs()
    assert errors.median() <= 0.33


def test_h100_tells_of_b200_by_the_data_sheet():
    points = usable_points(read_ml_energy())
    work, times_s = work_of_points(points), points["time_per_output_token_s"]
    is_h100 = points["hardware"] == "H100"
    moved = leave_architectures_out(
        work[is_h100], times_s[is_h100], accelerator=get_accelerator("H100"),
        moved=(work[~is_h100], times_s[~is_h100], None, get_accelerator("B200")),
    ).table()  # fmt: skip
    assert moved["median_percent"].item() <= 14
    assert moved["p90_percent"].item() <= 30
    assert 90 <= moved["covered_percent"].item() <= 98
