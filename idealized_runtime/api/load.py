"""Requests under load: so many at once (closed loop, Figure 6 of arXiv:2305.02440), or at a rate (open loop).

In a closed loop each of n streams sends its next request when the last one is answered; in an open loop requests are
sent at the times of a Poisson process, answered or not. Both go on, uncounted, until the last counted request is
answered, so that it meets the load that the others met.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from idealized_runtime.api.runner import FailingError, Runner, check_sizes, settings_of, with_deviation_remedy
from idealized_runtime.api.statistics import LOAD
from idealized_runtime.api.trials import INTERRUPTED_ERROR
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.records.requests import describe_deviations

# Sent with the number of a request and, in an open loop, the seconds from the start at which it was due.
Send = Callable[[int, float | None], Awaitable[None]]


@dataclass(frozen=True)
class LoadSweep:
    """Which sizes are timed at which loads. Sizes in tokens.

    Parameters
    ----------
    all_num_prompt_tokens, all_num_output_tokens : tuple of int
    all_num_parallel : tuple of int
        Closed loops: how many requests at once.
    all_rates_per_s : tuple of float
        Open loops: mean requests a second.
    num_requests : int
        Counted, of each size at each load and repetition.
    num_warmup : int
        Uncounted ones before them, at the same load.
    num_repetitions : int
        Passes through all loads, each in an order of its own.
    seed : int
        Of the prompts, the order and the arrivals.
    is_mixed : bool
        Each load has requests of all sizes, drawn at random, as a server's users send them; else one load a size.

    Raises
    ------
    ValueError
        A size, load or number is not one; the message says which.
    """

    all_num_prompt_tokens: tuple[int, ...]
    all_num_output_tokens: tuple[int, ...]
    all_num_parallel: tuple[int, ...]
    all_rates_per_s: tuple[float, ...]
    num_requests: int
    num_warmup: int
    num_repetitions: int
    seed: int
    is_mixed: bool = False

    def __post_init__(self):
        check_sizes(self, ("all_num_prompt_tokens", "all_num_output_tokens"))
        check_sizes(self, ["all_num_parallel"], is_empty_allowed=True)
        if not all(0 < rate < np.inf for rate in self.all_rates_per_s):
            raise ValueError(f"all_rates_per_s must be positive; got {self.all_rates_per_s}")
        if not self.all_num_parallel and not self.all_rates_per_s:
            raise ValueError(
                "a load takes numbers of parallel requests or rates: give --all-num-parallel or --all-rates"
            )
        for name, least in (("num_requests", 1), ("num_warmup", 0), ("num_repetitions", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")

    def header(self) -> dict:
        """Fields of the log's header."""
        return asdict(self)

    def points(self) -> list[dict]:
        """Every size at every load, light loads first; where sizes are mixed, every load."""
        loads = [{"load": "closed", "num_parallel": number} for number in sorted(self.all_num_parallel)]
        loads += [{"load": "open", "rate_per_s": rate} for rate in sorted(self.all_rates_per_s)]
        sizes = [{}] if self.is_mixed else settings_of(self)
        return [{**size, **load} for size in sizes for load in loads]

    def pending(self, trials: Iterable[dict]) -> list[dict]:
        """Points that a log lacks, each with the number of its repetition.

        A repetition that was cut off, in its warm-up or later, is kept and measured once more, whole, under the next
        free number: its second half alone would have had to warm up again.
        """
        counted = Counter()
        for trial in trials:
            if trial.get("load"):
                is_counted = not trial.get("is_warmup") and trial.get("error", {}).get("type") != INTERRUPTED_ERROR
                counted[self._point_key(trial)] += is_counted
        points = self.points()
        left = []
        for repetition in range(self.num_repetitions):
            for index in np.random.default_rng([self.seed, repetition]).permutation(len(points)):
                key = self._point_key(points[index])
                repetitions = {k[-1]: count for k, count in counted.items() if k[:-1] == key[:-1]}
                num_complete = sum(count >= self.num_requests for count in repetitions.values())
                if num_complete <= repetition:
                    free = max(repetitions, default=-1) + 1 + repetition - num_complete
                    left.append({**points[index], "repetition": free})
        return left

    def _point_key(self, trial) -> tuple:
        names = LOAD if self.is_mixed else (*TOKEN_COLUMNS, *LOAD)
        return tuple(trial.get(name) for name in (*names, "repetition"))


class LoadRunner(Runner):
    """Runs what a journal lacks of a :class:`LoadSweep`.

    Its sender is without retries: a request that is refused under load is a result.
    """

    def _pending(self) -> list[dict]:
        return self._sweep.pending(self._journal.log.records)

    async def _run_pending(self, points):
        for place, point in enumerate(points, start=1):
            # Writing waits for the disk, during which no other request could be timed: a thread does it.
            with ThreadPoolExecutor(max_workers=1) as disk:
                records = await self._run_point(point, disk)
            failed = [record for record in records if "error" in record]
            timed = [record for record in records if "error" not in record]
            times_s = [record["runtime_s"] for record in timed]
            deviating, all_deviate = describe_deviations(records), all("deviations" in record for record in timed)
            self._report(
                f"{place} of {len(points)}: {describe_load(point)}: {len(records)} requests, {len(failed)} failed"
                + (f", median {np.median(times_s):.3f} s" if times_s else "")
                + (f"; {deviating}" if deviating and not all_deviate else "")
            )
            if failed and not times_s:
                raise FailingError(f"all {len(failed)} requests failed, the last: {failed[-1]['error']['message']}")
            if timed and all_deviate:
                raise FailingError(with_deviation_remedy(deviating))

    async def _run_point(self, point, disk) -> list[dict]:
        """The counted records of one point."""
        counted, writes = [], []
        first, num_requests, is_closed = self._sweep.num_warmup, self._sweep.num_requests, point["load"] == "closed"
        num_extra = 2 * point["num_parallel"] if is_closed else _num_open_extra(num_requests)
        seed = [self._sweep.seed, point["repetition"], *(round(1e6 * point.get(name, 0)) for name in LOAD[1:])]
        sizes, rng = settings_of(self._sweep), np.random.default_rng([*seed, 1])
        # Of a load of one size, that one.
        drawn = [sizes[k] for k in rng.integers(len(sizes), size=first + num_requests + num_extra)]
        requests = [{**size, **point} for size in drawn]
        # Making a prompt takes time in which no answer could be timed: all are made before.
        prompts = [self._prompt_of(request, number, 0) for number, request in enumerate(requests)]
        start = datetime.now(UTC)

        def keep(record):
            writes.append(disk.submit(self._keep, record))

        async def send(number, due_s):
            is_counted = first <= number < first + num_requests
            # Those after the counted ones go on where those before them stopped.
            trial = number - first if is_counted else number if number < first else number - num_requests
            trial = {**requests[number], "trial": trial, "is_warmup": not is_counted}
            if due_s is not None:
                trial["scheduled_at"] = (start + timedelta(seconds=due_s)).isoformat(timespec="microseconds")
            record = await self._sender.send(
                lambda attempt: self._prompt_of(requests[number], number, attempt) if attempt else prompts[number],
                trial,
                keep,
            )
            if is_counted:
                counted.append(record)

        try:
            if is_closed:
                await run_closed_loop(send, point["num_parallel"], num_warmup=first, num_requests=num_requests)
            else:
                seed = [self._sweep.seed, point["repetition"], round(1e6 * point["rate_per_s"])]
                arrivals_s = poisson_arrivals(point["rate_per_s"], np.random.default_rng(seed))
                await run_open_loop(send, arrivals_s, num_warmup=first, num_requests=num_requests)
        finally:
            for write in writes:
                write.result()
        return counted

    def _prompt_of(self, point, number, attempt) -> str:
        load = [point.get("num_parallel", 0), round(1e6 * point.get("rate_per_s", 0)), point["repetition"]]
        sizes = [point[name] for name in TOKEN_COLUMNS]
        return self._make_prompt(point["num_prompt_tokens"], *load, *sizes, number, attempt)


async def run_closed_loop(send: Send, num_parallel: int, *, num_warmup: int, num_requests: int) -> None:
    """Send requests from ``num_parallel`` streams, each its next one when the last is answered.

    Requests are numbered in the order of sending; those from ``num_warmup`` on, ``num_requests`` of them, count.
    Streams go on until these are answered, by two requests each at most.
    """
    numbers = itertools.count()
    last = num_warmup + num_requests
    waiting = set(range(num_warmup, last))

    async def stream():
        while waiting and (number := next(numbers)) < last + 2 * num_parallel:
            await send(number, None)
            waiting.discard(number)

    await _gather(stream() for _ in range(num_parallel))


async def run_open_loop(send: Send, arrivals_s: Iterator[float], *, num_warmup: int, num_requests: int) -> None:
    """Send requests at given times, in seconds from now, whether the ones before are answered or not.

    Numbered and counted as in :func:`run_closed_loop`. Requests go on arriving until the counted ones are answered, by
    a quarter of their number at most.
    """
    last = num_warmup + num_requests
    waiting = set(range(num_warmup, last))
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()
    start_s = loop.time()

    async def request(number, due_s):
        with suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), start_s + due_s - loop.time())
            return
        await send(number, due_s)
        waiting.discard(number)
        if not waiting:
            is_over.set()

    due = enumerate(itertools.islice(arrivals_s, last + _num_open_extra(num_requests)))
    await _gather(request(number, due_s) for number, due_s in due)


def poisson_arrivals(rate_per_s: float, rng: np.random.Generator) -> Iterator[float]:
    """Times of a Poisson process in seconds, without end."""
    time_s = 0.0
    while True:
        time_s += rng.exponential(1 / rate_per_s)
        yield time_s


def describe_load(point: dict) -> str:
    """A point in words, such as ``4 parallel, p=128 o=16``, without what it lacks."""
    known = {name: value for name, value in point.items() if not pd.isna(value)}
    words = {"num_parallel": "{} parallel", "rate_per_s": "{:g} requests/s"}
    loads = [form.format(known[name]) for name, form in words.items() if name in known]
    sizes = [f"{short}={known[name]}" for short, name in zip("po", TOKEN_COLUMNS, strict=True) if name in known]
    return ", ".join(part for part in (*loads, " ".join(sizes)) if part) or "all requests"


async def _gather(coroutines):
    """Run all; where one fails the others are cancelled, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _num_open_extra(num_requests) -> int:
    return num_requests // 4 + 1
