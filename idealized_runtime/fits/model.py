"""RuntimeModel: what a query costs, in seconds, with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from idealized_runtime.fits import interpolation
from idealized_runtime.fits.entries import number
from idealized_runtime.fits.intervals import Intervals, choose_rule
from idealized_runtime.fits.profiled import ProfiledModel, fields_of_entry
from idealized_runtime.fits.protocol import NoIntervalError, plain
from idealized_runtime.fits.weighted import fit_weighted


@dataclass(frozen=True, eq=False, kw_only=True)
class RuntimeModel(ProfiledModel):
    """Weighted fit of the runtime of a query, t(p, o) = prompt_encoding_time(p) + (o - 1) g(p), with intervals.

    Made by :meth:`fit`, least squares of relative errors, or read from parameters. Between profiled sizes prompt times
    follow ``fits.interpolation``. Intervals hold the error of the fit, the misfit of the model where a test found one,
    and between profiled sizes the error of the rule there; they do not hold what another machine or day would change.
    The noise comes from the trials (``runtime_std_s`` and ``num_trials``) if every setting has them, else from the
    residuals; a standard deviation without its number of trials gives the shape of the noise, the residuals its size.
    In simulations 93 to 97 % of 95 % intervals hold the truth; with only two trials a setting up to 99 %, and with
    means alone of a dozen settings 87 to 100 %. An interval is that of the wide model, with g linear in p and prompt
    times that may fall; where it lies beside the estimate, which has only what tests found significant, it is extended
    and ends there. None is known with too few settings or of parameters without errors.

    Parameters
    ----------
    time_per_output_token_slope_s : float
        Change of g for each further prompt token; 0 where g is constant.
    reference_num_prompt_tokens : int
        Where g is ``time_per_output_token_s``.
    tile_share : float
        Of the rule between profiled sizes.
    intervals : Intervals or None

    The others are those of :class:`~idealized_runtime.fits.profiled.ProfiledModel`.
    """

    method: ClassVar[str] = "weighted"

    reference_num_prompt_tokens: int
    time_per_output_token_slope_s: float = 0.0
    tile_share: float = 0.0
    intervals: Intervals | None = None

    def time_per_output_token_interval_s(self, level=0.95) -> tuple[float, float]:
        """Confidence interval (lower, upper) of g at ``reference_num_prompt_tokens``, neither below 0."""
        lower, upper = self._known_intervals().time_per_output_token(level)
        return max(lower, 0.0), upper

    def to_json(self) -> dict:
        entry, standard_errors = super().to_json(), None
        if self.intervals is not None:
            # For readers; intervals follow from the covariances beside them.
            standard_errors = {
                "runtime_per_output_token": self.intervals.time_per_output_token_standard_error_s(),
                "runtime_for_prompt_tokens": self._by_size(
                    self.intervals.prompt_standard_errors_s(self.num_prompt_tokens)
                ),
            }
        entry["fit"] = self._fit_json(
            {"name": "linear_in_tiles", "tile_tokens": interpolation.TILE_TOKENS, "tile_share": self.tile_share},
            reference=self.reference_num_prompt_tokens,
            slope=self.time_per_output_token_slope_s,
            standard_errors=standard_errors,
            intervals=None if self.intervals is None else self.intervals.to_json(),
        )
        return entry

    @classmethod
    def from_json(cls, entry: Mapping) -> "RuntimeModel":
        """The model of an entry that :meth:`to_json` made; ``fits.model_from_json`` reads any entry."""
        fit = entry["fit"]
        reference, intervals = int(fit["reference_num_prompt_tokens"]), fit["intervals"]
        return cls(
            **fields_of_entry(entry),
            reference_num_prompt_tokens=reference,
            time_per_output_token_slope_s=number("time_per_output_token_slope", fit["time_per_output_token_slope"]),
            tile_share=float(fit["prompt_rule"]["tile_share"]),
            intervals=None if intervals is None else Intervals.from_json(intervals, reference),
        )

    def with_overhead(self) -> "RuntimeModel":
        sums_s = self.profiled_prompt_times_s
        # Neither an overhead nor a prompt time is below zero.
        overhead_s = sums_s[0] - self.time_per_output_token_at(self.num_prompt_tokens[0])
        overhead_s = float(np.clip(overhead_s, 0, sums_s.min()))
        return replace(self, overhead_s=overhead_s, profiled_prompt_times_s=sums_s - overhead_s)

    @classmethod
    def _fitted_parts(cls, settings) -> dict:
        fit = fit_weighted(settings)
        tile_share, rule_error = choose_rule(fit.sizes, fit.prompt_times_s)
        return {
            "num_prompt_tokens": fit.sizes,
            "profiled_prompt_times_s": fit.prompt_times_s,
            "time_per_output_token_s": fit.time_per_output_token_s,
            "time_per_output_token_slope_s": fit.slope,
            "reference_num_prompt_tokens": fit.reference,
            "tile_share": tile_share,
            "intervals": None if fit.covariance is None else Intervals(fit.covariance, fit.reference, rule_error),
        }

    def _checked_prompts(self, num_prompt_tokens, extrapolate):
        p = super()._checked_prompts(num_prompt_tokens, extrapolate)
        profiled = self.num_prompt_tokens
        if extrapolate and len(profiled) == 1 and np.any(p != profiled[0]):
            raise ValueError(f"one prompt size was profiled, {profiled[0]}, so there is no line to go on along")
        return p

    def _prompt_times_by_rule(self, p):
        return self._anchors(p).blend(self.profiled_prompt_times_s)

    def _anchors(self, p):
        return interpolation.locate(p, self.num_prompt_tokens, self.profiled_prompt_times_s, self.tile_share)

    def _tokens_times(self, p):
        if not self.time_per_output_token_slope_s:
            return super()._tokens_times(p)
        sizes = self._held_if_falling(p, self.time_per_output_token_slope_s)
        offset_tokens = sizes - float(self.reference_num_prompt_tokens)
        return self.time_per_output_token_s + self.time_per_output_token_slope_s * offset_tokens

    def _held_if_falling(self, p, slope):
        """Sizes at which to take g: one that falls with p is held outside the profiled range, or it ends below 0."""
        return np.clip(p, *self.num_prompt_tokens[[0, -1]]) if slope < 0 else p

    def _known_intervals(self) -> Intervals:
        if self.intervals is None:
            raise NoIntervalError(
                "no interval is known: these parameters come without errors, or from too few settings. Fit a log with "
                "trials or spare settings"
            )
        return self.intervals

    def _has_interval(self, p):
        if self.intervals is None:
            return np.zeros(p.shape, dtype=bool)
        return ~(self.is_extrapolated(p) & np.isnan(self.intervals.rule_error.scale))

    def _interval(self, p, decoded, estimate_s, level):
        known = self._known_intervals()
        if not np.all(self._has_interval(p)):
            raise NoIntervalError(
                "an interval beyond the profiled range needs at least 5 profiled prompt sizes, to see how well "
                f"the rule between them predicts; there are {len(self.num_prompt_tokens)}"
            )
        held = self._held_if_falling(p, known.covariance.slopes[1:].sum())
        lower, upper = known.runtime(
            self._anchors(p), held, decoded, self._prompt_times(p), level, is_extrapolated=self.is_extrapolated(p)
        )
        # The estimate leaves out terms that the tests found none of; the interval is that of the wide model.
        return plain(np.clip(lower, 0, estimate_s)), plain(np.maximum(upper, estimate_s))
