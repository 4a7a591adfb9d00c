"""Least squares for the time of one pass through the pipeline, a level for each profiled size.

The size of a pass is what goes through the pipeline together: m p prompt tokens, or k sequences that each
generate a token. Between profiled sizes the time is linear in the size, as it is where a kernel reads its
weights (a constant) and where it computes (a line). The longer the context, the longer the keys and values of
each sequence take to read: a term in size x context, where several contexts were timed.
"""

from dataclasses import dataclass, replace

import numpy as np

from idealized_runtime.fits.batched.pipeline import num_passes, passes_per_share
from idealized_runtime.fits.entries import from_json
from idealized_runtime.fits.interpolation import locate
from idealized_runtime.fits.intervals import MIN_LEFT_OUT
from idealized_runtime.fits.protocol import NoIntervalError
from idealized_runtime.statistics.intervals import satterthwaite_dof

_NUM_SHARES = 41
# Shares whose sums of squared relative errors differ by less are not told apart by the timings.
_SAME_FIT = 1e-12


@dataclass(frozen=True, eq=False)
class Work:
    """What passes through the pipeline, one row a setting or query; see :mod:`.pipeline` for rounds and n."""

    size: np.ndarray
    num_rounds: np.ndarray
    num_micro_batches: np.ndarray
    context: np.ndarray  # mean over the rounds; tokens

    def take(self, rows) -> "Work":
        """The rows of a mask."""
        return Work(self.size[rows], self.num_rounds[rows], self.num_micro_batches[rows], self.context[rows])


@dataclass(frozen=True, eq=False)
class _Basis:
    """What the time of a pass is linear in: its levels at the profiled sizes, and size x context."""

    sizes: np.ndarray
    reference_context: float
    has_context_term: bool

    def rows(self, work: Work) -> np.ndarray:
        """Time of one pass of each row of work, as coefficients of the parameters."""
        anchors = locate(work.size, self.sizes, self.sizes, 0.0)
        levels = np.zeros((len(work.size), len(self.sizes)))
        number = np.arange(len(work.size))
        levels[number, anchors.right] += anchors.position
        levels[number, anchors.left] += 1 - anchors.position
        offset = work.size * (work.context - self.reference_context)
        return np.column_stack([levels, offset]) if self.has_context_term else levels


@dataclass(frozen=True, eq=False)
class PassTimes:
    """Time of one pass by its size, and what is known of its errors.

    Parameters
    ----------
    basis : _Basis
    parameters : float array
        Seconds of one pass through all stages at each profiled size, then, where it was fitted, seconds for
        each sequence and each token of context beyond the reference.
    bottleneck_share : float
        The slowest stage's share of a pass; 1 / P where the timings do not tell it.
    has_fitted_share : bool
    covariance : array
        Of the parameters and the share, in units of the squared relative scatter.
    relative_std, dof
        Scatter of measured about predicted times, relative, and its degrees of freedom; 0 of them where
        every size was timed in one setting only.
    rule_std, rule_dof
        Relative error of the line between two sizes, found by leaving out one inner size after the other, and
        their number; 0 with fewer than three.
    """

    basis: _Basis
    parameters: np.ndarray
    bottleneck_share: float
    has_fitted_share: bool
    covariance: np.ndarray
    relative_std: float
    dof: int
    rule_std: float = np.nan
    rule_dof: int = 0

    @classmethod
    def from_json(cls, parts) -> "PassTimes":
        """What ``fits.entries.to_json`` made of pass times."""
        basis = {name: from_json(value, np.nan) for name, value in parts["basis"].items()}
        numbers = {name: from_json(value, np.nan) for name, value in parts.items() if name != "basis"}
        return cls(_Basis(**basis), **numbers)

    @property
    def sizes(self) -> np.ndarray:
        """Profiled sizes, ascending."""
        return self.basis.sizes

    @property
    def times_s(self) -> np.ndarray:
        """Seconds of one pass at each of ``sizes``, at the mean context of the timings."""
        return self.parameters[: len(self.sizes)]

    def predict(self, work: Work) -> np.ndarray:
        """Seconds of each row of work."""
        passes = num_passes(work.num_rounds, work.num_micro_batches, self.bottleneck_share)
        return passes * (self.basis.rows(work) @ self.parameters)

    def variance(self, work: Work) -> tuple[np.ndarray, np.ndarray]:
        """Variance of another measurement about each prediction (s^2), and its degrees of freedom.

        Raises
        ------
        NoIntervalError
            Nothing is known of the errors.
        """
        scatter, dof = (self.relative_std, self.dof) if self.dof else (self.rule_std, self.rule_dof)
        if not dof:
            raise NoIntervalError(
                "no interval is known: every size was timed in one setting only, and fewer than "
                f"{MIN_LEFT_OUT} sizes lie between others; time more batch sizes or token micro-batch sizes"
            )
        predicted_s = self.predict(work)
        gradient = _gradient(self, work)
        leverage = np.einsum("ni,ij,nj->n", gradient, self.covariance, gradient)
        fitted = scatter**2 * (predicted_s**2 + leverage)
        # On a profiled size the rule between sizes adds nothing.
        is_between = ~np.isin(work.size, self.sizes) & (self.rule_dof > 0)
        between = np.where(is_between, self.rule_std * predicted_s, 0.0) ** 2
        variance = fitted + between
        spread = fitted**2 / dof + between**2 / max(self.rule_dof, 1)
        return variance, satterthwaite_dof(variance, spread)


def fit_pass_times(work: Work, times_s, num_stages: int) -> PassTimes:
    """Fit the measured seconds of each row of work; relative errors count alike.

    Raises
    ------
    ValueError
        A fitted time of a pass is not positive.
    """
    fit = _fit(work, times_s, num_stages)
    if fit.times_s.min() <= 0:
        worst = int(np.argmin(fit.times_s))
        raise ValueError(f"the fitted time of a pass of size {fit.sizes[worst]:g} is not positive; check its timings")
    errors = []
    for size in fit.sizes[1:-1]:
        is_out = work.size == size
        others = _fit(work.take(~is_out), times_s[~is_out], num_stages)
        errors.append(np.mean(others.predict(work.take(is_out)) / times_s[is_out] - 1))
    if len(errors) < MIN_LEFT_OUT:
        return fit
    return replace(fit, rule_std=float(np.sqrt(np.mean(np.square(errors)))), rule_dof=len(errors))


def _fit(work, times_s, num_stages) -> PassTimes:
    has_context_term = len(np.unique(work.context)) > 1
    basis = _Basis(np.unique(work.size), float(np.mean(work.context)), has_context_term)
    fit = _fit_on(basis, work, times_s, num_stages)
    if has_context_term and fit.parameters[-1] < 0:
        # Reading more keys and values takes no less time: a falling term is noise.
        basis = _Basis(basis.sizes, basis.reference_context, has_context_term=False)
        fit = _fit_on(basis, work, times_s, num_stages)
    return fit


def _fit_on(basis, work, times_s, num_stages) -> PassTimes:
    share, has_fitted_share = _fit_share(basis, work, times_s, num_stages)
    parameters, squares = _solve(basis, work, times_s, share)
    dof = len(times_s) - len(parameters) - has_fitted_share
    fit = PassTimes(
        basis, parameters, share, has_fitted_share,
        covariance=np.empty(0), relative_std=float(np.sqrt(squares / dof)) if dof > 0 else np.nan, dof=max(dof, 0),
    )  # fmt: skip
    relative = _gradient(fit, work) / times_s[:, None]
    return replace(fit, covariance=np.linalg.pinv(relative.T @ relative))


def _fit_share(basis, work, times_s, num_stages) -> tuple[float, bool]:
    """The slowest stage's share with the least squares, from 1 / P to 1; 1 / P where timings do not tell."""
    from scipy.optimize import minimize_scalar

    if num_stages == 1:
        return 1.0, False
    shares = np.linspace(1 / num_stages, 1, _NUM_SHARES)
    squares = np.array([_solve(basis, work, times_s, share)[1] for share in shares])
    if np.ptp(squares) < _SAME_FIT:
        return 1 / num_stages, False
    best = int(np.argmin(squares))
    bounds = shares[max(best - 1, 0)], shares[min(best + 1, _NUM_SHARES - 1)]
    found = minimize_scalar(
        lambda share: _solve(basis, work, times_s, share)[1], bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    return (float(found.x) if found.fun < squares[best] else float(shares[best])), True


def _solve(basis, work, times_s, share) -> tuple[np.ndarray, float]:
    """Parameters at this share, and their sum of squared relative errors."""
    passes = num_passes(work.num_rounds, work.num_micro_batches, share)
    design = basis.rows(work) * (passes / times_s)[:, None]
    parameters = np.linalg.lstsq(design, np.ones(len(times_s)), rcond=None)[0]
    return parameters, float(np.sum((design @ parameters - 1) ** 2))


def _gradient(fit, work) -> np.ndarray:
    """Derivatives of the predicted seconds by the parameters and, where it was fitted, the share."""
    rows = fit.basis.rows(work)
    passes = num_passes(work.num_rounds, work.num_micro_batches, fit.bottleneck_share)
    columns = [rows * passes[:, None]]
    if fit.has_fitted_share:
        by_share = passes_per_share(work.num_rounds, work.num_micro_batches, fit.bottleneck_share)
        columns.append((by_share * (rows @ fit.parameters))[:, None])
    return np.concatenate(columns, axis=1)
