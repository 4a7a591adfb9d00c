"""A cost as a smooth function of model size, regressed over the few models that were measured.

The function is a floor and a power, ``floor (1 + (N / knee)^exponent)``: below the knee a query costs what starting
the kernels of a model costs, whatever its size; above it, work and the accelerators that share it grow with N. It is
positive, rises with N, and is convex in log N, so that a training cost that is convex in log N stays so when this
is added: the sum has one minimum.

Errors are regressed in log space. With a handful of models their posterior is computed, not approximated: on a grid
of knees and exponents, all of them alike probable beforehand, level and scatter have their exact distributions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative, check_positive
from idealized_runtime.statistics.intervals import percentile_interval

MIN_MODELS = 4
# Work is proportional to N (exponent 1); parallelism adds to that, wider matrices save. A knee at a hundredth of
# the smallest model is a floor that no measured model shows.
_NUM_KNEES, _SMALLEST_KNEE = 61, 0.01
_EXPONENTS = np.linspace(0.5, 2.0, _NUM_KNEES)
_NUM_DRAWS = 20_000


@dataclass(frozen=True, eq=False)
class FloorPowerLaw:
    """``floor (1 + (N / num_params_knee)^exponent)``; parameters are scalars, or arrays: one law a draw."""

    floor: np.ndarray
    num_params_knee: np.ndarray
    exponent: np.ndarray

    def __call__(self, num_params):
        """Value at each size; broadcasts, so that draws of shape (draws, 1) and sizes (n,) give (draws, n)."""
        return self.floor * (1 + self._power(num_params))

    def slope(self, num_params):
        """Derivative of the value with respect to ln(num_params), same shape."""
        return self.floor * self.exponent * self._power(num_params)

    def _power(self, num_params):
        return (np.asarray(num_params, dtype=float) / self.num_params_knee) ** self.exponent


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """A floor and a power through measured models, with what is known of its error. Made by :meth:`fit`.

    Parameters
    ----------
    num_params, costs : array of shape (models,)
        Sizes and the cost measured at each, such as accelerator-seconds of a query.
    law : FloorPowerLaw
        Least squares in log space.
    residual_std : float
        Of the logarithm about ``law``, three parameters counted.
    log_error : float
        Standard error of the logarithm of the costs that they have in common, such as a prediction's, and that their
        scatter therefore does not show.
    """

    num_params: np.ndarray
    costs: np.ndarray
    law: FloorPowerLaw
    residual_std: float
    log_error: float = 0.0

    @classmethod
    def fit(cls, num_params: ArrayLike, costs: ArrayLike, *, log_error: float = 0.0) -> "SizeCurve":
        """Regress a cost on model size.

        Raises
        ------
        ValueError
            Fewer than ``MIN_MODELS`` models, all of one size, or a size or value that is not positive.
        """
        sizes, costs = np.asarray(num_params, dtype=float), np.asarray(costs, dtype=float)
        if sizes.size < MIN_MODELS:
            raise ValueError(f"a cost as a function of size needs at least {MIN_MODELS} models; got {sizes.size}")
        check_positive(num_params=sizes, costs=costs)
        check_not_negative(log_error=log_error)
        if sizes.min() == sizes.max():
            raise ValueError(f"the models must differ in size; all have {sizes[0]:g} parameters")
        shapes = _Shapes.over(sizes, costs).zoomed(sizes, costs)
        best = shapes.best
        residual_std = np.sqrt(shapes.squared_errors[best] / max(sizes.size - 3, 1))
        return cls(sizes, costs, shapes.law(best, shapes.levels[best]), float(residual_std), float(log_error))

    def __call__(self, num_params):
        """The regressed cost at each size."""
        return self.law(num_params)

    def describe(self) -> dict:
        """Number of models and the coefficients: ``floor`` in the unit of the cost, ``knee_billion_params``,
        ``exponent``, and ``log_scatter`` of the models about the law."""
        return {
            "num_models": self.num_params.size,
            "floor": float(self.law.floor),
            "knee_billion_params": float(self.law.num_params_knee) / 1e9,
            "exponent": float(self.law.exponent),
            "log_scatter": self.residual_std,
        }

    def draw(self, shape: ArrayLike, *, rng: int | np.random.Generator, of_new_model: bool = True) -> FloorPowerLaw:
        """Laws that the measured models leave possible.

        Parameters
        ----------
        shape : int or tuple of int
            Of the parameters: ``n`` draws for one size each, ``(n, 1)`` to evaluate each at several.
        rng : numpy Generator, or a seed
        of_new_model : bool
            Include by how much a model lies off the line, as one factor for all sizes: a family whose depths, widths
            and number of accelerators differ from those of the measured models. Otherwise only the line is uncertain.

        Returns
        -------
        FloorPowerLaw
        """
        rng = np.random.default_rng(rng)
        shapes, num_models = _Shapes.over(self.num_params, self.costs), self.num_params.size
        picked = rng.choice(shapes.levels.size, shape, p=shapes.probabilities())
        variance = shapes.squared_errors[picked] / rng.chisquare(num_models - 1, shape)
        share = 1 / num_models + (1 if of_new_model else 0)
        levels = shapes.levels[picked] + rng.standard_normal(shape) * np.sqrt(variance * share + self.log_error**2)
        return shapes.law(picked, levels)

    def interval(
        self,
        num_params: ArrayLike,
        *,
        level: float = 0.95,
        rng: int | np.random.Generator = 0,
        of_new_model: bool = True,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Lower and upper bound of the cost at each size: of a new model there, or of the line.

        Of 96 costs of the published models on A100 and V100 (encoding of 16, 128 and 512 prompt tokens, one output
        token), 88 lie in the 95 % interval for a new model that the other models give.
        """
        drawn = self.draw((_NUM_DRAWS, 1), rng=rng, of_new_model=of_new_model)(np.atleast_1d(num_params))
        lower, upper = percentile_interval(drawn, level)
        return (lower[0], upper[0]) if np.ndim(num_params) == 0 else (lower, upper)

    def is_extrapolated(self, num_params: ArrayLike) -> bool | np.ndarray:
        """Whether each size lies outside the measured ones."""
        sizes = np.asarray(num_params)
        return (sizes < self.num_params.min()) | (sizes > self.num_params.max())


@dataclass(frozen=True, eq=False)
class _Shapes:
    """Every knee and exponent of the grid: the level that fits best with it, and its sum of squared log errors."""

    log_knees: np.ndarray
    exponents: np.ndarray
    levels: np.ndarray
    squared_errors: np.ndarray
    num_models: int

    @classmethod
    def over(cls, num_params, costs):
        """All shapes that are possible beforehand."""
        smallest, largest = np.log(np.min(num_params)), np.log(np.max(num_params))
        knees = np.linspace(smallest + np.log(_SMALLEST_KNEE), largest, _NUM_KNEES)
        return cls._of_grid(num_params, costs, knees, _EXPONENTS)

    @classmethod
    def _of_grid(cls, num_params, costs, log_knees, exponents):
        exponents, knees = (grid.ravel() for grid in np.meshgrid(exponents, log_knees, indexing="ij"))
        errors = np.log(costs) - np.logaddexp(0, exponents[:, None] * (np.log(num_params) - knees[:, None]))
        levels = errors.mean(axis=1)
        return cls(knees, exponents, levels, ((errors - levels[:, None]) ** 2).sum(axis=1), len(num_params))

    @property
    def best(self) -> int:
        """Shape of least squares."""
        return int(np.argmin(self.squared_errors))

    def zoomed(self, num_params, costs):
        """A finer grid, one cell of this one to each side of the best shape, within the bounds of this one."""
        grids = []
        for values, best in ((self.log_knees, self.log_knees[self.best]), (self.exponents, self.exponents[self.best])):
            step = (values.max() - values.min()) / (_NUM_KNEES - 1)
            grids.append(np.clip(best + step * np.linspace(-1, 1, _NUM_KNEES), values.min(), values.max()))
        return self._of_grid(num_params, costs, *grids)

    def probabilities(self):
        """Posterior of each shape, level and scatter integrated out (flat prior of the level, 1 / scatter)."""
        log_odds = -(self.num_models - 1) / 2 * np.log(np.maximum(self.squared_errors, np.finfo(float).tiny))
        odds = np.exp(log_odds - log_odds.max())
        return odds / odds.sum()

    def law(self, picked, levels):
        return FloorPowerLaw(np.exp(levels), np.exp(self.log_knees[picked]), self.exponents[picked])
