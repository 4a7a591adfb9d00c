"""What a sweep that chooses its own settings is told: how well what is to be known, and for how many seconds."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, warn_missing
from idealized_runtime.design.belief import Prior
from idealized_runtime.design.sequential import Block, SequentialDesign
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.tables import WEIGHT_COLUMN
from idealized_runtime.records.common import TOKEN_COLUMNS

_NUM_PROMPT_SIZES, _NUM_OUTPUT_SIZES, _MOST_OUTPUT_TOKENS = 16, 4, 64


@dataclass(frozen=True, eq=False)
class Goal:
    """What is to be known, and how well.

    Parameters
    ----------
    target_error : float
        Relative half-width of the interval at which to stop, such as 0.02.
    level : float
        Of the interval.
    max_seconds : float, optional
        Of runs, warm-ups included, that may be spent on it.
    queries : DataFrame, optional
        Queries whose runtimes are asked for (``num_prompt_tokens, num_output_tokens``, optional ``weight``); all pairs
        of the sizes of the sweep where it is not given.
    source : str, optional
        What the queries were read from.
    of : {"each", "total", "prompts", "tokens"}
        What of the queries, as of a :class:`~idealized_runtime.design.targets.Target`.
    prior : Prior, optional
        What is expected before anything was timed.
    prior_source : str, optional
        Logs that it comes from.
    """

    target_error: float
    level: float = 0.95
    max_seconds: float | None = None
    queries: pd.DataFrame | None = None
    source: str | None = None
    of: str = "each"
    prior: Prior | None = None
    prior_source: str | None = None

    @classmethod
    def read(cls, source: str | os.PathLike | None = None, columns: Mapping[str, str] | None = None, **terms) -> "Goal":
        """Goal of a file of queries, or of the sizes of the sweep where there is none; errors begin with the source.

        Rows that are no queries are left out, with a warning.
        """
        return cls(**terms, queries=None if source is None else QueryMix.read(source, columns=columns).queries,
                   source=None if source is None else str(source))  # fmt: skip

    def header(self) -> dict:
        """Fields of a log's header: what was asked for."""
        asked = {"target_error": self.target_error, "level": self.level, "max_seconds": self.max_seconds, "of": self.of}
        if self.queries is not None:
            check_columns(self.queries, TOKEN_COLUMNS, name="queries")
            known = [*TOKEN_COLUMNS, *({WEIGHT_COLUMN} & set(self.queries))]
            sizes = np.ascontiguousarray(self.queries[known].to_numpy(float))
            asked["queries"] = {"source": self.source, "sha256": hashlib.sha256(sizes.tobytes()).hexdigest()}
        if self.prior is not None:
            asked["logs"] = self.prior_source
        return asked

    def sizes(self) -> tuple[list[int], list[int]]:
        """Prompt and output sizes to choose settings from, where none are given.

        Quantiles of the prompts of the queries, their ends included; of their output tokens powers of two up to 64,
        and quantiles up to there: more tokens cost time and tell little of a line.
        """
        mix = QueryMix.from_queries(self.queries)
        prompts = _quantiles(mix.num_prompt_tokens, mix.weights, _NUM_PROMPT_SIZES)
        most = int(np.clip(mix.num_output_tokens.max(), 2, _MOST_OUTPUT_TOKENS))
        outputs = _quantiles(np.minimum(mix.num_output_tokens, most), mix.weights, _NUM_OUTPUT_SIZES)
        return sorted(prompts), sorted(outputs | {2**power for power in range(most.bit_length())})

    def within(self, num_positions: int) -> "Goal":
        """The goal without queries that need more positions than a model has, with a warning."""
        if self.queries is None:
            return self
        is_longer = (self.queries[TOKEN_COLUMNS].sum(axis=1) - 1 > num_positions).to_numpy()
        warn_missing(is_longer, f"need more than the {num_positions} positions of the model, so they are left out")
        if is_longer.all():
            raise ValueError(f"none of the queries fits the {num_positions} positions of the model")
        return replace(self, queries=self.queries[~is_longer])

    def design(
        self,
        prompt_sizes: Iterable[int],
        output_sizes: Iterable[int],
        *,
        seed: int,
        num_warmups: int,
        batch_size: int = 1,
    ) -> SequentialDesign:
        """What chooses settings of these sizes for it. The prior is of one sequence at a time: no batch has it."""
        return SequentialDesign(
            prompt_sizes=prompt_sizes, output_sizes=output_sizes, target_error=self.target_error, queries=self.queries,
            max_seconds=self.max_seconds, level=self.level, seed=seed, num_warmups=num_warmups, of=self.of,
            prior=self.prior if batch_size == 1 else None,
        )  # fmt: skip

    def how_far(self, step: Block, spent_s: float) -> tuple[str, float]:
        """How well what is asked for will be known after a block, in words; and about how many seconds are left.

        Errors fall with the root of the time.
        """
        if step.expected_error is None or step.expected_s is None:
            return step.reason, step.expected_s or 0.0
        further = max((step.expected_error / self.target_error) ** 2 - 1, 0.0)
        left_s = step.expected_s + further * (spent_s + step.expected_s)
        if self.max_seconds is not None:
            left_s = min(left_s, max(self.max_seconds - spent_s, 0.0))
        known, target = 100 * step.expected_error, 100 * self.target_error
        return f"known to {known:.2g} % after this block, target {target:.3g} %", left_s


def _quantiles(sizes, weights, number) -> set[int]:
    shares = np.linspace(0, 1, number)
    return {*np.rint(np.quantile(sizes, shares, weights=weights, method="inverted_cdf")).astype(int).tolist()}


def sizes_without(
    failed: Iterable[tuple[int, int]], prompt_sizes: Iterable[int], output_sizes: Iterable[int]
) -> tuple[list[int], list[int]]:
    """Sizes that are left where settings failed: prompts shorter than theirs, or else fewer output tokens."""
    for p, o in failed:
        if smaller := [size for size in prompt_sizes if size < p]:
            prompt_sizes = smaller
        else:
            output_sizes = [size for size in output_sizes if size < o]
    return list(prompt_sizes), list(output_sizes)
