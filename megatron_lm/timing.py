"""Wall-clock time of a repeated piece of work."""

import gc
from collections.abc import Callable
from time import perf_counter

import torch

from megatron_lm.device import synchronize


def time_trials(
    work: Callable[[], object],
    *,
    device: torch.device,
    num_warmup: int,
    num_trials: int,
    on_trial: Callable[[], object] = lambda: None,
) -> tuple[list[float], list[float], object]:
    """Seconds of each warm-up and of each trial of ``work``, and what its last run returned.

    The device is idle before the clock starts and before it stops; the garbage collector and
    autograd are off in between. ``on_trial`` is called after each run, outside the timed region.

    Returns
    -------
    warmups_s, runtimes_s : list of float
        In the order they were taken, unrounded.
    result : object
    """
    seconds = []
    result = None
    gc.collect()
    gc_was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            for _ in range(num_warmup + num_trials):
                synchronize(device)
                start_s = perf_counter()
                result = work()
                synchronize(device)
                seconds.append(perf_counter() - start_s)
                on_trial()
    finally:
        if gc_was_enabled:
            gc.enable()
    return seconds[:num_warmup], seconds[num_warmup:], result
