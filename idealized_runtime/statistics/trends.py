"""Whether measurements rise or fall in the order in which they were taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Medians of consecutive batches hang on each other less than single values do, which wait in one queue or share a
# busy neighbour.
NUM_BATCHES = 10


def drift(runs: Sequence) -> tuple[float, float]:
    """Change from the first to the last tenth of a run, and its p value.

    Kendall's tau of the medians of 10 consecutive batches of each run by itself: one may have begun where another did
    not end.

    Parameters
    ----------
    runs : sequence of arrays
        Logarithms of what was measured, in order, each of 10 values or more.

    Returns
    -------
    change : float
        Relative, from the middle of the first batch to that of the last: Theil's slope, the mean over the runs.
    p_value : float
        Two-sided, of the runs together (Stouffer).
    """
    from scipy.stats import combine_pvalues, kendalltau, theilslopes

    runs = [[np.median(batch) for batch in np.array_split(np.asarray(run), NUM_BATCHES)] for run in runs]
    p_values = [
        combine_pvalues(
            [kendalltau(range(NUM_BATCHES), run, alternative=side).pvalue for run in runs], method="stouffer"
        ).pvalue
        for side in ("less", "greater")
    ]
    change = np.expm1(np.mean([theilslopes(run).slope for run in runs]) * (NUM_BATCHES - 1))
    return float(change), min(1.0, 2 * float(min(p_values)))


@dataclass(frozen=True)
class ChangePoint:
    """Where a series changes most.

    Parameters
    ----------
    position : float
        Share of the values before it.
    change : float
        Of the median, in the values' unit.
    p_value : float
        That a series without order has none as clear.
    """

    position: float
    change: float
    p_value: float


def change_point(values) -> ChangePoint | None:
    """Pettitt's test (Applied Statistics 28, 1979) of medians of up to 30 consecutive batches, of 3 values or more.

    It sees a step wherever it is, a steady drift and a decay; None where there are fewer than 30 values.
    """
    from scipy.stats import rankdata

    values = np.asarray(values, dtype=float)
    num_batches = min(30, len(values) // 3)
    if num_batches < NUM_BATCHES:
        return None
    medians = np.array([np.median(batch) for batch in np.array_split(values, num_batches)])
    ranks = rankdata(medians)
    numbers = np.arange(1, num_batches)
    statistics = np.abs(2 * np.cumsum(ranks)[:-1] - numbers * (num_batches + 1))
    at = int(np.argmax(statistics)) + 1
    p_value = min(1.0, 2 * np.exp(-6 * statistics.max() ** 2 / (num_batches**3 + num_batches**2)))
    change = np.median(medians[at:]) - np.median(medians[:at])
    return ChangePoint(at / num_batches, float(change), float(p_value))
