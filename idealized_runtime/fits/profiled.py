"""What models of runtimes that were fitted to profiled prompt sizes have in common, however they were fitted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_range, token_array
from idealized_runtime.fits.entries import SCHEMA_VERSION, number
from idealized_runtime.fits.protocol import plain
from idealized_runtime.fits.settings import batch_size_of, validate_settings
from idealized_runtime.fits.statistics import standard_error_of_interval, summarize_errors

# Prompt times of all integer sizes are looked up in a table, unless the profiled range is longer than this.
_MAX_TABLE_TOKENS = 2**22
# Queries are worked through in blocks that stay in the cache.
_BLOCK_QUERIES = 2**15


@dataclass(frozen=True, eq=False, kw_only=True)
class ProfiledModel(ABC):
    """Runtime of a query, t(p, o) = prompt_encoding_time(p) + (o - 1) g, plus an API's overhead if there is one.

    Immutable; obeys :class:`~idealized_runtime.fits.protocol.ModelOfRuntimes`. A kind of fit says what prompts take
    between profiled sizes, how g depends on p, and what is known of its errors.

    Parameters
    ----------
    num_prompt_tokens : int array
        Profiled prompt sizes, ascending.
    profiled_prompt_times_s : float array
        Prompt encoding time at each.
    time_per_output_token_s : float
        g, in seconds.
    batch_size : int or None
        Queries that run together; every runtime is that of their batch. None where it is not known.
    overhead_s : float or None
        Constant seconds of a query to an API; None for a model timed on its own hardware.
    r_squared : float or None
        Of :meth:`predict` on the settings fitted: 1 - sum of squared residuals over that about the mean runtime.
    residual_summary : mapping or None
        ``num_settings`` and median, 95th percentile and maximum of the absolute relative error.
    sources : tuple of mappings
        ``file`` and ``sha256`` of the logs that were fitted.
    """

    method: ClassVar[str]

    num_prompt_tokens: np.ndarray
    profiled_prompt_times_s: np.ndarray
    time_per_output_token_s: float
    batch_size: int | None = None
    overhead_s: float | None = None
    r_squared: float | None = None
    residual_summary: Mapping | None = None
    sources: tuple = ()
    settings: pd.DataFrame | None = None

    @classmethod
    def fit(cls, runtimes: pd.DataFrame, *, min_prompt_sizes: int = 2):
        """Fit the timings of one model on one hardware and software.

        Parameters
        ----------
        runtimes : DataFrame
            One row a setting (``num_prompt_tokens, num_output_tokens, runtime_s``; better with
            ``runtime_std_s, num_trials``), or one row a trial with a column ``trial``; see
            ``fits.settings.validate_settings``.
        min_prompt_sizes : int
            1 allows the timings of a single prompt size, for a model that predicts no other.

        Raises
        ------
        ValueError
            The runtimes cannot be fitted; the message names rows, values and remedy.
        """
        settings = validate_settings(runtimes, min_prompt_sizes=min_prompt_sizes)
        parts = cls._fitted_parts(settings) | {"batch_size": batch_size_of(runtimes)}
        predicted_s = cls(**parts).predict(settings["num_prompt_tokens"], settings["num_output_tokens"])
        runtime_s = settings["runtime_s"].to_numpy()
        errors = summarize_errors(predicted_s / runtime_s - 1)
        squares = np.sum((runtime_s - runtime_s.mean()) ** 2)
        return cls(
            **parts,
            settings=settings.assign(predicted_s=predicted_s),
            residual_summary={"num_settings": len(settings)}
            | {f"{statistic}_relative_error": error for statistic, error in errors.items()},
            r_squared=float(1 - np.sum((runtime_s - predicted_s) ** 2) / squares),
        )

    @property
    def residuals(self) -> pd.DataFrame:
        """One row a setting: measured and predicted runtime and the relative error, predicted / measured - 1.

        Raises
        ------
        ValueError
            The model was read from a parameter file, which holds ``residual_summary`` only.
        """
        if self.settings is None:
            raise ValueError("a model read from parameters has no residuals, only residual_summary; fit its log again")
        columns = ["num_prompt_tokens", "num_output_tokens", "runtime_s", "predicted_s"]
        relative_error = self.settings["predicted_s"] / self.settings["runtime_s"] - 1
        return self.settings[columns].assign(relative_error=relative_error)

    def predict(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        """Runtime of each query in seconds; float for two scalars, else an array.

        The number of output tokens may exceed the profiled ones.

        Raises
        ------
        ValueError
            A number of tokens is below 1 or not finite, or p lies outside the profiled range and ``extrapolate``
            is not set.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        o = token_array("num_output_tokens", num_output_tokens)
        if p.shape != o.shape or p.ndim != 1 or p.size <= _BLOCK_QUERIES:
            return plain(self._runtimes(p, o))
        runtime_s = np.empty(p.shape)
        for start in range(0, p.size, _BLOCK_QUERIES):
            block = slice(start, start + _BLOCK_QUERIES)
            self._runtimes(p[block], o[block], out=runtime_s[block])
        return runtime_s

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level=0.95, extrapolate=False):
        """Confidence interval (lower, upper) of the true mean runtime t(p, o); a single trial scatters more.

        Raises
        ------
        ValueError
            As :meth:`predict`.
        NoIntervalError
            Nothing is known of the model's errors.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        # Integers stay integers, for which prompt times are looked up.
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens).astype(float))
        return self._interval(p, o - 1, self._runtimes(p, o), level)

    def standard_error(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        """Standard error of each runtime: of the normal distribution whose 95 % interval is as wide as the model's.

        NaN where there is no interval; raises as :meth:`predict`.
        """
        p, o = np.broadcast_arrays(
            self._checked_prompts(num_prompt_tokens, extrapolate), token_array("num_output_tokens", num_output_tokens)
        )
        error_s, is_known = np.full(p.shape, np.nan), self._has_interval(p)
        if is_known.any():
            bounds_s = self.predict_interval(p[is_known], o[is_known], level=0.95, extrapolate=True)
            error_s[is_known] = standard_error_of_interval(*bounds_s, 0.95)
        return plain(error_s)

    def prompt_encoding_time_s(self, num_prompt_tokens, *, extrapolate=False):
        """Seconds until the first output token, without an API's overhead; raises as :meth:`predict`."""
        return plain(np.array(self._prompt_times(self._checked_prompts(num_prompt_tokens, extrapolate))))

    def prompt_encoding_interval_s(self, num_prompt_tokens, level=0.95, *, extrapolate=False):
        """Confidence interval (lower, upper) of the prompt encoding time; raises as :meth:`predict_interval`.

        Timings tell the sum of prompt time and an API's overhead, so the overhead counts as known here.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate).astype(float)
        overhead_s = self.overhead_s or 0.0
        bounds = self._interval(p, np.zeros_like(p), self._prompt_times(p) + overhead_s, level)
        return tuple(plain(np.maximum(np.asarray(bound_s) - overhead_s, 0)) for bound_s in bounds)

    def time_per_output_token_at(self, num_prompt_tokens, *, extrapolate=False):
        """g(p): seconds for each output token after the first, behind a prompt of p tokens."""
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        return plain(np.array(self._tokens_times(p.astype(float))))

    def is_extrapolated(self, num_prompt_tokens):
        """Whether each prompt size lies outside the profiled range."""
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        return (p < self.num_prompt_tokens[0]) | (p > self.num_prompt_tokens[-1])

    def to_json(self) -> dict:
        """HELM's keys, unrounded, and what is ours under ``"fit"``; ``fits.model_from_json`` restores the model."""
        entry = {
            "runtime_per_output_token": self.time_per_output_token_s,
            "runtime_for_prompt_tokens": self._by_size(self.profiled_prompt_times_s),
        }
        if self.overhead_s is not None:
            entry["overhead"] = self.overhead_s
        return entry

    @abstractmethod
    def with_overhead(self):
        """The same runtimes as those of an API, with its overhead told from its prompt times.

        Timings tell the sum of both only. By the convention of arXiv:2305.02440 one prompt token costs as much as one
        output token, so overhead = sum at the smallest prompt size - g, and it is taken from every sum.
        """

    @classmethod
    @abstractmethod
    def _fitted_parts(cls, settings: pd.DataFrame) -> dict:
        """Fields of the model of checked settings."""

    @abstractmethod
    def _prompt_times_by_rule(self, p) -> np.ndarray:
        """Prompt encoding times at any sizes."""

    def _tokens_times(self, p) -> np.ndarray:
        """g behind prompts of these sizes."""
        return np.broadcast_to(self.time_per_output_token_s, p.shape)

    @abstractmethod
    def _has_interval(self, p) -> np.ndarray:
        """Whether an interval is known at each size."""

    @abstractmethod
    def _interval(self, p, decoded, estimate_s, level):
        """Bounds of the runtimes of queries of p prompt and 1 + ``decoded`` output tokens."""

    def _checked_prompts(self, num_prompt_tokens, extrapolate):
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        if not extrapolate:
            check_range("num_prompt_tokens", p, self.num_prompt_tokens)
        return p

    def _runtimes(self, p, o, out=None):
        decode_s = np.multiply(self._tokens_times(p), o - 1.0, out=out)
        runtime_s = np.add(self._prompt_times(p), decode_s, out=out)
        return runtime_s if self.overhead_s is None else np.add(runtime_s, self.overhead_s, out=out)

    def _prompt_times(self, p):
        if p.dtype.kind in "iu" and self._prompt_table is not None and not np.any(self.is_extrapolated(p)):
            return self._prompt_table.take(p)
        return self._prompt_times_by_rule(p)

    @cached_property
    def _prompt_table(self):
        high = self.num_prompt_tokens[-1]
        return None if high >= _MAX_TABLE_TOKENS else self._prompt_times_by_rule(np.arange(high + 1))

    def _by_size(self, values) -> dict:
        """A value for each profiled size, as JSON keys them."""
        return dict(zip(map(str, self.num_prompt_tokens.tolist()), values.tolist(), strict=True))

    def _fit_json(self, prompt_rule, *, reference, slope=0.0, standard_errors=None, intervals=None) -> dict:
        return {
            "schema_version": SCHEMA_VERSION,
            "method": self.method,
            "prompt_rule": prompt_rule,
            "reference_num_prompt_tokens": reference,
            "time_per_output_token_slope": slope,
            **({} if self.batch_size is None else {"batch_size": self.batch_size}),
            "r_squared": self.r_squared,
            "residuals": self.residual_summary,
            "standard_errors": standard_errors,
            "intervals": intervals,
            "sources": [dict(source) for source in self.sources],
        }


def fields_of_entry(entry: Mapping) -> dict:
    """Fields of :class:`ProfiledModel` in an entry of a parameter file, HELM's or ours.

    Raises
    ------
    KeyError
        The entry lacks a key.
    ValueError
        A value is no number; the message names it.
    """
    times = entry["runtime_for_prompt_tokens"]
    try:
        pairs = sorted((int(size), number(f"prompt time at {size!r}", time_s)) for size, time_s in times.items())
    except (AttributeError, TypeError) as error:
        raise ValueError("runtime_for_prompt_tokens must be an object by number of prompt tokens") from error
    if not pairs or pairs[0][0] < 1:
        raise ValueError("runtime_for_prompt_tokens needs at least one prompt size, of at least 1 token")
    sizes, times_s = map(np.array, zip(*pairs, strict=True))
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"runtime_for_prompt_tokens names a prompt size twice; got {', '.join(times)}")
    overhead, fit = entry.get("overhead"), entry.get("fit", {})
    batch_size = fit.get("batch_size")
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"fit.batch_size must be an integer of at least 1; got {batch_size!r}")
    return {
        "num_prompt_tokens": sizes,
        "profiled_prompt_times_s": times_s,
        "time_per_output_token_s": number("runtime_per_output_token", entry["runtime_per_output_token"]),
        "overhead_s": None if overhead is None else number("overhead", overhead),
        "batch_size": batch_size,
        "r_squared": fit.get("r_squared"),
        "residual_summary": fit.get("residuals"),
        "sources": tuple(fit.get("sources", ())),
    }
