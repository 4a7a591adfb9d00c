"""The size that reaches a loss at the least cost over training and inference."""

from dataclasses import dataclass

import numpy as np

from idealized_runtime.lifetime.costs import LifetimeCosts
from idealized_runtime.lifetime.scaling_law import (
    TRAINING_FLOPS_PER_PARAM_AND_TOKEN,
    ModelSize,
    ScalingLaw,
    chinchilla_size,
    is_reachable,
)

# Of the logarithm of the odds: sizes are then known to some 1e-12, relatively.
_TOLERANCE = 1e-13
_MAX_WIDENINGS = 12
_NUM_CONVEXITY_CHECKS = 9
# Of log odds, on either side of the bracket: steps are flat nearly everywhere, and so pull no bracket apart.
_CHECKED_MARGIN = 2.0
# Of the largest marginal cost: what numerical differentiation may get wrong.
_CONVEXITY_TOLERANCE = 1e-6
# Of the largest cost.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class LifetimeOptimum:
    """The cheapest size, and beside it the Chinchilla size of equal loss.

    Parameters
    ----------
    loss : float or array
    optimal, chinchilla : ModelSize
    costs : LifetimeCosts
        What was minimised.
    """

    loss: float | np.ndarray
    optimal: ModelSize
    chinchilla: ModelSize
    costs: LifetimeCosts

    @property
    def optimal_cost(self):
        """Training and inference of the cheapest size, in ``costs.unit``."""
        return self.costs.total(self.optimal)

    @property
    def params_ratio(self):
        """Parameters of the cheapest size over those of the Chinchilla size."""
        return self.optimal.num_params / self.chinchilla.num_params

    @property
    def training_tokens_ratio(self):
        return self.optimal.num_training_tokens / self.chinchilla.num_training_tokens

    @property
    def cost_ratio(self):
        return self.optimal_cost / self.costs.total(self.chinchilla)


def minimize_lifetime_cost(law: ScalingLaw, loss: float, costs: LifetimeCosts) -> LifetimeOptimum:
    """Size of least lifetime cost among all that reach a loss.

    Sizes of equal loss are told apart by z, the logarithm of the odds A / N^alpha : B / D^beta. Along them
    dD / D = -(alpha / beta) e^z dN / N, so that the optimum is the root of

        (alpha / beta) e^z - 1 - (d inference cost / d ln N) / training cost,

    which increases with z. The bracket starts at the Chinchilla size (e^z = beta / alpha), is widened until it
    holds the root, then halved: no start to choose, no step that can go astray.

    Parameters
    ----------
    law : ScalingLaw
    loss : float or array
        Broadcasts with the law's coefficients and with the arrays in ``costs``.
    costs : LifetimeCosts
        Its inference cost must be convex in ln N (see :class:`~idealized_runtime.lifetime.costs.InferenceCost`).

    Returns
    -------
    LifetimeOptimum

    Raises
    ------
    ValueError
        A loss at or below E, or an inference cost that is not finite or not convex.
    """
    log_reducible = np.log(law.reducible_loss(loss))
    chinchilla_odds = np.log(law.beta / law.alpha)
    if not np.all(is_reachable(law, loss)):
        raise ValueError("with these coefficients the loss asks for more than 1e100 parameters or training tokens")

    def slope(log_odds):
        log_num_params, log_num_tokens = _log_sizes(law, log_reducible, log_odds)
        training_flops = TRAINING_FLOPS_PER_PARAM_AND_TOKEN * np.exp(log_num_params + log_num_tokens)
        marginal = costs.inference.marginal_cost(np.exp(log_num_params))
        return np.exp(log_odds - chinchilla_odds) - 1 - marginal / (costs.per_training_flop * training_flops)

    # A cost beyond 1e308 is refused at the start of the bracket, and a slope beyond it still has its sign.
    with np.errstate(over="ignore"):
        low, high = _bracket(slope, chinchilla_odds)
    checked = high + _CHECKED_MARGIN, low - _CHECKED_MARGIN
    _check_convexity(costs.inference, *(_log_sizes(law, log_reducible, log_odds)[0] for log_odds in checked))
    sizes = (np.exp(log)[()] for log in _log_sizes(law, log_reducible, _bisect(slope, low, high)))
    return LifetimeOptimum(loss, ModelSize(*sizes), chinchilla_size(law, loss=loss), costs)


def _log_sizes(law, log_reducible, log_odds):
    """ln N and ln D: the odds share the reducible loss out."""
    log_one_plus_odds = np.logaddexp(0, log_odds)
    log_num_params = (np.log(law.A) - log_reducible + log_one_plus_odds - log_odds) / law.alpha
    log_num_tokens = (np.log(law.B) - log_reducible + log_one_plus_odds) / law.beta
    return log_num_params, log_num_tokens


def _bracket(slope, start):
    """Two log odds around the root of an increasing function, element by element."""
    at_start = slope(start)
    if not np.isfinite(at_start).all():
        raise ValueError("the inference cost must be finite, with a finite derivative, at every size; it is not")
    low = high = np.broadcast_to(start, at_start.shape)
    for widening in range(_MAX_WIDENINGS):
        is_right, is_left = slope(high) < 0, slope(low) > 0
        if not (is_right | is_left).any():
            return low, high
        high = np.where(is_right, start + 2.0**widening, high)
        low = np.where(is_left, start - 2.0**widening, low)
    raise ValueError("the lifetime cost has no minimum: inference must not become cheaper faster than sizes grow")


def _bisect(slope, low, high):
    num_halvings = int(np.ceil(np.log2(max(np.max(high - low), _TOLERANCE) / _TOLERANCE)))
    for _ in range(num_halvings):
        middle = (low + high) / 2
        is_right = slope(middle) < 0
        low, high = np.where(is_right, middle, low), np.where(is_right, high, middle)
    return (low + high) / 2


def _check_convexity(inference, low, high):
    """Refuse a cost that leaves the wedge between its tangents, which a convex function of ln N never does.

    ``low`` and ``high`` bound ln N.
    """
    step = (high - low) / (_NUM_CONVEXITY_CHECKS - 1)
    num_params = np.exp([low + index * step for index in range(_NUM_CONVEXITY_CHECKS)])
    cost, marginal = inference.cost(num_params), inference.marginal_cost(num_params)
    tolerance = _CONVEXITY_TOLERANCE * step * np.abs(marginal).max(axis=0) + _ROUNDING * np.abs(cost).max(axis=0)
    rise, tangent = np.diff(cost, axis=0), marginal * step
    if ((rise < tangent[:-1] - tolerance) | (rise > tangent[1:] + tolerance)).any():
        raise ValueError(
            "the inference cost must be convex in ln(num_params), or the cheapest size is not unique; "
            "it is not, between the sizes that could be optimal: use a smooth cost, without steps"
        )
