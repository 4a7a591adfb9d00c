"""RuntimeModel: what a query costs, in seconds, with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import is_integer, token_array
from idealized_runtime.fits import interpolation
from idealized_runtime.fits.entries import SCHEMA_VERSION, number, positive
from idealized_runtime.fits.findings import warn_of_fit
from idealized_runtime.fits.intervals import Intervals, choose_rule
from idealized_runtime.fits.protocol import NoIntervalError, PredictingModel, plain
from idealized_runtime.fits.settings import batch_size_of, trials_in_order, validate_settings
from idealized_runtime.fits.weighted import fit_weighted
from idealized_runtime.statistics.errors import summarize_errors, with_errors
from idealized_runtime.statistics.intervals import standard_error_of_interval

# Prompt times of all integer sizes are looked up in a table, unless the profiled range is longer than this.
_MAX_TABLE_TOKENS = 2**22
# Queries are worked through in blocks that stay in the cache.
_BLOCK_QUERIES = 2**15


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RuntimeModel(PredictingModel):
    """Runtime of a query, t(p, o) = prompt_encoding_time(p) + (o - 1) g(p), plus an API's overhead if there is one.

    Made by :meth:`fit`, least squares of relative errors, or read from parameters. Immutable; obeys
    :class:`~idealized_runtime.fits.protocol.ModelOfRuntimes`.

    Parameters
    ----------
    num_prompt_tokens : int array
        Profiled prompt sizes, ascending.
    profiled_prompt_times_s : float array
        Prompt encoding time at each; ``fits.interpolation`` has the rule between them.
    time_per_output_token_s : float
        g at ``reference_num_prompt_tokens``, in seconds.
    reference_num_prompt_tokens : int
    time_per_output_token_slope_s : float
        Change of g for each further prompt token; 0 where g is constant.
    tile_share : float
        Of the rule between profiled sizes.
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
    notes : tuple of str
        What the estimates and their intervals take for granted, a sentence each.

    Examples
    --------
    >>> from idealized_runtime import read_log
    >>> model = RuntimeModel.fit(read_log("logs/cpu/gpt2-small.jsonl"))
    >>> round(float(model.predict(100, 20)), 3)  # seconds
    0.493
    >>> [round(float(bound), 3) for bound in model.predict_interval(100, 20)]
    [0.469, 0.518]
    """

    method: ClassVar[str] = "weighted"

    num_prompt_tokens: np.ndarray
    profiled_prompt_times_s: np.ndarray
    time_per_output_token_s: float
    reference_num_prompt_tokens: int
    time_per_output_token_slope_s: float = 0.0
    tile_share: float = 0.0
    batch_size: int | None = None
    overhead_s: float | None = None
    intervals: Intervals | None = None
    r_squared: float | None = None
    residual_summary: Mapping | None = None
    sources: tuple = ()
    notes: tuple[str, ...] = ()
    settings: pd.DataFrame | None = None

    @classmethod
    def fit(cls, runtimes: pd.DataFrame, *, min_prompt_sizes: int = 2) -> "RuntimeModel":
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

        Warns
        -----
        SuspiciousLogWarning
            They can hardly be of one model on a machine at rest; see ``fits.findings``.
        """
        settings = validate_settings(runtimes, min_prompt_sizes=min_prompt_sizes)
        model = replace(cls._fit_settings(settings, trials_in_order(runtimes)), batch_size=batch_size_of(runtimes))
        predicted_s = model.predict(settings["num_prompt_tokens"], settings["num_output_tokens"])
        runtime_s = settings["runtime_s"].to_numpy()
        errors = summarize_errors(predicted_s / runtime_s - 1)
        squares = np.sum((runtime_s - runtime_s.mean()) ** 2)
        fitted = replace(
            model,
            settings=settings.assign(predicted_s=predicted_s),
            residual_summary={"num_settings": len(settings)}
            | {f"{statistic}_relative_error": error for statistic, error in errors.items()},
            r_squared=float(1 - np.sum((runtime_s - predicted_s) ** 2) / squares),
        )
        warn_of_fit(runtimes, fitted)
        return fitted

    @property
    def prompt_range(self) -> tuple[int, int]:
        """Smallest and largest profiled prompt."""
        return self.num_prompt_tokens[0], self.num_prompt_tokens[-1]

    @property
    def residuals(self) -> pd.DataFrame:
        """Measured and predicted runtime and the relative error, predicted / measured - 1, one row a setting.

        Raises
        ------
        ValueError
            The model was read from a parameter file, which holds ``residual_summary`` only.
        """
        if self.settings is None:
            raise ValueError("a model read from parameters has no residuals, only residual_summary; fit its log again")
        columns = ["num_prompt_tokens", "num_output_tokens", "runtime_s"]
        return with_errors(self.settings[columns], self.settings["predicted_s"])

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each query in seconds; float for two scalars, else an array.

        Raises
        ------
        ValueError
            A number of tokens is below 1 or not finite, or p lies outside the profiled range and ``extrapolate`` is not
            set. The number of output tokens may exceed the profiled ones.
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

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
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
            As :meth:`predict`.
        NoIntervalError
            Nothing is known of the model's errors: too few settings, or parameters without errors.
        """
        # Integers stay integers, for which prompt times are looked up.
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens).astype(float))
        lower_s, upper_s = self._interval(p, o - 1, self._runtimes(p, o), level)
        return plain(lower_s), plain(upper_s)

    def standard_error(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Standard error of each runtime: of the normal distribution whose 95 % interval is as wide as the model's.

        NaN where there is no interval; raises as :meth:`predict`.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens).astype(float))
        return plain(standard_error_of_interval(*self._bounds(p, o - 1, self._runtimes(p, o), 0.95), level=0.95))

    def prompt_encoding_time_s(self, num_prompt_tokens: ArrayLike, *, extrapolate: bool = False) -> float | np.ndarray:
        """Seconds until the first output token, without an API's overhead; raises as :meth:`predict`."""
        return plain(np.array(self._prompt_times(self._checked_prompts(num_prompt_tokens, extrapolate))))

    def prompt_encoding_interval_s(
        self, num_prompt_tokens: ArrayLike, level: float = 0.95, *, extrapolate: bool = False
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Confidence interval (lower, upper) of the prompt encoding time; raises as :meth:`predict_interval`.

        Timings tell the sum of prompt time and an API's overhead, so the overhead counts as known here.
        """
        p = self._checked_prompts(num_prompt_tokens, extrapolate).astype(float)
        overhead_s = self.overhead_s or 0.0
        bounds_s = self._interval(p, np.zeros_like(p), self._prompt_times(p) + overhead_s, level)
        return tuple(plain(np.maximum(bound_s - overhead_s, 0)) for bound_s in bounds_s)

    def time_per_output_token_at(
        self, num_prompt_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """g(p): seconds for each output token after the first, behind a prompt of p tokens."""
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        return plain(np.array(self._tokens_times(p.astype(float))))

    def time_per_output_token_interval_s(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval (lower, upper) of g at ``reference_num_prompt_tokens``, neither below 0."""
        if self.intervals is None:
            raise self._no_interval()
        lower, upper = self.intervals.time_per_output_token(level)
        return max(lower, 0.0), upper

    def with_overhead(self) -> "RuntimeModel":
        """The same runtimes as those of an API, with its overhead told from its prompt times.

        Timings tell the sum of both only. By the convention of arXiv:2305.02440 one prompt token costs as much as one
        output token, so overhead = sum at the smallest prompt size - g, and it is taken from every sum.
        """
        sums_s = self.profiled_prompt_times_s
        # Neither an overhead nor a prompt time is below zero.
        overhead_s = sums_s[0] - self.time_per_output_token_at(self.num_prompt_tokens[0])
        overhead_s = float(np.clip(overhead_s, 0, sums_s.min()))
        return replace(self, overhead_s=overhead_s, profiled_prompt_times_s=sums_s - overhead_s)

    def to_json(self) -> dict:
        """HELM's keys, unrounded, and what is ours under ``"fit"``; ``fits.model_from_json`` restores the model."""
        standard_errors = intervals = None
        if self.intervals is not None:
            # Standard errors are for readers; intervals follow from the covariances beside them.
            intervals = self.intervals.to_json()
            standard_errors = {
                "runtime_per_output_token": self.intervals.time_per_output_token_standard_error_s(),
                "runtime_for_prompt_tokens": self._by_size(
                    self.intervals.prompt_standard_errors_s(self.num_prompt_tokens)
                ),
            }
        return {
            "runtime_per_output_token": self.time_per_output_token_s,
            "runtime_for_prompt_tokens": self._by_size(self.profiled_prompt_times_s),
            **({} if self.overhead_s is None else {"overhead": self.overhead_s}),
            "fit": {
                "schema_version": SCHEMA_VERSION,
                "method": self.method,
                "prompt_rule": self._prompt_rule(),
                "reference_num_prompt_tokens": self.reference_num_prompt_tokens,
                "time_per_output_token_slope": self.time_per_output_token_slope_s,
                **({} if self.batch_size is None else {"batch_size": self.batch_size}),
                "r_squared": self.r_squared,
                "residuals": self.residual_summary,
                "standard_errors": standard_errors,
                "intervals": intervals,
                "sources": [dict(source) for source in self.sources],
                **({"notes": list(self.notes)} if self.notes else {}),
            },
        }

    @classmethod
    def from_json(cls, entry: Mapping) -> "RuntimeModel":
        """The model of an entry that :meth:`to_json` made; ``fits.model_from_json`` reads any entry.

        Raises
        ------
        KeyError
            The entry lacks a key.
        ValueError
            A value is not what it should be; the message names it.
        """
        sizes, times_s = _prompt_times_of(entry["runtime_for_prompt_tokens"])
        fit, overhead_s = entry["fit"], entry.get("overhead")
        reference, intervals, batch_size = fit["reference_num_prompt_tokens"], fit["intervals"], fit.get("batch_size")
        for name, value in (("reference_num_prompt_tokens", reference), ("batch_size", batch_size)):
            if not is_integer(value, 1) and (name, value) != ("batch_size", None):
                raise ValueError(f"fit.{name} must be an integer of at least 1; got {value!r}")
        if overhead_s is not None and number("overhead", overhead_s) < 0:
            raise ValueError(f"overhead must not be negative; got {overhead_s!r}")
        per_token_s = positive("runtime_per_output_token", entry["runtime_per_output_token"])
        slope_s = number("fit.time_per_output_token_slope", fit["time_per_output_token_slope"])
        if np.any(per_token_s + slope_s * (sizes - reference) <= 0):
            raise ValueError(
                f"the time per output token must be positive at every prompt size; fit.time_per_output_token_slope "
                f"{slope_s!r} makes it negative"
            )
        if intervals is not None:
            intervals = Intervals.from_json(intervals, reference)
            intervals.check_estimates(sizes, times_s + (overhead_s or 0.0), per_token_s)
        return cls(
            num_prompt_tokens=sizes,
            profiled_prompt_times_s=times_s,
            time_per_output_token_s=per_token_s,
            reference_num_prompt_tokens=reference,
            time_per_output_token_slope_s=slope_s,
            tile_share=number("fit.prompt_rule.tile_share", fit["prompt_rule"].get("tile_share", 0.0)),
            batch_size=batch_size,
            overhead_s=None if overhead_s is None else float(overhead_s),
            intervals=intervals,
            r_squared=fit["r_squared"],
            residual_summary=fit["residuals"],
            sources=tuple(fit["sources"]),
            notes=tuple(fit.get("notes", ())),
        )

    @classmethod
    def _fit_settings(cls, settings, trials) -> "RuntimeModel":
        """The model of checked settings, and their trials where these are known."""
        fit = fit_weighted(settings, trials)
        tile_share, rule_error = choose_rule(fit.sizes, fit.prompt_times_s)
        return cls(
            num_prompt_tokens=fit.sizes,
            profiled_prompt_times_s=fit.prompt_times_s,
            time_per_output_token_s=fit.time_per_output_token_s,
            reference_num_prompt_tokens=fit.reference,
            time_per_output_token_slope_s=fit.slope,
            tile_share=tile_share,
            intervals=None if fit.covariance is None else Intervals(fit.covariance, fit.reference, rule_error),
            notes=() if fit.covariance is None else tuple(_assumptions(fit, trials)),
        )

    def _prompt_rule(self) -> dict:
        return {"name": "linear_in_tiles", "tile_tokens": interpolation.TILE_TOKENS, "tile_share": self.tile_share}

    def _prompt_times_by_rule(self, p):
        """Prompt encoding times at any sizes."""
        if len(self.num_prompt_tokens) == 1 and np.any(p != self.num_prompt_tokens[0]):
            only = self.num_prompt_tokens[0]
            raise ValueError(f"one prompt size was profiled, {only}, so there is no line to go on along")
        return self._anchors(p).blend(self.profiled_prompt_times_s)

    def _anchors(self, p, tile_share=None):
        tile_share = self.tile_share if tile_share is None else tile_share
        return interpolation.locate(p, self.num_prompt_tokens, self.profiled_prompt_times_s, tile_share)

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
        low, high = self.num_prompt_tokens[[0, -1]]
        if high >= _MAX_TABLE_TOKENS:
            return None
        # Sizes below the profiled ones are not looked up.
        return np.concatenate([np.full(low, np.nan), self._prompt_times_by_rule(np.arange(low, high + 1))])

    def _tokens_times(self, p):
        slope_s = self.time_per_output_token_slope_s
        if not slope_s:
            return np.broadcast_to(self.time_per_output_token_s, p.shape)
        offset_tokens = self._held_if_falling(p, slope_s) - float(self.reference_num_prompt_tokens)
        return self.time_per_output_token_s + slope_s * offset_tokens

    def _held_if_falling(self, p, slope):
        """Sizes at which to take g: one that falls with p is held outside the profiled range, or it ends below 0."""
        return np.clip(p, *self.num_prompt_tokens[[0, -1]]) if slope < 0 else p

    def _by_size(self, values) -> dict:
        """A value for each profiled size, as JSON keys them."""
        return dict(zip(map(str, self.num_prompt_tokens.tolist()), values.tolist(), strict=True))

    def _interval(self, p, decoded, estimate_s, level):
        lower_s, upper_s = self._bounds(p, decoded, estimate_s, level)
        if np.isnan(lower_s).any():
            raise self._no_interval()
        return lower_s, upper_s

    def _bounds(self, p, decoded, estimate_s, level):
        """Interval of the runtimes of queries of p prompt and 1 + ``decoded`` output tokens; NaN where not known."""
        if (known := self.intervals) is None:
            return (np.full(p.shape, np.nan),) * 2
        is_extrapolated = self.is_extrapolated(p)
        held = self._held_if_falling(p, known.covariance.slopes[1:].sum())
        tiles_s, line_s = (self._anchors(p, share).blend(self.profiled_prompt_times_s) for share in (1.0, 0.0))
        bounds_s = known.runtime(
            self._anchors(p), held, decoded, self._prompt_times(p), level,
            is_extrapolated=is_extrapolated, tile_difference_s=tiles_s - line_s,
        )  # fmt: skip
        if np.isnan(known.rule_error.scale):
            # Between profiled sizes monotony stands in for the error of the rule; beyond them nothing does.
            bounds_s = np.where(is_extrapolated, np.nan, bounds_s)
        # The estimate leaves out terms that the tests found none of; the interval is that of the wide model.
        return np.clip(bounds_s[0], 0, estimate_s), np.maximum(bounds_s[1], estimate_s)

    def _no_interval(self) -> NoIntervalError:
        if self.intervals is None:
            return NoIntervalError(
                f"no interval is known of these parameters ({self.method!r}): they are rounded, without errors, or of "
                "too few settings. Fit a log with RuntimeModel.fit, with trials or spare settings"
            )
        return NoIntervalError(
            "an interval beyond the profiled range needs at least 5 profiled prompt sizes, to see how well the rule "
            f"between them predicts; there are {len(self.num_prompt_tokens)}"
        )


def _assumptions(fit, trials):
    """What the intervals of a fit take for granted, or allow for."""
    if trials is None:
        yield "intervals assume independent trials: these timings do not tell each of them in its order"
        return
    if fit.correlation_trials is not None:
        about = f"over about {max(fit.correlation_trials, 1):.2g} trials"
        yield f"trials depend on those before them, {about}; standard errors allow for that"
    if not trials.is_interleaved:
        yield "settings were timed one after the other: intervals do not hold a drift of the machine over the sweep"


def _prompt_times_of(times) -> tuple[np.ndarray, np.ndarray]:
    """Prompt sizes, ascending, and their times."""
    try:
        pairs = sorted((int(size), number(f"prompt time at {size!r}", time_s)) for size, time_s in times.items())
    except (AttributeError, TypeError) as error:
        raise ValueError("runtime_for_prompt_tokens must be an object by number of prompt tokens") from error
    if not pairs or not is_integer(pairs[0][0], 1) or not is_integer(pairs[-1][0], 1):
        raise ValueError("runtime_for_prompt_tokens needs at least one prompt size, of at least 1 token")
    if negative := [(size, time_s) for size, time_s in pairs if time_s < 0]:
        raise ValueError(f"a prompt time must not be negative; got {negative[0][1]!r} at {negative[0][0]} tokens")
    sizes, times_s = map(np.array, zip(*pairs, strict=True))
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"runtime_for_prompt_tokens names a prompt size twice; got {', '.join(times)}")
    # Times of the published files fall by noise and rounding, by less than a factor of three.
    least_later_s = np.minimum.accumulate(times_s[::-1])[::-1]
    if (falls := times_s > 10 * least_later_s + 0.1).any():
        size, time_s = sizes[falls][0], times_s[falls][0]
        raise ValueError(
            f"a prompt of {size} tokens takes {time_s:.4g} s, over ten times as long as a longer one: one of the two "
            "times is wrong, or in another unit"
        )
    return sizes, times_s
