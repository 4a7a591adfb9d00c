"""A sweep that chooses its settings as it goes: what is timed next, what is set aside, and when it stops."""

import numpy as np
import pandas as pd

from idealized_runtime.design.goal import sizes_without
from idealized_runtime.design.guards import Noticed, Visit
from idealized_runtime.design.sequential import Stopped
from idealized_runtime.design.watch import Watch
from idealized_runtime.records import TOKEN_COLUMNS, setting_name
from idealized_runtime.records.settings import REFUSED, is_disturbed
from megatron_lm.measurement import Measurement

# One further warm-up has caches filled that one alone did not.
_MORE_WARMUPS = 2


class Sequence:
    """The blocks of a sweep that chooses its own settings, by what its journal holds: so it resumes.

    Every block begins and ends with a trial of the cheapest setting of the first one: whether the machine is what it
    was is then known of every block, whatever else it times.

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
        first = measurement.settings()[0]
        # Batch and slice, which all settings share.
        self._shared = {name: value for name, value in first.items() if name not in TOKEN_COLUMNS}
        self._longest = measurement.architecture.max_position_embeddings - max(measurement.all_num_output_tokens) + 1
        self._num_warmup, self._anchor, self._num_failed, self._design = measurement.num_warmup, None, None, None
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
        step = self._design.next_block(self._timings(), elapsed_s=self._log.spent_s)
        if isinstance(step, Stopped):
            self.stopped, self.left_s = step, 0.0
            return []
        self.progress, self.left_s = self._measurement.goal.how_far(step, self._log.spent_s)
        if self._anchor is None:
            self._anchor = min(step.settings, key=lambda setting: (setting[1], setting[0]))[:2]
        self._block, self._is_judged = self._block + 1, False
        first = self._log.num_visits + 1
        settings = [(*self._anchor, 1), *step.settings, (*self._anchor, 1)]
        return [
            {
                "setting": {**dict(zip(TOKEN_COLUMNS, sizes, strict=True)), **self._shared},
                "num_warmup": self._num_warmup,
                "num_trials": num_trials,
                "is_last": False,
                "numbers": {"block": self._block, "visit": first + place},
            }
            for place, (*sizes, num_trials) in enumerate(settings)
        ]

    def tell_goal(self):
        """Let the log say what was asked for last, also where it held the answer already."""
        *_, before, now = [{}, self._log.header, *self._log.kept["resume"]]
        if before and before.get("sweep") != now.get("sweep"):
            self._journal.start()

    def _plan_without_what_failed(self):
        """What does not fit is not chosen again, nor what is larger."""
        failed = self._log.failed
        if self._design is not None and len(failed) == self._num_failed:
            return
        measurement = self._measurement
        prompt_sizes = [size for size in measurement.all_num_prompt_tokens if size <= self._longest]
        output_sizes = measurement.all_num_output_tokens
        if self._design is None and (num_left_out := len(measurement.all_num_prompt_tokens) - len(prompt_sizes)):
            self.watch.say(
                f"{num_left_out} prompt sizes are left out: with {max(output_sizes)} output tokens the context holds "
                f"prompts of up to {self._longest}"
            )
        of_failed = (tuple(setting[name] for name in TOKEN_COLUMNS) for setting in failed)
        prompt_sizes, output_sizes = sizes_without(of_failed, prompt_sizes, output_sizes)
        self._num_failed = len(failed)
        try:
            self._design = measurement.goal.design(
                prompt_sizes, output_sizes, seed=measurement.seed, num_warmups=self._num_warmup
            )
        except ValueError as error:
            self.refused = f"what is left of the sizes is too little: {error}"

    def _visits(self) -> list[Visit]:
        """What counts so far, in the order of time."""
        held = [block for blocks in self._log.blocks.values() for block in blocks]
        held += [record for record in self._log.records if "error" not in record]
        return sorted(map(Visit.of_record, held), key=lambda visit: visit.number)

    def _timings(self) -> pd.DataFrame:
        """One row a trial of those that readers do not leave out."""
        by_key = {}
        for visit in self._visits():
            by_key.setdefault(visit.key, []).extend(visit.runtimes_s)
        rows = [
            (*key[:2], trial, seconds)
            for key, times_s in by_key.items()
            for trial, seconds in enumerate(np.array(times_s)[~is_disturbed(np.array(times_s))])
        ]
        return pd.DataFrame(rows, columns=[*TOKEN_COLUMNS, "trial", "runtime_s"])

    def _judge(self):
        """Look at the last block, and set aside what must not be averaged."""
        visits = self._visits()
        if not any(visit.block == self._block for visit in visits):
            return
        found = self._below_floor(visits)
        action = self.watch.judge(visits, self._block, found)
        if action == "anew" and self._log.kept["guard"][-1]["finding"] == "cold_start":
            self._num_warmup, self._design = self._num_warmup + _MORE_WARMUPS, None
        if action == "refused":
            self.refused = self.watch.refused
            if found is not None:
                self._log_refusal(found, visits)

    def _below_floor(self, visits) -> Noticed | None:
        for visit in visits:
            if visit.block == self._block and self.floors is not None:
                setting = {**dict(zip(TOKEN_COLUMNS, visit.key, strict=False)), **self._shared}
                if message := self.floors.why_impossible(setting, visit.runtimes_s):
                    return Noticed("below_floor", f"{setting_name(setting)}: {message}", (visit.number,))
        return None

    def _log_refusal(self, found, visits):
        """The setting is an error, as it is in a sweep of all settings."""
        (visit,) = (visit for visit in visits if visit.number in found.visits)
        setting = {**dict(zip(TOKEN_COLUMNS, visit.key, strict=False)), **self._shared}
        error = {"type": REFUSED, "message": found.message, "runtimes_s": list(visit.runtimes_s)}
        self._journal.append("setting", {**setting, "error": error})
