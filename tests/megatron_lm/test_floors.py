import json

import pytest
import torch
from makers import write_toy_log

from idealized_runtime.architectures import Architecture
from idealized_runtime.hardware.rates import best_rates
from idealized_runtime.measurements.timed_models import read_timed_model
from idealized_runtime.records import Journal
from megatron_lm import floors as floors_module
from megatron_lm import machine_rates
from megatron_lm.device import dtype_name
from megatron_lm.engines.onednn import onednn_takes
from megatron_lm.floors import Floors
from megatron_lm.machine_rates import measure_machine_rates

CPU = torch.device("cpu")
# 13 GB of weights, far beyond the cache that a floor allows for.
BIG = Architecture("big", num_layers=16, hidden_size=4096, num_attention_heads=32)
SETTING = {"num_prompt_tokens": 1, "num_output_tokens": 2, "batch_size": 1, "num_layers_profiled": 16}


def rates(memory_bytes_per_s, flops_per_s=1e18):
    return {
        "memory_bytes_per_s": memory_bytes_per_s,
        "copy_bytes_per_s": memory_bytes_per_s,
        "read_bytes_per_s": memory_bytes_per_s / 2,
        "matmul_flops_per_s": {"float32": flops_per_s},
        "cache_bytes": None,
    }


class FakeLog:
    def __init__(self):
        self.told = []

    def update_environment(self, machine_rates):
        self.told.append(machine_rates)


@pytest.fixture
def make_floors(monkeypatch):
    def make(*measured, architecture=BIG):
        left = list(measured)
        take = lambda device, dtype: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
        monkeypatch.setattr(floors_module, "measure_machine_rates", take)
        log = FakeLog()
        return Floors(architecture, CPU, torch.float32, 1, 1, log), log

    return make


def test_runtime_that_the_machine_can_reach_is_let_through(make_floors):
    floors, log = make_floors(rates(20e9))
    assert floors.why_impossible(SETTING, [5.0, 1.3]) is None
    assert log.told == [rates(20e9)]


def test_quickest_trial_below_the_floor_is_refused_with_both_numbers(make_floors):
    floors, _ = make_floors(rates(20e9))
    message = floors.why_impossible(SETTING, [5.0, 0.01])
    assert "a trial took 0.01 s" in message
    assert "Check that the clock waits for the device" in message


def test_rates_held_down_while_they_were_measured_refuse_nothing(make_floors):
    floors, log = make_floors(rates(1e9), rates(20e9))
    assert floors.why_impossible(SETTING, [1.3]) is None
    assert [told["memory_bytes_per_s"] for told in log.told] == [1e9, 20e9]


def test_floor_of_a_slice_is_of_its_layers(make_floors):
    floors, _ = make_floors(rates(20e9))
    assert floors.why_impossible(SETTING, [0.5]) is not None
    assert floors.why_impossible({**SETTING, "num_layers_profiled": 4}, [0.5]) is None


def test_model_in_the_cache_is_bound_by_computing_alone(make_floors):
    tiny = Architecture("tiny", num_layers=2, hidden_size=64, num_attention_heads=2)
    setting = {**SETTING, "num_layers_profiled": 2}
    slow_memory, _ = make_floors(rates(1.0), architecture=tiny)
    assert slow_memory.why_impossible(setting, [1e-5]) is None
    slow_units, _ = make_floors(rates(1e18, 1.0), architecture=tiny)
    assert slow_units.why_impossible(setting, [1e-5]) is not None


def test_where_nothing_is_known_of_the_machine_nothing_is_refused(make_floors, monkeypatch):
    monkeypatch.setattr(floors_module, "describe_hardware", lambda device: "unheard of")
    floors, log = make_floors(None)
    assert floors.why_impossible(SETTING, [1e-9]) is None
    assert log.told == [None]


def test_best_rates_are_the_highest_of_each():
    other = {**rates(1e9, 7.0), "matmul_flops_per_s": {"float32": 7.0, "bfloat16": 9.0}}
    best = best_rates([rates(2e9, 3.0), None, other])
    assert best["memory_bytes_per_s"] == 2e9
    assert best["matmul_flops_per_s"] == {"float32": 7.0, "bfloat16": 9.0}
    assert best_rates([None]) is None


def test_rates_that_a_resumed_run_found_count_for_its_log(tmp_path):
    path = write_toy_log(tmp_path / "toy.jsonl", environment={"machine_rates": rates(1e9)})
    lines = path.read_text().splitlines()
    resume = json.dumps({"record": "resume", "environment": {"machine_rates": rates(3e9)}})
    path.write_text("\n".join([*lines[:2], resume, *lines[2:-1]]) + "\n")
    assert read_timed_model(path).machine_rates["memory_bytes_per_s"] == 3e9


def test_rates_found_before_the_first_setting_stand_in_the_header_and_later_ones_in_a_resume(tmp_path):
    from makers import HEADER, SETTINGS

    path = tmp_path / "log.jsonl"
    with Journal(path, HEADER) as journal:
        journal.update_environment(machine_rates=rates(1e9))
        journal.append("setting", SETTINGS[0])
        journal.update_environment(machine_rates=rates(2e9))
        journal.append("setting", SETTINGS[1])
        journal.finish()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["record"] for record in found] == ["header", "setting", "resume", "setting", "footer"]
    assert found[0]["environment"] == {**HEADER["environment"], "machine_rates": rates(1e9)}
    assert found[2]["environment"]["machine_rates"]["memory_bytes_per_s"] == 2e9
    with Journal(path, HEADER) as journal:
        assert len(journal.log.completed) == 2, "another run's rates do not make it another measurement"


def test_a_machine_reaches_what_was_measured_of_it(monkeypatch):
    monkeypatch.setattr("megatron_lm.machine_rates._BUFFER_BYTES", {"cpu": 2**24})
    monkeypatch.setattr("megatron_lm.machine_rates._MATRIX_SIZE", {"cpu": 128})
    measured = measure_machine_rates(CPU, torch.bfloat16)
    assert measured["memory_bytes_per_s"] == max(measured["copy_bytes_per_s"], measured["read_bytes_per_s"]) > 0
    assert list(measured["matmul_flops_per_s"]) == [dtype_name(torch.bfloat16)] == ["bfloat16"]
    assert measured["cache_bytes"] is None


def test_matrix_products_are_rated_by_the_quickest_of_those_that_engines_make(monkeypatch):
    """On some CPUs oneDNN is twice as quick as the BLAS: a floor by the latter would refuse what was measured."""
    seconds = {"mm": 2.0, "linear_by_onednn": 1.0}

    def quickest_s(work, device):
        work()
        return next(s for name, s in seconds.items() if name in work.__code__.co_names)

    monkeypatch.setattr(machine_rates, "_quickest_s", quickest_s)
    monkeypatch.setattr(machine_rates, "_memory_rates", lambda device: (1.0, 1.0))
    for dtype in (torch.float32, torch.bfloat16):
        size = machine_rates._MATRIX_SIZE["cpu"]
        expected = 2 * size**3 / (1.0 if onednn_takes(torch.empty(0, dtype=dtype)) else 2.0)
        assert machine_rates.measure_machine_rates(CPU, dtype)["matmul_flops_per_s"][dtype_name(dtype)] == expected


def test_machine_without_room_to_measure_has_no_rates(monkeypatch):
    def refuse(device):
        raise MemoryError

    monkeypatch.setattr("megatron_lm.machine_rates._memory_rates", refuse)
    assert measure_machine_rates(CPU, torch.float32) is None
