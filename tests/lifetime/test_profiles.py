import json

import numpy as np
import pytest

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.measurements.timed_models import read_timed_models


def make_runtime(*, source=None, overhead_s=None):
    """t(p, o) = 0.01 p + 0.1 (o - 1)."""
    sources = () if source is None else ({"file": source, "sha256": "0"},)
    return RuntimeModel(
        num_prompt_tokens=np.array([1, 100]),
        profiled_prompt_times_s=np.array([0.01, 1.0]),
        time_per_output_token_s=0.1,
        reference_num_prompt_tokens=1,
        overhead_s=overhead_s,
        sources=sources,
    )


def write_parameters(path, **runtimes):
    path.write_text(json.dumps({name: runtime.to_json() for name, runtime in runtimes.items()}))
    return path


def test_aliases_of_one_architecture_count_once_and_models_come_by_size():
    profiles = read_profiles(ROOT / "processed_jsons" / "a100.json")
    assert len(profiles) == 13
    sizes = [profile.num_params for profile in profiles]
    assert sizes == sorted(sizes)
    assert {profile.hardware for profile in profiles} == {"a100"}


@pytest.mark.filterwarnings("ignore::idealized_runtime.records.RepeatedSettingWarning")
@pytest.mark.parametrize("hardware", ["a100", "v100"])
def test_accelerators_of_the_published_models_are_those_of_their_logs(hardware):
    logs = read_timed_models(hardware)
    for profile in read_profiles(ROOT / "processed_jsons" / f"{hardware}.json"):
        first = logs[profile.name].runtimes.iloc[0]
        # Three stages of 35 layers each stand for all 105.
        stages = 3 if profile.name == "tnlg-v2" else first["pipeline_parallel_size"]
        assert profile.num_accelerators == first["tensor_parallel_size"] * stages, profile.name
        assert profile.batch_size == first["batch_size"]


def test_published_models_are_placed_without_their_logs(monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "/nowhere")
    assert [profile.num_accelerators for profile in read_profiles(ROOT / "processed_jsons" / "v100.json")] == [
        1, 1, 1, 2, 2, 4, 8, 16, 16, 16, 48,
    ]  # fmt: skip


def test_committed_models_are_placed_by_their_logs():
    profiles = read_profiles(ROOT / "processed_jsons" / "cpu.json")
    found = [(profile.num_accelerators, profile.batch_size, profile.hardware, profile.dtype) for profile in profiles]
    assert found == 4 * [(1, 1, "cpu", "float32")]


def test_batch_size_that_the_parameters_state_counts(tmp_path):
    path = write_parameters(tmp_path / "parameters.json", **{"gpt2-small": make_runtime(source="cpu/gpt2-small.jsonl")})
    entries = json.loads(path.read_text())
    entries["gpt2-small"]["fit"]["batch_size"] = 16
    path.write_text(json.dumps(entries))
    (profile,) = read_profiles(path)
    assert profile.batch_size == 16


def test_models_are_chosen_by_either_name():
    path = ROOT / "processed_jsons" / "a100.json"
    names = [profile.name for profile in read_profiles(path, models=["openai/ada", "bloom"])]
    assert names == ["ada", "bloom"]


def test_number_of_accelerators_can_be_given(tmp_path):
    path = write_parameters(tmp_path / "parameters.json", davinci=make_runtime())
    (profile,) = read_profiles(path, num_accelerators={"davinci": 4})
    assert profile.num_accelerators == 4


def test_number_of_accelerators_without_a_name_is_that_of_all_others(tmp_path):
    path = write_parameters(tmp_path / "parameters.json", **{"davinci": make_runtime(), "gpt-j": make_runtime()})
    assert [profile.num_accelerators for profile in read_profiles(path, num_accelerators={None: 4, "gpt-j": 2})] == [
        2,
        4,
    ]


def test_number_of_accelerators_may_be_given_by_the_name_in_the_registry(tmp_path):
    path = write_parameters(tmp_path / "parameters.json", **{"openai/davinci": make_runtime()})
    assert read_profiles(path, num_accelerators={"davinci": 4})[0].num_accelerators == 4


@pytest.mark.parametrize(
    ("runtimes", "options", "message"),
    [
        ({"davinci": make_runtime()}, {}, "davinci: its number of accelerators is not known: give num_accelerators"),
        ({"mystery": make_runtime()}, {}, "mystery: its size is not known"),
        ({"davinci": make_runtime(overhead_s=0.2)}, {}, "davinci: timed through an API"),
        ({"davinci": make_runtime()}, {"models": ["curie"]}, "no model curie; there are: davinci"),
        (
            {"davinci": make_runtime()},
            {"num_accelerators": {"davinci": 8, "divinci": 1}},
            r"no model divinci \(did you mean davinci\?\); there are: davinci",
        ),
        ({"davinci": make_runtime()}, {"num_accelerators": {"davinci": 0}}, "num_accelerators must be a positive"),
    ],
)
def test_model_that_cannot_be_placed_is_named(tmp_path, runtimes, options, message):
    path = write_parameters(tmp_path / "parameters.json", **runtimes)
    with pytest.raises(ValueError, match=f"parameters.json: .*{message}"):
        read_profiles(path, **options)
