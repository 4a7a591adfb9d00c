"""A sweep over prompt and output sizes of a model behind an API: every request a record, shuffled in blocks."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from idealized_runtime.api.answers import CONNECTION_ERROR, MALFORMED_STATUSES
from idealized_runtime.api.trials import RefusedError, TrialSender, sha256
from idealized_runtime.records import LogWriter, setting_name, trial_key
from idealized_runtime.records.requests import reported_tokens

_MAX_LISTED = 10
_SIZES = ("num_prompt_tokens", "num_output_tokens")
_MALFORMED_REMEDY = (
    "if it names a field that it does not know, choose --force-with, --max-tokens-field or --temperature accordingly"
)


class FailingError(Exception):
    """Trial after trial failed: the sweep was stopped."""


@dataclass(frozen=True)
class Sweep:
    """Which sizes are timed, and how often. Sizes in tokens.

    Parameters
    ----------
    all_num_prompt_tokens, all_num_output_tokens : tuple of int
    num_trials : int
        Of each setting; one a block.
    num_warmup : int
        Untimed requests of each setting, before its first trial.
    seed : int
        Of the prompts and the order within blocks. Another run takes another, so that nothing remembers its prompts.
    max_consecutive_failures : int
        Failed trials in a row after which the sweep stops.
    """

    all_num_prompt_tokens: tuple[int, ...]
    all_num_output_tokens: tuple[int, ...]
    num_trials: int
    num_warmup: int
    seed: int
    max_consecutive_failures: int = 5

    def __post_init__(self):
        for name in ("all_num_prompt_tokens", "all_num_output_tokens"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
                raise ValueError(f"{name} must be different integers of at least 1; got {sizes}")
        if self.num_trials < 1 or self.num_warmup < 0:
            raise ValueError(f"num_trials must be >= 1 and num_warmup >= 0; got {self.num_trials}, {self.num_warmup}")

    def settings(self) -> list[dict]:
        """Every setting, small prompts first: what a server refuses for its size is not what it is asked first."""
        return [
            {"num_prompt_tokens": p, "num_output_tokens": o}
            for p in sorted(self.all_num_prompt_tokens)
            for o in sorted(self.all_num_output_tokens)
        ]

    def warmups(self) -> list[dict]:
        """Keys of all warm-up requests, in their order."""
        return [
            {**setting, "trial": number, "is_warmup": True}
            for number in range(self.num_warmup)
            for setting in self.settings()
        ]

    def trials(self) -> list[dict]:
        """Keys of all timed trials: blocks of one trial of every setting, each block in an order of its own."""
        settings = self.settings()
        return [
            {**settings[index], "trial": block, "is_warmup": False, "block": block}
            for block in range(self.num_trials)
            for index in np.random.default_rng([self.seed, block]).permutation(len(settings))
        ]


def make_header(endpoint, sweep: Sweep, *, hardware: str, software: str, prompts: dict, limits: dict) -> dict:
    """Header of a log of API trials (see :mod:`idealized_runtime.records`); the key stands nowhere in it.

    Parameters
    ----------
    endpoint : Endpoint
    sweep : Sweep
    hardware, software : str
        What serves the model, as far as it is known.
    prompts : dict
        How their tokens are counted.
    limits : dict
        Budgets, prices, retries and timeout of this run.
    """
    return {
        "kind": "api",
        "model": endpoint.model,
        "hardware": hardware,
        "software": software,
        **endpoint.header(),
        "prompts": prompts,
        "sweep": {**asdict(sweep), **limits},
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: _version(name) for name in ("httpx", "idealized-runtime")},
        },
    }


class Profiler:
    """Runs what a log lacks of a sweep.

    Parameters
    ----------
    sweep : Sweep
    sender : TrialSender
    prompts : TokenizerPrompts or CalibratedPrompts
    log : LogWriter
    report : callable
        Told, in sentences, how far the sweep is.
    """

    def __init__(self, sweep: Sweep, sender: TrialSender, prompts, log: LogWriter, *, report: Callable[[str], None]):
        self._sweep = sweep
        self._sender = sender
        self._prompts = prompts
        self._log = log
        self._report = report
        self._has_succeeded = False
        self._num_consecutive_failures = 0
        self._refused_settings: set[tuple] = set()

    async def run(self):
        """Calibrate the prompts, warm up, and run all trials that the log does not hold; then write its footer.

        Raises
        ------
        RefusedError, PromptSizeError
            Nothing can be timed; the message says why.
        BudgetSpentError, FailingError
            The sweep was stopped; the log holds what was measured.
        """
        warmups, trials = self._pending()
        if warmups or trials:
            self._log.start()
            sizes = self._sweep.all_num_prompt_tokens
            self._has_succeeded = await prepare(self._prompts, self._sender, self._log, sizes, self._report)
            for size in sizes:
                self._make_prompt({"num_prompt_tokens": size, "trial": 0, "num_output_tokens": 1}, 0)
            for trial in warmups:
                await self._run(trial)
            await self._run_blocks(trials)
        self._log.finish()

    def _pending(self) -> tuple[list[dict], list[dict]]:
        """What the log lacks; one warm-up more where only trials are left, since the server may have gone to sleep."""
        warmups = [trial for trial in self._sweep.warmups() if trial_key(trial) not in self._log.completed]
        trials = [trial for trial in self._sweep.trials() if trial_key(trial) not in self._log.completed]
        if trials and not warmups and self._sweep.num_warmup:
            first = {name: trials[0][name] for name in _SIZES}
            numbers = (trial["trial"] for trial in self._log.trials if trial.get("is_warmup"))
            warmups = [{**first, "trial": 1 + max(numbers, default=-1), "is_warmup": True}]
        return warmups, trials

    async def _run_blocks(self, trials):
        num_blocks = self._sweep.num_trials
        for index, trial in enumerate(trials):
            await self._run(trial)
            if index + 1 == len(trials) or trials[index + 1]["block"] != trial["block"]:
                self._report(
                    f"block {trial['block'] + 1} of {num_blocks}: {self._sender.budget.num_requests} requests, "
                    f"{self._log.num_failed} failed trials"
                )

    async def _run(self, trial):
        setting = tuple(trial[name] for name in _SIZES)
        if setting in self._refused_settings:
            return
        record = await self._sender.send(
            lambda attempt: self._make_prompt(trial, attempt), trial, self._log.write_trial
        )
        error = record.get("error")
        if error is None:
            self._has_succeeded = True
            self._num_consecutive_failures = 0
            return
        self._report(f"{setting_name(trial)} failed: {error['message']}")
        self._judge_failure(setting, error, record.get("status"))

    def _judge_failure(self, setting, error, status):
        is_malformed = status in MALFORMED_STATUSES
        if not self._has_succeeded and (is_malformed or error["type"] == CONNECTION_ERROR):
            raise RefusedError(_with_remedy(error, status))
        if is_malformed:
            self._refused_settings.add(setting)
            return
        self._num_consecutive_failures += 1
        if self._num_consecutive_failures >= self._sweep.max_consecutive_failures:
            raise FailingError(f"{self._num_consecutive_failures} trials in a row failed, the last: {error['message']}")

    def _make_prompt(self, trial, attempt) -> str:
        # Neither a trial repeated in a later run nor an attempt repeated in this one has the prompt of the first.
        key = [self._sweep.seed, self._log.num_kills, attempt, int(trial.get("is_warmup", False)), trial["trial"]]
        rng = np.random.default_rng([*key, *(trial[name] for name in _SIZES)])
        return self._prompts.make(trial["num_prompt_tokens"], rng)


async def prepare(
    prompts, sender: TrialSender, log: LogWriter, all_num_prompt_tokens, report: Callable[[str], None]
) -> bool:
    """Fit the prompts to what the server counts, and say whose model answers; whether the server answered.

    Raises
    ------
    RefusedError, PromptSizeError
        Nothing can be timed; the message says why.
    """
    counter = _ServerCounter(sender, log)
    await prompts.calibrate(counter.count, all_num_prompt_tokens)
    sender.num_shared_tokens = prompts.num_shared_tokens
    await _report_other_model(sender.client, log, report)
    return counter.has_succeeded


class _ServerCounter:
    """Asks a server how many tokens a text has, keeping each answer as a calibrating trial.

    Parameters
    ----------
    sender : TrialSender
    log : LogWriter
    """

    def __init__(self, sender: TrialSender, log: LogWriter):
        self._sender = sender
        self._log = log
        self.has_succeeded = False

    async def count(self, text: str) -> int | None:
        """Tokens that the server reports for a text; one that an earlier run asked for is not asked again."""
        earlier = [trial for trial in self._log.trials if trial.get("is_calibration")]
        for trial in earlier:
            if trial.get("prompt_sha256") == sha256(text) and "error" not in trial:
                return _prompt_tokens(trial)
        # A token has a character at least: what a budget must allow for.
        sizes = {"num_prompt_tokens": len(text), "num_output_tokens": 1}
        trial = {**sizes, "trial": len(earlier), "is_calibration": True}
        record = await self._sender.send(lambda _: text, trial, self._log.write_trial)
        if error := record.get("error"):
            raise RefusedError(_with_remedy(error, record.get("status")))
        self.has_succeeded = True
        return _prompt_tokens(record)


async def _report_other_model(client, log: LogWriter, report: Callable[[str], None]):
    """Say where another model than the one asked for may answer: not all servers refuse a name that they do not know.

    It may be the same one under another name, so nothing is refused: what an answer names, its trial keeps.
    """
    asked = client.endpoint.model
    reported = {trial.get("model_reported", asked) for trial in log.trials} - {asked}
    if reported:
        report(f"asked for model {asked!r}, answered by {', '.join(map(repr, sorted(reported)))}: is it the same?")
    # One that repeats any name it is given may still tell what it has. This generates nothing, and is in no budget.
    listed = await client.list_models()
    if listed is not None and asked not in listed:
        names = ", ".join(listed[:_MAX_LISTED]) + (", ..." if len(listed) > _MAX_LISTED else "")
        report(f"model {asked!r} is none of those that the server lists, and was answered all the same: {names}")


def _with_remedy(error, status) -> str:
    return error["message"] + (f"; {_MALFORMED_REMEDY}" if status in MALFORMED_STATUSES else "")


def _prompt_tokens(record) -> int | None:
    return reported_tokens(record.get("usage"), "prompt_tokens")


def _version(name) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
