"""A sweep over prompt and output sizes of a model behind an API: every request a record, shuffled in blocks."""

import itertools
from dataclasses import dataclass

import numpy as np

from idealized_runtime.api.answers import CONNECTION_ERROR, MALFORMED_STATUSES
from idealized_runtime.api.runner import (
    FailingError,
    Runner,
    check_sizes,
    settings_of,
    with_deviation_remedy,
    with_remedy,
)
from idealized_runtime.api.trials import RefusedError
from idealized_runtime.records import TOKEN_COLUMNS, setting_name, trial_key
from idealized_runtime.records.requests import describe_deviations


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
        check_sizes(self, ("all_num_prompt_tokens", "all_num_output_tokens"))
        if self.num_trials < 1 or self.num_warmup < 0:
            raise ValueError(f"num_trials must be >= 1 and num_warmup >= 0; got {self.num_trials}, {self.num_warmup}")

    def warmups(self) -> list[dict]:
        """Keys of all warm-up requests, in their order."""
        return [
            {**setting, "trial": number, "is_warmup": True}
            for number in range(self.num_warmup)
            for setting in settings_of(self)
        ]

    def trials(self) -> list[dict]:
        """Keys of all timed trials: blocks of one trial of every setting, each block in an order of its own."""
        settings = settings_of(self)
        return [
            {**settings[index], "trial": block, "is_warmup": False, "block": block}
            for block in range(self.num_trials)
            for index in np.random.default_rng([self.seed, block]).permutation(len(settings))
        ]


class Profiler(Runner):
    """Runs what a journal lacks of a :class:`Sweep`."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._num_consecutive_failures = 0
        self._refused_settings: set[tuple] = set()

    def _pending(self) -> list[dict]:
        """What the log lacks; one warm-up more where only trials are left, since the server may have gone to sleep."""
        log = self._journal.log
        warmups = [trial for trial in self._sweep.warmups() if trial_key(trial) not in log.completed]
        trials = [trial for trial in self._sweep.trials() if trial_key(trial) not in log.completed]
        if trials and not warmups and self._sweep.num_warmup:
            first = {name: trials[0][name] for name in TOKEN_COLUMNS}
            numbers = (trial["trial"] for trial in log.records if trial.get("is_warmup"))
            warmups = [{**first, "trial": 1 + max(numbers, default=-1), "is_warmup": True}]
        return [*warmups, *trials]

    async def _run_pending(self, pending):
        for size in self._sweep.all_num_prompt_tokens:
            # Refused before anything is timed.
            self._prompt_of({"num_prompt_tokens": size, "trial": 0, "num_output_tokens": 1}, 0)
        for block, trials in itertools.groupby(pending, key=lambda trial: trial.get("block")):
            records = [record for trial in trials if (record := await self._run(trial))]
            if block is None:
                continue
            said, all_deviate = describe_deviations(records), all("deviations" in record for record in records)
            self._report(
                f"block {block + 1} of {self._sweep.num_trials}: {self._sender.budget.num_requests} requests, "
                f"{len(self._journal.log.failed)} failed trials" + (f"; {said}" if said and not all_deviate else "")
            )
            if records and all_deviate:
                raise FailingError(with_deviation_remedy(said))

    async def _run(self, trial) -> dict | None:
        """Record of a trial that succeeded."""
        setting = tuple(trial[name] for name in TOKEN_COLUMNS)
        if setting in self._refused_settings:
            return None
        record = await self._sender.send(lambda attempt: self._prompt_of(trial, attempt), trial, self._keep)
        if "error" not in record:
            self._has_succeeded = True
            self._num_consecutive_failures = 0
            return record
        error = record["error"]
        self._report(f"{setting_name(trial)} failed: {error['message']}")
        is_malformed = record.get("status") in MALFORMED_STATUSES
        if not self._has_succeeded and (is_malformed or error["type"] == CONNECTION_ERROR):
            raise RefusedError(with_remedy(record))
        if is_malformed:
            self._refused_settings.add(setting)
            return None
        self._num_consecutive_failures += 1
        if self._num_consecutive_failures >= self._sweep.max_consecutive_failures:
            raise FailingError(f"{self._num_consecutive_failures} trials in a row failed, the last: {error['message']}")
        return None

    def _prompt_of(self, trial, attempt) -> str:
        sizes = (trial[name] for name in TOKEN_COLUMNS)
        key = (attempt, int(trial.get("is_warmup", False)), trial["trial"], *sizes)
        return self._make_prompt(trial["num_prompt_tokens"], *key)
