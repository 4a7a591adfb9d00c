"""Floors of a runtime: no program reads faster than the memory, or computes faster than the matrix units.

A floor is the longer of reading (each weight in use once, and the cache of keys and values) and computing (the
products that cannot be left out), at the machine's rates: those the driver measured and wrote into the log, else
the accelerator's peaks. The distance of a measurement from its floor is what better software could still gain.

A measurement below its floor is impossible, and refused. Two things make an honest one look too fast, and are
allowed for. A measured rate is what one program reached, and a device may clock above its data sheet: the check
takes rates ``MEASURED_RATE_TOLERANCE`` and ``PEAK_RATE_TOLERANCE`` higher. And the last-level cache may keep weights
from one pass to the next: the check counts as read from memory only what exceeds it, so that reading says nothing of
a model that fits the cache.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.flops import least_output_token_flops, output_token_bytes, prompt_encoding_flops
from idealized_runtime.hardware import Accelerator, get_accelerator
from idealized_runtime.measurements import find_logs, model_of_log
from idealized_runtime.records import LogFormatError
from idealized_runtime.timed_models import TimedModel, read_timed_model

# A copy loop reaches less than reading alone: 10 % less on the CPU of logs/cpu.
MEASURED_RATE_TOLERANCE = 0.15
PEAK_RATE_TOLERANCE = 0.05
# Where a log does not say: more than any GPU before 2025 has (NVIDIA B200: 126 MB), and most processors.
CUDA_CACHE_BYTES, CPU_CACHE_BYTES = 128e6, 512e6
_MAX_NAMED = 3
_TOKEN = "output token"


class ImpossibleMeasurementError(ValueError):
    """A runtime is shorter than reading the weights, or computing the products, can take."""


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


def machine_rates(model: TimedModel) -> MachineRates | None:
    """:func:`device_rates` of the machine that a model was timed on."""
    return device_rates(model.machine_rates, hardware=model.hardware, dtype=model.dtype, is_cuda=model.is_cuda)


def device_rates(measured: Mapping | None, *, hardware: str, dtype: str, is_cuda: bool) -> MachineRates | None:
    """Rates as measured, else those of the accelerator; None where neither is known.

    Parameters
    ----------
    measured : mapping or None
        As the driver writes it into the header's ``environment.machine_rates``: ``memory_bytes_per_s``,
        ``matmul_flops_per_s`` by data type and, if known, ``cache_bytes``.
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
    accelerator = known_accelerator(hardware)
    if accelerator is None or accelerator.memory_bandwidth_bytes_per_s is None:
        return None
    is_measured = accelerator.sources["memory_bandwidth_bytes_per_s"].startswith("measured")
    flops_per_s = accelerator.peak_flops_per_s.get(dtype)
    return MachineRates(accelerator.memory_bandwidth_bytes_per_s, flops_per_s, cache_bytes, is_measured)


def known_accelerator(hardware: str) -> Accelerator | None:
    """Row of ``hardware`` for the name that a log has for its machine; None where there is none."""
    try:
        return get_accelerator(hardware)
    except ValueError:
        return None


@dataclass(frozen=True)
class Roofline:
    """Floors of one architecture on devices of given rates, for every sequence of a batch at once.

    A sequence passes the stages of a pipeline one after the other, so stages shorten only what a batch adds.

    Parameters
    ----------
    architecture : Architecture
    rates : MachineRates
    dtype : str
    tensor_parallel_size, pipeline_parallel_size : int
    """

    architecture: Architecture
    rates: MachineRates
    dtype: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1

    def prompt_encoding_s(self, num_prompt_tokens, *, batch_size: int = 1, cache_bytes: float = 0.0):
        """Seconds below which no prompts of this size are encoded; ``cache_bytes`` need not be read from memory."""
        # Keys and values are written, not read; half of all pairs are what a causal mask leaves.
        flops = prompt_encoding_flops(self.architecture, num_prompt_tokens, attention="causal")
        return self._longest_s(self._weight_bytes() + 0.0 * flops, 0.0, flops, batch_size, cache_bytes)

    def output_token_s(self, num_context_tokens, *, batch_size: int = 1, cache_bytes: float = 0.0):
        """Seconds below which no further output token comes, after so many tokens (itself included)."""
        context = np.asarray(num_context_tokens, dtype=float)
        # An engine may cache latents, which are the fewest bytes, or what is made of them, the fewest operations.
        flops = least_output_token_flops(self.architecture, context)
        # Of one sequence: experts that no token of a batch visits are not read, and all may visit the same.
        num_bytes = output_token_bytes(self.architecture, context, dtype=self.dtype)
        weights = self._weight_bytes()
        return self._longest_s(weights, num_bytes - weights, flops, batch_size, cache_bytes)

    def query_s(self, num_prompt_tokens, num_output_tokens, *, batch_size: int = 1, cache_bytes: float = 0.0):
        """Seconds below which no query of p prompt and o output tokens ends; arrays broadcast."""
        p, o = np.asarray(num_prompt_tokens, dtype=float), np.asarray(num_output_tokens, dtype=float)
        options = {"batch_size": batch_size, "cache_bytes": cache_bytes}
        # The first token has the shortest context; where layers attend to chunks, one may be at the start of its own.
        context = np.ones_like(p) if self.architecture.window_is_chunk else p + 1
        return self.prompt_encoding_s(p, **options) + (o - 1) * self.output_token_s(context, **options)

    def possible_s(self, num_prompt_tokens, num_output_tokens, *, batch_size: int = 1):
        """Seconds below which no honest measurement of a query lies: the cache and faster rates are allowed for."""
        options = {"batch_size": batch_size, "cache_bytes": self.rates.cache_bytes}
        return self.query_s(num_prompt_tokens, num_output_tokens, **options) / (1 + self.rates.tolerance)

    def _weight_bytes(self) -> float:
        """Bytes of weights one token reads."""
        two, one = (output_token_bytes(self.architecture, context, dtype=self.dtype) for context in (2, 1))
        return float(one - (two - one))

    def _longest_s(self, weight_bytes, sequence_bytes, flops, batch_size, cache_bytes):
        width, depth = self.tensor_parallel_size, self.pipeline_parallel_size
        sequence_s = self._seconds((weight_bytes + sequence_bytes) / width, flops / width, cache_bytes * depth)
        batch_bytes = (weight_bytes + batch_size * sequence_bytes) / (width * depth)
        batch_s = self._seconds(batch_bytes, batch_size * flops / (width * depth), cache_bytes)
        return np.maximum(sequence_s, batch_s)

    def _seconds(self, num_bytes, flops, cache_bytes):
        reading_s = np.maximum(num_bytes - cache_bytes, 0.0) / self.rates.memory_bytes_per_s
        if self.rates.matmul_flops_per_s is None:
            return reading_s
        return np.maximum(reading_s, flops / self.rates.matmul_flops_per_s)


def roofline_of(model: TimedModel) -> Roofline | None:
    """Roofline of a timed model; None where nothing is known of its machine."""
    rates = machine_rates(model)
    if rates is None:
        return None
    return Roofline(model.architecture, rates, model.dtype, model.tensor_parallel_size, model.pipeline_parallel_size)


def refuse_impossible(model: TimedModel):
    """Refuse a log that holds a runtime below its floor; one of a machine of which nothing is known passes.

    The quickest trial counts where the log has trials, and rounding is allowed for.

    Raises
    ------
    ImpossibleMeasurementError
        The message names settings, runtimes and floors.
    """
    roofline = roofline_of(model)
    if roofline is None:
        return
    settings = model.runtimes
    runtime_s = settings["runtime_min_s"].fillna(settings["runtime_s"]) + settings["runtime_resolution_s"] / 2
    floor_s = _possible_runtimes_s(roofline, settings)
    below = settings.assign(quickest_s=runtime_s, floor_s=floor_s)[runtime_s < floor_s]
    if below.empty:
        return
    named = "; ".join(
        f"p={row.num_prompt_tokens} o={row.num_output_tokens}: {row.quickest_s:.3g} s, floor {row.floor_s:.3g} s"
        for row in below.head(_MAX_NAMED).itertuples()
    )
    raise ImpossibleMeasurementError(
        f"{model.architecture.name} on {model.hardware}: {len(below)} of {len(settings)} settings are faster than the "
        f"machine can be ({named}). Check that the clock waits for the device, that the header's architecture and data "
        "type are what ran, and the rates of the machine"
    )


def roofline_table(models: Mapping[str, TimedModel], *, num_prompt_tokens: int | None = None) -> pd.DataFrame:
    """Fitted times beside their floors, at a batch of one.

    Parameters
    ----------
    models : mapping of TimedModel, by name
    num_prompt_tokens : int, optional
        Prompt size; the largest that each model was timed at where it is not given.

    Returns
    -------
    DataFrame, by model
        ``time_per_output_token_ms``, ``token_floor_ms``, ``token_over_floor``; ``num_prompt_tokens``,
        ``prompt_encoding_time_ms``, ``prompt_floor_ms``, ``prompt_over_floor``. Floors are missing where
        nothing is known of the machine.
    """
    rows = {name: _floor_row(model, num_prompt_tokens) for name, model in models.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def floor_distances(hardware: str, names: Iterable[str] | None = None) -> pd.DataFrame:
    """How many times its floor each fitted time of the logs of one hardware takes.

    Parameters
    ----------
    hardware : str
    names : iterable of str, optional
        Models, as in :func:`idealized_runtime.measurements.find_logs`; every model where it is not given.

    Returns
    -------
    DataFrame, one column a model
        By what was fitted: ``output token``, then each prompt size. Missing where the log does not tell the
        architecture or data type, where nothing is known of the machine, and at sizes that were not timed.

    Raises
    ------
    ImpossibleMeasurementError
        A log holds a runtime below its floor.
    """
    columns = {}
    for path in find_logs(hardware, names):
        try:
            model = read_timed_model(path)
        except LogFormatError:
            columns[model_of_log(path)] = {}
            continue
        refuse_impossible(model)
        columns[model.architecture.name] = _distances(model)
    sizes = sorted({size for column in columns.values() for size in column} - {_TOKEN})
    return pd.DataFrame(columns, index=pd.Index([_TOKEN, *sizes], name="fitted time"), dtype=float)


def _distances(model) -> dict:
    fit, roofline = model.fit, roofline_of(model)
    if roofline is None:
        return {}
    prompts = fit.profiled_prompt_times_s / roofline.prompt_encoding_s(fit.num_prompt_tokens)
    token = fit.time_per_output_token_s / roofline.output_token_s(model.reference_num_context_tokens)
    return {_TOKEN: token, **dict(zip(fit.num_prompt_tokens.tolist(), prompts, strict=True))}


def _floor_row(model, num_prompt_tokens) -> dict:
    fit, roofline = model.fit, roofline_of(model)
    p = int(fit.num_prompt_tokens[-1] if num_prompt_tokens is None else num_prompt_tokens)
    token_s, prompt_s = fit.time_per_output_token_s, fit.prompt_encoding_time_s(p)
    context = model.reference_num_context_tokens
    floors_s = (np.nan, np.nan)
    if roofline is not None:
        floors_s = float(roofline.output_token_s(context)), float(roofline.prompt_encoding_s(p))
    return {
        "time_per_output_token_ms": 1e3 * token_s,
        "token_floor_ms": 1e3 * floors_s[0],
        "token_over_floor": token_s / floors_s[0],
        "num_prompt_tokens": p,
        "prompt_encoding_time_ms": 1e3 * prompt_s,
        "prompt_floor_ms": 1e3 * floors_s[1],
        "prompt_over_floor": prompt_s / floors_s[1],
    }


def _possible_runtimes_s(roofline, settings) -> pd.Series:
    possible_s = pd.Series(0.0, index=settings.index)
    for batch_size, group in settings.groupby(settings["batch_size"].fillna(1)):
        sizes = group["num_prompt_tokens"], group["num_output_tokens"]
        possible_s[group.index] = roofline.possible_s(*sizes, batch_size=int(batch_size))
    return possible_s
