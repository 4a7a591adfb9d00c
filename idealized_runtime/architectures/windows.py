"""Which tokens a layer attends to: all before, the last of them (a window), or those of its chunk."""

import numpy as np

from idealized_runtime.architectures.counting import is_scalar


def sum_over_layers(architecture, count, n):
    """``count(n, window, is_chunk)`` summed over layers; the window is None where a layer has none."""
    num_windowed = architecture.num_windowed_layers
    total = (architecture.num_layers - num_windowed) * count(n, None, False)
    if num_windowed:
        total = total + num_windowed * count(n, architecture.window_size, architecture.window_is_chunk)
    return total


def num_attended(n, window, is_chunk):
    """Tokens that the n-th one attends to, itself included."""
    if window is None:
        return n
    return (n - 1) % window + 1 if is_chunk else _minimum(n, window)


def twice_attended_up_to(n, window, is_chunk):
    """Twice the query-key pairs of tokens 1 to n: twice, so that integers stay exact."""
    if window is None:
        return n * (n + 1)
    if is_chunk:
        rest = n % window
        return n // window * (window * (window + 1)) + rest * (rest + 1)
    inside = _minimum(n, window)
    return inside * (inside + 1) + 2 * window * (n - inside)


def _minimum(n, window):
    return min(n, window) if is_scalar(n) else np.minimum(n, window)
