"""Step times of models that nobody served on a machine, from what others served there with the same engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.serving.fitting import non_negative_least_squares
from idealized_runtime.statistics.errors import left_out_error_table
from idealized_runtime.statistics.intervals import exchangeable_quantile

# Relative errors beyond this count less than their square, so that one odd model does not bend the others.
_ROBUST_FROM = 0.1
_NUM_ROBUST = 10
# Largest change of a weight at which the iteration ends.
_CONVERGED = 1e-3
_ALWAYS = ("layers", "expert_layers", "weight_bytes", "expert_bytes", "cache_bytes", "sequences")
# Of those, as many as predict models that are left out best.
_OPTIONAL = ("message_widths", "message_bytes", "expert_widths", "quantised_layers")
_READ = ("weight_bytes", "expert_bytes", "cache_bytes")


class TooFewArchitecturesError(ValueError):
    """A stack is told by at least three architectures, so that one can be left out and two left."""


@dataclass(frozen=True)
class ServedStack:
    """Seconds that a machine with its engine takes for a unit of each kind of work of a step; none is negative.

    Units are those of :func:`~idealized_runtime.serving.served_work.served_work`. FLOPs are none of them: at the
    batches that are served they cannot be told from the bytes, the sequences and the messages.

    Examples
    --------
    >>> points = usable_points(read_ml_energy())
    >>> points = points[points["hardware"] == "H100"]
    >>> work = work_of_points(points)
    >>> leave_architectures_out(work, points["time_per_output_token_s"]).table()
    """

    times: Mapping[str, float]

    def seconds(self, work: pd.DataFrame) -> np.ndarray:
        """Time of each step."""
        return work[list(self.times)].to_numpy(float) @ np.array(list(self.times.values()))

    def moved_to(self, accelerator: Accelerator, *, origin: Accelerator) -> "ServedStack":
        """The same engine on a machine without logs: reading by the bandwidths of the data sheets, all else as it is.

        Raises
        ------
        ValueError
            The bandwidth of one of the two is not known.
        """
        rates = [machine.memory_bandwidth_bytes_per_s for machine in (origin, accelerator)]
        if None in rates:
            raise ValueError(f"the memory bandwidth of {origin.name} or {accelerator.name} is not known")
        slower = rates[0] / rates[1]
        return replace(
            self, times={name: time * slower if name in _READ else time for name, time in self.times.items()}
        )


@dataclass(frozen=True, eq=False)
class LeftOutArchitectures:
    """Points predicted from those of other architectures.

    ``rows`` has ``architecture``, ``predicted_s``, ``relative_error`` (predicted / measured - 1), and ``terms``.
    """

    rows: pd.DataFrame

    def half_width(self, level: float = 0.95, *, without: str | None = None) -> float:
        """Of log(predicted / measured), as many of the left-out points have less as ``level``."""
        rows = self.rows if without is None else self.rows[self.rows["architecture"] != without]
        return exchangeable_quantile(np.abs(np.log1p(rows["relative_error"])), level)

    def coverage(self, level: float = 0.95) -> pd.Series:
        """1 where the interval of a point, as wide as only other architectures tell, holds it; NaN without others."""
        names = self.rows["architecture"]
        reach = names.map({name: self.half_width(level, without=name) for name in names.unique()})
        held = np.abs(np.log1p(self.rows["relative_error"])) <= reach
        return held.astype(float).where(reach.notna())

    def table(self, by: str | pd.Series | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """Magnitudes of relative errors, and what intervals of this level cover, in per cent; by a column of rows."""
        return left_out_error_table(self.rows, self.coverage(level), by)


def fit_stack(
    work: pd.DataFrame, times_s, *, further: Sequence[str] = (), optional: Sequence[str] | None = None
) -> ServedStack:
    """Least squares of relative errors over steps of many models; large errors count less than their square.

    Parameters
    ----------
    work : DataFrame
        As from ``work_of_points``, with ``architecture``.
    times_s : array
        Seconds of each step.
    further : sequence of str
        Work beyond that of steps which only generate: ``("begun_layers",)`` for mean times, prompts included.
    optional : sequence of str, optional
        Which of ``message_widths, message_bytes, expert_widths, quantised_layers`` count. Where it is not given, those
        with which the given architectures are predicted best from each other.

    Raises
    ------
    TooFewArchitecturesError
        There are fewer than three, or one where ``optional`` is given.
    """
    times_s = np.asarray(times_s, dtype=float)
    names = work["architecture"].to_numpy()
    always = (*_ALWAYS, *further)
    if optional is None:
        if len(set(names)) < 3:
            raise TooFewArchitecturesError(
                f"which work counts is told by at least 3 architectures; got {', '.join(sorted(set(names))) or 'none'}"
            )
        choices = [chosen for number in range(len(_OPTIONAL) + 1) for chosen in combinations(_OPTIONAL, number)]
        optional = min(choices, key=lambda chosen: _mean_error(work, times_s, names, (*always, *chosen)))
    terms = (*always, *optional)
    return ServedStack(
        dict(zip(terms, robust_coefficients(work[list(terms)].to_numpy(float), times_s).tolist(), strict=True))
    )


def leave_architectures_out(
    work: pd.DataFrame, times_s, *, further: Sequence[str] = (), moved: tuple | None = None
) -> LeftOutArchitectures:
    """Each architecture predicted from all others; terms are chosen without it, too.

    Parameters
    ----------
    work, times_s, further
        As of :func:`fit_stack`; rows without counts are left out.
    moved : tuple of (target work, target times, target accelerator, origin accelerator), optional
        Predict these instead, of another machine, by a stack that is moved there.

    Raises
    ------
    TooFewArchitecturesError
        Fewer than four architectures are counted.
    """
    times_s = np.asarray(times_s, dtype=float)
    is_counted = work["layers"].notna().to_numpy() & (times_s > 0)
    work, times_s = work[is_counted], times_s[is_counted]
    there, there_s = work, times_s
    if moved is not None:
        there, there_s = moved[0], np.asarray(moved[1], dtype=float)
        is_counted = there["layers"].notna().to_numpy() & (there_s > 0)
        there, there_s = there[is_counted], there_s[is_counted]
    if (number := work["architecture"].nunique()) < 4:
        raise TooFewArchitecturesError(
            f"leaving one out and choosing among the rest takes 4 architectures; got {number}"
        )
    parts = []
    for name in there["architecture"].unique():
        is_other, is_own = (work["architecture"] != name).to_numpy(), (there["architecture"] == name).to_numpy()
        stack = fit_stack(work[is_other], times_s[is_other], further=further)
        if moved is not None:
            stack = stack.moved_to(moved[2], origin=moved[3])
        predicted_s = stack.seconds(there[is_own])
        parts.append(
            there[is_own].assign(
                predicted_s=predicted_s, relative_error=predicted_s / there_s[is_own] - 1, terms=" ".join(stack.times)
            )
        )
    return LeftOutArchitectures(pd.concat(parts).loc[there.index])


def robust_coefficients(features, times_s) -> np.ndarray:
    """Least squares of relative errors, no coefficient negative; errors beyond 10 % count less than their square."""
    design, ones, weights = features / times_s[:, None], np.ones(len(times_s)), np.ones(len(times_s))
    for _ in range(_NUM_ROBUST):
        coefficients = non_negative_least_squares(design, ones, weights)
        before, errors = weights, np.abs(design @ coefficients - 1)
        weights = np.sqrt(np.minimum(1.0, _ROBUST_FROM / np.maximum(errors, 1e-12)))
        if np.abs(weights - before).max() < _CONVERGED:
            break
    return coefficients


def _mean_error(work, times_s, names, terms) -> float:
    """Mean magnitude of the relative errors of left-out architectures, each of which counts as one."""
    features, errors = work[list(terms)].to_numpy(float), []
    for name in np.unique(names):
        is_own = names == name
        predicted_s = features[is_own] @ robust_coefficients(features[~is_own], times_s[~is_own])
        errors.append(np.mean(np.abs(predicted_s / times_s[is_own] - 1)))
    return float(np.mean(errors))
