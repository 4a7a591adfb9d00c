"""Step times of models that nobody served on a machine, from what others served there with the same engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.serving.fitting import non_negative_least_squares
from idealized_runtime.statistics.errors import left_out_error_table
from idealized_runtime.statistics.intervals import exchangeable_quantile

# Relative errors beyond this count less than their square, so that one odd model does not bend the others.
_ROBUST_FROM = 0.1
# Of what prompts add, in shares of the whole step.
_ROBUST_SHARE_FROM = 0.02
_NUM_ROBUST = 10
# Largest change of a weight at which the iteration ends.
_CONVERGED = 1e-3
_ALWAYS = ("layers", "expert_layers", "weight_bytes", "expert_bytes", "cache_bytes", "sequences")
# Of those, as many as predict models that are left out best.
_OPTIONAL = ("message_widths", "message_bytes", "expert_widths", "quantised_layers")
_READ = ("weight_bytes", "expert_bytes", "cache_bytes")
# Of prompts, beside the experts that are visited for them alone, which are read as all others.
_PROMPTS = ("begun_layers", "begun_state_layers", "prompt_flops", "prompt_expert_flops", "prompt_widths")
# On another machine: what activations of experts take is in part reading, in part launching, and goes half the way.
_HALF_READ = ("expert_widths",)
_COMPUTED, _PEAK_OF = ("prompt_flops", "prompt_expert_flops"), "bfloat16"


class TooFewArchitecturesError(ValueError):
    """A stack is told by at least three architectures, so that one can be left out and two left."""


@dataclass(frozen=True)
class ServedStack:
    """Seconds that a machine with its engine takes for a unit of each kind of work of a step; none is negative.

    Units are those of :func:`~idealized_runtime.serving.served_work.served_work`. FLOPs of sequences that generate are
    none of them: at the batches that are served they cannot be told from the bytes, the sequences and the messages.
    Those of prompts are.

    Parameters
    ----------
    times : mapping of str to float
        Of steps that generate a token of each sequence.
    prompt_times : mapping of str to float
        Of the prompts that begin in a step, in addition; empty where it was not fitted to mean steps.

    Examples
    --------
    >>> from idealized_runtime.measurements.ml_energy import read_ml_energy
    >>> from idealized_runtime.measurements.points import usable_points
    >>> from idealized_runtime.serving.served_work import work_of_points
    >>> points = usable_points(read_ml_energy())
    >>> points = points[points["hardware"] == "H100"]
    >>> work = work_of_points(points)
    >>> leave_architectures_out(work, points["time_per_output_token_s"]).table().round(0)
         median_percent  p90_percent  max_percent  num_points  covered_percent
    all             6.0         13.0         48.0         244             96.0
    """

    times: Mapping[str, float]
    prompt_times: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, work: pd.DataFrame) -> np.ndarray:
        """Time of each step in which no prompt is encoded; ``work`` is a table or a mapping of arrays."""
        return sum(np.asarray(work[name], float) * time for name, time in self.times.items())

    def prompt_seconds(self, work: pd.DataFrame) -> np.ndarray:
        """What the prompts that begin in each step add to it."""
        read_s = np.asarray(work["begun_expert_bytes"], float) * self.times["expert_bytes"]
        return read_s + sum(np.asarray(work[name], float) * time for name, time in self.prompt_times.items())

    def moved_to(self, accelerator: Accelerator, *, origin: Accelerator) -> "ServedStack":
        """The same engine on a machine without logs, by the data sheets: bandwidths, and peak rates for prompts.

        Raises
        ------
        ValueError
            The bandwidth or the peak rate of one of the two is not known.
        """
        rates = [machine.memory_bandwidth_bytes_per_s for machine in (origin, accelerator)]
        if None in rates:
            raise ValueError(f"the memory bandwidth of {origin.name} or {accelerator.name} is not known")
        reading, computing = rates[0] / rates[1], origin.peak_flops(_PEAK_OF) / accelerator.peak_flops(_PEAK_OF)
        slower = dict.fromkeys(_READ, reading) | dict.fromkeys(_HALF_READ, reading**0.5)
        slower |= dict.fromkeys(_COMPUTED, computing)
        return ServedStack(
            *(
                {name: time * slower.get(name, 1.0) for name, time in of.items()}
                for of in (self.times, self.prompt_times)
            )
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
    work: pd.DataFrame,
    times_s: ArrayLike,
    *,
    mean_times_s: ArrayLike | None = None,
    accelerator: Accelerator | None = None,
    optional: Sequence[str] | None = None,
) -> ServedStack:
    """Least squares of relative errors over steps of many models; large errors count less than their square.

    Parameters
    ----------
    work : DataFrame
        As from ``work_of_points``, with ``architecture``.
    times_s : array
        Seconds of each step in which no prompt begins: the median of a server's.
    mean_times_s : array, optional
        Seconds of a mean step: what it takes beyond the other is that of prompts.
    accelerator : Accelerator, optional
        The machine, whose peak rate no prompt exceeds. Short ones, which are encoded while weights are read for
        others, do not tell what an operation takes, and long ones would be predicted beyond it.
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
    if optional is None:
        if len(set(names)) < 3:
            raise TooFewArchitecturesError(
                f"which work counts is told by at least 3 architectures; got {', '.join(sorted(set(names))) or 'none'}"
            )
        choices = [chosen for number in range(len(_OPTIONAL) + 1) for chosen in combinations(_OPTIONAL, number)]
        optional = min(choices, key=lambda chosen: _mean_error(work, times_s, names, (*_ALWAYS, *chosen)))
    terms = (*_ALWAYS, *optional)
    stack = ServedStack(
        dict(zip(terms, robust_coefficients(work[list(terms)].to_numpy(float), times_s).tolist(), strict=True))
    )
    if mean_times_s is None:
        return stack
    mean_times_s = np.asarray(mean_times_s, dtype=float)
    least_flop_s = 0.0 if accelerator is None else 1 / accelerator.peak_flops(_PEAK_OF)
    least_s = np.array([least_flop_s if name in _COMPUTED else 0.0 for name in _PROMPTS])
    prompts = work[list(_PROMPTS)].to_numpy(float)
    beyond_s = mean_times_s - times_s - stack.prompt_seconds(work) - prompts @ least_s
    more_s = robust_coefficients(prompts, beyond_s, of_s=mean_times_s, robust_from=_ROBUST_SHARE_FROM)
    return replace(stack, prompt_times=dict(zip(_PROMPTS, (least_s + more_s).tolist(), strict=True)))


def leave_architectures_out(
    work: pd.DataFrame,
    times_s: ArrayLike,
    *,
    mean_times_s: ArrayLike | None = None,
    accelerator: Accelerator | None = None,
    moved: tuple | None = None,
) -> LeftOutArchitectures:
    """Each architecture predicted from all others; terms are chosen without it, too.

    Parameters
    ----------
    work, times_s, mean_times_s, accelerator
        As of :func:`fit_stack`; rows without counts are left out. With mean times these are what is predicted, and rows
        have the parts of it beside: ``step_s, predicted_step_s``, without prompts, and ``prompt_s,
        predicted_prompt_s``.
    moved : tuple of (work, times, mean times, accelerator), optional
        Predict these instead, of another machine, by a stack that is moved there.

    Raises
    ------
    TooFewArchitecturesError
        Fewer than four architectures are counted.
    """
    here = _counted(work, times_s, mean_times_s)
    there = here if moved is None else _counted(*moved[:3])
    names, names_there = here[0]["architecture"], there[0]["architecture"]
    if names.nunique() < 4:
        raise TooFewArchitecturesError(
            f"leaving one out and choosing among the rest takes 4 architectures; got {names.nunique()}"
        )
    parts = []
    for name in names_there.unique():
        others, others_s, others_mean_s = (of_all[(names != name).to_numpy()] for of_all in here)
        own, own_s, own_mean_s = (of_all[(names_there == name).to_numpy()] for of_all in there)
        others_mean_s = None if mean_times_s is None else others_mean_s
        stack = fit_stack(others, others_s, mean_times_s=others_mean_s, accelerator=accelerator)
        if moved is not None:
            stack = stack.moved_to(moved[3], origin=accelerator)
        predicted_s, more = stack.seconds(own), {}
        if mean_times_s is not None:
            prompt_s = stack.prompt_seconds(own)
            more = {"step_s": own_s, "predicted_step_s": predicted_s, "prompt_s": own_mean_s - own_s}
            more["predicted_prompt_s"] = prompt_s
            predicted_s, own_s = predicted_s + prompt_s, own_mean_s
        parts.append(
            own.assign(
                predicted_s=predicted_s, relative_error=predicted_s / own_s - 1, terms=" ".join(stack.times), **more
            )
        )
    return LeftOutArchitectures(pd.concat(parts).loc[there[0].index])


def _counted(work, times_s, mean_times_s) -> tuple:
    """Rows with counts and a time, their times, and their mean times; NaN where these are not given."""
    times_s = np.asarray(times_s, dtype=float)
    mean_times_s = np.full(len(work), np.nan) if mean_times_s is None else np.asarray(mean_times_s, dtype=float)
    is_counted = work["layers"].notna().to_numpy() & (times_s > 0)
    return work[is_counted], times_s[is_counted], mean_times_s[is_counted]


def robust_coefficients(
    features: ArrayLike, times_s: ArrayLike, *, of_s: ArrayLike | None = None, robust_from: float = _ROBUST_FROM
) -> np.ndarray:
    """Least squares of relative errors, no coefficient negative; beyond a share they count less than their square.

    Parameters
    ----------
    features : array, shape (rows, terms)
    times_s : array
    of_s : array, optional
        Times that errors are relative to, where those are parts of them.
    robust_from : float
        That share.
    """
    of_s = times_s if of_s is None else of_s
    design, shares, weights = features / of_s[:, None], times_s / of_s, np.ones(len(times_s))
    for _ in range(_NUM_ROBUST):
        coefficients = non_negative_least_squares(design, shares, weights)
        before, errors = weights, np.abs(design @ coefficients - shares)
        weights = np.sqrt(np.minimum(1.0, robust_from / np.maximum(errors, 1e-12)))
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
