"""Requests through the engines of a server, event by event, in compiled code.

A server works in steps (iterations). Each takes the time of :class:`~idealized_runtime.serving.steps.StepModel`, and
every sequence that decodes in it gains one token. Between two events (an arrival, a prompt, a last token, a full
cache) steps differ only by the cache that grows by one token a sequence, so they are summed in closed form and not
walked through.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from idealized_runtime.serving.scheduler import POLICIES, Scheduler

_NONE = -1
_CONTINUOUS, _PROMPTS_FIRST, _STATIC = map(POLICIES.index, ("continuous", "prompts-first", "static"))
_NO_LIMIT = np.iinfo(np.int64).max // 4
# A request is in one list at a time, of those that wait or of those that run in the order of admission: `before` and
# `after` link it there. Where it decodes, `end` is the step with which it is done, and `place` where the heap has it.
_REQUEST = np.dtype(
    [(name, np.int64) for name in ("prompt", "output", "generated", "chunk", "end", "place", "before", "after",
                                   "num_preemptions", "engine")]
    + [(name, np.float64) for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")]
)  # fmt: skip
# `step` counts steps in which sequences generated; `partial` is a request whose prompt is encoded but for `num_left`;
# `finished` is the last of those that are done, each of which links the one before by `after`; `quiet_until_s`: no step
# that begins before ends a request or admits one, unless another comes.
_ENGINE = np.dtype(
    [(name, np.int64) for name in ("step", "num_running", "num_decoding", "num_cached", "partial", "num_left",
                                   "last_running", "num_waiting", "first_waiting", "last_waiting", "finished")]
    + [(name, np.float64) for name in ("clock_s", "quiet_until_s")]
)  # fmt: skip


class Served(NamedTuple):
    """What became of requests, in their order; times in seconds on the clock of their arrivals.

    ``arrival_s, scheduled_s, first_token_s, finish_s``: when each came, was first in a step, had its first and its last
    token.
    ``num_preemptions``; ``engine`` that had it. ``features``, shape (requests, 3, 7): the clock of its engine when it
    was queued, had its first and its last token, and what all steps there had held together until then (steps, prompt
    tokens, sequences, cached tokens, shares of experts, squares of their seconds). ``totals``, shape (engines, 6): the
    same of all steps.
    """

    arrival_s: np.ndarray
    scheduled_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    num_preemptions: np.ndarray
    engine: np.ndarray
    features: np.ndarray
    totals: np.ndarray


class _Rules(NamedTuple):
    policy: int
    max_num_seqs: int
    max_num_batched_tokens: int
    capacity: int


class _Steps(NamedTuple):
    fixed_s: float
    prompt_token_s: float
    sequence_s: float
    cache_token_s: float
    expert_s: float
    log_unvisited: float


def serve(
    arrival_s, num_prompt_tokens, num_output_tokens, steps, scheduler: Scheduler, *, num_parallel: int | None = None
) -> Served:
    """Run the engines of a server until every request is answered.

    Parameters
    ----------
    arrival_s : array
        In seconds from the start of the clock, in any order.
    num_prompt_tokens, num_output_tokens : array of int
        Each request fits the cache.
    steps : StepModel
    scheduler : Scheduler
    num_parallel : int, optional
        A closed loop of so many clients: each sends the next request, in their order, when its last one is answered.
        Arrivals are those that come of it, not those given.
    """
    number = len(arrival_s)
    requests = np.zeros(number, _REQUEST)
    requests["prompt"], requests["output"], requests["arrival_s"] = num_prompt_tokens, num_output_tokens, arrival_s
    for name in ("scheduled_s", "first_token_s", "finish_s"):
        requests[name] = np.nan
    engines = np.zeros(scheduler.num_engines, _ENGINE)
    for name in ("partial", "last_running", "first_waiting", "last_waiting", "finished"):
        engines[name] = _NONE
    most = min(scheduler.max_num_seqs, max(number, 1))
    rules = _Rules(
        POLICIES.index(scheduler.policy), most, min(scheduler.max_num_batched_tokens, _NO_LIMIT),
        _NO_LIMIT if scheduler.cache_tokens is None else scheduler.cache_tokens,
    )  # fmt: skip
    features, totals = np.full((number, 3, 7), np.nan), np.zeros((scheduler.num_engines, 6))
    state = (
        requests, engines, features, totals, np.zeros((scheduler.num_engines, most), np.int64),
        np.zeros(most + 1, np.int64), rules, _Steps(*steps.coefficients[:5].tolist(), math.log1p(-steps.expert_share)),
    )  # fmt: skip
    if num_parallel is None:
        _serve(np.argsort(requests["arrival_s"], kind="stable"), *state)
    else:
        _serve_closed(np.zeros(num_parallel), steps.request_s, *state)
    times = (
        requests[name]
        for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s", "num_preemptions", "engine")
    )
    return Served(*times, features, totals)


def _compiled(function):
    """The function as machine code, which is kept for the next process where a folder for it can be written."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _push(requests, heap, size, request):
    """Put a request into a heap of so many that are ordered by their ends."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if requests[heap[parent]].end <= requests[request].end:
            break
        heap[place] = heap[parent]
        requests[heap[place]].place = place
        place = parent
    heap[place] = request
    requests[request].place = place


@_compiled
def _remove(requests, heap, size, place):
    """Take the request at a place out of a heap of so many."""
    moved = heap[size - 1]
    if place == size - 1:
        return
    # Up, as if it were new; else down to where both below it end later.
    _push(requests, heap, place, moved)
    place = requests[moved].place
    while True:
        child = 2 * place + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and requests[heap[child + 1]].end < requests[heap[child]].end:
            child += 1
        if requests[heap[child]].end >= requests[moved].end:
            break
        heap[place] = heap[child]
        requests[heap[place]].place = place
        place = child
    heap[place] = moved
    requests[moved].place = place


@_compiled
def _leave(engine, requests, request):
    """Take a request out of the list of those that run."""
    before, after = requests[request].before, requests[request].after
    if before != _NONE:
        requests[before].after = after
    if after != _NONE:
        requests[after].before = before
    else:
        engine.last_running = before
    engine.num_running -= 1


@_compiled
def _preempt(engine, requests, heap, rules):
    """Take the cache of the sequences that were admitted last until the next step fits; whether any was taken."""
    is_full = False
    while True:
        chunk = min(engine.num_left, rules.max_num_batched_tokens - engine.num_decoding)
        if engine.num_cached + engine.num_decoding + chunk <= rules.capacity:
            return is_full
        is_full = True
        request = engine.last_running
        _leave(engine, requests, request)
        if request == engine.partial:
            engine.num_cached -= requests[request].prompt + requests[request].generated - engine.num_left
            engine.partial, engine.num_left = _NONE, 0
        else:
            # What it had generated is encoded again with its prompt.
            generated = requests[request].output - requests[request].end + engine.step
            requests[request].generated = generated
            engine.num_cached -= requests[request].prompt + generated - 1
            _remove(requests, heap, engine.num_decoding, requests[request].place)
            engine.num_decoding -= 1
        requests[request].after = engine.first_waiting
        engine.first_waiting = request
        if engine.num_waiting == 0:
            engine.last_waiting = request
        engine.num_waiting += 1
        requests[request].num_preemptions += 1


@_compiled
def _admit(engine, requests, chunked, rules, is_full):
    """Choose prompts, or chunks of them, that the next step encodes: how many, each with its ``chunk``."""
    number = 0
    if engine.partial == _NONE and (engine.num_waiting == 0 or is_full or engine.num_running >= rules.max_num_seqs):
        return number
    budget, room = rules.max_num_batched_tokens, rules.capacity - engine.num_cached
    if rules.policy == _CONTINUOUS:
        budget -= engine.num_decoding
        room -= engine.num_decoding
        if engine.partial != _NONE:
            chunk = min(engine.num_left, budget)
            requests[engine.partial].chunk = chunk
            chunked[number] = engine.partial
            number += 1
            budget, room, engine.num_left = budget - chunk, room - chunk, engine.num_left - chunk
            if engine.num_left > 0 or is_full:
                return number
    elif rules.policy == _STATIC and engine.num_running > 0:
        return number
    while engine.num_waiting > 0 and engine.num_running < rules.max_num_seqs:
        request = engine.first_waiting
        size = chunk = requests[request].prompt + requests[request].generated
        # A static batch keeps room for what it will generate.
        reserved = size + requests[request].output - 1 if rules.policy == _STATIC else size
        if rules.policy == _CONTINUOUS:
            reserved = chunk = min(size, budget)
        if chunk < 1 or reserved > room or (rules.policy == _PROMPTS_FIRST and number > 0 and size > budget):
            break
        engine.first_waiting = requests[request].after
        engine.num_waiting -= 1
        requests[request].before, requests[request].after = engine.last_running, _NONE
        if engine.last_running != _NONE:
            requests[engine.last_running].after = request
        engine.last_running = request
        engine.num_running += 1
        requests[request].chunk = chunk
        chunked[number] = request
        number += 1
        budget, room = budget - chunk, room - reserved
        if math.isnan(requests[request].scheduled_s):
            requests[request].scheduled_s = engine.clock_s
        if chunk < size:
            engine.partial, engine.num_left = request, size - chunk
            break
    return number


@_compiled
def _note(engine, requests, features, totals, request, moment):
    """Keep the clock and the totals of the engine at a moment of a request."""
    features[request, moment, 0] = engine.clock_s
    features[request, moment, 1:] = totals


@_compiled
def _add(totals, num_steps, num_tokens, num_sequences, num_read, share, squares):
    # One by one: an array of them would be allocated for every step.
    totals[0] += num_steps
    totals[1] += num_tokens
    totals[2] += num_sequences
    totals[3] += num_read
    totals[4] += share
    totals[5] += squares


@_compiled
def _finish(engine, requests, features, totals, request):
    requests[request].finish_s = engine.clock_s
    engine.num_cached -= requests[request].prompt + requests[request].output - 1
    _leave(engine, requests, request)
    requests[request].after, engine.finished = engine.finished, request
    _note(engine, requests, features, totals, request, 2)


@_compiled
def _finish_at_step(engine, requests, heap, features, totals):
    while engine.num_decoding > 0 and requests[heap[0]].end <= engine.step:
        request = heap[0]
        _remove(requests, heap, engine.num_decoding, 0)
        engine.num_decoding -= 1
        _finish(engine, requests, features, totals, request)


@_compiled
def _encode(engine, requests, heap, features, totals, chunked, number, rules, steps):
    """One step that encodes these chunks and, where steps are mixed, generates a token of each sequence."""
    is_mixed = rules.policy == _CONTINUOUS
    num_decoding = engine.num_decoding if is_mixed else 0
    num_read = engine.num_cached if is_mixed else 0
    num_tokens = 0
    for place in range(number):
        num_tokens += requests[chunked[place]].chunk
    num_sequences = num_decoding + number
    share = -math.expm1((num_decoding + num_tokens) * steps.log_unvisited)
    seconds = (
        steps.fixed_s
        + steps.prompt_token_s * num_tokens
        + steps.sequence_s * num_sequences
        + steps.cache_token_s * num_read
        + steps.expert_s * share
    )
    engine.clock_s += seconds
    _add(totals, 1, num_tokens, num_sequences, num_read, share, seconds**2)
    engine.num_cached += num_tokens + num_decoding
    if is_mixed:
        engine.step += 1
        _finish_at_step(engine, requests, heap, features, totals)
    for place in range(number):
        request = chunked[place]
        if request == engine.partial:
            if engine.num_left > 0:
                continue
            engine.partial = _NONE
        num_generated = requests[request].generated + 1
        if math.isnan(requests[request].first_token_s):
            requests[request].first_token_s = engine.clock_s
            _note(engine, requests, features, totals, request, 1)
        if num_generated >= requests[request].output:
            _finish(engine, requests, features, totals, request)
        else:
            requests[request].end = engine.step + requests[request].output - num_generated
            _push(requests, heap, engine.num_decoding, request)
            engine.num_decoding += 1


@_compiled
def _seconds(num_steps, first_s, growth_s):
    return num_steps * first_s + growth_s * num_steps * (num_steps - 1)


@_compiled
def _until_event(engine, requests, heap, rules, steps):
    """Steps until one ends a request or the cache is full; experts' share, seconds of the first, half their growth."""
    number = engine.num_decoding
    num_steps = requests[heap[0]].end - engine.step
    if rules.capacity < _NO_LIMIT:
        num_steps = min(num_steps, (rules.capacity - engine.num_cached) // number)
    share = -math.expm1(number * steps.log_unvisited)
    first_s = (
        steps.fixed_s + steps.sequence_s * number + steps.cache_token_s * engine.num_cached + steps.expert_s * share
    )
    return num_steps, share, first_s, steps.cache_token_s * number / 2


@_compiled
def _decode(engine, requests, heap, features, totals, rules, steps, until_s, most):
    """Steps that generate a token of each sequence, until the next event or the time, and not more than so many."""
    number = engine.num_decoding
    num_steps, share, first_s, growth_s = _until_event(engine, requests, heap, rules, steps)
    num_steps = min(num_steps, most)
    gap_s = until_s - engine.clock_s
    if _seconds(num_steps - 1, first_s, growth_s) >= gap_s:
        # The first number of steps after which the time has come, from the quadratic equation.
        linear_s = first_s - growth_s
        until = math.ceil(2 * gap_s / (linear_s + math.sqrt(linear_s**2 + 4 * growth_s * gap_s)))
        while until > 1 and _seconds(until - 1, first_s, growth_s) >= gap_s:
            until -= 1
        while _seconds(until, first_s, growth_s) < gap_s:
            until += 1
        num_steps = min(num_steps, until)
    engine.clock_s += _seconds(num_steps, first_s, growth_s)
    num_read = num_steps * engine.num_cached + number * num_steps * (num_steps - 1) / 2
    # Of first_s + 2 j growth_s for each step j from 0 on.
    squares = num_steps * first_s**2 + 2 * first_s * growth_s * num_steps * (num_steps - 1)
    squares += growth_s**2 * 2 * (num_steps - 1) * num_steps * (2 * num_steps - 1) / 3
    _add(totals, num_steps, 0, num_steps * number, num_read, num_steps * share, squares)
    engine.step += num_steps
    engine.num_cached += num_steps * number
    _finish_at_step(engine, requests, heap, features, totals)


@_compiled
def _advance(engine, requests, heap, features, totals, chunked, rules, steps, until_s, is_one):
    """Run every step that begins before a time, or those until the next event."""
    while engine.clock_s < until_s and engine.num_running + engine.num_waiting > 0:
        is_full = rules.capacity < _NO_LIMIT and _preempt(engine, requests, heap, rules)
        number = _admit(engine, requests, chunked, rules, is_full)
        if number > 0:
            _encode(engine, requests, heap, features, totals, chunked, number, rules, steps)
        else:
            # What was preempted may be admitted again after one step.
            most = 1 if is_full and engine.num_waiting > 0 else _NO_LIMIT
            _decode(engine, requests, heap, features, totals, rules, steps, until_s, most)
        if is_one:
            break


@_compiled
def _quiet_until_s(engine, requests, heap, rules, steps):
    if engine.num_running + engine.num_waiting == 0:
        return np.inf
    if (
        engine.partial != _NONE
        or engine.num_running == 0
        or (engine.num_waiting > 0 and engine.num_running < rules.max_num_seqs)
    ):
        return -np.inf
    num_steps, _, first_s, growth_s = _until_event(engine, requests, heap, rules, steps)
    return engine.clock_s + _seconds(num_steps - 1, first_s, growth_s) if num_steps > 0 else -np.inf


@_compiled
def _fewest(engines):
    """Place of the engine with the fewest requests."""
    chosen = 0
    for place in range(len(engines)):
        load = engines[place].num_running + engines[place].num_waiting
        if load < engines[chosen].num_running + engines[chosen].num_waiting:
            chosen = place
    return chosen


@_compiled
def _queue(engines, requests, features, totals, request, chosen):
    """Put a request that has come into the queue of an engine."""
    engine = engines[chosen]
    if engine.num_running + engine.num_waiting == 0:
        engine.clock_s = max(engine.clock_s, requests[request].arrival_s)
    requests[request].engine = chosen
    requests[request].after = _NONE
    if engine.num_waiting == 0:
        engine.first_waiting = request
    else:
        requests[engine.last_waiting].after = request
    engine.last_waiting = request
    engine.num_waiting += 1
    engine.quiet_until_s = -np.inf
    _note(engine, requests, features, totals[chosen], request, 0)


@_compiled
def _serve(order, requests, engines, features, totals, heaps, chunked, rules, steps):
    for request in order:
        at_s = requests[request].arrival_s
        # A request goes to the engine with the fewest: of the others only those whose number changes are looked after.
        for place in range(len(engines)):
            engine = engines[place]
            if engine.quiet_until_s < at_s:
                _advance(engine, requests, heaps[place], features, totals[place], chunked, rules, steps, at_s, False)
                engine.quiet_until_s = _quiet_until_s(engine, requests, heaps[place], rules, steps)
        place = _fewest(engines)
        _advance(engines[place], requests, heaps[place], features, totals[place], chunked, rules, steps, at_s, False)
        _queue(engines, requests, features, totals, request, place)
    for place in range(len(engines)):
        _advance(engines[place], requests, heaps[place], features, totals[place], chunked, rules, steps, np.inf, False)


@_compiled
def _serve_closed(ready_s, request_s, requests, engines, features, totals, heaps, chunked, rules, steps):
    """Requests from clients who are ready for their next one at a time, infinite while they wait for an answer."""
    client_of = np.zeros(len(requests), np.int64)
    for request in range(len(requests)):
        while True:
            client = np.argmin(ready_s)
            place = 0
            for other in range(len(engines)):
                is_busy = engines[other].num_running + engines[other].num_waiting > 0
                was_busy = engines[place].num_running + engines[place].num_waiting > 0
                if is_busy and (not was_busy or engines[other].clock_s < engines[place].clock_s):
                    place = other
            engine = engines[place]
            if engine.clock_s >= ready_s[client] or engine.num_running + engine.num_waiting == 0:
                break
            _advance(
                engine, requests, heaps[place], features, totals[place], chunked, rules, steps, ready_s[client], True
            )
            while engine.finished != _NONE:
                ready_s[client_of[engine.finished]] = requests[engine.finished].finish_s + request_s
                engine.finished = requests[engine.finished].after
        requests[request].arrival_s, client_of[request] = ready_s[client], client
        ready_s[client] = np.inf
        _queue(engines, requests, features, totals, request, _fewest(engines))
    for place in range(len(engines)):
        _advance(engines[place], requests, heaps[place], features, totals[place], chunked, rules, steps, np.inf, False)
