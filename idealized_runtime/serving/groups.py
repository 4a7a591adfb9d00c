"""Lines through published points, a group of them on one server each; and how well they meet the points left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns
from idealized_runtime.measurements.served_models import architecture_name, served_architecture
from idealized_runtime.serving.evidence import expert_share
from idealized_runtime.serving.fitting import features_of_points, non_negative_least_squares
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import TERMS, StepModel
from idealized_runtime.statistics.errors import left_out_error_table
from idealized_runtime.statistics.intervals import exchangeable_quantile, half_width

# Points of one server: what a step model is of.
SERVER = (
    "architecture", "hardware", "software", "dtype", "tensor_parallel_size", "data_parallel_size",
    "expert_parallel_size",
)  # fmt: skip
SIZES = ("concurrency", "num_prompt_tokens", "num_output_tokens")
# As vLLM and SGLang have it on these machines; the points do not say it.
_SCHEDULER = Scheduler(max_num_seqs=8192, max_num_batched_tokens=8192)
# Of the terms' columns, brought to length 1; below it two of them say the same.
_LEAST_SINGULAR_VALUE = 0.003


class TooFewPointsError(ValueError):
    """No group has more settings than its line has terms."""


@dataclass(frozen=True)
class LineKind:
    """A time of points, and what it is a line in.

    ``features`` of points of one architecture, and the share of its experts that a token visits: (points, terms).
    """

    target: str
    terms: tuple[str, ...]
    features: Callable[[pd.DataFrame, float], np.ndarray]


def token_times(*terms: str) -> LineKind:
    """Time per output token as a line in these terms of a step; ``expert_s`` counts for mixtures only.

    Where a group does not tell two of them apart, the earlier one stands for both.
    """
    if unknown := [term for term in terms if term not in TERMS[:5]]:
        raise ValueError(f"terms must be among {', '.join(TERMS[:5])}; got {', '.join(unknown)}")
    places = [TERMS.index(term) for term in terms]

    def features(points, share):
        return features_of_points(points, _SCHEDULER, share)[:, places]

    return LineKind("time_per_output_token_s", terms, features)


def _first_token_features(points, share):
    c, p = points[["concurrency", "num_prompt_tokens"]].to_numpy(float).T
    return np.column_stack([np.ones_like(c), p, c, c * p])


# Steps at one context: what a batch size adds, and the experts that it visits.
BATCH_STEPS = token_times("fixed_s", "sequence_s", "expert_s")
# Steps at several sizes: the cache, and the prompts that each step has a share of, as well.
SIZE_STEPS = token_times("fixed_s", "sequence_s", "prompt_token_s", "expert_s", "cache_token_s")
# Clients that begin together wait for the prompts of each other.
FIRST_TOKENS = LineKind(
    "time_to_first_token_s",
    ("fixed_s", "prompt_token_s", "client_s", "others_prompt_token_s"),
    _first_token_features,
)


@dataclass(frozen=True, eq=False)
class Line:
    """Line of one group: coefficients, none negative, of the terms that it tells apart; and (X'X)^-1, X relative."""

    kind: LineKind
    coefficients: Mapping[str, float]
    expert_share: float
    num_points: int
    inverse: np.ndarray = field(repr=False)

    def predict(self, points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Seconds, and the factor sqrt(1 + leverage) by which a new point errs more than one that was fitted."""
        features = self.kind.features(points, self.expert_share)
        return self.predict_features(features[:, [self.kind.terms.index(term) for term in self.coefficients]])

    def predict_features(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`predict`, of the values of the line's terms, shape (points, terms)."""
        predicted_s = features @ np.array(list(self.coefficients.values()))
        relative = features / predicted_s[:, None]
        return predicted_s, np.sqrt(1 + np.einsum("ij,jk,ik->i", relative, self.inverse, relative))


@dataclass(frozen=True, eq=False)
class FittedGroups:
    """Lines by group, and each point predicted by its group without it.

    ``left_out`` has the points' columns and ``predicted_s, relative_error`` (predicted / measured - 1) and ``spread``,
    the factor by which errors of that point are larger than those of a fitted one; without points of which the rest of
    their group does not tell every term.
    """

    kind: LineKind
    by: tuple[str, ...]
    lines: Mapping[tuple, Line]
    left_out: pd.DataFrame

    def half_width(self, level: float = 0.95, *, without: tuple | None = None) -> float:
        """Of log(predicted / measured) of a point with spread 1, as many of the left-out points have less as ``level``.

        ``without``: a group whose own points shall not tell.
        """
        scores = np.abs(np.log1p(self.left_out["relative_error"])) / self.left_out["spread"]
        if without is not None:
            scores = scores[self.left_out["group"] != without]
        return exchangeable_quantile(scores, level)

    def predict(self, points: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
        """Times of points of known groups, with intervals for a new measurement.

        Returns
        -------
        DataFrame
            ``predicted_s, predicted_s_lower, predicted_s_upper``; missing where the group was not fitted.
        """
        points = describe_points(points)
        result = pd.DataFrame(
            np.nan, index=points.index, columns=["predicted_s", "predicted_s_lower", "predicted_s_upper"]
        )
        reach = self.half_width(level)
        for group, rows in points.groupby(_keys(points, self.by)).groups.items():
            if group in self.lines:
                predicted_s, spread = self.lines[group].predict(points.loc[rows])
                factor = np.exp(reach * spread)
                result.loc[rows] = np.column_stack([predicted_s, predicted_s / factor, predicted_s * factor])
        return result

    def coverage(self, level: float = 0.95) -> pd.Series:
        """1 where the interval of a left-out point, as wide as only other groups tell, holds it; NaN without others."""
        scores = np.abs(np.log1p(self.left_out["relative_error"])) / self.left_out["spread"]
        widths = {group: self.half_width(level, without=group) for group in self.left_out["group"].unique()}
        reach = self.left_out["group"].map(widths)
        return (scores <= reach).astype(float).where(reach.notna())

    def left_out_table(self, by: str | pd.Series | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """Magnitudes of the left-out points' relative errors, and what intervals of this level hold, in per cent."""
        return left_out_error_table(self.left_out, self.coverage(level), by)

    def table(self, *, level: float = 0.95) -> pd.DataFrame:
        """Coefficients of every group with intervals; lower bounds end at 0.

        Returns
        -------
        DataFrame, a row a group and term
            ``value, lower, upper`` in seconds, ``num_points``. Errors are of one relative size in all groups.
        """
        dof = sum(line.num_points - len(line.coefficients) for line in self.lines.values())
        scale = np.sqrt(self.residual_variance) * half_width(level, dof, 0.0)
        rows = []
        for group, line in self.lines.items():
            reach = scale * np.sqrt(np.diag(line.inverse))
            for (term, value), half in zip(line.coefficients.items(), reach, strict=True):
                rows.append(
                    dict(zip(self.by, group, strict=True))
                    | {"term": term, "value": value, "lower": max(value - half, 0.0), "upper": value + half}
                    | {"num_points": line.num_points}
                )
        return pd.DataFrame(rows).set_index([*self.by, "term"])

    @property
    def residual_variance(self) -> float:
        """Mean square of the relative errors of left-out points over their spread."""
        scores = np.log1p(self.left_out["relative_error"]) / self.left_out["spread"]
        return float(np.mean(scores**2))

    def steps(self, group: tuple) -> StepModel:
        """Step model of one group, with covariance.

        Raises
        ------
        ValueError
            The group was not fitted, or the lines are of first tokens.
        """
        if self.kind.target != "time_per_output_token_s":
            raise ValueError("lines of first tokens are no step model; fit token_times")
        if group not in self.lines:
            raise ValueError(f"no line of {group}; there are {len(self.lines)}, by {', '.join(self.by)}")
        line, named = self.lines[group], dict(zip(self.by, group, strict=True))
        places = [TERMS.index(term) for term in line.coefficients]
        covariance = np.zeros((len(TERMS), len(TERMS)))
        covariance[np.ix_(places, places)] = line.inverse * self.residual_variance
        return StepModel(
            **{term: line.coefficients.get(term, 0.0) for term in TERMS}, expert_share=line.expert_share,
            covariance=covariance, scheduler=_SCHEDULER,
            hardware=named.get("hardware", ""), software=named.get("software", ""),
        )  # fmt: skip


def describe_points(points: pd.DataFrame) -> pd.DataFrame:
    """Points with ``architecture``, one name for all ids of one, and ``expert_share``, missing where not counted."""
    check_columns(points, ["model", *SIZES, "time_per_output_token_s"], name="points")
    architectures = {model: served_architecture(model) for model in points["model"].unique()}
    shares = {
        model: np.nan if architecture is None else expert_share(architecture)
        for model, architecture in architectures.items()
    }
    return points.assign(
        architecture=points["model"].map(architecture_name), expert_share=points["model"].map(shares).astype(float)
    )


def fit_groups(
    points: pd.DataFrame, kind: LineKind, *, by: Sequence[str] = SERVER, leave_out: Sequence[str] = SIZES
) -> FittedGroups:
    """A line through the points of each group, by least squares of relative errors; no coefficient is negative.

    Parameters
    ----------
    points : DataFrame
        A point table without what must not be used (``usable_points``).
    kind : LineKind
        ``BATCH_STEPS``, ``SIZE_STEPS``, ``FIRST_TOKENS`` or ``token_times(...)``.
    by : sequence of str
        Columns that groups are told apart by. ``architecture`` is one name for all ids of a model.
    leave_out : sequence of str
        Points that agree in these are left out together: a setting that was measured twice tells nothing of itself.

    Raises
    ------
    TooFewPointsError
        No group has more settings than terms.

    Examples
    --------
    >>> from idealized_runtime.measurements.ml_energy import read_ml_energy
    >>> from idealized_runtime.measurements.points import usable_points
    >>> points = usable_points(read_ml_energy())
    >>> by = (*SERVER, "num_accelerators", "task")
    >>> fit_groups(points, BATCH_STEPS, by=by, leave_out=["max_num_seqs"]).left_out_table().round(0)
         median_percent  p90_percent  max_percent  num_points  covered_percent
    all             2.0         10.0         27.0         334             95.0
    """
    points = describe_points(points)
    points = points[points[kind.target] > 0]
    lines, left_out = {}, []
    for group, rows in points.groupby(_keys(points, by), sort=False):
        setting = rows.groupby(list(leave_out), dropna=False).ngroup().to_numpy()
        times_s, share = rows[kind.target].to_numpy(float), float(np.nan_to_num(rows["expert_share"].iloc[0]))
        features = kind.features(rows, share)
        places = _determined(features / times_s[:, None])
        terms, features = [kind.terms[place] for place in places], features[:, places]
        lines[group] = _fit_line(kind, terms, features, times_s, share)
        for number in range(setting.max() + 1):
            is_own = setting == number
            if len(_determined(features[~is_own] / times_s[~is_own, None])) < len(places):
                continue
            line = _fit_line(kind, terms, features[~is_own], times_s[~is_own], share)
            predicted_s, spread = line.predict_features(features[is_own])
            left_out.append(
                rows[is_own].assign(
                    predicted_s=predicted_s, relative_error=predicted_s / times_s[is_own] - 1, spread=spread,
                    group=[group] * int(is_own.sum()),
                )
            )  # fmt: skip
    if not left_out:
        raise TooFewPointsError(
            f"no group has more settings than the terms {', '.join(kind.terms)}: {len(points)} points by "
            f"{', '.join(by)}; take fewer terms, or group by less"
        )
    return FittedGroups(kind, tuple(by), lines, pd.concat(left_out))


def fit_line(points: pd.DataFrame, kind: LineKind) -> Line:
    """Line through the points of one group, as :func:`fit_groups` draws it."""
    points = describe_points(points)
    times_s, share = points[kind.target].to_numpy(float), float(np.nan_to_num(points["expert_share"].iloc[0]))
    features = kind.features(points, share)
    places = _determined(features / times_s[:, None])
    return _fit_line(kind, [kind.terms[place] for place in places], features[:, places], times_s, share)


def _keys(points, by) -> pd.Series:
    """Values of the columns of each row, as tuples; None for missing ones, which equal each other."""
    check_columns(points, by, name="points")
    values = points[list(by)].astype(object)
    return pd.Series(list(values.where(values.notna(), None).itertuples(index=False, name=None)), index=points.index)


def _determined(design) -> list[int]:
    """Columns that are told apart from those before them."""
    kept = []
    for place in range(design.shape[1]):
        columns = design[:, [*kept, place]]
        norms = np.linalg.norm(columns, axis=0)
        if (
            len(columns) > len(kept)
            and norms.all()
            and np.linalg.svd(columns / norms, compute_uv=False)[-1] > _LEAST_SINGULAR_VALUE
        ):
            kept.append(place)
    return kept


def _fit_line(kind, terms, features, times_s, share) -> Line:
    design, ones = features / times_s[:, None], np.ones(len(times_s))
    coefficients = dict(zip(terms, non_negative_least_squares(design, ones, ones).tolist(), strict=True))
    scale = np.linalg.norm(design, axis=0)
    inverse = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    return Line(kind, coefficients, share, len(times_s), inverse)
