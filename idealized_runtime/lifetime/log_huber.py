"""The objective of a scaling law's fit, for many sets of coefficients at once, with exact derivatives.

A set of coefficients is a row (ln A, ln B, ln E, alpha, beta); arrays of them have the shape (S, 5).
"""

import numpy as np
import pandas as pd

NUM_COEFFICIENTS = 5
# Reweighted least squares comes near a minimum from anywhere, Newton's method then reaches it. Where that gets
# stuck, on the kinks of the Huber loss, another round of both goes on.
_MAX_STEPS = 20
_MAX_ROUNDS = 12
# Of delta, the most that one run can add to a slope: below this the point is a minimum.
_SLOPE_TOLERANCE = 1e-7
_DAMPING_RANGE = 1e-10, 1e8


class LogHuber:
    """Sum over runs of Huber(ln predicted loss - ln loss), for many sets of coefficients at once.

    Parameters
    ----------
    runs : DataFrame
        Columns ``num_params, num_training_tokens, loss``.
    delta : float
    counts : array of shape (S, runs), optional
        How often each run counts for each set of coefficients: a bootstrap's resamples.
    """

    def __init__(self, runs: pd.DataFrame, delta: float, counts=None):
        self._log_params, self._log_tokens, self._log_loss = np.log(
            runs[["num_params", "num_training_tokens", "loss"]].to_numpy(dtype=float)
        ).T
        self._delta = delta
        self._counts = counts
        # ln A and ln B at the middle of the runs instead of at one parameter and one token: well conditioned.
        self._centre = self._log_params.mean(), self._log_tokens.mean()

    def minimize(self, starts):
        """Local minimum from each start, rows of (ln A, ln B, ln E, alpha, beta), and its objective.

        Reweighted least squares first, whose steps are bold far from a minimum, then Newton's; both damped
        (Levenberg and Marquardt), so that the objective never rises.

        Returns
        -------
        ndarray of shape (S, 5), ndarray of shape (S,)
        """
        points = self._centred(starts, +1)
        values = np.full(len(points), np.inf)
        rows = np.arange(len(points))
        for _ in range(_MAX_ROUNDS):
            points[rows], *_ = self._descend(points[rows], rows, self._reweighted_curvature)
            points[rows], values[rows], is_minimum = self._descend(points[rows], rows, self._newton_curvature)
            rows = rows[~is_minimum]
            if not rows.size:
                break
        return self._centred(points, -1), values

    def residuals(self, coefficients):
        """ln predicted loss - ln loss, shape (S, runs)."""
        return self._residuals_and_shares(self._centred(coefficients, +1))[0]

    def value_and_gradient(self, coefficients):
        """Objective, shape (S,), and its derivatives, shape (S, 5)."""
        value, slope, _ = self._derivatives(self._centred(coefficients, +1), slice(None), self._newton_curvature)
        # ln A = point - alpha * centre changes the derivatives with respect to the exponents only.
        slope[:, 3:] -= slope[:, :2] * self._centre
        return value, slope

    def _centred(self, coefficients, sign):
        points = np.array(coefficients, dtype=float)
        points[:, :2] -= sign * points[:, 3:] * self._centre
        return points

    def _residuals_and_shares(self, points):
        """Residuals, and the share of each of the three terms in the predicted loss: arrays of (S, runs)."""
        log_a, log_b, log_e, alpha, beta = points.T[:, :, None]
        size_term = log_a - alpha * (self._log_params - self._centre[0])
        token_term = log_b - beta * (self._log_tokens - self._centre[1])
        largest = np.maximum(np.maximum(size_term, token_term), log_e)
        shares = np.stack([np.exp(term - largest) for term in (size_term, token_term, log_e)])
        total = shares.sum(axis=0)
        shares /= total
        return largest + np.log(total) - self._log_loss, shares

    def _derivatives(self, points, rows, curvature):
        residuals, shares = self._residuals_and_shares(points)
        counts = 1 if self._counts is None else self._counts[rows]
        distance = np.abs(residuals)
        quadratic_part = np.minimum(distance, self._delta)
        huber = quadratic_part * (distance - quadratic_part / 2)
        influence = np.clip(residuals, -self._delta, self._delta) * counts
        size_share, token_share, constant_share = shares
        params, tokens = self._log_params - self._centre[0], self._log_tokens - self._centre[1]
        jacobian = np.stack(
            [size_share, token_share, constant_share, -size_share * params, -token_share * tokens], axis=1
        )
        slope = np.matmul(jacobian, influence[:, :, None])[:, :, 0]
        return (huber * counts).sum(axis=1), slope, curvature(distance, shares, influence, counts, jacobian)

    def _reweighted_curvature(self, distance, shares, influence, counts, jacobian):
        """Gauss-Newton, each residual weighted by delta / |residual| beyond delta: an upper bound of Huber's."""
        weights = self._delta / np.maximum(distance, self._delta) * counts
        return np.matmul(jacobian * weights[:, None], jacobian.transpose(0, 2, 1))

    def _newton_curvature(self, distance, shares, influence, counts, jacobian):
        """Second derivatives. With d_k the derivatives of term k, those of a log-sum-exp are
        sum_k share_k d_k d_k' - gradient gradient'."""
        weights = (distance <= self._delta) * counts - influence
        curvature = np.matmul(jacobian * weights[:, None], jacobian.transpose(0, 2, 1))
        size, token, constant = shares * influence
        for scale, exponent, weighted, log_variable in (
            (0, 3, size, self._log_params - self._centre[0]),
            (1, 4, token, self._log_tokens - self._centre[1]),
        ):
            curvature[:, scale, scale] += weighted.sum(axis=1)
            cross = weighted @ log_variable
            curvature[:, scale, exponent] -= cross
            curvature[:, exponent, scale] -= cross
            curvature[:, exponent, exponent] += weighted @ log_variable**2
        curvature[:, 2, 2] += constant.sum(axis=1)
        return curvature

    def _descend(self, points, rows, curvature):
        """Damped steps from every point until it is a minimum, or no step lowers its objective.

        ``rows`` are the places of the points among the counts.
        """
        points = points.copy()
        active = np.arange(len(points))
        values, slopes, curvatures = self._derivatives(points, rows, curvature)
        damping = np.full(len(points), 1e-3)
        for _ in range(_MAX_STEPS):
            tried = points[active] + _damped_steps(slopes[active], curvatures[active], damping[active])
            tried_values, tried_slopes, tried_curvatures = self._derivatives(tried, rows[active], curvature)
            is_lower = tried_values < values[active]
            lower = active[is_lower]
            points[lower], values[lower] = tried[is_lower], tried_values[is_lower]
            slopes[lower], curvatures[lower] = tried_slopes[is_lower], tried_curvatures[is_lower]
            damping[active] = np.clip(damping[active] * np.where(is_lower, 0.2, 4), *_DAMPING_RANGE)
            is_stuck = damping[active] >= _DAMPING_RANGE[1]
            active = active[~(is_stuck | self._is_minimum(slopes[active]))]
            if not active.size:
                break
        return points, values, self._is_minimum(slopes)

    def _is_minimum(self, slopes):
        return np.abs(slopes).max(axis=1) < _SLOPE_TOLERANCE * self._delta


def _damped_steps(slopes, curvatures, damping):
    """Solve (curvature + damping * its diagonal) step = -slope; a coefficient without effect stays where it is."""
    diagonal = np.abs(np.einsum("sii->si", curvatures))
    # Unit diagonal, so that coefficients of any scale can be solved for together.
    norm = np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-100))
    scaled = curvatures / (norm[:, :, None] * norm[:, None, :]) + damping[:, None, None] * np.eye(NUM_COEFFICIENTS)
    return np.linalg.solve(scaled, -(slopes / norm)[:, :, None])[:, :, 0] / norm
