"""What a server's scheduler does with requests: which step encodes and generates what, and when each request is done.

A server works in steps (iterations). Each takes the time of :class:`~idealized_runtime.serving.steps.StepModel`, and
every sequence that decodes in it gains one token. Between two events (an arrival, a prompt, a last token, a full
cache) steps differ only by the cache that grows by one token a sequence, so they are summed in closed form and not
walked through.
"""

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

POLICIES = ("continuous", "prompts-first", "static")


@dataclass(frozen=True)
class Scheduler:
    """Rules by which a server puts requests into steps.

    Parameters
    ----------
    policy : {"continuous", "prompts-first", "static"}
        ``continuous``, as vLLM since 2025: a step first generates a token of each running sequence, and encodes as
        much of the next prompts as its budget leaves, a prompt in several chunks where need be. ``prompts-first``:
        whole prompts that wait come first, in a step of their own, generation pauses. ``static``: a batch of what
        waits is encoded in one step and generates until all are done; only then the next one starts.
    max_num_seqs : int
        Sequences that run at once; 1 serves one request at a time.
    max_num_batched_tokens : int
        Tokens of a step, generated and encoded; of ``static`` batches and of a single longer prompt in
        ``prompts-first`` they are no limit.
    cache_tokens : int, optional
        Tokens that the cache holds. Where the next step does not fit, the sequence that was admitted last gives its
        cache up and waits in front, to be encoded again with what it has generated. Without it no request is held up.
    num_engines : int
        Data-parallel copies of the model. A request goes to the one with the fewest that run or wait there.

    Raises
    ------
    ValueError
        A number is not a positive integer, or a step cannot hold a token of each sequence.
    """

    policy: str = "continuous"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    cache_tokens: int | None = None
    num_engines: int = 1

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}; got {self.policy!r}")
        for name in ("max_num_seqs", "max_num_batched_tokens", "cache_tokens", "num_engines"):
            value = getattr(self, name)
            if not (name == "cache_tokens" and value is None) and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1; got {value!r}")
        if self.policy == "continuous" and self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens must be at least max_num_seqs, {self.max_num_seqs}, a token for each "
                f"sequence; got {self.max_num_batched_tokens}"
            )


class Engine:
    """One copy of a model at work: the requests that wait and run there, and the step it has come to.

    Parameters
    ----------
    scheduler : Scheduler
    steps : StepModel
    num_prompt_tokens, num_output_tokens : list of int
        Of all requests, which are called by their place in it.
    is_recording : bool
        Keep the features of steps that a fit needs.

    Attributes
    ----------
    arrival_s, scheduled_s, first_token_s, finish_s : list of float
        When a request came, was first in a step, had its first and its last token; NaN until then.
    num_preemptions : list of int
    features : dict by request of up to three lists
        What all steps held together (steps, prompt tokens, sequences, cached tokens, shares of experts) until the step
        boundary at which it was queued, its first and its last token.
    """

    def __init__(self, scheduler, steps, num_prompt_tokens, num_output_tokens, *, is_recording=False):
        self.scheduler, self.prompts, self.outputs = scheduler, num_prompt_tokens, num_output_tokens
        self.coefficients = steps.coefficients.tolist()
        self.log_unvisited = math.log1p(-steps.expert_share)
        self.is_mixed = scheduler.policy == "continuous"
        self.capacity = math.inf if scheduler.cache_tokens is None else scheduler.cache_tokens
        self.clock_s = 0.0
        # Requests that run, in the order of admission, and those that wait.
        self.running, self.waiting = {}, deque()
        # Steps in which sequences generated, so far; a sequence ends with the step of its number in the heap.
        self.step, self.ends, self.end_of = 0, [], {}
        self.num_decoding = self.num_cached = 0
        # A request whose prompt is encoded in part, and the tokens that are left of it.
        self.partial, self.num_left = None, 0
        # Tokens that a preempted request had generated, which are encoded again with its prompt.
        self.generated = {}
        number = len(num_prompt_tokens)
        self.arrival_s, self.scheduled_s, self.first_token_s, self.finish_s = ([math.nan] * number for _ in range(4))
        self.num_preemptions = [0] * number
        self.is_recording, self.features, self.totals = is_recording, {}, [0.0] * 5

    def add(self, request: int, arrival_s: float):
        """Queue a request; :meth:`advance` has come to its arrival."""
        if not self.running and not self.waiting:
            self.clock_s = max(self.clock_s, arrival_s)
        self.arrival_s[request] = arrival_s
        self.waiting.append(request)
        if self.is_recording:
            self.features[request] = [[self.clock_s, *self.totals]]

    def advance(self, until_s: float):
        """Run every step that begins before a time."""
        while self.clock_s < until_s and (self.running or self.waiting):
            is_full = self.capacity < math.inf and self._preempt()
            chunks = self._admit(is_full)
            if chunks:
                self._encode(chunks)
            else:
                # What was preempted may be admitted again after one step.
                self._decode(until_s, most=1 if is_full and self.waiting else math.inf)

    def _preempt(self) -> bool:
        """Take the cache of the sequences that were admitted last until the next step fits; whether any was taken."""
        is_full = False
        while True:
            budget = self.scheduler.max_num_batched_tokens - self.num_decoding
            chunk = min(self.num_left, budget)
            if self.num_cached + self.num_decoding + chunk <= self.capacity:
                return is_full
            is_full = True
            request, _ = self.running.popitem()
            generated = self.generated.get(request, 0)
            if request == self.partial:
                self.num_cached -= self.prompts[request] + generated - self.num_left
                self.partial, self.num_left = None, 0
            else:
                self.generated[request] = generated = self.outputs[request] - self.end_of.pop(request) + self.step
                self.num_cached -= self.prompts[request] + generated - 1
                self.num_decoding -= 1
            self.waiting.appendleft(request)
            self.num_preemptions[request] += 1

    def _admit(self, is_full) -> list:
        """Prompts, or chunks of them, that the next step encodes: requests and numbers of tokens."""
        scheduler, waiting, running = self.scheduler, self.waiting, self.running
        if self.partial is None and (not waiting or is_full or len(running) >= scheduler.max_num_seqs):
            return []
        policy, chunks, budget = scheduler.policy, [], scheduler.max_num_batched_tokens
        room = self.capacity - self.num_cached
        if policy == "continuous":
            budget -= self.num_decoding
            room -= self.num_decoding
            if self.partial is not None:
                chunk = min(self.num_left, budget)
                chunks.append((self.partial, chunk))
                budget, room, self.num_left = budget - chunk, room - chunk, self.num_left - chunk
                if self.num_left or is_full:
                    return chunks
        elif policy == "static" and running:
            return []
        while waiting and len(running) < scheduler.max_num_seqs:
            request = waiting[0]
            size = chunk = self.prompts[request] + self.generated.get(request, 0)
            if policy == "continuous":
                chunk = min(size, budget)
                if not 0 < chunk <= room:
                    break
            elif policy == "prompts-first":
                if size > room or (chunks and size > budget):
                    break
            elif self.prompts[request] + self.outputs[request] - 1 > room:
                break
            waiting.popleft()
            running[request] = None
            chunks.append((request, chunk))
            budget -= chunk
            # A static batch keeps room for what it will generate.
            room -= chunk if policy != "static" else chunk + self.outputs[request] - 1
            if math.isnan(self.scheduled_s[request]):
                self.scheduled_s[request] = self.clock_s
            if chunk < size:
                self.partial, self.num_left = request, size - chunk
                break
        return chunks

    def _encode(self, chunks):
        """One step that encodes these chunks and, where steps are mixed, generates a token of each sequence."""
        fixed_s, prompt_token_s, sequence_s, cache_token_s, expert_s = self.coefficients
        num_decoding, num_read = (self.num_decoding, self.num_cached) if self.is_mixed else (0, 0)
        num_tokens = sum([chunk for _, chunk in chunks])
        num_sequences = num_decoding + len(chunks)
        share = -math.expm1((num_decoding + num_tokens) * self.log_unvisited) if expert_s or self.is_recording else 0.0
        self.clock_s += (
            fixed_s
            + prompt_token_s * num_tokens
            + sequence_s * num_sequences
            + cache_token_s * num_read
            + expert_s * share
        )
        if self.is_recording:
            self._record(1, num_tokens, num_sequences, num_read, share)
        self.num_cached += num_tokens + num_decoding
        if self.is_mixed:
            self.step += 1
            self._finish_at_step()
        for request, _ in chunks:
            if request == self.partial:
                if self.num_left:
                    continue
                self.partial = None
            num_generated = self.generated.get(request, 0) + 1
            if math.isnan(self.first_token_s[request]):
                self.first_token_s[request] = self.clock_s
                if self.is_recording:
                    self.features[request].append([self.clock_s, *self.totals])
            if num_generated >= self.outputs[request]:
                self._finish(request)
            else:
                self.num_decoding += 1
                self.end_of[request] = end = self.step + self.outputs[request] - num_generated
                heappush(self.ends, (end, request))

    def _decode(self, until_s, most):
        """Steps that generate a token of each sequence, until the next event or the time."""
        fixed_s, _, sequence_s, cache_token_s, expert_s = self.coefficients
        number, ends, end_of = self.num_decoding, self.ends, self.end_of
        while end_of.get(ends[0][1]) != ends[0][0]:
            # Of a sequence that was preempted.
            heappop(ends)
        num_steps = min(ends[0][0] - self.step, most)
        if self.capacity < math.inf:
            num_steps = min(num_steps, (self.capacity - self.num_cached) // number)
        share = -math.expm1(number * self.log_unvisited) if expert_s or self.is_recording else 0.0
        first_s = fixed_s + sequence_s * number + cache_token_s * self.num_cached + expert_s * share
        growth_s = cache_token_s * number / 2

        def seconds(steps):
            return steps * first_s + growth_s * steps * (steps - 1)

        gap_s = until_s - self.clock_s
        if seconds(num_steps - 1) >= gap_s:
            # The first number of steps after which the time has come, from the quadratic equation.
            linear_s = first_s - growth_s
            steps = math.ceil(2 * gap_s / (linear_s + math.sqrt(linear_s**2 + 4 * growth_s * gap_s)))
            while steps > 1 and seconds(steps - 1) >= gap_s:
                steps -= 1
            while seconds(steps) < gap_s:
                steps += 1
            num_steps = min(num_steps, steps)
        self.clock_s += seconds(num_steps)
        if self.is_recording:
            num_read = num_steps * self.num_cached + number * num_steps * (num_steps - 1) / 2
            self._record(num_steps, 0, num_steps * number, num_read, num_steps * share)
        self.step += num_steps
        self.num_cached += num_steps * number
        self._finish_at_step()

    def _finish_at_step(self):
        ends, end_of, step = self.ends, self.end_of, self.step
        while ends and ends[0][0] <= step:
            end, request = heappop(ends)
            if end_of.get(request) == end:
                del end_of[request]
                self.num_decoding -= 1
                self._finish(request)

    def _finish(self, request):
        self.finish_s[request] = self.clock_s
        self.num_cached -= self.prompts[request] + self.outputs[request] - 1
        del self.running[request]
        if self.is_recording:
            self.features[request].append([self.clock_s, *self.totals])

    def _record(self, *features):
        self.totals = [total + feature for total, feature in zip(self.totals, features, strict=True)]
