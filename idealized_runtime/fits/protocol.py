"""What every model of runtimes can do, be it fitted, published, predicted or an analyst's own."""

import inspect
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_range, token_array
from idealized_runtime.statistics.intervals import standard_error_of_interval


def plain(values):
    """An array as it is; a single number as a float: what a query of scalars is answered with."""
    return values if np.ndim(values) else float(values)


class NoIntervalError(ValueError):
    """Nothing is known of the errors of a model, so there is no interval; its standard errors are NaN."""


def options_beyond(method) -> dict:
    """Options with which a method of a model answers beyond the profiled sizes.

    None where it takes no ``extrapolate``, as of an analyst's own class: it answers there as it is.
    """
    parameters = inspect.signature(method).parameters.values()
    takes_it = any(one.name == "extrapolate" or one.kind is one.VAR_KEYWORD for one in parameters)
    return {"extrapolate": True} if takes_it else {}


class ModelOfRuntimes(Protocol):
    """Runtime of a query, t(p, o), of one model on stated hardware and software.

    Wherever queries are taken, p (prompt tokens) and o (output tokens) are scalars or arrays that broadcast, of
    integers or of real means, at least 1. Answers are floats for scalars, else arrays; seconds.

    The project's own classes take ``extrapolate=False`` besides wherever they take p: a p for which
    :meth:`is_extrapolated` is True is refused by a ValueError that names the range, unless it is set.
    """

    def predict(self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike) -> float | np.ndarray:
        """Runtime of each query."""

    def predict_interval(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, level: float = 0.95
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Interval (lower, upper) of each runtime. Raises :class:`NoIntervalError` where nothing is known of errors."""

    def standard_error(self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike) -> float | np.ndarray:
        """Standard error of each runtime; NaN where nothing is known of errors."""

    def prompt_encoding_time_s(self, num_prompt_tokens: ArrayLike) -> float | np.ndarray:
        """Seconds until the first output token, without an API's overhead."""

    def time_per_output_token_at(self, num_prompt_tokens: ArrayLike) -> float | np.ndarray:
        """Seconds for each output token after the first, behind a prompt of p tokens."""

    def is_extrapolated(self, num_prompt_tokens: ArrayLike) -> bool | np.ndarray:
        """Whether each prompt size lies outside those that were timed."""

    def to_json(self) -> dict:
        """HELM's keys and, under ``"fit"``, what restores the model; JSON values only."""


class PredictingModel(ABC):
    """A model of runtimes that tells runtimes and their intervals; the rest of the protocol follows from these.

    An analyst's own model takes ``predict``, ``predict_interval``, ``to_json`` and ``prompt_range``, the smallest and
    largest prompt that was timed.
    """

    prompt_range: tuple[float, float]

    @abstractmethod
    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each query."""

    @abstractmethod
    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Interval (lower, upper) of each runtime, or a :class:`NoIntervalError`."""

    def standard_error(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Standard error of each runtime: of the normal distribution whose 95 % interval is as wide as the model's."""
        sizes = num_prompt_tokens, num_output_tokens
        try:
            bounds_s = self.predict_interval(*sizes, level=0.95, extrapolate=extrapolate)
        except NoIntervalError:
            return np.nan * self.predict(*sizes, extrapolate=extrapolate)
        return standard_error_of_interval(*bounds_s, level=0.95)

    def prompt_encoding_time_s(self, num_prompt_tokens: ArrayLike, *, extrapolate: bool = False) -> float | np.ndarray:
        """Seconds until the first output token."""
        return self.predict(num_prompt_tokens, 1, extrapolate=extrapolate)

    def prompt_encoding_interval_s(
        self, num_prompt_tokens: ArrayLike, level: float = 0.95, *, extrapolate: bool = False
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Interval (lower, upper) of the prompt encoding time; raises as :meth:`predict_interval`."""
        return self.predict_interval(num_prompt_tokens, 1, level=level, extrapolate=extrapolate)

    def time_per_output_token_at(
        self, num_prompt_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Seconds from the first output token to the second, behind a prompt of p tokens."""
        second_s, first_s = (self.predict(num_prompt_tokens, o, extrapolate=extrapolate) for o in (2, 1))
        return second_s - first_s

    def __repr__(self):
        ends = [p for p in self.prompt_range if p < np.inf]
        sizes = " to ".join(f"{p:g}" for p in ends)
        times_ms = " to ".join(f"{1e3 * float(self.prompt_encoding_time_s(p)):.4g}" for p in ends)
        token_ms = 1e3 * float(self.time_per_output_token_at(ends[0]))
        return f"<{type(self).__name__}: prompts of {sizes} tokens {times_ms} ms, a further token {token_ms:.4g} ms>"

    def is_extrapolated(self, num_prompt_tokens: ArrayLike) -> bool | np.ndarray:
        """Whether each prompt size lies outside those that were timed."""
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        return (p < self.prompt_range[0]) | (p > self.prompt_range[1])

    def _checked_prompts(self, num_prompt_tokens, extrapolate) -> np.ndarray:
        p = token_array("num_prompt_tokens", num_prompt_tokens)
        if not extrapolate:
            check_range("num_prompt_tokens", p, self.prompt_range)
        return p
