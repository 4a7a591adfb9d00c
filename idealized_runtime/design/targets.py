"""What shall be known: every query of a range or table by itself, or their total; and how well it is known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.tables import grid_queries


@dataclass(frozen=True, eq=False)
class Target:
    """Queries with their shares, and whether each of them shall be known or their total.

    Of ``"each"`` the error is the root mean square, over the queries, of the relative half-widths of their intervals:
    as large as the errors that all but 1 - level of the queries stay below. Designs that make this mean variance least
    are I-optimal (Atkinson, Donev and Tobias 2007, Section 10.6). Of ``"total"`` it is the half-width of the mean
    runtime of the mix, one linear combination of what is not known: c-optimal (Pukelsheim 2006, Chapter 2).
    """

    mix: QueryMix
    of: Literal["each", "total"] = "each"

    @classmethod
    def of_queries(cls, queries: pd.DataFrame, of: Literal["each", "total"] = "each") -> "Target":
        """Target of a query table (``num_prompt_tokens, num_output_tokens``, optional ``weight``)."""
        return cls(QueryMix.from_queries(queries), of)

    @classmethod
    def of_grid(cls, prompt_sizes, output_sizes) -> "Target":
        """Every query of some prompt and output sizes."""
        return cls.of_queries(grid_queries(prompt_sizes, output_sizes))

    def rows(self, relative_rows, runtime_s) -> np.ndarray:
        """Linear combinations, the mean of whose variances is the square of the standard error.

        Parameters
        ----------
        relative_rows : array of shape (queries, parameters)
            What each query's runtime, relative to itself, changes by with each parameter.
        runtime_s : array of shape (queries,)
        """
        weights = self.mix.weights
        if self.of == "total":
            shares = weights * runtime_s
            return (shares / shares.sum())[None, :] @ relative_rows
        return np.sqrt(weights)[:, None] * relative_rows
