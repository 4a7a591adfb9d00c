"""What a measurement ran on: device, versions, clocks, commit."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from megatron_lm.energy import open_energy_meter

ROOT = Path(__file__).resolve().parent.parent


def describe_hardware(device: torch.device) -> str:
    """Name of the device as logs carry it, such as ``Intel(R) Xeon(R) Processor, 2 cores`` or ``NVIDIA H200``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {_num_cores()} cores"


def describe_software(device: torch.device) -> dict[str, str]:
    """Versions that may change a timing."""
    software = {"megatron-core": _megatron_version(), "torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        software["cuda"] = torch.version.cuda
    return software


def describe_environment(device: torch.device) -> dict:
    """State of the machine at the start of a run; what could not be read is None."""
    meter, frequency = open_energy_meter(device), psutil.cpu_freq()
    environment = {
        "os": platform.platform(),
        "cpu_model": _cpu_model(),
        "num_cores": _num_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "cpu_clock_mhz": frequency.current if frequency and frequency.current else None,
        "load_average": list(os.getloadavg()),
        "num_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "gomp_spincount": os.environ.get("GOMP_SPINCOUNT"),
        "energy_counter": None if meter is None else meter.source,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_is_clean": _git_is_clean(),
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        environment["gpu"] = {
            "memory_bytes": gpu.total_memory, "num_multiprocessors": gpu.multi_processor_count, **_nvidia_smi(gpu)
        }  # fmt: skip
    return environment


def _megatron_version() -> str:
    # A Megatron-LM checkout on PYTHONPATH takes the package's place: ask the code that is imported.
    from megatron.core import package_info

    return getattr(package_info, "__version__", None) or version("megatron-core")


def _num_cores() -> int:
    # Cores this process may use, which in a container can be fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _nvidia_smi(properties) -> dict:
    """Driver, clocks and power of the GPU of these properties, as its own tool says; None where there is no tool."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "uuid")
    values = [None] * len(fields)
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [row.split(", ") for row in answer.stdout.splitlines()] if answer.returncode == 0 else []
        # CUDA_VISIBLE_DEVICES renumbers devices: only the UUID tells which row is ours.
        ours = [row for row in rows if len(row) == len(fields) and str(getattr(properties, "uuid", "?")) in row[-1]]
        values = (ours or rows[:1] or [values])[0]
    return dict(zip(fields, values, strict=True))


def _git(*arguments) -> str | None:
    if shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def _git_is_clean() -> bool | None:
    # What runs write does not change what is timed.
    written = [f":!{folder}" for folder in ("logs", "processed_jsons", "figures", "notebooks")]
    changes = _git("status", "--porcelain", "--", ".", *written)
    return None if changes is None else changes == ""
