"""Joules that the device took, by its own counter: NVML's of a GPU, RAPL's of a processor and its memory.

A counter moves in steps (of 0.1 s or so on GPUs): a short trial's value is as coarse as they are, the mean over many
trials is not. Where no counter can be read there is no energy; a data sheet's power is no measurement.
"""

import contextlib
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


class NvmlMeter:
    """Total energy of one NVIDIA GPU, its memory included (Volta and later), by its uuid as torch gives it.

    The numbers of NVML know nothing of CUDA_VISIBLE_DEVICES. A counter that cannot be read is a pynvml.NVMLError.
    """

    # What is counted, as logs carry it.
    source = "NVML, total energy of the GPU"

    def __init__(self, uuid: str):
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        self._read_millijoules = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        self.start()

    def start(self):
        self._start = self._read_millijoules()

    def joules(self):
        return (self._read_millijoules() - self._start) / 1e3


class RaplMeter:
    """Energy of the processor packages and, where it is counted, the memory of this machine.

    On most systems only root may read the counters; others get an OSError.
    """

    def __init__(self):
        self._zones = [zone for zone in sorted(POWERCAP.glob("intel-rapl:*")) if _is_counted(zone)]
        if not self._zones:
            raise FileNotFoundError(f"{POWERCAP} has no counter of a processor")
        # Counters begin again at 0 beyond these.
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self.source = "RAPL, " + " + ".join(_name(zone) for zone in self._zones)
        self.start()

    def start(self):
        self._start = self._read_microjoules()

    def joules(self):
        counted = zip(self._read_microjoules(), self._start, self._ranges, strict=True)
        return sum((now - start) % (full + 1) for now, start, full in counted) / 1e6

    def _read_microjoules(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


def open_energy_meter(device: torch.device) -> NvmlMeter | RaplMeter | None:
    """Meter of the device; None where none can be read."""
    if device.type != "cuda":
        with contextlib.suppress(OSError, ValueError):
            return RaplMeter()
        return None
    try:
        import pynvml
    except ImportError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        return NvmlMeter(str(getattr(torch.cuda.get_device_properties(device), "uuid", "")))
    return None


def _is_counted(zone) -> bool:
    """Packages, and memory inside them; their other parts and the platform are counted there or beyond."""
    name = _name(zone)
    return name.startswith("package") or name == "dram"


def _name(zone) -> str:
    return (zone / "name").read_text().strip()
