"""Floors of a runtime: no program reads faster than the memory, or computes faster than the matrix units.

A floor is the longer of reading (each weight in use once, and the cache of keys and values) and computing (the
products that cannot be left out), at the machine's rates (``hardware.rates``). The distance of a measurement from its
floor is what better software could still gain.

A measurement below its floor is impossible, and refused. Two things make an honest one look too fast, and are
allowed for: the rates may be exceeded by their tolerance, and the last-level cache may keep weights from one pass to
the next. The check counts as read from memory only what exceeds it, so that reading says nothing of a model that fits
the cache.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.architectures import Architecture, kv_cache_bytes, prompt_encoding_flops, weight_bytes_read
from idealized_runtime.architectures.operations import least_output_token_flops
from idealized_runtime.hardware.rates import MachineRates


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

    def prompt_encoding_s(
        self, num_prompt_tokens: ArrayLike, *, batch_size: int = 1, cache_bytes: float = 0.0
    ) -> float | np.ndarray:
        """Seconds below which no prompts of this size are encoded; ``cache_bytes`` need not be read from memory."""
        # Keys and values are written, not read; half of all pairs are what a causal mask leaves.
        flops = prompt_encoding_flops(self.architecture, num_prompt_tokens, attention="causal")
        return self._longest_s(0.0 * flops, flops, batch_size, cache_bytes)

    def output_token_s(
        self, num_context_tokens: ArrayLike, *, batch_size: int = 1, cache_bytes: float = 0.0
    ) -> float | np.ndarray:
        """Seconds below which no further output token comes, after so many tokens (itself included)."""
        context = np.asarray(num_context_tokens, dtype=float)
        # An engine may cache latents, which are the fewest bytes, or what is made of them, the fewest operations.
        flops = least_output_token_flops(self.architecture, context)
        cache = kv_cache_bytes(self.architecture, context, dtype=self.dtype)
        return self._longest_s(cache, flops, batch_size, cache_bytes)

    def query_s(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        batch_size: int = 1,
        cache_bytes: float = 0.0,
    ) -> float | np.ndarray:
        """Seconds below which no query of p prompt and o output tokens ends; arrays broadcast."""
        p, o = np.asarray(num_prompt_tokens, dtype=float), np.asarray(num_output_tokens, dtype=float)
        options = {"batch_size": batch_size, "cache_bytes": cache_bytes}
        # The first token has the shortest context; where layers attend to chunks, one may be at the start of its own.
        context = np.ones_like(p) if self.architecture.window_is_chunk else p + 1
        return self.prompt_encoding_s(p, **options) + (o - 1) * self.output_token_s(context, **options)

    def possible_s(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, batch_size: int = 1
    ) -> float | np.ndarray:
        """Seconds below which no honest measurement of a query lies: the cache and faster rates are allowed for."""
        options = {"batch_size": batch_size, "cache_bytes": self.rates.cache_bytes}
        return self.query_s(num_prompt_tokens, num_output_tokens, **options) / (1 + self.rates.tolerance)

    def _longest_s(self, sequence_bytes, flops, batch_size, cache_bytes):
        """Seconds for the weights, once, and for bytes and operations of each sequence."""
        # Of one sequence: experts that no token of a batch visits are not read, and all may visit the same.
        weight_bytes = float(weight_bytes_read(self.architecture, dtype=self.dtype))
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
