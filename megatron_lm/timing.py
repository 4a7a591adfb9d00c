"""Wall-clock time of a repeated generation, and of the prompt encoding in it; and its energy."""

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, time

import torch

from megatron_lm.device import synchronize
from megatron_lm.energy import NvmlMeter, RaplMeter


@dataclass
class Trials:
    """Seconds and joules of every run, in the order they were taken, unrounded; and what the last run returned."""

    warmups_s: list[float] = field(default_factory=list)
    runtimes_s: list[float] = field(default_factory=list)
    prompt_encoding_times_s: list[float] = field(default_factory=list)
    generation_times_s: list[float] = field(default_factory=list)
    # None without a meter.
    energies_joules: list[float] | None = None
    trial_starts_s: list[float] = field(default_factory=list)
    # Of warm-ups and trials: how much longer each was by the system's clock.
    clock_gaps_s: list[float] = field(default_factory=list)
    result: object = None

    def record(self, num_trials: int | None = None) -> dict:
        """The fields of a log, of the first ``num_trials`` trials."""
        times = {name: values for name, values in vars(self).items() if name not in ("result", "clock_gaps_s")}
        kept = {name: values and values[:num_trials] for name, values in times.items()}
        return {**kept, "warmups_s": self.warmups_s}


def time_trials(
    work: Callable[[Callable[[], None]], object],
    *,
    device: torch.device,
    num_warmup: int,
    num_trials: int,
    meter: NvmlMeter | RaplMeter | None = None,
    barrier: Callable[[], None] = lambda: None,
    on_trial: Callable[[], object] = lambda: None,
    origin_s: float = 0.0,
    trials: Trials | None = None,
) -> Trials:
    """Time each warm-up and each trial of ``work``.

    The device is idle before the clock starts and before it stops; the garbage collector and
    autograd are off in between.

    Parameters
    ----------
    work : callable
        Given a function that it calls once, when the prompts are encoded.
    meter : optional
        Read before the clock starts and after it stops.
    barrier : callable
        Called before each run, outside the timed region: waits for the other ranks.
    on_trial : callable
        Called after each run, outside the timed region.
    origin_s : float
        Reading of ``perf_counter`` from which the starts of trials are counted.
    trials : Trials, optional
        Is given what is timed, as it is timed: an exception in ``work`` leaves what came before it.
    """
    clock = _Clock(device)
    trials = Trials() if trials is None else trials
    if meter is not None:
        trials.energies_joules = []
    with _no_garbage_collection(), torch.inference_mode():
        for run in range(num_warmup + num_trials):
            barrier()
            if meter is not None:
                meter.start()
            start_s = clock.start()
            trials.result = work(clock.split)
            prompt_s, runtime_s = clock.stop()
            trials.clock_gaps_s.append(clock.gap_s)
            if run < num_warmup:
                trials.warmups_s.append(runtime_s)
            else:
                if meter is not None:
                    trials.energies_joules.append(meter.joules())
                trials.trial_starts_s.append(start_s - origin_s)
                trials.prompt_encoding_times_s.append(prompt_s)
                trials.generation_times_s.append(runtime_s - prompt_s)
                # The last: as many trials as there are runtimes are whole.
                trials.runtimes_s.append(runtime_s)
            on_trial()
    return trials


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
        # How much longer the last run was by the system's clock.
        self.gap_s = 0.0
        self._events = None
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def start(self) -> float:
        """Reading of the clock, from now on."""
        synchronize(self._device)
        self._start_by_system_s, self._start_s = time(), perf_counter()
        if self._events:
            self._events[0].record()
        return self._start_s

    def split(self):
        if self._events:
            self._events[1].record()
        self._split_s = perf_counter()

    def stop(self) -> tuple[float, float]:
        """Seconds from the start to the split, and to now."""
        synchronize(self._device)
        runtime_s = perf_counter() - self._start_s
        self.gap_s = time() - self._start_by_system_s - runtime_s
        if self._events:
            # Events take the device's time: the host is ahead of it when it passes the split.
            return min(self._events[0].elapsed_time(self._events[1]) / 1e3, runtime_s), runtime_s
        return self._split_s - self._start_s, runtime_s
