"""A server that walks through every step, as plainly as its rules can be said: what the event-driven one must equal."""

import math
from collections import deque

import numpy as np


def step_by_step(requests, steps, scheduler, *, noise=lambda: 1.0):
    """TTFT, runtime and preemptions of each request; every step takes the model's time, times ``noise()``."""
    arrival_s = requests["arrival_s"].to_numpy(float)
    prompts, outputs = (requests[name].tolist() for name in ("num_prompt_tokens", "num_output_tokens"))
    number, clock_s = len(requests), 0.0
    to_come = deque(np.argsort(arrival_s, kind="stable").tolist())
    running, waiting = [], deque()
    cached, generated, to_encode = [0] * number, [0] * number, list(prompts)
    first_s, end_s, num_preemptions = [math.nan] * number, [math.nan] * number, [0] * number
    capacity = math.inf if scheduler.cache_tokens is None else scheduler.cache_tokens
    is_mixed = scheduler.policy == "continuous"
    while to_come or running or waiting:
        if not running and not waiting:
            clock_s = max(clock_s, arrival_s[to_come[0]])
        while to_come and arrival_s[to_come[0]] <= clock_s:
            waiting.append(to_come.popleft())
        is_full = False
        while True:
            decoding = [r for r in running if cached[r] >= to_encode[r]]
            partial = [r for r in running if cached[r] < to_encode[r]]
            budget = scheduler.max_num_batched_tokens - len(decoding)
            chunk = sum(min(to_encode[r] - cached[r], budget) for r in partial)
            if sum(cached[r] for r in running) + len(decoding) + chunk <= capacity:
                break
            is_full, last = True, running.pop()
            cached[last], to_encode[last] = 0, prompts[last] + generated[last]
            num_preemptions[last] += 1
            waiting.appendleft(last)
        room = capacity - sum(cached[r] for r in running)
        budget, chunks = scheduler.max_num_batched_tokens, {}
        if is_mixed:
            budget, room = budget - len(decoding), room - len(decoding)
            for r in partial:
                chunks[r] = min(to_encode[r] - cached[r], budget)
                budget, room = budget - chunks[r], room - chunks[r]
        may_start = not is_full and not (scheduler.policy == "static" and decoding)
        while may_start and waiting and len(running) < scheduler.max_num_seqs:
            r = waiting[0]
            size = min(to_encode[r], budget) if is_mixed else to_encode[r]
            reserved = size + (outputs[r] - 1 if scheduler.policy == "static" else 0)
            if size < 1 or reserved > room:
                break
            if scheduler.policy == "prompts-first" and chunks and size > budget:
                break
            running.append(waiting.popleft())
            chunks[r], budget, room = size, budget - size, room - reserved
        generating = decoding if is_mixed or not chunks else []
        num_encoded = sum(chunks.values())
        visited = 1 - (1 - steps.expert_share) ** (num_encoded + len(generating))
        clock_s += noise() * (
            steps.fixed_s
            + steps.prompt_token_s * num_encoded
            + steps.sequence_s * (len(generating) + len(chunks))
            + steps.cache_token_s * sum(cached[r] for r in [*generating, *chunks])
            + steps.expert_s * visited
        )
        for r in generating:
            cached[r], generated[r] = cached[r] + 1, generated[r] + 1
        for r, size in chunks.items():
            cached[r] += size
            if cached[r] >= to_encode[r]:
                generated[r] += 1
                if math.isnan(first_s[r]):
                    first_s[r] = clock_s
        for r in [r for r in running if generated[r] >= outputs[r]]:
            end_s[r] = clock_s
            running.remove(r)
    return np.array(first_s) - arrival_s, np.array(end_s) - arrival_s, np.array(num_preemptions)
