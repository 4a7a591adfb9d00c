"""What every model of runtimes can do, be it fitted, published, predicted or an analyst's own."""

from typing import Protocol

import numpy as np

from idealized_runtime.fits.statistics import standard_error_of_interval


def plain(values):
    """An array as it is; a single number as a float: what a query of scalars is answered with."""
    return values if np.ndim(values) else float(values)


class NoIntervalError(ValueError):
    """Nothing is known of the errors of a model, so there is no interval; its standard errors are NaN."""


def standard_error_of(model, num_prompt_tokens, num_output_tokens, **options):
    """Standard error of each runtime of a model: of the normal distribution whose 95 % interval is as wide.

    NaN without an interval; ``options`` are those of ``predict``.
    """
    sizes = num_prompt_tokens, num_output_tokens
    try:
        return standard_error_of_interval(*model.predict_interval(*sizes, level=0.95, **options), 0.95)
    except NoIntervalError:
        return np.nan * model.predict(*sizes, **options)


class ModelOfRuntimes(Protocol):
    """Runtime of a query, t(p, o), of one model on stated hardware and software.

    Wherever queries are taken, p (prompt tokens) and o (output tokens) are scalars or arrays that broadcast, of
    integers or of real means, at least 1. Answers are floats for scalars, else arrays; seconds.

    The project's own classes take ``extrapolate=False`` besides wherever they take p: a p for which
    :meth:`is_extrapolated` is True is refused by a ValueError that names the range, unless it is set.
    """

    def predict(self, num_prompt_tokens, num_output_tokens):
        """Runtime of each query."""

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level: float = 0.95):
        """Interval (lower, upper) of each runtime. Raises :class:`NoIntervalError` where nothing is known of errors."""

    def standard_error(self, num_prompt_tokens, num_output_tokens):
        """Standard error of each runtime; NaN where nothing is known of errors."""

    def prompt_encoding_time_s(self, num_prompt_tokens):
        """Seconds until the first output token, without an API's overhead."""

    def time_per_output_token_at(self, num_prompt_tokens):
        """Seconds for each output token after the first, behind a prompt of p tokens."""

    def is_extrapolated(self, num_prompt_tokens):
        """Whether each prompt size lies outside those that were timed."""

    def to_json(self) -> dict:
        """HELM's keys and, under ``"fit"``, what restores the model; JSON values only."""
