"""A server that walks through every step, as plainly as its rules can be said: what the event-driven one must equal."""

import heapq
import math
from collections import deque

import numpy as np


class PlainServer:
    """One engine: requests are added, and each call of ``step`` does one step and gives its seconds."""

    def __init__(self, requests, steps, scheduler):
        self.prompts, self.outputs = (requests[name].tolist() for name in ("num_prompt_tokens", "num_output_tokens"))
        self.steps, self.scheduler = steps, scheduler
        self.running, self.waiting = [], deque()
        number = len(requests)
        self.cached, self.generated, self.to_encode = [0] * number, [0] * number, list(self.prompts)
        self.num_preemptions = [0] * number

    def step(self):
        """Seconds of the next step, the requests that have their first token by it, and those that are done."""
        cached, to_encode, running, waiting = self.cached, self.to_encode, self.running, self.waiting
        policy, most_tokens = self.scheduler.policy, self.scheduler.max_num_batched_tokens
        capacity = math.inf if self.scheduler.cache_tokens is None else self.scheduler.cache_tokens
        is_full = False
        while True:
            decoding = [r for r in running if cached[r] >= to_encode[r]]
            partial = [r for r in running if cached[r] < to_encode[r]]
            chunk = sum(min(to_encode[r] - cached[r], most_tokens - len(decoding)) for r in partial)
            in_cache = sum(cached[r] for r in running)
            if in_cache + len(decoding) + chunk <= capacity:
                break
            is_full, last = True, running.pop()
            cached[last], to_encode[last] = 0, self.prompts[last] + self.generated[last]
            self.num_preemptions[last] += 1
            waiting.appendleft(last)
        room, budget, chunks = capacity - in_cache, most_tokens, {}
        if policy == "continuous":
            budget, room = budget - len(decoding), room - len(decoding)
            for r in partial:
                chunks[r] = min(to_encode[r] - cached[r], budget)
                budget, room = budget - chunks[r], room - chunks[r]
        may_start = not is_full and not (policy == "static" and decoding)
        while may_start and waiting and len(running) < self.scheduler.max_num_seqs:
            r = waiting[0]
            size = min(to_encode[r], budget) if policy == "continuous" else to_encode[r]
            reserved = size + (self.outputs[r] - 1 if policy == "static" else 0)
            if size < 1 or reserved > room or (policy == "prompts-first" and chunks and size > budget):
                break
            running.append(waiting.popleft())
            chunks[r], budget, room = size, budget - size, room - reserved
        generating = decoding if policy == "continuous" or not chunks else []
        num_encoded = sum(chunks.values())
        seconds = (
            self.steps.fixed_s
            + self.steps.prompt_token_s * num_encoded
            + self.steps.sequence_s * (len(generating) + len(chunks))
            + self.steps.cache_token_s * sum(cached[r] for r in [*generating, *chunks])
            + self.steps.expert_s * (1 - (1 - self.steps.expert_share) ** (num_encoded + len(generating)))
        )
        first = []
        for r in generating:
            cached[r] += 1
            self.generated[r] += 1
        for r, size in chunks.items():
            cached[r] += size
            if cached[r] >= to_encode[r]:
                self.generated[r] += 1
                first += [r] * (self.generated[r] == 1)
        done = [r for r in running if self.generated[r] >= self.outputs[r]]
        for r in done:
            running.remove(r)
        return seconds, first, done


def step_by_step(requests, steps, scheduler, *, noise=lambda: 1.0):
    """TTFT, runtime and preemptions of each request; every step takes the model's time, times ``noise()``."""
    arrival_s = requests["arrival_s"].to_numpy(float)
    server, clock_s = PlainServer(requests, steps, scheduler), 0.0
    to_come = deque(np.argsort(arrival_s, kind="stable").tolist())
    first_s, end_s = np.full((2, len(requests)), math.nan)
    while to_come or server.running or server.waiting:
        if not server.running and not server.waiting:
            clock_s = max(clock_s, arrival_s[to_come[0]])
        while to_come and arrival_s[to_come[0]] <= clock_s:
            server.waiting.append(to_come.popleft())
        seconds, first, done = server.step()
        clock_s += seconds * noise()
        first_s[first] = clock_s
        end_s[done] = clock_s
    return first_s - arrival_s, end_s - arrival_s, np.array(server.num_preemptions)


def closed_loop_step_by_step(requests, steps, scheduler, num_parallel):
    """Arrival, TTFT and runtime where each of so many clients sends its next request when the last is answered."""
    server, clock_s, number = PlainServer(requests, steps, scheduler), 0.0, 0
    ready_s, (arrival_s, first_s, end_s) = [0.0] * num_parallel, np.full((3, len(requests)), math.nan)
    while number < len(requests) or server.running or server.waiting:
        if not server.running and not server.waiting:
            clock_s = max(clock_s, ready_s[0])
        while ready_s and number < len(requests) and ready_s[0] <= clock_s:
            arrival_s[number] = heapq.heappop(ready_s)
            server.waiting.append(number)
            number += 1
        seconds, first, done = server.step()
        clock_s += seconds
        first_s[first], end_s[done] = clock_s + steps.request_s, clock_s + steps.request_s
        for request in done:
            heapq.heappush(ready_s, end_s[request])
    return arrival_s, first_s - arrival_s, end_s - arrival_s
