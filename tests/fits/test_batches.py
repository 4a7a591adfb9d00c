"""One batch size of a log: its settings, its model, its parameter file."""

import json

import pandas as pd
import pytest

from idealized_runtime import RuntimeModel, read_log
from idealized_runtime.fits import model_from_json, settings_of_batch
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.measurements.timed_models import fit_models, read_timed_models


def make_timings(*, prompt_sizes=(128,), output_sizes=(9,), batch_sizes=(1, 8)):
    """Batches of B take B times 1 ms a prompt token to encode, and (10 + B) ms an output token."""
    rows = [(p, o, batch) for batch in batch_sizes for p in prompt_sizes for o in output_sizes]
    timings = pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "batch_size"])
    prompt_s = 1e-3 * timings["batch_size"] * timings["num_prompt_tokens"]
    generation_s = 1e-3 * (10 + timings["batch_size"]) * (timings["num_output_tokens"] - 1)
    return timings.assign(
        runtime_s=prompt_s + generation_s, prompt_encoding_time_s=prompt_s, generation_time_s=generation_s
    )


def test_settings_are_those_of_the_batch_size():
    timings = make_timings(output_sizes=(1, 9))
    assert settings_of_batch(timings, 8)["batch_size"].unique().tolist() == [8]
    assert len(settings_of_batch(timings, 8)) == 2


def test_prompts_that_were_timed_as_a_part_are_the_runtime_of_one_output_token():
    settings = settings_of_batch(make_timings(output_sizes=(9, 17)), 8)
    assert settings["num_output_tokens"].tolist() == [9, 17, 1]
    assert settings["runtime_s"].iloc[-1] == pytest.approx(8 * 0.128)


def test_log_of_text_without_parts_gives_its_rows_alone():
    timings = make_timings(output_sizes=(1, 9)).drop(columns=["prompt_encoding_time_s", "generation_time_s"])
    assert settings_of_batch(timings, 1)["num_output_tokens"].tolist() == [1, 9]


def test_batch_size_that_was_not_timed_is_refused_with_those_that_were():
    with pytest.raises(ValueError, match="batch_size must be one that was timed: 1, 8; got 4"):
        settings_of_batch(make_timings(), 4)


def test_model_of_a_batch_is_that_of_the_whole_batch_and_knows_its_size():
    model = RuntimeModel.fit(settings_of_batch(make_timings(), 8), min_prompt_sizes=1)
    assert model.batch_size == 8
    assert model.predict(128, 65) == pytest.approx(8 * 0.128 + 64 * 0.018)


def test_single_prompt_size_predicts_no_other():
    model = RuntimeModel.fit(settings_of_batch(make_timings(), 8), min_prompt_sizes=1)
    with pytest.raises(ValueError, match=r"num_prompt_tokens must lie in \[128, 128\]"):
        model.predict(64, 2)
    with pytest.raises(ValueError, match="one prompt size was profiled, 128, so there is no line to go on along"):
        model.predict(256, 2, extrapolate=True)


def test_several_prompt_sizes_are_fitted_as_ever():
    timings = make_timings(prompt_sizes=(64, 128), output_sizes=(9, 17))
    model = RuntimeModel.fit(settings_of_batch(timings, 8))
    assert model.prompt_encoding_time_s(96) == pytest.approx(8 * 0.096)


@pytest.mark.parametrize("batch_size", [None, 1, 8])
def test_batch_size_is_kept_in_the_parameters(batch_size):
    timings = make_timings(prompt_sizes=(64, 128), output_sizes=(1, 9), batch_sizes=(batch_size or 1,))
    timings = timings if batch_size else timings.drop(columns="batch_size")
    model = RuntimeModel.fit(timings)
    assert model.batch_size == batch_size
    entry = json.loads(json.dumps(model.to_json()))
    assert entry["fit"].get("batch_size") == batch_size
    assert model_from_json(entry).batch_size == batch_size


@pytest.mark.parametrize("value", [0, 1.5, "8", True])
def test_impossible_batch_size_of_a_parameter_file_is_refused(value):
    entry = RuntimeModel.fit(make_timings(prompt_sizes=(64, 128), batch_sizes=(1,), output_sizes=(1, 9))).to_json()
    entry["fit"]["batch_size"] = value
    with pytest.raises(ValueError, match=r"fit\.batch_size must be an integer of at least 1; got"):
        model_from_json(entry)


@pytest.mark.filterwarnings("ignore::idealized_runtime.records.IncompleteLogWarning")
def test_committed_batches_give_the_times_of_their_log():
    model = fit_models(read_timed_models("cpu_batch", ["gpt2-small"]), batch_size=32)["gpt2-small"]
    row = read_log(ROOT / "logs/cpu_batch/gpt2-small.jsonl").set_index("batch_size").loc[32]
    assert model.predict(128, 9) == pytest.approx(row["runtime_s"], rel=1e-6)
    assert model.prompt_encoding_time_s(128) == pytest.approx(row["prompt_encoding_time_s"], rel=1e-6)
