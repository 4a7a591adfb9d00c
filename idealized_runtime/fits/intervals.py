"""Confidence intervals of runtimes, prompt times and g, from a fit's covariance and the rule between sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idealized_runtime.fits import entries
from idealized_runtime.fits.interpolation import Anchors, choose_tile_share, leave_one_out_errors, tile_share_spread
from idealized_runtime.fits.uncertainty import Covariance
from idealized_runtime.statistics.intervals import half_width, satterthwaite_dof

# With fewer inner sizes their errors say nothing about their own spread.
MIN_LEFT_OUT = 3


@dataclass(frozen=True)
class RuleError:
    """What the rule between profiled sizes errs by, found by leaving out sizes.

    Its standard deviation is ``scale * sqrt(prompt time)``: between a constant number of seconds and a constant
    share, as the left-out sizes of the published logs show it (94 % of them on A100 and 97 % on V100 fall into
    their 95 % intervals). NaN with fewer than ``MIN_LEFT_OUT`` sizes to leave out. Sizes that are all whole tiles say
    nothing of the staircase between them: ``tile_share_spread`` is how far the tile share may be from the one chosen,
    and the error is at least so many times the difference that all tiles would make.
    """

    scale: float
    dof: float
    tile_share_spread: float = 0.0


def choose_rule(sizes, times_s) -> tuple[float, RuleError]:
    """Tile share of the rule between these profiled sizes, given their prompt times, and what it errs by."""
    tile_share = choose_tile_share(sizes, times_s)
    errors_s = leave_one_out_errors(sizes, times_s, tile_share)
    if len(errors_s) < MIN_LEFT_OUT:
        return tile_share, RuleError(scale=np.nan, dof=np.nan)
    scale = float(np.sqrt(np.mean(errors_s**2 / times_s[1:-1])))
    return tile_share, RuleError(scale, float(len(errors_s)), tile_share_spread(sizes, times_s, tile_share))


@dataclass(frozen=True)
class Intervals:
    """Everything an interval is computed from."""

    covariance: Covariance
    reference: int
    rule_error: RuleError

    def to_json(self) -> dict:
        """As :meth:`from_json` takes it; JSON has neither infinity (unlimited degrees of freedom) nor NaN, so null."""
        return {"covariance": entries.to_json(self.covariance), "rule_error": entries.to_json(self.rule_error)}

    @classmethod
    def from_json(cls, intervals: Mapping, reference: int) -> "Intervals":
        """Intervals that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            A field is missing, or is not what it should be; the message names it.
        """
        covariance, rule_error = (
            entries.made_from_json(made, intervals[name], missing, name=f"fit.intervals.{name}")
            for name, made, missing in (("covariance", Covariance, np.inf), ("rule_error", RuleError, np.nan))
        )
        known = covariance
        num_levels, num_slopes = np.size(known.levels_s), np.size(known.slopes)
        shapes = {
            "levels_s": (num_levels,), "mean_regressors": (num_levels, num_slopes), "slopes": (num_slopes,),
            "level_variance": (num_levels,), "level_slope_covariance": (num_levels, num_slopes),
            "slope_covariance": (num_slopes, num_slopes), "level_dof": (num_levels,),
            "level_rounding_variance": (num_levels,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if np.shape(getattr(known, name)) != shape:
                found = np.shape(getattr(known, name))
                raise ValueError(f"fit.intervals.covariance.{name} must be of shape {shape}; got {found}")
        for name in ("level_variance", "level_rounding_variance", "lack_of_fit"):
            if np.any(np.asarray(getattr(known, name)) < 0):
                raise ValueError(f"fit.intervals.covariance.{name} must not be negative")
        return cls(covariance, reference, rule_error)

    def check_estimates(self, sizes, prompt_sums_s, time_per_output_token_s: float):
        """Refuse estimates that are not those whose covariance this is.

        They are of the model that tests chose, and this of the widest, so they may differ by what is insignificant.

        Parameters
        ----------
        sizes, prompt_sums_s : array
            Profiled prompt sizes, and prompt encoding time and overhead at each.
        time_per_output_token_s : float

        Raises
        ------
        ValueError
            One is further away than 6 standard errors and 1 %.
        """
        known = self.covariance
        if len(sizes) != len(known.levels_s):
            raise ValueError(
                f"runtime_for_prompt_tokens has {len(sizes)} sizes, fit.intervals.covariance {len(known.levels_s)}"
            )
        expected_s = known.levels_s - known.mean_regressors @ known.slopes
        token_error_s = self.time_per_output_token_standard_error_s()
        for name, found, expected, error_s in (
            ("runtime_per_output_token", time_per_output_token_s, known.slopes[0], token_error_s),
            ("runtime_for_prompt_tokens", prompt_sums_s, expected_s, self.prompt_standard_errors_s(sizes)),
        ):
            is_off = np.abs(found - expected) > 6 * error_s + 0.01 * np.abs(found)
            if np.any(is_off):
                first = int(np.argmax(is_off))
                raise ValueError(
                    f"{name} is not what fit.intervals.covariance of the same entry is of: "
                    f"{np.ravel(found)[first]:.4g} s, there {np.ravel(expected)[first]:.4g} s; fit the log again"
                )

    def runtime(self, anchors: Anchors, p, decoded, prompt_time_s, level, *, is_extrapolated, tile_difference_s):
        """Lower and upper bound of the true mean runtime at each query.

        ``tile_difference_s`` is what a rule of tiles alone and one without them differ by. Where the error of the rule
        between sizes is not known, monotony stands in: the interval goes from the lower bound of the smaller neighbour
        to the upper bound of the larger one.
        """
        # On a profiled size the rule adds nothing.
        is_between = (anchors.position != 0) & (anchors.position != 1) | is_extrapolated
        if not np.isnan(self.rule_error.scale):
            # An extrapolation leans on two sizes, each as far off the line as the query itself may be.
            reach = np.where(anchors.position > 1, 1 + anchors.position**2 + (1 - anchors.position) ** 2, 1.0)
            of_tiles = (self.rule_error.tile_share_spread * tile_difference_s) ** 2
            of_left_out = self.rule_error.scale**2 * prompt_time_s * reach
            rule_variance = np.where(is_between, np.maximum(of_left_out, of_tiles), 0.0)
            return self._bounds(anchors, p, decoded, level, rule_variance)
        lower, upper = self._bounds(anchors, p, decoded, level, 0.0)
        ends = [Anchors(side, side, np.zeros_like(anchors.position)) for side in (anchors.left, anchors.right)]
        (left_lower, left_upper), (right_lower, right_upper) = (
            self._bounds(end, p, decoded, level, 0.0) for end in ends
        )
        lower = np.where(is_between, np.minimum(left_lower, right_lower), lower)
        return lower, np.where(is_between, np.maximum(left_upper, right_upper), upper)

    def time_per_output_token(self, level) -> tuple[float, float]:
        """Bounds of g at the reference prompt size."""
        known = self.covariance
        half_s = half_width(level, known.slope_dof, 0.0) * self.time_per_output_token_standard_error_s()
        return float(known.slopes[0] - half_s), float(known.slopes[0] + half_s)

    def prompt_standard_errors_s(self, sizes) -> np.ndarray:
        """Standard error of the prompt encoding time at each profiled size."""
        number = np.arange(len(sizes))
        anchors = Anchors(number, number, np.zeros(len(sizes)))
        contrast = self._slope_contrast(anchors, sizes, np.zeros(len(sizes)))
        return np.sqrt(sum(self._fit_variances(anchors, contrast)))

    def time_per_output_token_standard_error_s(self) -> float:
        """Standard error of g at the reference prompt size."""
        return float(np.sqrt(self.covariance.slope_covariance[0, 0]))

    def _bounds(self, anchors, p, decoded, level, rule_variance):
        known = self.covariance
        contrast = self._slope_contrast(anchors, p, decoded)
        estimate_s = anchors.blend(known.levels_s) + contrast @ known.slopes
        parts = self._fit_variances(anchors, contrast)
        lack_of_fit = known.lack_of_fit * estimate_s**2
        variance = sum(parts) + lack_of_fit + rule_variance
        spread = self._spread(anchors, parts) + lack_of_fit**2 / known.lack_of_fit_dof
        spread = spread + rule_variance**2 / self.rule_error.dof if np.any(rule_variance) else spread
        dof = satterthwaite_dof(variance, spread)
        left = (1 - anchors.position) ** 2 * known.level_rounding_variance[anchors.left]
        right = anchors.position**2 * known.level_rounding_variance[anchors.right]
        rounding_share = np.minimum(np.hypot(left, right) / variance, 1)
        half_s = half_width(level, dof, rounding_share) * np.sqrt(variance)
        return estimate_s - half_s, estimate_s + half_s

    def _slope_contrast(self, anchors, p, decoded):
        known = self.covariance
        columns = [decoded, decoded * (p - self.reference)][: len(known.slopes)]
        return np.stack(columns, axis=-1) - np.stack(
            [anchors.blend(column) for column in known.mean_regressors.T], axis=-1
        )

    def _fit_variances(self, anchors, contrast):
        """Variances from the levels, the slopes and their covariance; they add up."""
        known = self.covariance
        # Where both anchors are one size the position is 0, and only the left one counts.
        left = (1 - anchors.position) ** 2 * known.level_variance[anchors.left]
        right = anchors.position**2 * known.level_variance[anchors.right]
        # Beyond the last size the two count with different signs: taken as independent, the variance is larger.
        is_between = anchors.position < 1
        levels = left + right + is_between * 2 * known.level_correlation * np.sqrt(left * right)
        slopes = np.einsum("...i,ij,...j->...", contrast, known.slope_covariance, contrast)
        crossed = np.stack([anchors.blend(column) for column in known.level_slope_covariance.T], axis=-1)
        return levels, slopes, 2 * np.einsum("...i,...i->...", contrast, crossed)

    def _spread(self, anchors, parts):
        """Sum of the squares of independent parts over their degrees of freedom."""
        known = self.covariance
        levels, slopes, crossed = parts
        if known.is_from_residuals:
            return (levels + slopes + crossed) ** 2 / known.slope_dof
        left = ((1 - anchors.position) ** 2 * known.level_variance[anchors.left]) ** 2 / known.level_dof[anchors.left]
        right = (anchors.position**2 * known.level_variance[anchors.right]) ** 2 / known.level_dof[anchors.right]
        return left + right + slopes**2 / known.slope_dof
