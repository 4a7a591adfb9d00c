"""What shall be known of some queries, each by itself or their total; and how well it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.design.belief import Belief, doublings, places_among
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.tables import WEIGHT_COLUMN, grid_queries
from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.statistics.intervals import normal_half_width

OF = ("each", "total", "prompts", "tokens")
# More prompt and output sizes than these are taken together: sizes next to each other tell the same.
_MOST_PROMPT_SIZES, _MOST_OUTPUT_SIZES = 64, 32


@dataclass(frozen=True, eq=False)
class Target:
    """Queries with their shares, and what of them shall be known.

    Of ``"each"`` query the runtime: the error is the root mean square, over the queries, of the relative half-widths of
    their intervals. A design that makes this mean variance least is I-optimal (Atkinson, Donev and Tobias, Optimum
    Experimental Designs, with SAS, 2007, Section 10.6). ``"prompts"`` and ``"tokens"`` are the same of their prompt
    encoding times and times per output token. Of ``"total"`` it is the half-width of the runtime of all of them, and so
    of their dollars and joules at given prices: one linear combination of what is not known, for which designs are
    c-optimal (Pukelsheim, Optimal Design of Experiments, 2006, Chapter 2).
    """

    mix: QueryMix
    of: Literal["each", "total", "prompts", "tokens"] = "each"

    def __post_init__(self):
        if self.of not in OF:
            raise ValueError(f"target must be one of {', '.join(OF)}; got {self.of!r}")

    @classmethod
    def of_queries(cls, queries: pd.DataFrame, of: str = "each") -> "Target":
        """Target of a query table (``num_prompt_tokens, num_output_tokens``, optional ``weight``).

        Prompts of many sizes are rounded to whole numbers of tokens, and to 64 quantiles of them; outputs to 32.
        """
        mix = QueryMix.from_queries(queries)
        p = _together(mix.num_prompt_tokens, _MOST_PROMPT_SIZES)
        o = _together(mix.num_output_tokens, _MOST_OUTPUT_SIZES)
        if of == "prompts":
            o = np.ones_like(o)
        rows = dict(zip((*TOKEN_COLUMNS, WEIGHT_COLUMN), (p, o, mix.weights), strict=True))
        return cls(QueryMix.from_queries(pd.DataFrame(rows)), of)

    @classmethod
    def of_grid(cls, prompt_sizes: Iterable[int], output_sizes: Iterable[int], of: str = "each") -> "Target":
        """Every query of some prompt and output sizes."""
        return cls.of_queries(grid_queries(prompt_sizes, output_sizes), of)

    def seen_by(self, belief: Belief, settings: ArrayLike | None = None) -> "SeenTarget":
        """How well it is known.

        With ``settings`` (rows of p and o), none of them timed, what each of these lies off its curve by counts as
        one parameter more, behind those of the belief.
        """
        p, o, weights = self.mix.num_prompt_tokens.astype(int), self.mix.num_output_tokens, self.mix.weights
        runtime_s, rows = belief.predict(p, o), belief.rows(p, o)
        rows = rows * (belief.prior.expected(p, o) / runtime_s)[:, None]
        off = belief.setting_variances(p, o)
        if settings is not None:
            own = places_among(settings, p, o)
            rows = np.hstack([rows, own[:, None] == np.arange(len(settings))])
            off = off * (own < 0)
        if self.of == "tokens":
            rows = np.zeros_like(rows)
            place = len(belief.sizes) + np.searchsorted(belief.sizes, p)
            rows[np.arange(len(p)), place] = 1 / (1 + belief.mean[place])
            rows[:, 3 * len(belief.sizes)] = doublings(o) / (1 + belief.mean[place])
            off = 0 * off
        if self.of == "total":
            # What single settings lie off their curve by averages out in a total.
            shares = weights * runtime_s / np.sum(weights * runtime_s)
            return SeenTarget(belief, (shares @ rows)[None, :], off @ shares**2)
        return SeenTarget(belief, np.sqrt(weights)[:, None] * rows, off @ weights)


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
        """Products of the rows. The sum of this times a covariance is the sum of the variances of all rows."""
        return self.rows.T @ self.rows

    def variance(self, covariance: np.ndarray) -> float:
        """Of the target, were this the covariance of the parameters."""
        weights = [it.weight for it in self.belief.components]
        return float(np.sum(covariance * self.gram) + weights @ self.setting_variances)

    def floor(self, level: float) -> float:
        """The half-width that no number of trials would make narrower: what settings differ from their curve by.

        The 5th percentile of what is possible, so that it is not told from noise too early.
        """
        order = np.argsort(self.setting_variances)
        weights = np.cumsum([self.belief.components[place].weight for place in order])
        least = self.setting_variances[order[np.searchsorted(weights, 0.05)]]
        return normal_half_width(level) * float(np.sqrt(least))

    def error(self, level: float) -> float:
        """Half-width of the target's interval, relative to it."""
        mean = self.belief.mean
        variances = [
            np.sum(it.covariance * self.gram) + np.sum((self.rows @ (it.mean - mean)) ** 2)
            for it in self.belief.components
        ]
        return float(self.belief.half_widths((np.array(variances) + self.setting_variances)[:, None], level)[0])


def _together(sizes, most) -> np.ndarray:
    """Whole sizes, each of many as the nearest of some quantiles of them."""
    sizes = np.maximum(np.round(sizes), 1)
    if len(np.unique(sizes)) <= most:
        return sizes
    few = np.unique(np.quantile(sizes, np.linspace(0, 1, most), method="nearest"))
    above = np.clip(np.searchsorted(few, sizes), 1, len(few) - 1)
    return np.where(sizes - few[above - 1] < few[above] - sizes, few[above - 1], few[above])
