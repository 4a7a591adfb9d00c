"""What a token attends to: all before it, the last of them (a window), its chunk, or one entry for several tokens."""

import numpy as np

from idealized_runtime.architectures.counting import is_scalar


def sum_over_contexts(architecture, count, n):
    """``count(context, n)`` summed over what every layer attends to."""
    total = 0 * n
    for part, number in architecture.blocks:
        for context in part.contexts:
            total = total + number * count(context, n)
    return total


def num_attended(context, n):
    """Entries that the n-th token attends to, its own included."""
    if context.is_chunk:
        return (n - 1) % context.window + 1
    entries = num_entries(context, n)
    return entries if context.window is None else _minimum(entries, context.window)


def num_entries(context, n):
    """Entries that n tokens make."""
    return n // context.stride if context.stride > 1 else n


def num_kept(context, n):
    """Entries that the cache has after n tokens."""
    if context.kept == "elsewhere":
        return 0 * n
    if context.kept == "all":
        return num_entries(context, n)
    return num_attended(context, n)


def twice_attended_up_to(context, n):
    """Twice the pairs of tokens 1 to n with their entries: twice, so that integers stay exact."""
    window, stride = context.window, context.stride
    if context.is_chunk:
        rest = n % window
        return n // window * (window * (window + 1)) + rest * (rest + 1)
    # Until then every entry is attended to.
    inside = n if window is None else _minimum(n, window * stride)
    entries = num_entries(context, inside)
    # Tokens between two entries attend to as many as the one that completed the last.
    pairs = stride * entries * (entries - 1) + 2 * entries * (inside - stride * entries + 1)
    return pairs if window is None else pairs + 2 * window * (n - inside)


def _minimum(n, window):
    return min(n, window) if is_scalar(n) else np.minimum(n, window)
