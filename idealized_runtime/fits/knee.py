"""The knee of prompt encoding: the prompt size below which encoding time no longer falls linearly.

A short prompt cannot keep the device busy, and then the time to read the weights once is a floor; a
long one is bound by arithmetic, which grows with its size (Section 3.2 of arXiv:2305.02440). Time is
close to ``max(floor, line)``; the knee is where the two meet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_positive

# Knees tried within each decade of prompt sizes: neighbours differ by half a per cent.
_KNEES_PER_DECADE = 460


@dataclass(frozen=True)
class PromptEncodingKnee:
    """Floor, knee and line of prompt encoding time.

    Attributes
    ----------
    num_prompt_tokens : float
        The knee, tokens. The smallest profiled size where time is linear throughout: no floor was seen.
    interval : (float, float)
        Confidence interval of the knee, tokens, within the profiled sizes; an end at the smallest or
        largest profiled size says that the data do not bound it there.
    floor_s : float
        Prompt encoding time below the knee, seconds.
    time_per_prompt_token_s : float
        Slope of the line above the knee, seconds per prompt token.
    level : float
        Confidence level of the interval.
    """

    num_prompt_tokens: float
    interval: tuple[float, float]
    floor_s: float
    time_per_prompt_token_s: float
    level: float

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens encoded per second on the line, the throughput that long prompts approach."""
        return 1 / self.time_per_prompt_token_s

    def line_s(self, num_prompt_tokens: ArrayLike) -> float | np.ndarray:
        """Seconds on the best-fit line of the linear part, which may be drawn beyond it."""
        beyond = np.asarray(num_prompt_tokens, dtype=float) - self.num_prompt_tokens
        return self.floor_s + self.time_per_prompt_token_s * beyond


def fit_knee(
    num_prompt_tokens: ArrayLike, prompt_encoding_time_s: ArrayLike, *, level: float = 0.95
) -> PromptEncodingKnee:
    """Fit ``max(floor, line)`` to prompt encoding times, least squares of the relative errors.

    For each knee on a fine logarithmic grid, floor and slope follow by linear least squares. The
    interval holds the knees whose residual sum of squares an F test does not tell from the smallest one
    (profile likelihood; Seber and Wild, Nonlinear Regression, 1989, Section 9.3).

    Parameters
    ----------
    num_prompt_tokens : array of float, tokens
        At least four different sizes: three parameters and something left to judge them by.
    prompt_encoding_time_s : array of float, seconds
        Same length, positive.

    Raises
    ------
    ValueError
        Lengths differ, a value is not positive and finite, fewer than four sizes, or time does not
        grow with prompt size.
    """
    from scipy.stats import f as f_distribution

    sizes, times_s = (np.asarray(values, dtype=float) for values in (num_prompt_tokens, prompt_encoding_time_s))
    if sizes.ndim != 1 or sizes.shape != times_s.shape:
        raise ValueError(f"sizes and times must be of one length; got shapes {sizes.shape} and {times_s.shape}")
    check_positive(num_prompt_tokens=sizes, prompt_encoding_time_s=times_s)
    profiled = np.unique(sizes)
    if len(profiled) < 4:
        raise ValueError(f"a knee takes at least 4 prompt sizes; got {profiled.tolist()}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    # A knee at the second largest size or beyond leaves no two sizes to draw a line through.
    count = 2 + int(_KNEES_PER_DECADE * np.log10(profiled[-2] / profiled[0]))
    knees = np.union1d(np.geomspace(profiled[0], profiled[-2], count), profiled[:-1])
    floors_s, slopes_s, residuals = _fit_each(sizes, times_s, knees)
    is_growing = slopes_s > 0
    if not is_growing.any():
        raise ValueError("prompt encoding time does not grow with prompt size; there is no knee to find")
    residuals = np.where(is_growing, residuals, np.inf)
    best = int(np.argmin(residuals))
    degrees_of_freedom = len(sizes) - 3
    limit = residuals[best] * (1 + f_distribution.ppf(level, 1, degrees_of_freedom) / degrees_of_freedom)
    accepted = knees[residuals <= limit]
    return PromptEncodingKnee(
        num_prompt_tokens=float(knees[best]),
        interval=(float(accepted.min()), float(accepted.max())),
        floor_s=float(floors_s[best]),
        time_per_prompt_token_s=float(slopes_s[best]),
        level=level,
    )


def _fit_each(sizes, times_s, knees):
    """Floor (s), slope (s per token) and sum of squared relative errors for each knee."""
    weights = 1 / times_s
    # Design of one knee: a constant, and the tokens beyond it; all knees at once.
    beyond = np.maximum(sizes - knees[:, None], 0) * weights
    constant = np.broadcast_to(weights, beyond.shape)
    ones_ones, ones_beyond, beyond_beyond = (
        (a * b).sum(axis=1) for a, b in ((constant, constant), (constant, beyond), (beyond, beyond))
    )
    ones_y, beyond_y = constant.sum(axis=1), beyond.sum(axis=1)
    determinant = ones_ones * beyond_beyond - ones_beyond**2
    floors_s = (beyond_beyond * ones_y - ones_beyond * beyond_y) / determinant
    slopes_s = (ones_ones * beyond_y - ones_beyond * ones_y) / determinant
    errors = floors_s[:, None] * constant + slopes_s[:, None] * beyond - 1
    return floors_s, slopes_s, (errors**2).sum(axis=1)


def fit_knees(fits: Mapping, *, prompt_sizes: Iterable[int] | None = None) -> dict[str, PromptEncodingKnee]:
    """Knee of each fitted model, from its prompt encoding times at profiled sizes.

    Parameters
    ----------
    fits : mapping of RuntimeModel, by model name
    prompt_sizes : iterable of int, optional
        Use only these of the profiled sizes, tokens.

    Raises
    ------
    ValueError
        As :func:`fit_knee`; the message begins with the model.
    """
    wanted = None if prompt_sizes is None else set(prompt_sizes)
    knees = {}
    for name, fit in fits.items():
        sizes = np.array([size for size in fit.num_prompt_tokens if wanted is None or size in wanted])
        try:
            knees[name] = fit_knee(sizes, fit.prompt_encoding_time_s(sizes))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return knees
