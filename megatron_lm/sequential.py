"""A sweep that chooses its settings as it goes: what is timed next, what is set aside, and when it stops."""

import sys

import numpy as np
import pandas as pd

from idealized_runtime.design.guards import Noticed, Visit, notice
from idealized_runtime.design.sequential import Stopped
from idealized_runtime.records import TOKEN_COLUMNS, setting_name
from idealized_runtime.records.settings import REFUSED, is_disturbed
from megatron_lm.measurement import Measurement

# How many blocks in a row are set aside for one thing, and how many of all; and how often all is timed anew. After that
# the log is marked.
_MAX_AGAIN, _MAX_NOTED, _MAX_ANEW = 2, 8, 2
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
    say : callable
        Told what was noticed, a line each.
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
        self.floors, self.say = None, lambda sentence: print(sentence, file=sys.stderr)
        first = measurement.settings()[0]
        # Batch and slice, which all settings share.
        self._shared = {name: value for name, value in first.items() if name not in TOKEN_COLUMNS}
        self._longest = measurement.architecture.max_position_embeddings - max(measurement.all_num_output_tokens) + 1
        self._num_warmup, self._anchor, self._num_failed, self._design = measurement.num_warmup, None, None, None
        self._block = max((visit.block for visit in self._visits()), default=0)
        self._is_judged, self._in_a_row = True, (None, 0)
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
        self._expect(step)
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
            self.say(
                f"{num_left_out} prompt sizes are left out: with {max(output_sizes)} output tokens the context holds "
                f"prompts of up to {self._longest}"
            )
        for setting in failed:
            p, o = (setting[name] for name in TOKEN_COLUMNS)
            if smaller := [size for size in prompt_sizes if size < p]:
                prompt_sizes = smaller
            else:
                output_sizes = [size for size in output_sizes if size < o]
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

    def _expect(self, step):
        """How far it is, and how long it takes about: errors fall with the root of the time."""
        if step.expected_error is None:
            self.progress, self.left_s = step.reason, step.expected_s or 0.0
            return
        target = self._measurement.goal.target_error
        further = max((step.expected_error / target) ** 2 - 1, 0.0)
        self.left_s = step.expected_s + further * (self._log.spent_s + step.expected_s)
        if (most_s := self._measurement.goal.max_seconds) is not None:
            self.left_s = min(self.left_s, max(most_s - self._log.spent_s, 0.0))
        self.progress = f"known to {100 * step.expected_error:.2g} % after this block, target {100 * target:.3g} %"

    def _judge(self):
        """Look at the last block, and set aside what must not be averaged."""
        visits = self._visits()
        if not any(visit.block == self._block for visit in visits):
            return
        found = self._below_floor(visits) or notice(visits)
        if found is None:
            self._in_a_row = None, 0
            return
        kind = "level" if found.name in ("throttling", "drift", "cold_start") else found.name
        last_kind, number = self._in_a_row
        number = number + 1 if kind == last_kind else 1
        self._in_a_row = kind, number
        earlier = tuple(visit.number for visit in visits if visit.block < self._block)
        noted = [(record["finding"], record["action"]) for record in self._log.kept["guard"]]
        num_noted = sum(name == found.name for name, _ in noted)
        if kind in ("below_floor", "clock"):
            if number > _MAX_AGAIN or num_noted > _MAX_NOTED:
                self._refuse(found, visits)
            self._note(found, "again", found.visits)
        elif (found.name, "marked") in noted:
            # It is known, and of no more use to look at.
            return
        elif kind == "level" and (number >= _MAX_AGAIN or set(found.visits) & set(earlier)):
            # What came before was another state of the machine; the one of two blocks in a row is here to stay.
            if sum(action == "anew" for _, action in noted) >= _MAX_ANEW:
                self._note(found, "marked", ())
                return
            if found.name == "cold_start":
                self._num_warmup, self._design = self._num_warmup + _MORE_WARMUPS, None
            self._note(found, "anew", earlier or found.visits)
            self._in_a_row = None, 0
        elif number > _MAX_AGAIN or num_noted >= _MAX_NOTED:
            self._note(found, "marked", ())
        else:
            self._note(found, "again", found.visits)

    def _below_floor(self, visits) -> Noticed | None:
        for visit in visits:
            if visit.block == self._block and self.floors is not None:
                setting = {**dict(zip(TOKEN_COLUMNS, visit.key, strict=False)), **self._shared}
                if message := self.floors.why_impossible(setting, visit.runtimes_s):
                    return Noticed("below_floor", f"{setting_name(setting)}: {message}", (visit.number,))
        return None

    def _refuse(self, found, visits):
        """Give up: what is timed cannot be true, however often."""
        self.refused = f"{found.name}: {found.message}"
        if found.name == "below_floor":
            (visit,) = (visit for visit in visits if visit.number in found.visits)
            setting = {**dict(zip(TOKEN_COLUMNS, visit.key, strict=False)), **self._shared}
            error = {"type": REFUSED, "message": found.message, "runtimes_s": list(visit.runtimes_s)}
            self._journal.append("setting", {**setting, "error": error})

    def _note(self, found, action, visits):
        done = {
            "again": f"{len(visits)} visits are set aside and timed again",
            "anew": f"{len(visits)} visits are set aside; what comes now is timed by itself",
            "marked": "timing again has not helped: the log says so, and goes on",
        }[action]
        record = {"finding": found.name, "action": action, "message": found.message, "block": self._block}
        self._journal.append("guard", {**record, "visits": list(visits)})
        self.say(f"warning: {found.name}: {found.message}: {done}")
