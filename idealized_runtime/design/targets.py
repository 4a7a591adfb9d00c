"""What shall be known: every query of a range or table by itself, or their total; and how well it is known."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from idealized_runtime.design.belief import Belief
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

    def seen_by(self, belief: Belief) -> "SeenTarget":
        """How well it is known."""
        p, o, weights = self.mix.num_prompt_tokens.astype(int), self.mix.num_output_tokens, self.mix.weights
        runtime_s, rows = belief.predict(p, o), belief.rows(p, o)
        rows = rows * (belief.prior.expected(p, o) / runtime_s)[:, None]
        settings = belief.noise(runtime_s)[1]
        if self.of == "total":
            # What single settings differ from their curve by averages out in a total.
            shares = weights * runtime_s / np.sum(weights * runtime_s)
            return SeenTarget(belief, (shares @ rows)[None, :], settings @ shares**2)
        return SeenTarget(belief, np.sqrt(weights)[:, None] * rows, settings @ weights)


@dataclass(frozen=True, eq=False)
class SeenTarget:
    """A target as one belief sees it.

    ``rows`` are linear combinations of the parameters: the sum of their variances, and what settings differ from their
    curve by (``setting_variances``, in each component), is the target's, relative to it.
    """

    belief: Belief
    rows: np.ndarray
    setting_variances: np.ndarray

    @cached_property
    def gram(self) -> np.ndarray:
        """Of the rows: the variances of all of them add up to the sum of this, times a covariance."""
        return self.rows.T @ self.rows

    def variance(self, covariance) -> float:
        """Of the target, were this the covariance of the parameters."""
        weights = [it.weight for it in self.belief.components]
        return float(np.sum(covariance * self.gram) + weights @ self.setting_variances)

    def error(self, level: float) -> float:
        """Half-width of the target's interval, relative to it."""
        mean = self.belief.mean
        variances = [
            np.sum(it.covariance * self.gram) + np.sum((self.rows @ (it.mean - mean)) ** 2)
            for it in self.belief.components
        ]
        return float(self.belief.half_widths((np.array(variances) + self.setting_variances)[:, None], level)[0])
