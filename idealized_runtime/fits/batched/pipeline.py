"""How long a pipeline takes for a batch that it works through in micro-batches.

A batch is cut into n micro-batches; one round takes each of them through all stages once. Prompts are one round,
and o output tokens are o - 1 rounds more, since prompt encoding yields the first of them. A micro-batch takes T
through all stages, a share u of it in the slowest one (1 / P where P stages are alike). Micro-batches follow one
another u T apart, and each starts its next round when it has left the last stage and the first stage is free. So
a round takes max(T, n u T): with fewer micro-batches than 1 / u stages stand idle, with more the slowest one never
does. With the filling and draining of the pipeline, R rounds take

    T max(R + (n - 1) u, 1 + (R n - 1) u)

which is (n + P - 1) stage times for one round through P stages alike.
"""

import numpy as np

from idealized_runtime.checks import check_not_negative, check_positive, check_share


def num_passes(num_rounds, num_micro_batches, bottleneck_share):
    """Duration of R rounds of n micro-batches, in units of one micro-batch's way through all stages.

    Parameters
    ----------
    num_rounds : int or array
        R; 1 for prompts, o - 1 for o output tokens. No round takes no time.
    num_micro_batches : int or array
        n, at least 1; all arguments broadcast.
    bottleneck_share : float or array
        u, the slowest stage's share of a pass: 1 / P for P stages alike, 1 for a single stage.

    Returns
    -------
    float or ndarray
        Source: derived in this module's docstring.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    check_not_negative(num_rounds=num_rounds)
    check_positive(num_micro_batches=num_micro_batches)
    check_share(bottleneck_share=bottleneck_share)
    rounds, n, u = (np.asarray(value, dtype=float) for value in (num_rounds, num_micro_batches, bottleneck_share))
    passes = np.maximum(rounds + (n - 1) * u, 1 + (rounds * n - 1) * u)
    return np.where(rounds > 0, passes, 0.0)[()]


def passes_per_share(num_rounds, num_micro_batches, bottleneck_share):
    """Derivative of :func:`num_passes` by the bottleneck share."""
    rounds, n, u = (np.asarray(value, dtype=float) for value in (num_rounds, num_micro_batches, bottleneck_share))
    is_full = rounds + (n - 1) * u < 1 + (rounds * n - 1) * u
    return np.where(rounds > 0, np.where(is_full, rounds * n - 1, n - 1), 0.0)[()]
