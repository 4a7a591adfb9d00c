"""Counts of one or many numbers of tokens: exact where they are integers, and never wrapped around."""

import numpy as np

from idealized_runtime.checks import token_array


def polynomial(tokens, name, *coefficients, batch_size=1):
    """batch_size (c0 + c1 n + c2 n^2 + ...), exact where n is an integer."""

    def count(n):
        total = 0 * n
        for coefficient in reversed(coefficients):
            total = total * n + batch_size * coefficient
        return total

    return evaluate(count, tokens, name, batch_size)


def evaluate(count, tokens, name, batch_size):
    """``count`` of one or many numbers of tokens; the largest of them is checked against overflow."""
    check_batch_size(batch_size)
    n = as_tokens(tokens, name)
    if not is_scalar(n) and n.dtype.kind == "i" and n.size:
        check_fits(count(int(n.max())), name)
    return count(n)


def is_scalar(n) -> bool:
    """A number, that is, no array."""
    return not isinstance(n, np.ndarray)


def check_fits(largest_count, name):
    """Refuse a count beyond 64 bits: NumPy's integers overflow without a word."""
    if largest_count > np.iinfo(np.int64).max:
        raise OverflowError(f"the largest count, {largest_count}, does not fit 64 bits: give {name} as real numbers")


def as_tokens(tokens, name):
    """A Python number, or an array of int64 or float64, finite and of at least one token."""
    values = token_array(name, tokens)
    if values.ndim == 0:
        return values.item()
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def check_batch_size(batch_size):
    """Refuse what is no number of sequences."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1; got {batch_size!r}")
