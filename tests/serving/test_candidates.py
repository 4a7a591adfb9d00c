import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import Architecture, get_architecture, kv_cache_bytes_per_token, state_bytes
from idealized_runtime.architectures.devices import cache_tokens_left, device_bytes
from idealized_runtime.measurements.shipped import read_stack
from idealized_runtime.prediction import fit_predictor
from idealized_runtime.serving.candidates import (
    candidate_of,
    candidates_of_parameters,
    candidates_of_points,
    predicted_candidates,
    served_candidates,
)
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.planning import Candidate, Rejection
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel, write_steps

STEPS = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=2, covariance=np.eye(6) * 1e-14)
A100 = fit_predictor(read_stack("a100").values())


def points(model="m", hardware="H100", *, number=1, slope=1e-4):
    sizes = pd.DataFrame({"num_prompt_tokens": [1024, 1024, 1024, 8192, 8192, 1024, 1024],
                          "num_output_tokens": [1024, 1024, 1024, 1024, 1024, 8192, 8192],
                          "concurrency": [1, 8, 64, 1, 16, 4, 32]})  # fmt: skip
    c, p, o = (sizes[name] for name in ("concurrency", "num_prompt_tokens", "num_output_tokens"))
    tpot_s = 0.01 + slope * c + 1e-8 * c * (p + o / 2) + 2e-5 * c * p / o
    return sizes.assign(model=model, hardware=hardware, num_accelerators=number, time_per_output_token_s=tpot_s)


def test_price_and_watts_are_those_of_the_row_or_as_given():
    row, given = candidate_of("m", STEPS), candidate_of("m", STEPS, price_usd_per_hour=2.0, power_watts=400)
    assert (row.price_usd_per_hour.value, row.power_watts.value, row.num_accelerators) == (6.88, 700, 2)
    assert (given.price_usd_per_hour.value, given.power_watts.value) == (2.0, 400)
    assert not row.caveats


def test_steps_priced_as_other_hardware_say_so():
    candidate = candidate_of("m", STEPS, hardware="A100-80GB")
    assert candidate.devices == "2 x A100-80GB"
    assert "timed on H100, and are priced as A100-80GB" in candidate.caveats[0]


def test_steps_without_errors_say_so():
    assert "none is known" in candidate_of("m", StepModel(0.01, 0.0, 0.0, 0.0)).caveats[0]


def test_parameter_file_gives_its_models_or_those_that_are_named(tmp_path):
    path = tmp_path / "steps.json"
    write_steps(path, "one", STEPS)
    write_steps(path, "two", STEPS)
    assert [it.model for it in candidates_of_parameters(path)] == ["one", "two"]
    assert [it.model for it in candidates_of_parameters(path, ["two"])] == ["two"]
    with pytest.raises(ValueError, match=r"no steps of three; there are: one, two|no steps of three"):
        candidates_of_parameters(path, ["three"])


def test_each_server_of_a_table_of_points_is_a_candidate():
    table = pd.concat([points(), points("m", "H200", number=2, slope=5e-5)])
    found = candidates_of_points(table, scheduler=Scheduler())
    assert [(it.model, it.devices) for it in found] == [("m", "1 x H100"), ("m", "2 x H200")]
    assert all(it.steps.covariance is not None for it in found)


def test_server_whose_points_do_not_tell_its_steps_is_left_out_with_the_reason():
    found = candidates_of_points(pd.concat([points(), points("few").iloc[:1]]), scheduler=Scheduler())
    assert isinstance(found[0], Candidate)
    assert isinstance(found[1], Rejection)
    assert found[1].candidate.model == "few"
    assert "do not determine" in found[1].reason


def test_predicted_candidate_keeps_the_cache_that_its_memory_has_room_for():
    architecture = get_architecture("gpt-j")
    one, four = predicted_candidates(architecture, A100, longest=1000, all_num_accelerators=[1, 4])
    assert one.steps.origin == "predicted"
    assert one.steps.covariance is not None
    tokens = one.steps.scheduler.cache_tokens
    assert device_bytes(architecture, num_context_tokens=tokens) == pytest.approx(0.9 * 80e9, rel=1e-3)
    assert four.steps.scheduler.cache_tokens > 4 * tokens
    assert four.num_accelerators == 4


def test_pipeline_says_that_one_step_is_predicted_at_a_time():
    caveats = {
        name: " ".join(predicted_candidates(get_architecture(name), A100, longest=1000)[0].caveats)
        for name in ("qwen3-235b-a22b", "gpt-j")
    }
    assert "7 stages of a pipeline may share several steps" in caveats["qwen3-235b-a22b"]
    assert "pipeline" not in caveats["gpt-j"]


def test_model_that_does_not_fit_is_left_out_with_the_reason():
    (found,) = predicted_candidates(get_architecture("gpt-neox-20b"), A100, longest=1000, all_num_accelerators=[1],
                                    hardware="A100-40GB")  # fmt: skip
    assert isinstance(found, Rejection)
    assert "beside its weights there is room for 0 tokens" in found.reason


def test_model_that_its_devices_just_hold_is_served_by_twice_as_many():
    architecture, longest = get_architecture("yalm"), 300
    assert device_bytes(architecture, num_context_tokens=longest, tensor_parallel_size=2) < 80e9
    (found,) = predicted_candidates(architecture, A100, longest=longest)
    assert found.num_accelerators == 4


def test_candidate_on_other_hardware_is_named_and_priced_as_that():
    (found,) = predicted_candidates(get_architecture("gpt-j"), A100, longest=1000, hardware="H100")
    assert found.devices == "1 x H100"
    assert any("its steps are those of" in caveat for caveat in found.caveats)


def test_cache_tokens_left_are_none_where_the_weights_do_not_fit():
    assert cache_tokens_left(get_architecture("gpt-j"), 10e9) == 0


def test_states_of_sequences_take_the_room_of_tokens():
    model = get_architecture("nemotron-nano-9b-v2")
    alone, of_many = (cache_tokens_left(model, 80e9, dtype="bfloat16", num_sequences=number) for number in (1, 101))
    states_bytes = 100 * state_bytes(model, dtype="bfloat16")
    assert alone - of_many == pytest.approx(states_bytes / kv_cache_bytes_per_token(model, dtype="bfloat16"), abs=1)


def test_served_candidate_keeps_room_for_the_states_of_all_sequences_that_run():
    model, queries = (
        get_architecture("nemotron-nano-9b-v2"),
        pd.DataFrame({"num_prompt_tokens": [500], "num_output_tokens": [200]}),
    )
    found = served_candidates(
        model, hardware="H100", software="vllm", demand=Demand.of_queries(queries, rate_per_s=5), dtype="bfloat16",
        all_num_accelerators=[1], all_max_num_seqs=[1, 256, 4096],
    )  # fmt: skip
    for candidate, number in zip(found[:2], (1, 256), strict=True):
        tokens = cache_tokens_left(model, 80e9, dtype="bfloat16", num_sequences=number)
        assert candidate.steps.scheduler.cache_tokens == tokens
    assert isinstance(found[2], Rejection)
    assert "beside its weights and the states of 4096 sequences there is room for 0 tokens" in found[2].reason


def test_predicted_candidate_keeps_room_for_the_states_of_all_sequences_that_run():
    model = get_architecture("nemotron-nano-9b-v2")
    found = predicted_candidates(model, A100, longest=700, all_num_accelerators=[8], all_max_num_seqs=[1, 256])
    tokens = [it.steps.scheduler.cache_tokens for it in found]
    expected = [
        cache_tokens_left(model, 80e9, dtype="float16", tensor_parallel_size=8, num_sequences=n) for n in (1, 256)
    ]
    assert tokens == expected


def test_state_space_fits_wherever_its_weights_do():
    config = {"model_type": "mamba2", "hidden_size": 1024, "num_hidden_layers": 4, "vocab_size": 32768,
              "state_size": 128, "num_heads": 32, "head_dim": 64}  # fmt: skip
    model = Architecture.from_hf_config(config)
    assert cache_tokens_left(model, 1e9) > 1e9
    assert cache_tokens_left(model, 1e8) == 0


def test_server_whose_points_leave_no_time_for_a_step_is_left_out():
    # Of many at once alone, so that the line through them ends below zero at none.
    many = points().assign(concurrency=[64.0, 128.0, 512.0, 64.0, 256.0, 128.0, 512.0])
    many = many.assign(time_per_output_token_s=1e-4 * many["concurrency"])
    (found,) = candidates_of_points(many, scheduler=Scheduler(max_num_seqs=512))
    assert isinstance(found, Rejection)
    assert "at once, leave no time for a step by itself" in found.reason


def test_batches_that_points_do_not_have_are_a_caveat():
    (found,) = candidates_of_points(points(), scheduler=Scheduler())
    assert "of 1 to 64 sequences at once" in found.caveats[0]
