"""The queries a model will serve: their sizes, each with its share, instead of mean sizes only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.checks import numeric_columns, token_array, warn_missing
from idealized_runtime.queries.tables import WEIGHT_COLUMN, read_queries
from idealized_runtime.records import TOKEN_COLUMNS

# Slices of equal probability of each log-normal: with more, no mean runtime of a committed model moves by 0.1 %.
_NUM_SLICES = 32


@dataclass(frozen=True, eq=False)
class QueryMix:
    """Sizes of queries with the share of each; how many queries there will be is not in it.

    Made by the class methods below, or directly.

    Parameters
    ----------
    num_prompt_tokens, num_output_tokens : array of shape (sizes,)
        Tokens, at least 1; real means are allowed. Prompt encoding yields the first output token.
    weights : array of shape (sizes,), optional
        In any unit, not negative; equal where they are not given. Kept as shares that add up to 1.

    Raises
    ------
    ValueError
        Lengths differ, a number of tokens is below 1 or not finite, or weights are negative or all zero.
    """

    num_prompt_tokens: np.ndarray
    num_output_tokens: np.ndarray
    weights: np.ndarray = None

    def __post_init__(self):
        sizes = [np.atleast_1d(token_array(name, getattr(self, name))).astype(float) for name in TOKEN_COLUMNS]
        weights = np.ones(sizes[0].size) if self.weights is None else np.atleast_1d(np.asarray(self.weights, float))
        shapes = [values.shape for values in (*sizes, weights)]
        if len(set(shapes)) > 1 or sizes[0].ndim > 1 or not sizes[0].size:
            raise ValueError(
                f"a mix needs one prompt size, output size and weight a query size; got arrays of {shapes}"
            )
        if not (np.all(np.isfinite(weights) & (weights >= 0)) and weights.sum() > 0):
            found = ", ".join(f"{weight:g}" for weight in weights[:5])
            raise ValueError(f"weights must be finite, not negative and not all zero; got {found}")
        for name, values in zip((*TOKEN_COLUMNS, "weights"), (*sizes, weights / weights.sum()), strict=True):
            object.__setattr__(self, name, values)

    @classmethod
    def from_means(cls, num_prompt_tokens: float, num_output_tokens: float) -> "QueryMix":
        """Every query has these sizes."""
        return cls(num_prompt_tokens, num_output_tokens)

    @classmethod
    def from_queries(cls, queries: pd.DataFrame) -> "QueryMix":
        """Mix of a frame of queries, such as ``helm.read_runs`` gives: equal sizes become one, weights added up.

        Parameters
        ----------
        queries : DataFrame, one row a query or a size
            ``num_prompt_tokens``, ``num_output_tokens``; optional ``weight``.

        Raises
        ------
        ValueError
            A column is absent or not numeric, no row is left, or a weight is missing or negative.

        Warns
        -----
        MissingValueWarning
            Rows that lack token counts or have fewer than one prompt or output token are left out.
        """
        rows = queries if WEIGHT_COLUMN in queries else queries.assign(**{WEIGHT_COLUMN: 1.0})
        columns = [*TOKEN_COLUMNS, WEIGHT_COLUMN]
        rows = pd.DataFrame(dict(zip(columns, numeric_columns(rows, columns, name="queries"), strict=True)))
        sizes = rows[TOKEN_COLUMNS]
        is_bad = ~(np.isfinite(sizes) & (sizes >= 1)).all(axis=1).to_numpy()
        warn_missing(is_bad, "lack token counts or have fewer than one, so they are not in the mix")
        if is_bad.all():
            raise ValueError(f"no query with at least one prompt and one output token among {len(rows)} rows")
        # A missing weight stays missing through the sum, and is refused.
        sums = rows[~is_bad].groupby(TOKEN_COLUMNS)[WEIGHT_COLUMN].sum(skipna=False)
        return cls(*(sums.index.get_level_values(name) for name in TOKEN_COLUMNS), sums)

    @classmethod
    def read(cls, source: str | os.PathLike, *, columns: Mapping[str, str] | None = None) -> "QueryMix":
        """Mix of what :func:`~idealized_runtime.queries.tables.read_queries` reads; errors begin with the source."""
        queries = read_queries(source, columns=columns)
        try:
            return cls.from_queries(queries)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def lognormal(
        cls,
        mean_prompt_tokens: float,
        mean_output_tokens: float,
        *,
        prompt_sigma: float = 1.0,
        output_sigma: float = 1.0,
    ) -> "QueryMix":
        """Independent log-normal prompt and output sizes beyond the first token, in slices of equal probability.

        Each slice stands at its own mean, so that the mix has exactly the means given.

        Parameters
        ----------
        mean_prompt_tokens, mean_output_tokens : float
            At least 1.
        prompt_sigma, output_sigma : float
            Standard deviation of the logarithm: the tail grows with it; 0 gives the mean alone.
        """
        p = _lognormal_slices("mean_prompt_tokens", mean_prompt_tokens, prompt_sigma)
        o = _lognormal_slices("mean_output_tokens", mean_output_tokens, output_sigma)
        return cls(np.repeat(p, len(o)), np.tile(o, len(p)))

    @property
    def queries(self) -> pd.DataFrame:
        """A row a size, as :func:`~idealized_runtime.queries.price.price` takes them."""
        columns = self.num_prompt_tokens, self.num_output_tokens, self.weights
        return pd.DataFrame(dict(zip((*TOKEN_COLUMNS, WEIGHT_COLUMN), columns, strict=True)))

    @property
    def mean_prompt_tokens(self) -> float:
        """Prompt tokens of the mean query."""
        return float(self.weights @ self.num_prompt_tokens)

    @property
    def mean_output_tokens(self) -> float:
        """Output tokens of the mean query, the first one included."""
        return float(self.weights @ self.num_output_tokens)


def _lognormal_slices(name, mean, sigma) -> np.ndarray:
    """Means of equally probable slices of 1 + a log-normal number, the number having the mean ``mean - 1``."""
    if not (np.isfinite(mean) and mean >= 1):
        raise ValueError(f"{name} must be finite and at least 1; got {mean!r}")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"the sigma of a log-normal must be finite and not negative; got {sigma!r}")
    if sigma == 0:
        return np.array([float(mean)])
    from scipy.special import ndtr, ndtri

    bounds = ndtri(np.linspace(0, 1, _NUM_SLICES + 1))
    # Mean of exp(sigma z - sigma^2 / 2) where z lies in a slice, times the probability of the slice.
    return 1 + (mean - 1) * _NUM_SLICES * np.diff(ndtr(bounds - sigma))
