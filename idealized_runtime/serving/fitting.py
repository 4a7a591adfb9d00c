"""Step times of a server, from what it did: served requests, batches timed in a process, published points."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_columns
from idealized_runtime.serving.requests import TIMES
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import (
    arrival_rate_per_s,
    run_engines,
    saturated_rate_per_s,
    seconds_from_first,
    time_per_output_token_s,
)
from idealized_runtime.serving.steps import TERMS, StepModel, share_visited
from idealized_runtime.statistics.intervals import normal_half_width
from idealized_runtime.statistics.trends import NUM_BATCHES, drift

_MAX_ITERATIONS = 30
# What rows tell of, by their kind.
_KINDS = ("to the first token", "of further tokens", "of whole answers")
# Of the time to a first token, what encoding may be: all of it where nobody waits, little where a queue is long.
_PROMPT_SHARES = (1.0, 0.1)
# Errors beyond so many scales count less than their square.
_ROBUST_FROM = 3.0
# Of a relative error, what rounding of times leaves at least.
_LEAST_SCALE, _LARGEST_SCALE = 1e-4, 0.3
# Rows that share a scale, and how many scales a kind has.
_LEAST_OF_A_SCALE, _MOST_SCALES = 30, 4
# Beyond this median error the server works by other rules than those given, or by more than these terms.
_LARGE_ERROR = 0.3
_LEAST_ROWS = 3
# Of the terms' columns, brought to length 1; below it two of them say the same.
_LEAST_SINGULAR_VALUE = 0.003
# Largest change of a time, relative to the largest time, at which the iteration ends.
_CONVERGED = 1e-7
# Times of further tokens that change by so much from the first to the last tenth of a run, by a test at so much.
_DRIFT_FROM, _SIGNIFICANCE = 0.05, 0.01
# Runs of one server whose steps differ by less are not named, however narrow the interval.
_DIFFER_FROM = 0.01
# Arrivals of the two halves of a run that differ by so many standard errors of a Poisson process are named.
_UNSTEADY_FROM = 5.0


class StepsNotFittedError(ValueError):
    """What was served does not determine the times of a step."""


class ServingWarning(UserWarning):
    """What was served can be fitted, but tells less than it seems to."""


class Rows(NamedTuple):
    """Times, one a row, and what the steps in them held together.

    ``seconds`` measured; ``features``, shape (rows, 6), by term; ``sizes_s`` that errors are relative to; ``kinds``
    that have scales of error of their own, places in ``_KINDS``; ``begins`` and ``ends`` of the steps on a scale on
    which their errors are even, where rows that overlap share these (NaN elsewhere); ``blocks`` that share errors
    elsewhere.
    """

    seconds: np.ndarray
    features: np.ndarray
    sizes_s: np.ndarray
    kinds: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    blocks: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["Rows"], *, num_kinds: int = 0) -> "Rows":
        """All rows; those of different parts overlap nowhere. Kinds of each part are its own, or shared where 0."""
        joined, begin, first_block = [], 0.0, 0
        for number, part in enumerate(parts):
            shift = begin - np.nanmin(part.begins, initial=np.inf) if np.isfinite(part.begins).any() else 0.0
            shifted = part._replace(
                kinds=part.kinds + num_kinds * number, blocks=part.blocks + first_block,
                begins=part.begins + shift, ends=part.ends + shift,
            )  # fmt: skip
            begin = np.nanmax(shifted.ends, initial=begin)
            first_block = shifted.blocks.max(initial=first_block) + 1
            joined.append(shifted)
        return cls(*(np.concatenate(values) for values in zip(*joined, strict=True)))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What several rows of sizes and times tell of one model on one machine."""

    table: pd.DataFrame

    def __len__(self):
        return len(self.table)

    @property
    def num_context_tokens(self) -> float:
        """Mean tokens in the cache of a sequence half way."""
        return float((self.table["num_prompt_tokens"] + self.table["num_output_tokens"] / 2).mean())


@dataclass(frozen=True, eq=False)
class ServedRequests(_Evidence):
    """Requests that a server answered, and the rules by which it did.

    Parameters
    ----------
    table : DataFrame
        As from :func:`~idealized_runtime.serving.requests.read_request_table`. Rows without times (NaN) were in the
        server, too, and are not fitted.
    scheduler : Scheduler
    """

    scheduler: Scheduler

    unit = "requests"

    def __len__(self):
        """Those with times."""
        return int(self.table[[time for time in TIMES if time in self.table]].notna().any(axis=1).sum())

    @property
    def typical_step_s(self) -> float:
        """Median time per output token, or of the whole answer over its tokens; NaN where none was measured."""
        o = self.table["num_output_tokens"].to_numpy(float)
        whole_s = np.where(o > 1, self.table["runtime_s"].to_numpy(float) / o, np.nan)
        for times_s in (time_per_output_token_s(self.table), whole_s):
            if (known := times_s[~np.isnan(times_s)]).size:
                return float(np.median(known))
        return np.nan

    def rows(self, steps: StepModel) -> Rows:
        """Times to the first token, and of all further tokens, with the steps that the scheduler has in them.

        A first token takes the steps from the first one that begins after its request came, when the scheduler with
        these step times says so, until the one that ends its prompt. An answer that came whole takes those until its
        last token.
        """
        return Rows.join([self.rows_of(run, steps) for _, run in runs_of(self.table)])

    def rows_of(self, run: pd.DataFrame, steps: StepModel) -> Rows:
        """The rows of one run."""
        served = run_engines(run, steps, self.scheduler)
        # Errors of steps go with their lengths: on a scale of the squares of these they are even. Those of engines are
        # not the same.
        served.features[:, :, 6] += served.engine[:, None] * (served.totals[:, 5].max(initial=0.0) + 1)
        queued, first, last = served.features.swapaxes(0, 1)
        first_s, runtime_s = (run[time].to_numpy(float) for time in TIMES)
        # What is left of the step in which a request comes is no part of its own.
        left_s = queued[:, 0] - seconds_from_first(run)
        is_further = (run["num_output_tokens"] > 1).to_numpy() & (runtime_s > first_s)
        # A first token of a quiet moment is as uncertain as a step, however short it waited.
        least_s = 0.05 * np.median(known) if (known := first_s[~np.isnan(first_s)]).size else 0.0
        in_time, parts = np.argsort(last[:, 0], kind="stable"), []
        for kind, seconds, sizes_s, begin, end, is_kind in (
            (0, first_s - left_s, np.maximum(first_s, least_s), queued, first, first_s > left_s),
            (1, runtime_s - first_s, runtime_s - first_s, first, last, is_further),
            (2, runtime_s - left_s, runtime_s, queued, last, np.isnan(first_s) & (runtime_s > left_s)),
        ):
            at = in_time[is_kind[in_time]]
            # Outside of steps passes what comes before a first token.
            outside = np.full(at.size, float(kind != 1))
            parts.append((
                seconds[at], np.column_stack([(end - begin)[at, 1:6], outside]), sizes_s[at], np.full(at.size, kind),
                begin[at, 6], end[at, 6], np.zeros(at.size, dtype=int),
            ))  # fmt: skip
        return Rows(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class TimedBatches(_Evidence):
    """Batches that were timed in one process, prompts first and then all output tokens (``logs/cpu_batch``).

    Parameters
    ----------
    table : DataFrame
        As from ``read_log``: ``num_prompt_tokens, num_output_tokens, batch_size, micro_batch_size,
        token_micro_batch_size, prompt_encoding_time_s, generation_time_s``.
    """

    unit, scheduler = "settings of batches", None

    @property
    def typical_step_s(self) -> float:
        """Median time of a pass that generates."""
        rows = self.rows(None)
        is_decode = rows.kinds == 1
        return float(np.median(rows.seconds[is_decode] / rows.features[is_decode, 0]))

    def rows(self, steps: StepModel | None) -> Rows:
        """Times of encoding and of generation; what passes hold is known, whatever the step times."""
        names = ["num_prompt_tokens", "num_output_tokens", "batch_size", "micro_batch_size", "token_micro_batch_size"]
        check_columns(self.table, [*names, "prompt_encoding_time_s", "generation_time_s"])
        p, o, batch, micro, token_micro = self.table[names].to_numpy(float).T
        zero, further = np.zeros_like(p), o - 1
        num_encoding, num_generating = batch / micro, further * batch / token_micro
        expert_share = 0.0 if steps is None else steps.expert_share
        encoding_share, token_share = (share_visited(tokens, expert_share) for tokens in (micro * p, token_micro))
        encoding = np.column_stack([num_encoding, batch * p, batch, zero, num_encoding * encoding_share, zero])
        cached = batch * further * (p + (o - 2) / 2)
        generation = np.column_stack(
            [num_generating, zero, further * batch, cached, num_generating * token_share, zero]
        )  # fmt: skip
        seconds = self.table[["prompt_encoding_time_s", "generation_time_s"]].to_numpy(float)
        kinds = np.tile([0, 1], (len(p), 1))
        # All settings of a batch size and prompt size were timed close to each other.
        block = self.table.groupby(["batch_size", "num_prompt_tokens"], sort=False).ngroup().to_numpy()
        features = np.stack([encoding, generation], axis=1)
        is_known = seconds > 0
        return Rows(
            seconds[is_known], features[is_known], seconds[is_known], kinds[is_known],
            *np.full((2, is_known.sum()), np.nan), np.broadcast_to(block[:, None], kinds.shape)[is_known],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PublishedPoints(_Evidence):
    """Mean times at stated concurrencies: so many clients, each of whom sends its next request when one is answered.

    Parameters
    ----------
    table : DataFrame
        A point table: ``concurrency, num_prompt_tokens, num_output_tokens, time_per_output_token_s``, optional
        ``time_to_first_token_s``. Rows are of one model on one machine.
    scheduler : Scheduler
    """

    scheduler: Scheduler

    unit = "points"

    @property
    def typical_step_s(self) -> float:
        """Median time per output token."""
        return float(self.table["time_per_output_token_s"].median())

    def rows(self, steps: StepModel) -> Rows:
        """Times per output token and to the first token, where requests are spread evenly over time.

        A first token takes the steps of its own prompt, each of which generates for the other sequences, too.
        """
        names = ["concurrency", "num_prompt_tokens", "time_per_output_token_s"]
        check_columns(self.table, [*names, "num_output_tokens"], name="points")
        c, p, tpot_s = self.table[names].to_numpy(float).T
        of_token = features_of_points(self.table, self.scheduler, steps.expert_share)
        running, cached, share = of_token[:, 2], of_token[:, 3], of_token[:, 4]
        num_chunks = np.ceil(p / np.maximum(self.scheduler.max_num_batched_tokens - running, 1))
        of_first = np.column_stack(
            [num_chunks, p, num_chunks * running, num_chunks * cached, num_chunks * share, np.zeros_like(c)]
        )
        first_s = self.table.get("time_to_first_token_s", pd.Series(np.nan, index=self.table.index)).to_numpy(float)
        # Where more ask than may run, first tokens wait for a place.
        first_s = np.where(running < c / self.scheduler.num_engines, np.nan, first_s)
        seconds = np.concatenate([tpot_s, first_s])
        is_known = seconds > 0
        blocks = np.tile(np.arange(len(c)), 2)
        return Rows(
            seconds[is_known], np.concatenate([of_token, of_first])[is_known], seconds[is_known],
            np.repeat([1, 0], len(c))[is_known], *np.full((2, is_known.sum()), np.nan), blocks[is_known],
        )  # fmt: skip


def features_of_points(points: pd.DataFrame, scheduler: Scheduler, expert_share: float = 0.0) -> np.ndarray:
    """What a mean step of each point holds, shape (points, terms): what its time per output token is a line in.

    For each token that c sequences generate, prompts of c p / o tokens are encoded, spread over steps of which c / o
    times the chunks of a prompt carry one; the tokens of those visit more experts. Points without prompt sizes are of
    steps that encode none. Mean tokens in the cache of a sequence are ``num_context_tokens``, or p + o / 2.
    """
    c, p, o = points[["concurrency", "num_prompt_tokens", "num_output_tokens"]].to_numpy(float).T
    running = np.minimum(c / scheduler.num_engines, scheduler.max_num_seqs)
    context = points["num_context_tokens"].to_numpy(float) if "num_context_tokens" in points else p + o / 2
    p = np.nan_to_num(p)
    num_chunks = np.ceil(p / np.maximum(scheduler.max_num_batched_tokens - running, 1))
    carrying = np.minimum(1.0, running / o * num_chunks)
    share = share_visited(running, expert_share)
    share += carrying * (share_visited(running + p / np.maximum(num_chunks, 1), expert_share) - share)
    # What passes outside of steps is not told from the queue of clients that all begin at once.
    return np.column_stack([np.ones_like(c), running * p / o, running, running * context, share, np.zeros_like(c)])


def runs_of(requests: pd.DataFrame) -> Iterable[tuple[int, pd.DataFrame]]:
    """Number and requests of each stretch between which the server was idle."""
    return requests.groupby("run") if "run" in requests else [(0, requests)]


def fit_steps(
    evidence: Sequence, *, expert_share: float = 0.0, terms: Sequence[str] | None = None, **known
) -> StepModel:
    """Step times, none negative, that explain what a server did.

    Least squares of relative errors, each measure (first token, further tokens) of each piece of evidence weighted by
    the scale of its own errors, by how many steps it takes, large ones less than their square. What steps held is what
    the scheduler says with the step times found so far, never what the measured ends say; both are repeated until they
    agree, and the iteration that explains the times best is kept.

    Parameters
    ----------
    evidence : sequence of ServedRequests, TimedBatches or PublishedPoints
        Of one model on one machine; several count together.
    expert_share : float
        Of a mixture of experts, the share of a layer's experts that a token visits.
    terms : sequence of str, optional
        Those of ``TERMS`` that are fitted, the others are 0. Where it is not given all (``expert_s`` of mixtures only,
        ``request_s`` where requests were served), but for those that the evidence does not tell apart from others.
    known
        ``hardware, software, num_accelerators, sources`` of the model.

    Returns
    -------
    StepModel
        With covariance, and the scheduler of the first evidence that has one. Steps err independently, and requests
        that were in the server together share their steps' errors, in proportion to the time that they share; further
        errors are those of a request's own first token. Batches and points share errors within a block.

    Raises
    ------
    StepsNotFittedError
        There are too few times, or none that differ in what their steps held.

    Warns
    -----
    ServingWarning
        The median error of a measure is above 30 %; a term is left out because it cannot be told apart; or a run was
        overloaded, was sent more requests in one half of its time than in the other, or its steps became slower or
        quicker while it ran; or the steps of several pieces of evidence differ by more than the interval of the fit.

    Examples
    --------
    >>> from idealized_runtime.serving.requests import random_requests
    >>> from idealized_runtime.serving.simulation import simulate
    >>> scheduler, steps = Scheduler(max_num_seqs=128, max_num_batched_tokens=2048), StepModel(0.013, 4e-5, 4e-5, 7e-8)
    >>> sizes = pd.DataFrame({"num_prompt_tokens": [32, 256, 512], "num_output_tokens": [64, 8, 128]})
    >>> served = simulate(random_requests(sizes, rate_per_s=8, num_requests=200, rng=0), steps, scheduler)
    >>> round(fit_steps([ServedRequests(served, scheduler)]).fixed_s, 4)
    0.013
    """
    evidence = list(evidence)
    scheduler = next((item.scheduler for item in evidence if item.scheduler is not None), Scheduler())
    typical_s = [step_s for item in evidence if not np.isnan(step_s := item.typical_step_s)]
    step_s = float(np.median(typical_s)) if typical_s else np.nan
    if not step_s > 0:
        raise StepsNotFittedError("no time of a further output token was measured: serve requests of several tokens")
    known = {"expert_share": expert_share, "scheduler": scheduler, **known}
    start = np.array([0.5, 0.002, 0.002, 1e-6, 0.5 if expert_share else 0.0, 0.0]) * step_s
    first = Rows.join([item.rows(StepModel(*start.tolist(), **known)) for item in evidence])
    is_asked = {"expert_s": expert_share > 0, "request_s": first.features[:, 5].any()}
    terms = terms or [term for term in TERMS if is_asked.get(term, True)]
    places = _determined(first, [TERMS.index(term) for term in terms])
    start[[place for place in range(len(TERMS)) if place not in places]] = 0.0
    # Steps that are taken for quick leave no queue and no company, and then seem to be: one begins from both sides.
    prompt_starts_s = {start[1]}
    if 1 in places and (is_first := (first.kinds != 1) & (first.features[:, 1] > 0)).any():
        all_of_it_s = np.median(first.seconds[is_first] / first.features[is_first, 1])
        prompt_starts_s |= {share * all_of_it_s for share in _PROMPT_SHARES}
    is_prompt_term = np.arange(len(TERMS)) == 1
    best = min(
        (
            _iterate(evidence, np.where(is_prompt_term, prompt_s, start), places, known)
            for prompt_s in sorted(prompt_starts_s)
        ),
        key=lambda found: found[0],
    )
    _, steps, rows, design, errors, weights = best
    covariance = np.zeros((len(TERMS), len(TERMS)))
    covariance[np.ix_(places, places)] = _covariance(rows, design, errors, weights)
    steps = replace(steps, covariance=covariance)
    _warn(evidence, steps, rows.kinds, errors)
    _warn_of_differences(evidence, steps)
    return steps


def _iterate(evidence, start, places, known) -> tuple:
    """The iteration from one start that explains the times best: its likelihood, steps, rows and what they leave."""
    steps = StepModel(*start.tolist(), **known)
    best = (np.inf,)
    for _ in range(_MAX_ITERATIONS):
        rows = Rows.join([item.rows(steps) for item in evidence], num_kinds=len(_KINDS))
        design, target, errors, weights, cost = _weigh(rows, places, steps)
        if cost < best[0]:
            best = cost, steps, rows, design, errors, weights
        # Half of the way: what steps hold answers to their times, and would overshoot.
        moved = steps.coefficients
        moved[places] = (moved[places] + non_negative_least_squares(design, target, weights)) / 2
        change = np.abs(moved - steps.coefficients).max() / moved.max()
        steps = replace(steps, **dict(zip(TERMS, moved.tolist(), strict=True)))
        if change < _CONVERGED:
            break
    return best


def _weigh(rows, places, steps) -> tuple:
    """Design and target in relation to the sizes, what the steps leave, the weights of rows, and the likelihood."""
    design, target = rows.features[:, places] / rows.sizes_s[:, None], rows.seconds / rows.sizes_s
    errors = target - design @ steps.coefficients[places]
    cost, scales = 0.0, np.ones_like(errors)
    for group in _groups_of_a_scale(rows):
        of_group = np.abs(errors[group])
        # Laplace's likelihood, whose scale is the mean of the magnitudes.
        cost += of_group.size * np.log(np.minimum(of_group, 1.0).mean() + _LEAST_SCALE)
        # A measure that is missed wholly must not cease to count.
        scales[group] = np.clip(1.4826 * np.median(of_group), _LEAST_SCALE, _LARGEST_SCALE)
    weights = np.sqrt(np.minimum(1.0, _ROBUST_FROM * scales / np.maximum(np.abs(errors), 1e-12))) / scales
    return design, target, errors, weights, cost


def bootstrap_steps(
    evidence: Sequence,
    steps: StepModel,
    *,
    num_draws: int = 200,
    num_blocks: int = 20,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Step times of resampled blocks of requests, which ask less of the errors than the covariance does.

    A block is a stretch of a run, in the order of its steps (of batches and points, those that share errors). Which
    steps there were is kept as the fitted times have it.

    Parameters
    ----------
    evidence : sequence
        What the steps were fitted to.
    steps : StepModel
        As from :func:`fit_steps`.
    num_draws : int
    num_blocks : int
        Of the requests, together.
    rng : Generator or seed

    Returns
    -------
    DataFrame, one row a draw
        ``TERMS``, seconds; those that were not fitted are 0.
    """
    rng, evidence = np.random.default_rng(rng), list(evidence)
    rows = Rows.join([item.rows(steps) for item in evidence], num_kinds=len(_KINDS))
    places = np.flatnonzero(np.diag(steps.covariance) > 0)
    design, target, _, weights, _ = _weigh(rows, places, steps)
    blocks = rows.blocks + num_blocks
    timed = np.flatnonzero(np.isfinite(rows.begins))
    # Runs lie one after the other in time: a stretch of the whole is one of a run, but for one at each border.
    for number, part in enumerate(np.array_split(timed[np.argsort(rows.begins[timed], kind="stable")], num_blocks)):
        blocks[part] = number
    _, block_of = np.unique(blocks, return_inverse=True)
    draws = np.zeros((num_draws, len(TERMS)))
    for draw in draws:
        times = np.bincount(rng.integers(block_of.max() + 1, size=block_of.max() + 1), minlength=block_of.max() + 1)
        draw[places] = non_negative_least_squares(design, target, weights * np.sqrt(times[block_of]))
    return pd.DataFrame(draws, columns=list(TERMS))


def _groups_of_a_scale(rows):
    """Rows of a kind with about as many steps: errors of many steps cancel, in relation to them."""
    for kind in np.unique(rows.kinds):
        of_kind = np.flatnonzero(rows.kinds == kind)
        of_kind = of_kind[np.argsort(rows.features[of_kind, 0], kind="stable")]
        yield from np.array_split(of_kind, np.clip(of_kind.size // _LEAST_OF_A_SCALE, 1, _MOST_SCALES))


def non_negative_least_squares(design: ArrayLike, target: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Coefficients, none negative; columns may be of any scale."""
    from scipy.optimize import nnls

    weighted = design * weights[:, None]
    norms = np.linalg.norm(weighted, axis=0)
    norms[norms == 0] = 1.0
    return nnls(weighted / norms, target * weights)[0] / norms


def _determined(rows, places) -> list[int]:
    """The terms that these rows tell apart, the last of those that go together left out."""
    kept = []
    for place in sorted(places):
        design = rows.features[:, [*kept, place]] / rows.sizes_s[:, None]
        norms = np.linalg.norm(design, axis=0)
        if norms.all() and np.linalg.svd(design / norms, compute_uv=False)[-1] > _LEAST_SINGULAR_VALUE:
            kept.append(place)
    if 0 not in kept or len(rows.seconds) <= len(kept):
        raise StepsNotFittedError(
            f"{len(rows.seconds)} times do not determine {', '.join(TERMS[place] for place in places)}: serve requests "
            "of several prompt and output sizes at two rates or more"
        )
    if left_out := [TERMS[place] for place in places if place not in kept]:
        warnings.warn(
            f"{', '.join(left_out)} cannot be told apart from the other terms by what was served, and is left out as "
            "0: serve other sizes and rates", ServingWarning, stacklevel=3,
        )  # fmt: skip
    return kept


def _covariance(rows, design, errors, weights) -> np.ndarray:
    """Covariance of the estimates, were none of them forced to 0."""
    weighted = design * weights[:, None]
    norms = np.linalg.norm(weighted, axis=0)
    weighted = weighted / norms
    inverse = np.linalg.inv(weighted.T @ weighted)
    variance = np.zeros_like(inverse)
    if (is_timed := np.isfinite(rows.begins)).any():
        x, w, e, size_s = weighted[is_timed], weights[is_timed], errors[is_timed], rows.sizes_s[is_timed]
        begins, ends, is_decode = (
            rows.begins[is_timed],
            rows.ends[is_timed],
            rows.kinds[is_timed] % len(_KINDS) > 0,
        )
        # White noise along the axis of the steps: at each place it enters all rows that span it. Between two ends of
        # rows these are the same, so integrals are sums.
        at = np.concatenate([begins, ends])
        order = np.argsort(at, kind="stable")
        lengths = np.diff(at[order])

        def along_steps(values):
            return np.cumsum(np.concatenate([values, -values])[order], axis=0)[:-1]

        of_all = along_steps(x * (w / size_s)[:, None])
        of_decodes = along_steps(x * (w / size_s * is_decode)[:, None])
        moved = of_all @ inverse
        within = x[is_decode].T @ x[is_decode]
        # What of the noise is left in the errors of the further tokens, after the fit has taken its part.
        left = along_steps((w / size_s) ** 2 * is_decode) - 2 * np.sum(of_decodes * moved, axis=1)
        left += np.einsum("ij,jk,ik->i", moved, within, moved)
        noise = np.sum((w * e)[is_decode] ** 2) / max(float(lengths @ left), np.finfo(float).tiny)
        variance += noise * (of_all * lengths[:, None]).T @ of_all
        shared = noise * (ends - begins) / size_s**2
        if (is_first := ~is_decode).any():
            # In units of the scale of each, which weights are the inverse of.
            own = max(float(np.mean(w[is_first] ** 2 * (e[is_first] ** 2 - shared[is_first]))), 0.0)
            variance += own * x[is_first].T @ x[is_first]
    if (~is_timed).any():
        _, block_of = np.unique(rows.blocks[~is_timed], return_inverse=True)
        number = block_of.max() + 1
        scores = np.zeros((number, len(norms)))
        np.add.at(scores, block_of, (weighted * (errors * weights)[:, None])[~is_timed])
        variance += scores.T @ scores * number / max(number - len(norms), 1)
    return inverse @ variance @ inverse / np.outer(norms, norms)


def _warn(evidence, steps, kinds, errors):
    for kind in np.unique(kinds):
        of_kind = np.abs(errors[kinds == kind])
        # One answer that was held back tells nothing of the rules.
        if of_kind.size >= _LEAST_ROWS and (median := float(np.median(of_kind))) > _LARGE_ERROR:
            warnings.warn(
                f"the fitted steps miss the times {_KINDS[kind % len(_KINDS)]} by {median:.0%} in the median: the "
                f"server may work by other rules than {steps.scheduler}, or by more than these terms", ServingWarning,
                stacklevel=3,
            )  # fmt: skip
    has_several = sum(isinstance(item, ServedRequests) for item in evidence) > 1
    for place, item in enumerate(evidence, 1):
        for number, run in runs_of(item.table) if isinstance(item, ServedRequests) else ():
            name = f"run {number}" + f" of source {place}" * has_several
            arrival_s = seconds_from_first(run)
            in_first = np.count_nonzero(arrival_s <= arrival_s.max() / 2)
            in_second = len(run) - in_first
            if abs(in_first - in_second) > _UNSTEADY_FROM * np.sqrt(len(run)) and arrival_s.max() > 0:
                warnings.warn(
                    f"{name} is not stationary: {in_first} requests came in the first half of its time, "
                    f"{in_second} in the second. Its steps are fitted as such a run; its times are no steady state",
                    ServingWarning, stacklevel=3,
                )  # fmt: skip
            rate = arrival_rate_per_s(run)
            # Of a few requests, or of some that come all at once, no rate is known.
            is_rate = 0 < rate < np.inf
            limit = saturated_rate_per_s(run, steps, item.scheduler) if is_rate else np.inf
            if is_rate and rate * (1 - 2 / np.sqrt(len(run))) > limit:
                warnings.warn(
                    f"{name} was overloaded: {rate:.3g} requests/s came, and {limit:.3g} can be answered. "
                    "Its first tokens waited in a queue that grew as long as it ran: they are no steady state, "
                    "and are fitted as such a run", ServingWarning, stacklevel=3,
                )  # fmt: skip
            rows = item.rows_of(run, steps)
            is_further = rows.kinds == 1
            if np.count_nonzero(is_further) < 3 * NUM_BATCHES:
                continue
            ratios = rows.seconds[is_further] / (rows.features[is_further] @ steps.coefficients)
            change, p_value = drift([np.log(ratios[np.argsort(rows.begins[is_further])])])
            if p_value < _SIGNIFICANCE and abs(change) > _DRIFT_FROM:
                warnings.warn(
                    f"{name} is not stationary: from its first to its last tenth steps became "
                    f"{abs(change):.0%} {'slower' if change > 0 else 'quicker'} than the same steps before "
                    f"(p = {p_value:.2g}); they are fitted as one server", ServingWarning, stacklevel=3,
                )  # fmt: skip


def _warn_of_differences(evidence, steps):
    """Name the two runs of a server that differ most, where it is by more than the fit of both lets them."""
    is_named = len(steps.sources) == len(evidence)
    found = []
    for place, item in enumerate(evidence, 1):
        rows = item.rows(steps) if isinstance(item, ServedRequests) else None
        if rows is None or np.count_nonzero(is_further := rows.kinds == 1) < _LEAST_ROWS:
            continue
        features = rows.features[is_further]
        ratio = float(np.median(np.log(rows.seconds[is_further] / (features @ steps.coefficients))))
        mean = features.mean(axis=0)
        reach = normal_half_width(0.95) * np.sqrt(mean @ steps.covariance @ mean) / (mean @ steps.coefficients)
        found.append((ratio, reach, f"source {place}" + (f" ({steps.sources[place - 1]['file']})" if is_named else "")))
    if len(found) < 2:
        return
    (least, least_reach, quick), (most, most_reach, slow) = min(found), max(found)
    reach = np.expm1(max(least_reach, most_reach))
    if (difference := np.expm1(most - least)) > max(reach, _DIFFER_FROM):
        warnings.warn(
            f"the same steps take {100 * difference:.2g} % longer in {slow} than in {quick}, and the 95 % interval of "
            f"the fit reaches {100 * reach:.2g} % to each side: they are fitted as one server, and what differs from "
            "run to run is in no interval. Fit them one by one to see each", ServingWarning, stacklevel=3,
        )  # fmt: skip
