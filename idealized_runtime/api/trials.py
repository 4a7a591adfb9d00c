"""One trial: a request with its retries, judged, as the record that a log keeps of it."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from idealized_runtime.api.answers import Answer
from idealized_runtime.api.budget import Budget, BudgetSpentError
from idealized_runtime.records.requests import cached_tokens, reported_tokens

# A prompt of which a server had more than this in its cache was not encoded whole. Two tokens may be alike by chance.
_ALLOWED_CACHED_TOKENS = 2
_ALLOWED_CACHED_SHARE = 0.02
INTERRUPTED_ERROR = "InterruptedError"


class RefusedError(ValueError):
    """The server refuses all that follows: a wrong key, a wrong model, a field it does not know."""


@dataclass(frozen=True)
class Retries:
    """How often, and after what wait, a request is sent again that failed for a passing reason.

    Parameters
    ----------
    max_retries : int
    first_wait_s : float
        Doubled each time, and varied by a quarter so that parallel requests do not return together.
    max_wait_s : float
        Of one wait. A server that asks for more is not waited for.
    """

    max_retries: int = 5
    first_wait_s: float = 1.0
    max_wait_s: float = 120.0

    def wait_s(self, num_attempts: int, answer: Answer) -> float | None:
        """Seconds before the next attempt, the server's wish if it has one; None to give up."""
        if not answer.is_retryable or num_attempts > self.max_retries:
            return None
        asked_s = retry_after_s(answer.headers)
        if asked_s is not None:
            return asked_s if asked_s <= self.max_wait_s else None
        # Not for statistics: waits of the same seed would meet again.
        return min(self.first_wait_s * 2 ** (num_attempts - 1), self.max_wait_s) * random.uniform(0.75, 1.25)


def retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or as a date."""
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    given = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(given))
    with suppress(TypeError, ValueError):
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    return None


@dataclass
class TrialSender:
    """Sends trials: reserves each request in the budget, repeats what may be repeated, makes the record.

    Parameters
    ----------
    client : ApiClient
    budget : Budget
    retries : Retries
    num_shared_tokens : int
        Prompt tokens that all requests share and a server may keep: a chat template.
    on_send : callable
        Told, before each request, its trial and its price: what a killed run had under way is to count as sent.
    on_wait : callable
        Told, before each wait, what failed and for how long the wait is.
    """

    client: object
    budget: Budget = field(default_factory=Budget)
    retries: Retries = field(default_factory=Retries)
    num_shared_tokens: int = 0
    on_send: Callable[[dict, float], None] = lambda _trial, _usd: None
    on_wait: Callable[[str], None] = lambda _: None

    async def send(self, make_prompt: Callable[[int], str], trial: dict, keep: Callable[[dict], None]) -> dict:
        """Run one trial and hand its record to ``keep``, also where it is interrupted after a request was sent.

        Parameters
        ----------
        make_prompt : callable
            The text for an attempt, from 0: a repeated request is not the same, lest the server remembers it.
        trial : dict
            ``num_prompt_tokens, num_output_tokens, trial`` and what else the record is to say.
        keep : callable
            Given the record.

        Returns
        -------
        dict
            The record.

        Raises
        ------
        BudgetSpentError
            The budget does not allow the next attempt.
        RefusedError
            No request can succeed; the message is the server's.
        """
        attempts, costs_usd = [], []
        while True:
            try:
                prompt = make_prompt(len(attempts))
                costs_usd.append(self.budget.reserve(trial["num_prompt_tokens"], trial["num_output_tokens"]))
                self.on_send(trial, costs_usd[-1])
                answer = await self.client.send(prompt, trial["num_output_tokens"])
                costs_usd[-1] = self.budget.settle(costs_usd[-1], answer)
                wait_s = self.retries.wait_s(len(attempts) + 1, answer)
                if wait_s is None:
                    break
                failed = {"sent_at": answer.sent_at, "status": answer.status, "error": answer.error}
                attempts.append({**failed, "waited_s": wait_s})
                self.on_wait(f"{answer.error['message']}; again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)
            except (asyncio.CancelledError, BudgetSpentError) as error:
                if costs_usd:
                    now = datetime.now(UTC).isoformat(timespec="microseconds")
                    answer = Answer(sent_at=attempts[-1]["sent_at"] if attempts else now)
                    answer.fail(INTERRUPTED_ERROR, str(error) or "interrupted")
                    keep(self._record(answer, None, trial, attempts, costs_usd))
                raise
        record = self._record(answer, prompt, trial, attempts, costs_usd)
        keep(record)
        if answer.is_refused:
            raise RefusedError(answer.error["message"])
        return record

    def _record(self, answer, prompt, trial, attempts, costs_usd) -> dict:
        fields = {name: value for name, value in asdict(answer).items() if value not in (None, [], {}, False)}
        return {
            **trial,
            **fields,
            **({"time_to_first_token_s": answer.chunk_times_s[0]} if answer.chunk_times_s else {}),
            **({} if prompt is None else {"prompt_sha256": sha256(prompt)}),
            **({"attempts": attempts} if attempts else {}),
            "num_requests": len(costs_usd),
            "cost_usd": sum(costs_usd),
            **judge(answer, trial, self.num_shared_tokens),
        }


def sha256(text: str) -> str:
    """Hexadecimal digest of a prompt, by which a record names it."""
    return hashlib.sha256(text.encode()).hexdigest()


def judge(answer: Answer, trial: dict, num_shared_tokens: int = 0) -> dict:
    """Why a trial is left out of the fit, as ``deviations``, and what else was odd about it, as ``notes``.

    A trial deviates if the server encoded another prompt than was asked for (another size, or a part from its cache) or
    generated another number of tokens. Without usage, ``finish_reason`` ``"length"`` says that all tokens came.
    """
    if answer.error is not None:
        return {"notes": answer.notes} if answer.notes else {}
    p, o = (reported_tokens(answer.usage, name) for name in ("prompt_tokens", "completion_tokens"))
    deviations, notes = [], list(answer.notes)
    if p is not None and p != trial["num_prompt_tokens"]:
        deviations.append(f"{p} prompt tokens reported")
    if o is not None and o != trial["num_output_tokens"]:
        deviations.append(f"{o} output tokens reported")
    if o is None and answer.finish_reason != "length":
        deviations.append("number of output tokens not known")
    if p is None or o is None:
        notes.append("no usage")
    num_cached = cached_tokens(answer.usage) or 0
    allowed = num_shared_tokens + max(_ALLOWED_CACHED_TOKENS, _ALLOWED_CACHED_SHARE * trial["num_prompt_tokens"])
    if num_cached > allowed:
        deviations.append(f"{num_cached} prompt tokens cached")
    num_chunks = len(answer.chunk_times_s)
    if num_chunks and (o or trial["num_output_tokens"]) > num_chunks:
        notes.append(f"{num_chunks} events with text")
    return {name: values for name, values in (("deviations", deviations), ("notes", notes)) if values}
