"""RuntimeModel: what a query costs, in seconds, with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from idealized_runtime.fits import interpolation
from idealized_runtime.fits.arrays import plain, token_array
from idealized_runtime.fits.intervals import Intervals, RuleError
from idealized_runtime.fits.protocol import NoIntervalError
from idealized_runtime.fits.published import fit_published, next_larger_times
from idealized_runtime.fits.ranges import check_range
from idealized_runtime.fits.settings import validate_settings
from idealized_runtime.fits.statistics import standard_error_of_interval, summarize_errors
from idealized_runtime.fits.weighted import fit_weighted

METHODS = ("weighted", "published")
# Prompt times of all integer sizes are looked up in a table, unless the profiled range is longer than this.
_MAX_TABLE_TOKENS = 2**22
# Queries are worked through in blocks that stay in the cache.
_BLOCK_QUERIES = 2**15


@dataclass(frozen=True, eq=False)
class RuntimeModel:
    """Runtime of a query, t(p, o) = prompt_encoding_time(p) + (o - 1) g(p), plus an API's overhead if there is one.

    Made by :meth:`fit` or :meth:`from_json`. Immutable. Wherever queries are taken, p (prompt tokens) and
    o (output tokens) are scalars or arrays that broadcast, of integers or of real means, at least 1.

    Parameters
    ----------
    method : {"weighted", "published"}
    num_prompt_tokens : int array
        Profiled prompt sizes, ascending.
    profiled_prompt_times_s : float array
        Prompt encoding time at each.
    time_per_output_token_s : float
        g at ``reference_num_prompt_tokens``, in seconds.
    time_per_output_token_slope_s : float
        Change of g for each further prompt token; 0 where g is constant.
    reference_num_prompt_tokens : int
    tile_share : float
        Of the rule between profiled sizes (``fits.interpolation``); not used by method "published".
    batch_size : int or None
        Queries that run together; every runtime is that of their batch. None where it is not known.
    overhead_s : float or None
        Constant seconds of a query to an API; None for a model timed on its own hardware.
    intervals : Intervals or None
    r_squared : float or None
        Of :meth:`predict` on the settings fitted: 1 - sum of squared residuals over that about the mean runtime.
    residual_summary : mapping or None
        ``num_settings`` and median, 95th percentile and maximum of the absolute relative error.
    sources : tuple of mappings
        ``file`` and ``sha256`` of the logs that were fitted.
    """

    method: str
    num_prompt_tokens: np.ndarray
    profiled_prompt_times_s: np.ndarray
    time_per_output_token_s: float
    time_per_output_token_slope_s: float
    reference_num_prompt_tokens: int
    tile_share: float = 0.0
    batch_size: int | None = None
    overhead_s: float | None = None
    intervals: Intervals | None = None
    r_squared: float | None = None
    residual_summary: Mapping | None = None
    sources: tuple = ()
    settings: pd.DataFrame | None = None

    @classmethod
    def fit(cls, runtimes: pd.DataFrame, *, method="weighted", min_prompt_sizes: int = 2) -> "RuntimeModel":
        """Fit the timings of one model on one hardware and software.

        Parameters
        ----------
        runtimes : DataFrame
            One row a setting (``num_prompt_tokens, num_output_tokens, runtime_s``; better with
            ``runtime_std_s, num_trials``), or one row a trial with a column ``trial``; see
            ``fits.settings.validate_settings``.
        method : {"weighted", "published"}
            Least squares of relative errors, with intervals; or the procedure of arXiv:2305.02440 with its
            roundings and HELM's estimate rule, to reproduce published numbers.
        min_prompt_sizes : int
            1 allows the timings of a single prompt size, for a model that predicts no other.

        Raises
        ------
        ValueError
            The runtimes cannot be fitted; the message names rows, values and remedy.
        """
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
        settings = validate_settings(runtimes, min_prompt_sizes=min_prompt_sizes)
        parts = _weighted_parts(settings) if method == "weighted" else _published_parts(settings)
        parts["batch_size"] = _batch_size(runtimes)
        bare = cls(method=method, **parts)
        predicted_s = bare.predict(settings["num_prompt_tokens"], settings["num_output_tokens"])
        settings = settings.assign(predicted_s=predicted_s)
        summary, r_squared = _judge(settings["runtime_s"].to_numpy(), predicted_s)
        return cls(method=method, **parts, settings=settings, residual_summary=summary, r_squared=r_squared)

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

        Raises
        ------
        ValueError
            A number of tokens is below 1 or not finite, or p lies outside the profiled range and ``extrapolate``
            is not set.

        Warns
        -----
        ExtrapolationWarning
            A p lies outside the profiled range. The number of output tokens may exceed the profiled ones.
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

        It holds the error of the fit, the misfit of the model where a test found one, and between profiled sizes
        the error of the rule there; it does not hold what another machine or day would change. The noise comes from
        the trials (``runtime_std_s`` and ``num_trials``) if every setting has them, else from the residuals; a
        standard deviation without its number of trials gives the shape of the noise, the residuals its size. In
        simulations 93 to 97 % of 95 % intervals hold the truth; with only two trials a setting up to 99 %, and with
        means alone of a dozen settings 87 to 100 %. The interval is that of the wide model, with g linear in p and
        prompt times that may fall; where it lies beside the estimate, which has only what tests found significant,
        it is extended and ends there.

        Raises
        ------
        ValueError
            As :meth:`predict`; or nothing is known of the model's errors (method "published", HELM's parameters,
            or too few settings): a NoIntervalError.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        o = token_array("num_output_tokens", num_output_tokens)
        p, o = np.broadcast_arrays(p.astype(float), o.astype(float))
        return self._interval(p, o - 1, self._runtimes(p, o), level)

    def standard_error(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        """Standard error of each runtime: of the normal distribution whose 95 % interval is as wide as the model's.

        NaN where :meth:`predict_interval` knows no interval; raises as :meth:`predict`.
        """
        sizes = num_prompt_tokens, num_output_tokens
        try:
            bounds_s = self.predict_interval(*sizes, level=0.95, extrapolate=extrapolate)
        except NoIntervalError:
            return np.nan * self.predict(*sizes, extrapolate=extrapolate)
        return standard_error_of_interval(*bounds_s, 0.95)

    def prompt_encoding_time_s(self, num_prompt_tokens, *, extrapolate=False):
        """Seconds until the first output token, without an API's overhead; raises and warns as :meth:`predict`."""
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

    def time_per_output_token_interval_s(self, level=0.95) -> tuple[float, float]:
        """Confidence interval (lower, upper) of g at ``reference_num_prompt_tokens``, neither below 0."""
        lower, upper = self._known_intervals().time_per_output_token(level)
        return max(lower, 0.0), upper

    def is_extrapolated(self, num_prompt_tokens):
        """Whether each prompt size lies outside the profiled range."""
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        return (p < self.num_prompt_tokens[0]) | (p > self.num_prompt_tokens[-1])

    def to_json(self) -> dict:
        """HELM's keys, unrounded, and what is ours under ``"fit"``; :meth:`from_json` restores the model from it."""
        from idealized_runtime.fits.parameters import model_to_json

        return model_to_json(self)

    @classmethod
    def from_json(cls, parameters: Mapping) -> "RuntimeModel":
        """Model from one entry of a parameter file, ours or HELM's (which has no ``"fit"`` and so no intervals)."""
        from idealized_runtime.fits.parameters import model_from_json

        return model_from_json(parameters)

    def _checked_prompts(self, num_prompt_tokens, extrapolate):
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        profiled = self.num_prompt_tokens
        if extrapolate and len(profiled) == 1 and self.method == "weighted" and np.any(p != profiled[0]):
            raise ValueError(f"one prompt size was profiled, {profiled[0]}, so there is no line to go on along")
        check_range("num_prompt_tokens", p, profiled, extrapolate=extrapolate, stacklevel=3)
        return p

    def _runtimes(self, p, o, out=None):
        decode_s = np.multiply(self._tokens_times(p), o - 1.0, out=out)
        runtime_s = np.add(self._prompt_times(p), decode_s, out=out)
        return runtime_s if self.overhead_s is None else np.add(runtime_s, self.overhead_s, out=out)

    def _prompt_times(self, p):
        if p.dtype.kind in "iu" and self._prompt_table is not None and not np.any(self.is_extrapolated(p)):
            return self._prompt_table.take(p)
        return self._prompt_times_by_rule(p)

    def _prompt_times_by_rule(self, p):
        if self.method == "published":
            return next_larger_times(p, self.num_prompt_tokens, self.profiled_prompt_times_s)
        return self._anchors(p).blend(self.profiled_prompt_times_s)

    def _anchors(self, p):
        return interpolation.locate(p, self.num_prompt_tokens, self.profiled_prompt_times_s, self.tile_share)

    def _tokens_times(self, p):
        if not self.time_per_output_token_slope_s:
            return np.broadcast_to(self.time_per_output_token_s, p.shape)
        sizes = self._held_if_falling(p, self.time_per_output_token_slope_s)
        offset_tokens = sizes - float(self.reference_num_prompt_tokens)
        return self.time_per_output_token_s + self.time_per_output_token_slope_s * offset_tokens

    def _held_if_falling(self, p, slope):
        """Sizes at which to take g: one that falls with p is held outside the profiled range, or it ends below 0."""
        return np.clip(p, *self.num_prompt_tokens[[0, -1]]) if slope < 0 else p

    @cached_property
    def _prompt_table(self):
        high = self.num_prompt_tokens[-1]
        if high >= _MAX_TABLE_TOKENS:
            return None
        return self._prompt_times_by_rule(np.arange(high + 1))

    def _known_intervals(self) -> Intervals:
        if self.intervals is None:
            raise NoIntervalError(
                f"no interval is known for these parameters (method {self.method!r}): they are rounded, come without "
                "errors, or from too few settings. Fit a log with method='weighted' and trials or spare settings"
            )
        return self.intervals

    def _interval(self, p, decoded, estimate_s, level):
        known = self._known_intervals()
        outside = self.is_extrapolated(p)
        if np.any(outside) and np.isnan(known.rule_error.scale):
            raise NoIntervalError(
                "an interval beyond the profiled range needs at least 5 profiled prompt sizes, to see how well "
                f"the rule between them predicts; there are {len(self.num_prompt_tokens)}"
            )
        prompt_s = self._prompt_times(p)
        held = self._held_if_falling(p, known.covariance.slopes[1:].sum())
        lower, upper = known.runtime(self._anchors(p), held, decoded, prompt_s, level, is_extrapolated=outside)
        # The estimate leaves out terms that the tests found none of; the interval is that of the wide model.
        return plain(np.clip(lower, 0, estimate_s)), plain(np.maximum(upper, estimate_s))


def _weighted_parts(settings) -> dict:
    fit = fit_weighted(settings)
    tile_share = interpolation.choose_tile_share(fit.sizes, fit.prompt_times_s)
    errors_s = interpolation.leave_one_out_errors(fit.sizes, fit.prompt_times_s, tile_share)
    rule_error = RuleError.from_left_out(errors_s, fit.prompt_times_s[1:-1])
    return {
        "num_prompt_tokens": fit.sizes,
        "profiled_prompt_times_s": fit.prompt_times_s,
        "time_per_output_token_s": fit.time_per_output_token_s,
        "time_per_output_token_slope_s": fit.slope,
        "reference_num_prompt_tokens": fit.reference,
        "tile_share": tile_share,
        "intervals": None if fit.covariance is None else Intervals(fit.covariance, fit.reference, rule_error),
    }


def _published_parts(settings) -> dict:
    time_per_output_token_s, prompt_times_s = fit_published(settings)
    return {
        "num_prompt_tokens": np.array(list(prompt_times_s)),
        "profiled_prompt_times_s": np.array(list(prompt_times_s.values())),
        "time_per_output_token_s": time_per_output_token_s,
        "time_per_output_token_slope_s": 0.0,
        "reference_num_prompt_tokens": min(prompt_times_s),
    }


def _batch_size(runtimes) -> int | None:
    known = runtimes["batch_size"].dropna() if "batch_size" in runtimes else []
    return int(known.iloc[0]) if len(known) else None


def _judge(runtime_s, predicted_s) -> tuple[dict, float]:
    errors = summarize_errors(predicted_s / runtime_s - 1)
    summary = {"num_settings": len(runtime_s)} | {f"{name}_relative_error": error for name, error in errors.items()}
    squares = np.sum((runtime_s - runtime_s.mean()) ** 2)
    return summary, float(1 - np.sum((runtime_s - predicted_s) ** 2) / squares)
