"""A sweep over prompt and output sizes of a model behind an API: every request a record, shuffled in blocks."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

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
from idealized_runtime.design.goal import Goal, sizes_without
from idealized_runtime.design.guards import Visit, notice_level
from idealized_runtime.design.sequential import SequentialDesign, Stopped
from idealized_runtime.design.watch import Watch
from idealized_runtime.records import TOKEN_COLUMNS, setting_name, trial_key
from idealized_runtime.records.requests import describe_deviations
from idealized_runtime.records.settings import is_disturbed


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

    def header(self) -> dict:
        """Fields of the log's header."""
        return asdict(self)

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


@dataclass(frozen=True)
class TargetSweep:
    """Sizes that may be timed, and how well what is to be known: settings and trials are chosen as it goes.

    Parameters
    ----------
    all_num_prompt_tokens, all_num_output_tokens : tuple of int
    goal : Goal
    num_warmup : int
        Untimed requests of a setting, before its first trial in a run.
    seed : int
        As of a :class:`Sweep`.
    max_consecutive_failures : int
    """

    all_num_prompt_tokens: tuple[int, ...]
    all_num_output_tokens: tuple[int, ...]
    goal: Goal
    num_warmup: int
    seed: int
    max_consecutive_failures: int = 5

    def __post_init__(self):
        check_sizes(self, ("all_num_prompt_tokens", "all_num_output_tokens"))
        self.design(self.all_num_prompt_tokens, self.all_num_output_tokens)

    def header(self) -> dict:
        """Fields of the log's header."""
        named = {name: value for name, value in vars(self).items() if name != "goal"}
        return {**named, "target": self.goal.header()}

    def design(self, prompt_sizes: Iterable[int], output_sizes: Iterable[int]) -> SequentialDesign:
        """What chooses settings of these sizes."""
        return self.goal.design(prompt_sizes, output_sizes, seed=self.seed, num_warmups=self.num_warmup)


class TargetProfiler(Profiler):
    """Runs a :class:`TargetSweep`, block by block, by what its journal holds.

    The trials of a block are shuffled; a trial of the cheapest setting of the first one begins and ends each. A setting
    whose requests all fail or deviate is not asked for again, nor are larger ones.

    Attributes
    ----------
    stopped : Stopped or None
        Why nothing more is timed.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.stopped: Stopped | None = None
        self._watch, self._anchor, self._failed, self._design = Watch(self._journal, notice_level), None, [], None
        self._watch.say = self._report
        self._warmed_up: set[tuple] = set()

    def _outcome(self):
        return {"stopped": vars(self.stopped)}

    def _pending(self):
        """Trials of the next block, warm-ups first; none where it has stopped."""
        sweep = self._sweep
        if self._design is None:
            sizes = sizes_without(self._failed, sweep.all_num_prompt_tokens, sweep.all_num_output_tokens)
            self._design = sweep.design(*sizes)
        records = list(self._journal.log.records)
        spent_s = self._spent_s()
        step = self._design.next_block(self._timings(), elapsed_s=spent_s)
        budget = self._sender.budget
        so_far = f"{budget.num_requests} requests, {spent_s:.3g} s and {budget.cost_usd:.3g} USD so far"
        if isinstance(step, Stopped):
            self.stopped = step
            self._report(f"{step.sentence}; {so_far}")
            return []
        if self._anchor is None:
            self._anchor = min(step.settings, key=lambda setting: (setting[1], setting[0]))[:2]
        block = 1 + max((record.get("block", 0) for record in records), default=0)
        trials = [setting[:2] for setting in step.settings for _ in range(setting[2])]
        order = np.random.default_rng([sweep.seed, block]).permutation(len(trials))
        pending = self._numbered(records, [self._anchor, *(trials[place] for place in order), self._anchor], block)
        next_usd = sum(budget.prices.cost_usd(*(trial[name] for name in TOKEN_COLUMNS)) for trial in pending)
        how_far, left_s = sweep.goal.how_far(step, spent_s)
        about = f"; about {left_s:.3g} s left" if left_s else ""
        self._report(f"block {block}: {how_far}; {so_far}; this block {next_usd:.3g} USD{about}")
        return pending

    def _spent_s(self) -> float:
        return sum(record.get("runtime_s", 0.0) for record in self._journal.log.records)

    def _numbered(self, records, settings, block) -> list[dict]:
        """Keys of trials that the log does not hold, behind warm-ups of settings that are new to this run."""
        numbers = Counter()
        for record in records:
            key = (*(record[name] for name in TOKEN_COLUMNS), bool(record.get("is_warmup")))
            numbers[key] = max(numbers[key], record["trial"] + 1)
        new = [setting for setting in dict.fromkeys(settings) if setting not in self._warmed_up]
        self._warmed_up.update(new)
        warmups = [(setting, True) for setting in new for _ in range(self._sweep.num_warmup)]
        keys = []
        for setting, is_warmup in [*warmups, *((setting, False) for setting in settings)]:
            sizes = dict(zip(TOKEN_COLUMNS, setting, strict=True))
            number = numbers[(*setting, is_warmup)]
            numbers[(*setting, is_warmup)] += 1
            keys.append({**sizes, "trial": number, "is_warmup": is_warmup, **({} if is_warmup else {"block": block})})
        return keys

    def _visits(self) -> list[Visit]:
        """Trials that count, by their numbers among the records of the log."""
        return [
            Visit(number, record["block"], tuple(record[name] for name in TOKEN_COLUMNS), (record["runtime_s"],))
            for number, record in enumerate(self._journal.log.records)
            if "block" in record and not record.keys() & {"error", "deviations"}
        ]

    def _timings(self) -> pd.DataFrame:
        by_key = defaultdict(list)
        for visit in self._visits():
            by_key[visit.key] += visit.runtimes_s
        rows = [
            (*key, trial, seconds)
            for key, times_s in by_key.items()
            for trial, seconds in enumerate(np.array(times_s)[~is_disturbed(np.array(times_s))])
        ]
        return pd.DataFrame(rows, columns=[*TOKEN_COLUMNS, "trial", "runtime_s"])

    async def _run_pending(self, pending):
        for size in self._sweep.all_num_prompt_tokens:
            # Refused before anything is timed.
            self._prompt_of({"num_prompt_tokens": size, "trial": 0, "num_output_tokens": 1}, 0)
        while pending:
            is_good = defaultdict(bool)
            records = []
            for trial in pending:
                record = await self._run(trial)
                if "block" in trial:
                    is_good[tuple(trial[name] for name in TOKEN_COLUMNS)] |= bool(record and "deviations" not in record)
                    records += [record] if record else []
            if not any(is_good.values()):
                said = describe_deviations(records)
                raise FailingError(with_deviation_remedy(said) if said else "every request of a block failed")
            if failed := [setting for setting, it in is_good.items() if not it]:
                self._failed, self._design = [*self._failed, *failed], None
            if (visits := self._visits()) and visits[-1].block == pending[-1]["block"]:
                most_s = self._sweep.goal.max_seconds
                left_s = None if most_s is None else most_s - self._spent_s()
                self._watch.judge(visits, visits[-1].block, left_s=left_s)
            pending = self._pending()
