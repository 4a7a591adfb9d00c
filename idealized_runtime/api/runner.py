"""What measurements of a server share: their header, prompts that fit it, and the way through what a journal lacks."""

import itertools
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from idealized_runtime.api.answers import MALFORMED_STATUSES
from idealized_runtime.api.trials import RefusedError, TrialSender, sha256
from idealized_runtime.records import TOKEN_COLUMNS, Journal, setting_name
from idealized_runtime.records.requests import HELD_BACK, reported_tokens

_MAX_LISTED = 10
_MALFORMED_REMEDY = (
    "if it names a field that it does not know, choose --force-with, --max-tokens-field or --temperature accordingly"
)


class FailingError(Exception):
    """Request after request failed: the sweep was stopped."""


def make_header(endpoint, sweep, *, hardware: str, software: str, prompts: dict, limits: dict) -> dict:
    """Header of a log of API trials (see :mod:`idealized_runtime.records`); the key stands nowhere in it.

    Parameters
    ----------
    endpoint : Endpoint
    sweep : Sweep, TargetSweep or LoadSweep
    hardware, software : str
        What serves the model, as far as it is known.
    prompts : dict
        How their tokens are counted.
    limits : dict
        Budgets, prices, retries and timeout of this run.
    """
    versions = {}
    for name in ("httpx", "idealized-runtime"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "kind": "api",
        "model": endpoint.model,
        "hardware": hardware,
        "software": software,
        **endpoint.header(),
        "prompts": prompts,
        "sweep": {**sweep.header(), **limits},
        "environment": {"python": platform.python_version(), "platform": platform.platform(), **versions},
    }


def check_sizes(sweep, names, *, is_empty_allowed: bool = False):
    """Refuse a sweep in which one of these fields does not hold different integers of at least 1."""
    for name in names:
        sizes = getattr(sweep, name)
        if (not sizes and not is_empty_allowed) or any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
            raise ValueError(f"{name} must be different integers of at least 1; got {sizes}")


def settings_of(sweep) -> list[dict]:
    """Every pair of a prompt and an output size, small ones first: what a server refuses for its size comes late."""
    pairs = itertools.product(sorted(sweep.all_num_prompt_tokens), sorted(sweep.all_num_output_tokens))
    return [dict(zip(TOKEN_COLUMNS, pair, strict=True)) for pair in pairs]


class Runner:
    """Runs what a journal lacks of a sweep; a kind of sweep says what is pending, and how that is run.

    Parameters
    ----------
    sweep : Sweep, TargetSweep or LoadSweep
    sender : TrialSender
        Its requests are noted in the journal before they are sent.
    prompts : TokenizerPrompts or CalibratedPrompts
    journal : Journal
    report : callable
        Told, in sentences, how far the sweep is.
    """

    def __init__(self, sweep, sender: TrialSender, prompts, journal: Journal, *, report: Callable[[str], None]):
        self._sweep, self._sender, self._prompts = sweep, sender, prompts
        self._journal, self._report = journal, report
        self._has_succeeded = self._has_told_held_back = False
        # A killed process takes no line back; to wait for the disk would delay what is timed.
        sender.on_send = lambda trial, cost_usd: journal.append(
            "sent", {**trial, "cost_usd": cost_usd}, is_waiting=False
        )

    async def run(self):
        """Fit the prompts to what the server counts and run all that the journal lacks; then write its footer.

        Raises
        ------
        RefusedError, PromptSizeError
            Nothing can be timed; the message says why.
        BudgetSpentError, FailingError
            The sweep was stopped; the journal holds what was measured.
        """
        if pending := self._pending():
            self._journal.start()
            await self._prompts.calibrate(self._count, self._sweep.all_num_prompt_tokens)
            # A server that counts fewer tokens than words has none to share.
            self._sender.num_shared_tokens = max(self._prompts.num_shared_tokens, 0)
            await self._report_other_model()
            await self._run_pending(pending)
        self._journal.finish(**self._outcome())

    def _outcome(self) -> dict:
        """What the footer says besides."""
        return {}

    def _keep(self, record: dict):
        self._journal.append("trial", record)
        if any(note.startswith(HELD_BACK) for note in record.get("notes", ())) and not self._has_told_held_back:
            self._has_told_held_back = True
            self._report(
                f"{setting_name(record)}: {record['notes'][-1]}: such answers have a runtime, and no TTFT or TPOT; "
                "a proxy or a compression before the server does that"
            )

    def _make_prompt(self, num_prompt_tokens, *key) -> str:
        # Neither what is repeated in a later run nor what is repeated in this one has the prompt of the first.
        rng = np.random.default_rng([self._sweep.seed, self._journal.log.num_kills, *key])
        return self._prompts.make(num_prompt_tokens, rng)

    async def _count(self, text: str) -> int | None:
        """Tokens that the server reports for a text; one that an earlier run asked for is not asked again."""
        earlier = [trial for trial in self._journal.log.records if trial.get("is_calibration")]
        same = [trial for trial in earlier if trial.get("prompt_sha256") == sha256(text) and "error" not in trial]
        if same:
            return reported_tokens(same[0].get("usage"), "prompt_tokens")
        # A token has a character at least: what a budget must allow for.
        sizes = {"num_prompt_tokens": len(text), "num_output_tokens": 1}
        trial = {**sizes, "trial": len(earlier), "is_calibration": True}
        record = await self._sender.send(lambda _: text, trial, self._keep)
        if "error" in record:
            raise RefusedError(with_remedy(record))
        self._has_succeeded = True
        return reported_tokens(record.get("usage"), "prompt_tokens")

    async def _report_other_model(self):
        """Say where another model than the one asked for may answer: not all servers refuse a name they do not know.

        It may be the same one under another name, so nothing is refused: what an answer names, its trial keeps.
        """
        asked = self._sender.client.endpoint.model
        reported = {trial.get("model_reported", asked) for trial in self._journal.log.records} - {asked}
        if reported:
            named = ", ".join(map(repr, sorted(reported)))
            self._report(f"asked for model {asked!r}, answered by {named}: is it the same?")
        # One that repeats any name it is given may still tell what it has. This generates nothing, and is in no budget.
        listed = await self._sender.client.list_models()
        if listed is not None and asked not in listed:
            names = ", ".join(listed[:_MAX_LISTED]) + (", ..." if len(listed) > _MAX_LISTED else "")
            self._report(
                f"model {asked!r} is none of those that the server lists, and was answered all the same: {names}"
            )


def with_deviation_remedy(said: str) -> str:
    """What deviates, and what may help where all does."""
    return (
        f"{said}. Output tokens: --force-with min_tokens or logit_bias keeps a server from stopping early, smaller "
        "sizes keep within its longest sequence; prompt tokens: --tokenizer must be the model's own; cached ones: "
        "switch the cache of prompts off"
    )


def with_remedy(record: dict) -> str:
    """Message of a record's error; with what may help where the server found the request malformed."""
    message = record["error"]["message"]
    return f"{message}; {_MALFORMED_REMEDY}" if record.get("status") in MALFORMED_STATUSES else message
