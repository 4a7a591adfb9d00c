"""CPU or CUDA; and the stand-ins that let megatron-core run where there is no CUDA."""

import gc
import resource
import sys
from pathlib import Path

import psutil
import torch
from megatron.core.fusions import fused_softmax
from megatron.core.tensor_parallel.random import initialize_rng_tracker

from megatron_lm import ranks
from megatron_lm.engines import ENGINES, PORTABLE_ENGINES

# Megatron's own, which a process that has run on a CPU takes up again on CUDA.
_CURRENT_CUDA_DEVICE, _CUDA_WINDOW_MASK = torch.cuda.current_device, fused_softmax.get_sliding_window_causal_mask
# Where a container finds its own limit: control groups, version 2 and version 1.
_CONTAINER_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def select_device(name: str) -> torch.device:
    """Device to measure on, ready for megatron-core.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        ``auto`` takes CUDA where there is one.

    Raises
    ------
    ValueError
        CUDA is asked for and there is none, or there are fewer devices than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; allowed: --device cpu, or auto")
    device = torch.device("cpu")
    if name != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", ranks.local_rank())
        if device.index >= torch.cuda.device_count():
            raise ValueError(
                f"{ranks.num_local_ranks()} processes on a machine with {torch.cuda.device_count()} CUDA devices: "
                "--nproc-per-node must not exceed them"
            )
        torch.cuda.set_device(device)
        torch.cuda.current_device = _CURRENT_CUDA_DEVICE
        fused_softmax.get_sliding_window_causal_mask = _CUDA_WINDOW_MASK
    else:
        # megatron-core allocates on "the current CUDA device"; where that is the CPU it runs there unchanged.
        torch.cuda.current_device = lambda: torch.device("cpu")
        # So does its mask of windowed attention, by name.
        fused_softmax.get_sliding_window_causal_mask = _sliding_window_causal_mask
    # Dropout is off: no random state need be forked around it, and on a CPU there is no CUDA state to fork.
    initialize_rng_tracker(inference_rng_tracker=True, force_reset=True)
    return device


def require_device_of(engine: str, device: torch.device):
    """Refuse, by a ValueError, an inference engine that does not run on the device."""
    if ENGINES[engine].needs_cuda and device.type != "cuda":
        raise ValueError(
            f"--inference-engine {engine} needs CUDA, and torch finds no CUDA device here; "
            f"use {' or '.join(PORTABLE_ENGINES)}"
        )


def _sliding_window_causal_mask(num_queries, num_keys, window_size):
    """Which keys are hidden from each query: all but ``window_size[0]`` before its own position to [1] behind."""
    own_positions = torch.arange(num_keys - num_queries, num_keys).unsqueeze(1)
    distances = torch.arange(num_keys) - own_positions
    return (distances < -window_size[0]) | (distances > window_size[1])


def limit_host_memory(device: torch.device):
    """On a CPU, let an allocation beyond the free memory fail with an error, before the system kills the process.

    Processes of one machine share what is free. To be called when the process groups stand: the stacks of their
    threads, hundreds of MiB that are reserved and hardly used, would count against the limit.
    """
    # Elsewhere the limit does not cover what torch allocates.
    if device.type != "cpu" or sys.platform != "linux":
        return
    memory = psutil.Process().memory_info()
    free = [psutil.virtual_memory().available]
    for path in _CONTAINER_MEMORY_LIMITS:
        # Version 2 says "max" where there is no limit.
        if path.exists() and (limit := path.read_text().strip()).isdigit():
            free.append(max(0, int(limit) - memory.rss))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory.data + min(free) // ranks.num_local_ranks()
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def select_dtype(device: torch.device, name: str) -> torch.dtype:
    """Data type of weights and activations, by its name in logs; float16 on a CPU is a ValueError."""
    if name == "float16" and device.type == "cpu":
        raise ValueError("--fp16 needs a CUDA device; on a CPU use --bf16, or neither for float32")
    return getattr(torch, name)


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a data type as logs carry it, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def synchronize(device: torch.device):
    """Wait until the device has done all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The words of torch's CPU allocator, of the CUDA driver and of cuBLAS.
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def release_memory(device: torch.device):
    """Give freed blocks back, so that the next setting can have them."""
    # An engine whose captured steps refer to it is in a cycle with them.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
