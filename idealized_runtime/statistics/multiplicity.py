"""What p values are worth where several hypotheses are tested at once."""

import numpy as np


def holm(p_values) -> np.ndarray:
    """P values adjusted for their number, step by step down from the least (Holm, Scand. J. Statist. 6, 1979).

    Where those below 1 - level are called significant, the probability of any false one is at most 1 - level, whatever
    the tests have to do with each other. Missing values stay missing, and count as tests.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return np.minimum(adjusted, 1)
