"""What the machine reaches at most, measured before a sweep: the rates that floors of runtimes are made of."""

from collections.abc import Callable
from time import perf_counter

import psutil
import torch

from megatron_lm import device as devices
from megatron_lm.engines.onednn import linear_by_onednn, onednn_takes

METHOD = (
    "quickest of repeats with torch: memory is the better of a copy (bytes read and written) and a sum (bytes read) "
    "of one buffer far larger than the caches; matmul is a product of two square matrices of random numbers, by the "
    "quicker of the BLAS and oneDNN"
)
# Beyond every cache that a floor allows for (see idealized_runtime.hardware.roofline).
_BUFFER_BYTES = {"cpu": 2**28, "cuda": 2**31}
_MAX_SHARE_OF_FREE_MEMORY = 1 / 8
_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
# Launching work and waiting for it takes 10 us on a GPU: many calls share one wait.
_CALLS_PER_TIMING = {"cpu": 1, "cuda": 10}
_MIN_TIMINGS, _MAX_TIMINGS, _TIME_S = 3, 20, 0.15


def measure_machine_rates(device: torch.device, dtype: torch.dtype) -> dict | None:
    """Memory and matrix-product rates of one device, in about a second.

    Returns
    -------
    dict or None
        ``memory_bytes_per_s``, the larger of ``copy_bytes_per_s`` and ``read_bytes_per_s``;
        ``matmul_flops_per_s`` by data type, here of ``dtype`` alone; ``cache_bytes`` of a GPU's L2 (a CPU's
        is not asked for: virtual machines hide how much of it they have); ``method``. None where there is
        too little memory to measure.
    """
    try:
        copy_bytes_per_s, read_bytes_per_s = _memory_rates(device)
        flops_per_s = _matmul_rate(device, dtype)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        return None
    finally:
        devices.release_memory(device)
    return {
        "memory_bytes_per_s": max(copy_bytes_per_s, read_bytes_per_s),
        "copy_bytes_per_s": copy_bytes_per_s,
        "read_bytes_per_s": read_bytes_per_s,
        "matmul_flops_per_s": {devices.dtype_name(dtype): flops_per_s},
        "cache_bytes": torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else None,
        "method": METHOD,
    }


def _memory_rates(device) -> tuple[float, float]:
    """Bytes a second of a copy, and of reading alone."""
    free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    num_bytes = int(min(_BUFFER_BYTES[device.type], _MAX_SHARE_OF_FREE_MEMORY * free_bytes))
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy_s = _quickest_s(lambda: target.copy_(source), device)
    return 2 * source.nbytes / copy_s, source.nbytes / _quickest_s(source.sum, device)


def _matmul_rate(device, dtype) -> float:
    size = _MATRIX_SIZE[device.type]
    generator = torch.Generator(device).manual_seed(0)
    # Products of zeros are quicker than those of real numbers: the device draws less power and clocks higher.
    left, right = (torch.empty(size, size, dtype=dtype, device=device).normal_(generator=generator) for _ in range(2))
    product = torch.empty_like(left)
    ways = [lambda: torch.mm(left, right, out=product)]
    if onednn_takes(right):
        # By CPU it is twice as quick as the BLAS, and the engines use it: a floor must not be above them.
        ways.append(lambda: linear_by_onednn(left, right))
    return 2 * size**3 / min(_quickest_s(way, device) for way in ways)


def _quickest_s(work: Callable[[], object], device) -> float:
    """Seconds of one call, the first of which does not count."""
    work()
    num_calls = _CALLS_PER_TIMING[device.type]
    timings_s = []
    while len(timings_s) < _MIN_TIMINGS or (len(timings_s) < _MAX_TIMINGS and sum(timings_s) < _TIME_S):
        devices.synchronize(device)
        start_s = perf_counter()
        for _ in range(num_calls):
            work()
        devices.synchronize(device)
        timings_s.append(perf_counter() - start_s)
    return min(timings_s) / num_calls
