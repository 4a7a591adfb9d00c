"""One trial: a request with its retries, judged, as the record that a log keeps of it."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import numpy as np

from idealized_runtime.api.answers import Answer
from idealized_runtime.api.budget import Budget, BudgetSpentError
from idealized_runtime.records.requests import deviations_of, held_back, held_back_note, reported_tokens

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
    with suppress(TypeError, ValueError, OverflowError):
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
        record = {
            **trial,
            **fields,
            **({"num_shared_tokens": self.num_shared_tokens} if self.num_shared_tokens else {}),
            **({} if prompt is None else {"prompt_sha256": sha256(prompt)}),
            **({"attempts": attempts} if attempts else {}),
            "num_requests": len(costs_usd),
            "cost_usd": sum(costs_usd),
        }
        return record | judge(record)


def sha256(text: str) -> str:
    """Hexadecimal digest of a prompt, by which a record names it."""
    return hashlib.sha256(text.encode()).hexdigest()


def judge(record: dict) -> dict:
    """What is to be said of a trial: its time to the first token, why it is left out of a fit, what else was odd.

    Without usage, ``finish_reason`` ``"length"`` says that all tokens came.

    Parameters
    ----------
    record : dict
        A trial with what its answer holds.

    Returns
    -------
    dict
        ``time_to_first_token_s`` of a stream that nothing held back, ``deviations``, ``notes``: each if there is one.
    """
    times_s, notes, deviations = record.get("chunk_times_s", []), list(record.get("notes", [])), []
    counts = [reported_tokens(record.get("usage"), name) for name in ("prompt_tokens", "completion_tokens")]
    num_tokens = counts[1] or record["num_output_tokens"]
    is_held_back = False
    if "error" not in record:
        deviations = deviations_of(record)
        if counts[1] is None and record.get("finish_reason") != "length":
            deviations.append("number of output tokens not known")
        for name, value in record.get("headers", {}).items():
            if "cache" in name.lower() and str(value).lower().startswith("hit"):
                deviations.append(f"answered from a cache, by {name}: {value}")
        if None in counts:
            notes.append("no usage")
        if 0 < len(times_s) < num_tokens:
            notes.append(f"{len(times_s)} events with text")
        num_bunches, is_held_back = held_back(np.array(times_s), [len(times_s)], [num_tokens], [record["runtime_s"]])
        if is_held_back := bool(is_held_back[0]):
            notes.append(held_back_note(num_tokens, num_bunches[0]))
    found = {"time_to_first_token_s": times_s[0] if times_s and not is_held_back else None,
             "deviations": deviations, "notes": notes}  # fmt: skip
    return {name: value for name, value in found.items() if value not in (None, [])}
