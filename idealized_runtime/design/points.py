"""Which loads to measure a server at: few points that tell its line, chosen by what lines of other models look like."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.serving.groups import SERVER, SIZE_STEPS, SIZES, Line, LineKind, describe_points, fit_line

# Of a point from its line, relative: what is left of points of one server.
POINT_ERROR = 0.05
# A server may be slower or faster than another by a factor of this many: its level is not known beforehand.
_LEVEL_SPREAD = 2.0
# Fewer settings leave nothing to fit a line to, or to compare it with.
_FEWEST_SETTINGS = 6


@dataclass(frozen=True, eq=False)
class ExpectedLine:
    """Coefficients of a line before any point of it is known, up to a common factor: mean and covariance."""

    kind: LineKind
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of_lines(cls, lines: Iterable[Line]) -> "ExpectedLine":
        """From lines of other servers, each brought to the same sum of its terms at their typical size."""
        lines = list(lines)
        kind = lines[0].kind
        coefficients = np.array([[line.coefficients.get(term, 0.0) for term in kind.terms] for line in lines])
        # In seconds of a typical step each, so that the sum is one.
        typical = np.median(coefficients.sum(axis=1)) / np.maximum(np.mean(coefficients, axis=0), 1e-12)
        shares = coefficients * typical
        shares = shares / shares.sum(axis=1, keepdims=True) / typical
        spread = np.cov(shares.T) + np.diag((0.05 / typical) ** 2)
        return cls(kind, shares.mean(axis=0), spread)

    def choose(self, points: pd.DataFrame, number: int) -> list[int]:
        """Places of the points to measure, the most useful first.

        Each makes the mean variance of all points, relative to their times, least (I-optimal; Atkinson, Donev and
        Tobias 2007, Section 10.6), given those before it.

        Parameters
        ----------
        points : DataFrame
            Loads of one server that may be measured: ``model, concurrency, num_prompt_tokens, num_output_tokens``.
        number : int
        """
        points = describe_points(points.assign(**{self.kind.target: points.get(self.kind.target, np.nan)}))
        features = self.kind.features(points, float(np.nan_to_num(points["expert_share"].iloc[0])))
        rows = features / (features @ self.mean)[:, None]
        covariance = self.covariance + _LEVEL_SPREAD**2 * np.outer(self.mean, self.mean)
        chosen = []
        for _ in range(min(number, len(rows))):
            known = covariance @ rows.T
            variance = np.sum(rows.T * known, axis=0) + POINT_ERROR**2
            gains = np.sum((rows @ known) ** 2, axis=0) / variance
            gains[chosen] = -1.0
            best = int(np.argmax(gains))
            chosen.append(best)
            covariance = covariance - np.outer(known[:, best], known[:, best]) / variance[best]
        return chosen


def point_design_errors(
    points: pd.DataFrame, *, kind: LineKind = SIZE_STEPS, num_designed=(4,), num_random=(4, 8), num_draws=5, seed=0
) -> pd.DataFrame:
    """How far lines through few points of each server are off at its other points, the few being designed or random.

    What is expected of a server comes from those of other architectures only.

    Parameters
    ----------
    points : DataFrame
        A point table without what must not be used (``usable_points``).
    kind : LineKind
    num_designed, num_random : tuples of int
        Points of a line.
    num_draws : int
        Random choices that are averaged over.
    seed : int

    Returns
    -------
    DataFrame, one row a server with at least 6 settings
        ``architecture, hardware, num_settings``; ``designed_4, random_4, ...``: mean magnitude of relative errors at
        the points that were not chosen, missing where a server has none.
    """
    points = describe_points(points)
    points = points[points[kind.target] > 0].drop_duplicates([*SERVER, *SIZES])
    servers = [rows for _, rows in points.groupby(list(SERVER), dropna=False) if len(rows) >= _FEWEST_SETTINGS]
    lines = [(rows["architecture"].iloc[0], fit_line(rows, kind)) for rows in servers]
    expected = {
        own: ExpectedLine.of_lines(line for name, line in lines if name != own) for own in {name for name, _ in lines}
    }
    rng, table = np.random.default_rng(seed), []
    for rows in servers:
        own = rows["architecture"].iloc[0]
        row = {"architecture": own, "hardware": rows["hardware"].iloc[0], "num_settings": len(rows)}
        row |= {f"designed_{n}": _error(rows, expected[own].choose(rows, n), kind) for n in num_designed}
        for n in num_random:
            row[f"random_{n}"] = np.mean([_error(rows, rng.permutation(len(rows))[:n], kind) for _ in range(num_draws)])
        table.append(row)
    return pd.DataFrame(table)


def _error(rows, chosen, kind) -> float:
    others = np.setdiff1d(np.arange(len(rows)), chosen)
    if not len(others):
        return np.nan
    line = fit_line(rows.iloc[chosen], kind)
    predicted_s = line.predict(rows.iloc[others])[0]
    return float(np.mean(np.abs(predicted_s / rows[kind.target].to_numpy()[others] - 1)))
