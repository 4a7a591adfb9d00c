import sys
from types import SimpleNamespace

import pytest
import torch

from megatron_lm import energy, timing

CPU = torch.device("cpu")


def write_zone(folder, number, name, microjoules, full=10**9):
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir()
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", full)):
        (zone / file).write_text(f"{content}\n")
    return zone


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def test_energy_of_a_processor_is_that_of_packages_and_memory(powercap):
    zones = [write_zone(powercap, "0", "package-0", 1_000_000), write_zone(powercap, "0:1", "dram", 500_000)]
    ignored = [write_zone(powercap, "0:0", "core", 0), write_zone(powercap, "1", "psys", 0)]
    meter = energy.open_energy_meter(CPU)
    for zone in (*zones, *ignored):
        (zone / "energy_uj").write_text("3000000")
    assert meter.joules() == pytest.approx(2.0 + 2.5)
    assert meter.source == "RAPL, package-0 + dram"


def test_counter_that_begins_again_goes_on(powercap):
    zone = write_zone(powercap, "0", "package-0", 900, full=999)
    meter = energy.open_energy_meter(CPU)
    (zone / "energy_uj").write_text("100")
    assert meter.joules() == pytest.approx(200e-6)


def test_machine_without_a_counter_has_no_meter(powercap):
    assert energy.open_energy_meter(CPU) is None


def test_counter_that_only_root_may_read_is_no_meter(powercap, monkeypatch):
    zone = write_zone(powercap, "0", "package-0", 1)
    (zone / "energy_uj").unlink()
    assert energy.open_energy_meter(CPU) is None


class FakeNvmlError(Exception):
    pass


def fake_nvml(monkeypatch, read):
    asked = []
    library = SimpleNamespace(
        NVMLError=FakeNvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: read(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    return asked


def test_energy_of_a_gpu_is_nvmls_total_of_that_gpu(monkeypatch):
    readings = iter([5000, 6000, 8500])
    asked = fake_nvml(monkeypatch, lambda: next(readings))
    meter = energy.open_energy_meter(torch.device("cuda"))
    meter.start()
    assert meter.joules() == pytest.approx(2.5)
    assert asked == ["GPU-1-2"]


def test_gpu_whose_counter_cannot_be_read_has_no_meter(monkeypatch):
    def refuse():
        raise FakeNvmlError

    fake_nvml(monkeypatch, refuse)
    assert energy.open_energy_meter(torch.device("cuda")) is None


def test_gpu_without_nvmls_package_has_no_meter(monkeypatch):
    fake_nvml(monkeypatch, lambda: 0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.open_energy_meter(torch.device("cuda")) is None


class CountingMeter:
    """One joule a piece of work, however often it is read."""

    source = "test"

    def __init__(self):
        self.done = self._start = 0

    def start(self):
        self._start = self.done

    def joules(self):
        return float(self.done - self._start)


def test_each_trial_has_its_energy_and_warm_ups_are_left_out():
    meter = CountingMeter()

    def work(split):
        split()
        meter.done += 1 if meter.done < 100 else 2
        meter.done = max(meter.done, 100)

    trials = timing.time_trials(work, device=CPU, num_warmup=1, num_trials=3, meter=meter)
    assert trials.energies_joules == [2.0, 2.0, 2.0]


def test_without_a_meter_there_is_no_energy():
    trials = timing.time_trials(lambda split: split(), device=CPU, num_warmup=0, num_trials=1)
    assert trials.energies_joules is None
