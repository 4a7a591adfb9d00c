"""Time a few settings, see what is known, choose the next: until the target is met, or the budget spent."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from idealized_runtime.checks import check_columns, check_positive
from idealized_runtime.design.belief import Belief, Prior, floor_and_line, number_of, places_among, settings_of
from idealized_runtime.design.deviations import UNKNOWN, Deviations
from idealized_runtime.design.targets import Target
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.tables import grid_queries
from idealized_runtime.records.common import TOKEN_COLUMNS

# Trials of one setting beyond which another tells nothing: what its mean differs from its curve by stays.
_MOST_TRIALS = 32
# A trial that takes less than this share of the target's variance away is not worth its time.
_LEAST_GAIN = 1e-4
# Before so many trials, nothing is said of what they cannot reach.
_FEWEST_TRIALS = 120
# Trials of a block: enough for their order to be shuffled, few enough to learn from before the next; later blocks have
# a part of all trials so far, as each of them tells less.
# Of its settings so many were timed before, so that a change of the machine shows.
_BLOCK_AGAIN = 2
_BLOCK_SETTINGS, _BLOCK_SHARE = 6, 6


@dataclass(frozen=True)
class Block:
    """Settings to time next.

    Parameters
    ----------
    settings : tuple of (num_prompt_tokens, num_output_tokens, num_trials)
        In the order to time them: shuffled, so that a drift of the machine is not taken for an effect of the size.
    expected_error : float or None
        Relative half-width of the target's interval after them; None before anything was timed or predicted.
    expected_s : float or None
        What they take, one warm-up of each new setting included.
    reason : str
        In words, what they are for.
    """

    settings: tuple[tuple[int, int, int], ...]
    expected_error: float | None
    expected_s: float | None
    reason: str


@dataclass(frozen=True)
class Stopped:
    """Why no more is timed.

    ``rule``: ``"target"``, the interval is narrow enough; ``"budget"``, the next setting would take longer than is
    left; ``"exhausted"``, every setting was timed as often as helps; ``"floor"``, no number of trials of these settings
    would reach the target. ``error`` is the relative half-width reached.
    """

    rule: Literal["target", "budget", "exhausted", "floor"]
    error: float
    sentence: str


class SequentialDesign:
    """Chooses what to time of one model, block by block.

    Parameters
    ----------
    prompt_sizes, output_sizes : iterables of int
        Sizes that may be timed.
    target_error : float
        Relative half-width of the target's interval at which to stop, such as 0.02.
    queries : DataFrame, optional
        Queries whose runtimes shall be known (``num_prompt_tokens, num_output_tokens``, optional ``weight``); every
        pair of the sizes where it is not given.
    of : str
        What of them: ``"each"`` runtime, their ``"total"``, their ``"prompts"`` or their ``"tokens"``.
    max_seconds : float, optional
        Device time to spend at most.
    level : float
        Of the interval.
    seed : int
        Of the order in which settings are timed.
    prior : Prior, optional
        What is expected of the model before it is timed; without it a few settings are timed first.
    deviations : Deviations
        From a curve through those, where there is no prior.
    num_warmups : int
        Untimed runs before the first trial of a setting in a block, which cost as much.

    Examples
    --------
    >>> design = SequentialDesign(prompt_sizes=[1, 128, 512], output_sizes=[1, 32], target_error=0.02)
    >>> block = design.next_block(pd.DataFrame(), elapsed_s=0)
    >>> block.expected_error is None  # nothing was timed yet
    True
    """

    def __init__(
        self,
        *,
        prompt_sizes,
        output_sizes,
        target_error: float,
        queries: pd.DataFrame | None = None,
        of: str = "each",
        max_seconds: float | None = None,
        level: float = 0.95,
        seed: int = 0,
        prior: Prior | None = None,
        deviations: Deviations = UNKNOWN,
        num_warmups: int = 1,
    ):
        check_positive(target_error=target_error, **({} if max_seconds is None else {"max_seconds": max_seconds}))
        self.prompt_sizes, self.output_sizes = (
            np.unique(np.asarray(list(sizes))) for sizes in (prompt_sizes, output_sizes)
        )
        if len(self.output_sizes) < 2:
            raise ValueError(
                f"output_sizes must be at least two, to tell output tokens from prompts; got {self.output_sizes}"
            )
        self.target = (
            Target.of_grid(self.prompt_sizes, self.output_sizes, of) if queries is None
            else Target.of_queries(queries, of)
        )  # fmt: skip
        self.target_error, self.max_seconds, self.level, self.seed = target_error, max_seconds, level, seed
        self.num_warmups, self.prior, self.deviations = num_warmups, prior, deviations
        pairs = grid_queries(self.prompt_sizes, self.output_sizes)
        self._candidates = QueryMix(*(pairs[name] for name in TOKEN_COLUMNS))
        self._sizes = np.unique(np.concatenate([self.prompt_sizes, self.target.mix.num_prompt_tokens.astype(int)]))

    def next_block(self, timings: pd.DataFrame, *, elapsed_s: float, belief: Belief | None = None) -> Block | Stopped:
        """What to time next, or why nothing more.

        Parameters
        ----------
        timings : DataFrame, one row a trial
            ``num_prompt_tokens, num_output_tokens, trial, runtime_s`` of all that was timed so far; may be empty.
        elapsed_s : float
            Device time spent so far, warm-ups included.
        belief : Belief, optional
            As :meth:`belief` has it after these timings, where the caller has asked for it already.
        """
        if timings.empty and self.prior is None:
            return self._first_block()
        belief = belief or self.belief(timings)
        error = self.error(belief)
        if not timings.empty and error <= self.target_error:
            return self._stopped("target", error, "is reached")
        counts = self._counts(timings)
        if len(timings) >= _FEWEST_TRIALS and self._with(belief, counts == 0).floor(self.level) > self.target_error:
            return self._stopped(
                "floor", error,
                "is out of reach: queries that cannot be timed lie off their curve by more, however many trials",
            )  # fmt: skip
        most = max(_BLOCK_SETTINGS, len(timings) // _BLOCK_SHARE)
        settings, seconds, after = self.choose(belief, counts, elapsed_s=elapsed_s, most=most)
        if not settings:
            if not self.choose(belief, counts, elapsed_s=-np.inf, most=1)[0]:
                return self._stopped("exhausted", error, "is not reached, and no further trial would narrow it")
            return self._stopped("budget", error, f"is not reached within {self.max_seconds:g} s")
        if not timings.empty:
            again, again_s = self._again(belief, counts, settings, elapsed_s + seconds)
            settings, seconds = settings + again, seconds + again_s
        order = self._order(len(settings), len(timings))
        reason = f"narrow the interval from {100 * error:.2g} to {100 * after:.2g} %"
        return Block(tuple(settings[place] for place in order), after, seconds, reason)

    def belief(self, timings: pd.DataFrame) -> Belief:
        """What is known after these timings: one row a trial, or one row a setting as from ``read_log``."""
        if timings.empty:
            return Belief.before_timing(self._sizes, self.prior)
        check_columns(timings, [*TOKEN_COLUMNS, "runtime_s"])
        sizes = np.union1d(self._sizes, timings["num_prompt_tokens"])
        return Belief.after(sizes, self.prior or Prior(floor_and_line(timings), self.deviations), timings)

    def error(self, belief: Belief) -> float:
        """Relative half-width of the target's interval."""
        return self.target.seen_by(belief).error(self.level)

    def plan(self, timings: pd.DataFrame | None = None) -> tuple[list[tuple[int, int, int]], float, float]:
        """All settings that it would take, were runtimes as they are expected to be: settings, seconds, error.

        Gaussian variances do not hang on what is observed, so a design can be planned to its end; what timings then
        say of noise makes it shorter or longer.

        Raises
        ------
        ValueError
            Nothing is expected: there is no prior, and no timings.
        """
        timings = pd.DataFrame() if timings is None else timings
        if timings.empty and self.prior is None:
            raise ValueError("a plan needs logs of other models to predict from, or timings")
        return self.choose(
            self.belief(timings), self._counts(timings), most=_MOST_TRIALS * len(self._candidates.weights)
        )

    def worth_of_each(self, timings: pd.DataFrame) -> pd.DataFrame:
        """What each timed setting narrows the target's interval by, were it alone left out.

        Returns
        -------
        DataFrame, one row a setting, the least useful first
            ``num_prompt_tokens, num_output_tokens, num_trials, seconds`` that its trials took; ``error_without``, the
            relative half-width of the target's interval without it; ``narrows_percent``, of that.
        """
        belief, settings = self.belief(timings), settings_of(timings)
        p, o, runtime_s = (settings[name].to_numpy() for name in (*TOKEN_COLUMNS, "runtime_s"))
        seen = self.target.seen_by(belief)
        # Of the most likely component, whose covariance is that of its noise.
        likely = max(belief.components, key=lambda it: it.weight)
        alone = replace(belief, components=(replace(likely, weight=1.0),))
        rows = belief.rows(p, o) * (belief.prior.expected(p, o) / belief.predict(p, o))[:, None]
        numbers = (settings[name].to_numpy() for name in ("num_trials", "num_together"))
        noise = self._noise(alone, runtime_s)[0] / number_of(*numbers, belief.visit_share)
        known = likely.covariance @ rows.T
        # Without a setting the covariance grows by C h h' C / (v - h' C h).
        left = np.maximum(noise - np.sum(rows.T * known, axis=0), 1e-3 * noise)
        gains = np.sum(known * (seen.gram @ known), axis=0) / left
        error, variance = seen.error(self.level), self.target.seen_by(alone).variance(likely.covariance)
        without = error * np.sqrt(1 + gains / variance)
        table = settings[[*TOKEN_COLUMNS, "num_trials"]].assign(
            seconds=settings["num_trials"] * runtime_s, error_without=without,
            narrows_percent=100 * (1 - error / without),
        )  # fmt: skip
        return table.sort_values("narrows_percent", ignore_index=True)

    def worth_of_next(self, timings: pd.DataFrame) -> pd.DataFrame:
        """What one more trial of each setting would narrow the target's interval by, and take.

        Returns
        -------
        DataFrame, one row a setting, the most useful per second first
            ``num_prompt_tokens, num_output_tokens``; ``seconds``, its warm-up included; ``error_after``, the relative
            half-width of the target's interval; ``narrows_percent``, of the one now.
        """
        belief = self.belief(timings)
        p, o, cost_s, rows, noise, covariance, wide = self._trials_of_each(belief, self._counts(timings))
        known = covariance @ rows.T
        gains = np.sum(known * (wide.gram @ known), axis=0) / (np.sum(rows.T * known, axis=0) + noise)
        shares = np.sqrt(np.maximum(1 - gains / wide.variance(covariance), 0))
        table = pd.DataFrame(
            {
                "num_prompt_tokens": p, "num_output_tokens": o, "seconds": cost_s * (1 + self.num_warmups),
                "error_after": self.error(belief) * shares, "narrows_percent": 100 * (1 - shares),
            }
        )  # fmt: skip
        return table.iloc[np.argsort(-gains / cost_s, kind="stable")].reset_index(drop=True)

    def _first_block(self) -> Block:
        """Ends and middle of the sizes, before there is a curve to choose by."""
        low, high = self.prompt_sizes[0], self.prompt_sizes[-1]
        middle = self.prompt_sizes[np.argmin(np.abs(self.prompt_sizes - high / 2))]
        few, many = self.output_sizes[0], self.output_sizes[len(self.output_sizes) // 2]
        settings = list(dict.fromkeys([(low, few), (low, many), (middle, few), (high, few), (high, many)]))
        order = self._order(len(settings), 0)
        return Block(tuple((*map(int, settings[place]), 2) for place in order), None, None, "a first look at the sizes")

    def _order(self, number, num_timed):
        """A random order that a run which was cut off and goes on has again."""
        return np.random.default_rng([self.seed, num_timed]).permutation(number)

    def _again(self, belief, counts, settings, spent_s):
        """A trial of settings that were timed before, where a block has too few of those; and its seconds.

        Those with the most trials, whose level is known best; the quickest of them first.
        """
        p, o = (self._candidates.num_prompt_tokens.astype(int), self._candidates.num_output_tokens.astype(int))
        cost_s = belief.predict(p, o) * (1 + self.num_warmups)
        is_chosen = places_among([pair[:2] for pair in settings], p, o) >= 0
        number = _BLOCK_AGAIN - int(np.sum(is_chosen & (counts > 0)))
        left_s = np.inf if self.max_seconds is None else self.max_seconds - spent_s
        again, seconds = [], 0.0
        for place in np.lexsort([cost_s, -counts]):
            if len(again) >= number:
                break
            if counts[place] and not is_chosen[place] and seconds + cost_s[place] <= left_s:
                again.append((int(p[place]), int(o[place]), 1))
                seconds += float(cost_s[place])
        return again, seconds

    def _counts(self, timings) -> np.ndarray:
        """Trials of each candidate so far."""
        p, o = self._candidates.num_prompt_tokens, self._candidates.num_output_tokens
        if timings.empty:
            return np.zeros(len(p), dtype=int)
        sizes = settings_of(timings).set_index(TOKEN_COLUMNS)["num_trials"]
        return np.array([sizes.get(key, 0) for key in zip(p.astype(int), o.astype(int), strict=True)])

    def choose(
        self, belief: Belief, counts: np.ndarray, *, elapsed_s: float = 0.0, most: int
    ) -> tuple[list[tuple[int, int, int]], float, float]:
        """Settings whose trials make the target's variance least per second, one after the other.

        A trial of variance v at a row h takes ``|T C h|^2 / (h' C h + v)`` from it, C being the covariance and T the
        rows of the target. What the setting lies off its curve by is one of the parameters. A further trial of the
        same visit needs no warm-up, and tells less: n of them are ``n / (1 + r (n - 1))``, r being the visit's share.

        Returns
        -------
        list of (num_prompt_tokens, num_output_tokens, num_trials), seconds, error
        """
        p, o, cost_s, rows, noise, covariance, target = self._trials_of_each(belief, counts)
        counts, gram = counts.copy(), target.gram
        left_s = np.inf if self.max_seconds is None else self.max_seconds - elapsed_s
        chosen, seconds, error = np.zeros(len(p), dtype=int), 0.0, self.error(belief)
        half = error / np.sqrt(target.variance(covariance))
        for _ in range(most):
            if error <= self.target_error:
                break
            known = covariance @ rows.T
            tells = number_of(chosen + 1, chosen + 1, belief.visit_share) - number_of(
                chosen, chosen, belief.visit_share
            )
            variance = np.sum(rows.T * known, axis=0) + noise / tells
            gains = np.sum(known * (gram @ known), axis=0) / variance
            price_s = cost_s * (1 + self.num_warmups * (chosen == 0))
            is_allowed = (counts < _MOST_TRIALS) & (price_s + seconds <= left_s)
            is_allowed &= gains > _LEAST_GAIN * target.variance(covariance)
            best = int(np.argmax(np.where(is_allowed, gains / price_s, -1.0)))
            if not is_allowed[best]:
                break
            covariance = covariance - np.outer(known[:, best], known[:, best]) / variance[best]
            counts[best] += 1
            chosen[best] += 1
            seconds += float(price_s[best])
            error = half * float(np.sqrt(target.variance(covariance)))
        settings = [(int(p[place]), int(o[place]), int(chosen[place])) for place in np.flatnonzero(chosen)]
        return settings, seconds, error

    def _trials_of_each(self, belief, counts):
        """Candidates' tokens, seconds, rows and noise of a trial, relative to their runtimes; covariance and target.

        What a candidate without trials lies off its curve by is one parameter more.
        """
        p, o = self._candidates.num_prompt_tokens.astype(int), self._candidates.num_output_tokens.astype(int)
        cost_s, is_new = belief.predict(p, o), counts == 0
        trial, setting = self._noise(belief, cost_s)
        rows = belief.rows(p, o) * (belief.prior.expected(p, o) / cost_s)[:, None]
        rows = np.hstack([rows, np.eye(len(p))[:, is_new]])
        covariance = block_diag(belief.covariance, np.diag(setting[is_new]))
        return p, o, cost_s, rows, trial, covariance, self._with(belief, is_new)

    def _with(self, belief, is_new):
        """The target with what these candidates lie off their curve by among its parameters."""
        p, o = self._candidates.num_prompt_tokens, self._candidates.num_output_tokens
        return self.target.seen_by(belief, np.column_stack([p, o])[is_new])

    def _noise(self, belief, runtime_s):
        """Relative variances of a trial and of a setting's mean, over all that is possible."""
        weights = np.array([it.weight for it in belief.components])
        return tuple(weights @ part for part in belief.noise(runtime_s))

    def _stopped(self, rule, error, what) -> Stopped:
        return Stopped(
            rule, error,
            f"the target of {100 * self.target_error:.3g} % {what}: {100 * self.level:g} % of what was asked for is "
            f"known to {100 * error:.2g} %",
        )  # fmt: skip
