"""Whether measurements rise or fall in the order in which they were taken."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import combine_pvalues, kendalltau, theilslopes

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
    runs = [[np.median(batch) for batch in np.array_split(np.asarray(run), NUM_BATCHES)] for run in runs]
    p_values = [
        combine_pvalues(
            [kendalltau(range(NUM_BATCHES), run, alternative=side).pvalue for run in runs], method="stouffer"
        ).pvalue
        for side in ("less", "greater")
    ]
    change = np.expm1(np.mean([theilslopes(run).slope for run in runs]) * (NUM_BATCHES - 1))
    return float(change), min(1.0, 2 * float(min(p_values)))
