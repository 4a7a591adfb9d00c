"""What one device can do at most: as the driver measured it and wrote it into the log, else by its data sheet."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from idealized_runtime.hardware.accelerators import find_accelerator

# Shares by which rates may be exceeded. A measured one is what one program reached: a copy loop reaches less than
# reading alone, 10 % less on the CPU of logs/cpu. And a device may clock above its data sheet.
MEASURED_RATE_TOLERANCE = 0.15
PEAK_RATE_TOLERANCE = 0.05
# Where a log does not say: more than any GPU before 2025 has (NVIDIA B200: 126 MB), and most processors.
CUDA_CACHE_BYTES, CPU_CACHE_BYTES = 128e6, 512e6


@dataclass(frozen=True)
class MachineRates:
    """What one device can do at most.

    Parameters
    ----------
    memory_bytes_per_s : float
    matmul_flops_per_s : float or None
        Of matrix products in the data type of the model; None: not known, and computing gives no floor.
    cache_bytes : float
        Last-level cache.
    is_measured : bool
        By a program on the machine; False: peaks of a data sheet.
    """

    memory_bytes_per_s: float
    matmul_flops_per_s: float | None
    cache_bytes: float
    is_measured: bool

    @property
    def tolerance(self) -> float:
        """Share by which the device may exceed these rates."""
        return MEASURED_RATE_TOLERANCE if self.is_measured else PEAK_RATE_TOLERANCE


def best_rates(measured: Iterable[Mapping | None]) -> dict | None:
    """The highest of each rate in measurements of one machine: what holds a machine up only ever lowers them.

    Parameters
    ----------
    measured : iterable of mapping or None
        As the driver writes them into a header's ``environment.machine_rates``: ``memory_bytes_per_s``,
        ``matmul_flops_per_s`` by data type and, if known, ``cache_bytes``. None: none was taken.

    Raises
    ------
    ValueError
        A rate is missing or not positive.
    """
    known = [rates for rates in measured if rates is not None]
    for rates in known:
        flops_per_s = rates.get("matmul_flops_per_s") if isinstance(rates, Mapping) else None
        if not isinstance(flops_per_s, Mapping) or not all(
            isinstance(rate, int | float) and 0 < rate < math.inf
            for rate in (rates.get("memory_bytes_per_s"), *flops_per_s.values())
        ):
            raise ValueError(
                "machine_rates must have memory_bytes_per_s and, by data type, matmul_flops_per_s, all positive; got "
                f"{rates!r:.80}"
            )
    if not known:
        return None
    best = {name: max(rates.get(name, 0.0) for rates in known) for name in known[0] if name.endswith("_bytes_per_s")}
    dtypes = sorted({dtype for rates in known for dtype in rates["matmul_flops_per_s"]})
    flops_per_s = {dtype: max(rates["matmul_flops_per_s"].get(dtype, 0.0) for rates in known) for dtype in dtypes}
    return {**known[0], **best, "matmul_flops_per_s": flops_per_s}


def device_rates(measured: Mapping | None, *, hardware: str, dtype: str, is_cuda: bool) -> MachineRates | None:
    """Rates as measured, else those of the accelerator; None where neither is known.

    Parameters
    ----------
    measured : mapping or None
        As from :func:`best_rates`.
    hardware : str
        As logs name it.
    dtype : str
        Of the matrix products.
    is_cuda : bool
    """
    cache_bytes = CUDA_CACHE_BYTES if is_cuda else CPU_CACHE_BYTES
    if measured is not None:
        flops_per_s = measured["matmul_flops_per_s"].get(dtype)
        cache_bytes = measured.get("cache_bytes") or cache_bytes
        return MachineRates(measured["memory_bytes_per_s"], flops_per_s, cache_bytes, True)
    accelerator = find_accelerator(hardware)
    if accelerator is None or accelerator.memory_bandwidth_bytes_per_s is None:
        return None
    is_measured = accelerator.sources["memory_bandwidth_bytes_per_s"].startswith("measured")
    flops_per_s = accelerator.peak_flops_per_s.get(dtype)
    return MachineRates(accelerator.memory_bandwidth_bytes_per_s, flops_per_s, cache_bytes, is_measured)
