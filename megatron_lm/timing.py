"""Wall-clock time of a repeated generation, and of the prompt encoding in it; and its energy."""

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch

from megatron_lm.device import synchronize
from megatron_lm.energy import EnergyMeter


@dataclass(frozen=True)
class Trials:
    """Seconds and joules of every run, in the order they were taken, unrounded; and what the last run returned."""

    warmups_s: list[float]
    runtimes_s: list[float]
    prompt_encoding_times_s: list[float]
    generation_times_s: list[float]
    # None without a meter.
    energies_joules: list[float] | None
    result: object


def time_trials(
    work: Callable[[Callable[[], None]], object],
    *,
    device: torch.device,
    num_warmup: int,
    num_trials: int,
    meter: EnergyMeter | None = None,
    barrier: Callable[[], None] = lambda: None,
    on_trial: Callable[[], object] = lambda: None,
) -> Trials:
    """Time each warm-up and each trial of ``work``.

    The device is idle before the clock starts and before it stops; the garbage collector and
    autograd are off in between.

    Parameters
    ----------
    work : callable
        Given a function that it calls once, when the prompts are encoded.
    meter : EnergyMeter, optional
        Read before the clock starts and after it stops.
    barrier : callable
        Called before each run, outside the timed region: waits for the other ranks.
    on_trial : callable
        Called after each run, outside the timed region.
    """
    clock = _Clock(device)
    runs, energies_joules = [], []
    result = None
    with _no_garbage_collection(), torch.inference_mode():
        for _ in range(num_warmup + num_trials):
            barrier()
            if meter is not None:
                meter.start()
            clock.start()
            result = work(clock.split)
            runs.append(clock.stop())
            if meter is not None:
                energies_joules.append(meter.joules())
            on_trial()
    prompts_s, runtimes_s = [prompt_s for prompt_s, _ in runs], [runtime_s for _, runtime_s in runs]
    trials = slice(num_warmup, None)
    return Trials(
        warmups_s=runtimes_s[:num_warmup],
        runtimes_s=runtimes_s[trials],
        prompt_encoding_times_s=prompts_s[trials],
        generation_times_s=[
            total - prompt for prompt, total in zip(prompts_s[trials], runtimes_s[trials], strict=True)
        ],
        energies_joules=None if meter is None else energies_joules[trials],
        result=result,
    )


@contextmanager
def _no_garbage_collection():
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Clock:
    """Stops once at the end and once on the way, there without holding up the device."""

    def __init__(self, device):
        self._device = device
        self._events = None
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def start(self):
        synchronize(self._device)
        self._start_s = perf_counter()
        if self._events:
            self._events[0].record()

    def split(self):
        if self._events:
            self._events[1].record()
        self._split_s = perf_counter()

    def stop(self) -> tuple[float, float]:
        """Seconds from the start to the split, and to now."""
        synchronize(self._device)
        runtime_s = perf_counter() - self._start_s
        if self._events:
            # Events take the device's time: the host is ahead of it when it passes the split.
            return min(self._events[0].elapsed_time(self._events[1]) / 1e3, runtime_s), runtime_s
        return self._split_s - self._start_s, runtime_s
