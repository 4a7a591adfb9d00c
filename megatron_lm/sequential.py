"""A sweep that chooses its settings as it goes: what is timed next, what is set aside, and when it stops."""

from itertools import chain, zip_longest

import numpy as np
import pandas as pd

from idealized_runtime.design.batches import next_blocks, stopped_together
from idealized_runtime.design.goal import sizes_without
from idealized_runtime.design.guards import Noticed, Visit
from idealized_runtime.design.watch import Watch
from idealized_runtime.records import BATCH_COLUMNS, TOKEN_COLUMNS, setting_key, setting_name
from idealized_runtime.records.settings import REFUSED, is_disturbed
from megatron_lm.measurement import Measurement

# One further warm-up has caches filled that one alone did not.
_MORE_WARMUPS = 2


class Sequence:
    """The blocks of a sweep that chooses its own settings, by what its journal holds: so it resumes.

    Every batch has a design of its own, out of the same seconds; a block has settings of each in turn, and begins and
    ends with a trial of the cheapest setting of the first one: whether the machine is what it was is then known of
    every block, whatever else it times.

    Parameters
    ----------
    measurement : Measurement
        With a goal.
    journal : Journal
        Is told what was noticed between blocks, and what was done about it.

    Attributes
    ----------
    floors : Floors or None
        By which runtimes are found to be impossible.
    watch : Watch
        Judges every block when it was timed.
    stopped : Stopped or None
        Why nothing more is timed.
    refused : str
        Why the runtimes cannot be true, where they cannot; the log then is no answer.
    progress : str
        How well what is asked for will be known after this block, in words.
    left_s : float
        Seconds that are about left.
    """

    def __init__(self, measurement: Measurement, journal):
        self._measurement, self._journal, self._log = measurement, journal, journal.log
        self.floors, self.watch = None, Watch(journal)
        self._num_warmup, self._anchor, self._num_failed, self._designs = measurement.num_warmup, None, None, None
        self._left_out: set[str] = set()
        self._block = max((visit.block for visit in self._visits()), default=0)
        self._is_judged = True
        self.stopped, self.refused, self.progress, self.left_s = None, "", "", 0.0

    def next_visits(self) -> list[dict]:
        """Visits of the next block, in their order; none where it has stopped."""
        if not self._is_judged:
            self._judge()
            self._is_judged = True
        if self.refused:
            return []
        self._plan_without_what_failed()
        if self.refused:
            return []
        blocks, stopped = next_blocks(
            self._designs, self._timings(), elapsed_s=self._log.spent_s, first=self._block
        )  # fmt: skip
        if not blocks:
            stopped = {self._name_of(batching): stopped[batching] for batching in self._designs}
            self.stopped, self.left_s = stopped_together(stopped), 0.0
            return []
        self.progress, self.left_s = self._how_far(blocks)
        by_batching = [[(batching, *it) for it in block.settings] for batching, block in blocks.items()]
        settings = [it for it in chain.from_iterable(zip_longest(*by_batching)) if it is not None]
        if self._anchor is None:
            self._anchor = min(settings, key=lambda it: (it[0], it[2], it[1]))[:3]
        self._block, self._is_judged = self._block + 1, False
        first = self._log.num_visits + 1
        return [
            {
                "setting": self._setting(batching, sizes),
                "num_warmup": self._num_warmup,
                "num_trials": num_trials,
                "is_last": False,
                "numbers": {"block": self._block, "visit": first + place},
            }
            for place, (batching, *sizes, num_trials) in enumerate([(*self._anchor, 1), *settings, (*self._anchor, 1)])
        ]

    def _setting(self, batching, sizes) -> dict:
        named = zip([*TOKEN_COLUMNS, *BATCH_COLUMNS], [*sizes, *batching], strict=True)
        return {**dict(named), "num_layers_profiled": self._measurement.all_num_layers[0]}

    def _name_of(self, batching) -> str:
        """What tells a batch from the others."""
        sizes = dict(zip(BATCH_COLUMNS, batching, strict=True))
        return ", ".join(f"{name} {sizes[name]}" for name in self._measurement.varying_columns)

    def _how_far(self, blocks) -> tuple[str, float]:
        """As of a goal, of the batch that is known worst; seconds that are left, of all."""
        goal, spent_s = self._measurement.goal, self._log.spent_s
        worst = max(blocks, key=lambda batching: blocks[batching].expected_error or np.inf)
        told = goal.how_far(blocks[worst], spent_s)[0]
        left_s = sum(goal.how_far(block, spent_s / len(self._designs))[1] for block in blocks.values())
        if goal.max_seconds is not None:
            left_s = min(left_s, max(goal.max_seconds - spent_s, 0.0))
        return f"{self._name_of(worst)} {told}".strip(), left_s

    def tell_goal(self):
        """Let the log say what was asked for last, also where it held the answer already."""
        *_, before, now = [{}, self._log.header, *self._log.kept["resume"]]
        if before and before.get("sweep") != now.get("sweep"):
            self._journal.start()

    def _plan_without_what_failed(self):
        """What does not fit is not chosen again, nor what is larger in the same batch."""
        failed = self._log.failed
        if self._designs is not None and len(failed) == self._num_failed:
            return
        measurement = self._measurement
        output_sizes = measurement.all_num_output_tokens
        longest = measurement.architecture.max_position_embeddings - max(output_sizes) + 1
        prompt_sizes = [size for size in measurement.all_num_prompt_tokens if size <= longest]
        if num_left_out := len(measurement.all_num_prompt_tokens) - len(prompt_sizes):
            self._leave_out(
                f"{num_left_out} prompt sizes are left out: with {max(output_sizes)} output tokens the context holds "
                f"prompts of up to {longest}"
            )
        self._num_failed, self._designs = len(failed), {}
        for batching in measurement.batchings:
            own = (it for it in failed if tuple(it[name] for name in BATCH_COLUMNS) == batching)
            sizes = sizes_without((tuple(it[name] for name in TOKEN_COLUMNS) for it in own), prompt_sizes, output_sizes)
            try:
                self._designs[batching] = measurement.goal.design(
                    *sizes, seed=measurement.seed, num_warmups=self._num_warmup, batch_size=batching[0]
                )
            except ValueError as error:
                why = f"what is left of the sizes is too little: {error}"
                if len(measurement.batchings) > 1:
                    self._leave_out(f"{self._name_of(batching)} is given up: {why}")
        if not self._designs:
            self.refused = why

    def _leave_out(self, sentence):
        if sentence not in self._left_out:
            self._left_out.add(sentence)
            self.watch.say(sentence)

    def _held(self) -> list[dict]:
        """Records that count so far: blocks, and settings that are complete."""
        blocks = [block for blocks in self._log.blocks.values() for block in blocks]
        return blocks + [record for record in self._log.records if "error" not in record]

    def _visits(self) -> list[Visit]:
        """What counts so far, in the order of time."""
        return sorted(map(Visit.of_record, self._held()), key=lambda visit: visit.number)

    def _timings(self) -> dict[tuple, pd.DataFrame]:
        """Of each batch one row a trial of those that readers do not leave out."""
        rows, by_key = {batching: [] for batching in self._designs}, {}
        for record in self._held():
            by_key.setdefault(setting_key(record), []).extend(
                zip(record["trial_starts_s"], record["runtimes_s"], strict=True)
            )
        for key, trials in by_key.items():
            p, o, *batching, _ = key
            starts_s, times_s = np.array(trials).T
            kept = np.flatnonzero(~is_disturbed(times_s))
            rows.get(tuple(batching), []).extend((p, o, trial, starts_s[trial], times_s[trial]) for trial in kept)
        columns = [*TOKEN_COLUMNS, "trial", "trial_start_s", "runtime_s"]
        return {batching: pd.DataFrame(its, columns=columns) for batching, its in rows.items()}

    def _judge(self):
        """Look at the last block, and set aside what must not be averaged."""
        visits = self._visits()
        if not any(visit.block == self._block for visit in visits):
            return
        found = self._below_floor(visits)
        most_s = self._measurement.goal.max_seconds
        left_s = None if most_s is None else most_s - self._log.spent_s
        action = self.watch.judge(visits, self._block, found, left_s=left_s)
        if action == "anew" and self._log.kept["guard"][-1]["finding"] == "cold_start":
            self._num_warmup, self._designs = self._num_warmup + _MORE_WARMUPS, None
        if action == "refused":
            self.refused = self.watch.refused
            if found is not None:
                self._log_refusal(found, visits)

    def _below_floor(self, visits) -> Noticed | None:
        for visit in visits:
            if visit.block == self._block and self.floors is not None:
                setting = self._setting_of(visit)
                if message := self.floors.why_impossible(setting, visit.runtimes_s):
                    return Noticed("below_floor", f"{setting_name(setting)}: {message}", (visit.number,))
        return None

    def _setting_of(self, visit) -> dict:
        p, o, *batching, _ = visit.key
        return self._setting(batching, (p, o))

    def _log_refusal(self, found, visits):
        """The setting is an error, as it is in a sweep of all settings."""
        (visit,) = (visit for visit in visits if visit.number in found.visits)
        setting = self._setting_of(visit)
        error = {"type": REFUSED, "message": found.message, "runtimes_s": list(visit.runtimes_s)}
        self._journal.append("setting", {**setting, "error": error})
