"""The range of sizes that a model was fitted to, and what lies outside it."""

import warnings

import numpy as np


class ExtrapolationWarning(UserWarning):
    """A prompt size lies outside the profiled range."""


def check_range(name: str, values: np.ndarray, sizes, *, extrapolate: bool | None = None, stacklevel: int = 2):
    """Refuse values outside the range of the sizes, or warn of them where they are to be extrapolated.

    Parameters
    ----------
    name : str
        Of the values, for the message.
    values : array
    sizes : array
        Profiled ones, ascending.
    extrapolate : bool, optional
        Not given where no option allows it, so that the message does not offer one.
    stacklevel : int
        Whose line the warning shows: 1 for the caller of this function, 2 for its caller.

    Raises
    ------
    ValueError
        A value lies outside, and ``extrapolate`` is not set; the message has the range, a value and the remedy.

    Warns
    -----
    ExtrapolationWarning
        A value lies outside, and ``extrapolate`` is set.
    """
    low, high = sizes[0], sizes[-1]
    if not values.size or (values.min() >= low and values.max() <= high):
        return
    outside = values[(values < low) | (values > high)]
    lie_outside = f"{outside.size} of {values.size} lie outside, the first is {outside.flat[0]:.10g}"
    if not extrapolate:
        remedy = "Profile that size" + ("" if extrapolate is None else ", or pass extrapolate=True")
        raise ValueError(f"{name} must lie in [{low:.10g}, {high:.10g}], the profiled range; {lie_outside}. {remedy}")
    message = f"{name} beyond the profiled range [{low:.10g}, {high:.10g}]: {lie_outside}"
    warnings.warn(message, ExtrapolationWarning, stacklevel=stacklevel + 1)
