"""What is done about what is noticed between blocks: trials set aside, the log told, or the measurement given up."""

import sys
from collections.abc import Callable, Sequence
from typing import Literal

from idealized_runtime.design.guards import Noticed, Visit, notice

# How many blocks in a row are set aside for one thing, and how many of all; and how often all is timed anew. After that
# the log is marked.
_MAX_AGAIN, _MAX_NOTED, _MAX_ANEW = 2, 8, 2
_DONE = {
    "again": "{} visits are set aside, and timed again",
    "anew": "{} visits are set aside; what comes now is timed by itself",
    "marked": "timing again has not helped, or there is no time for it: the log says so, and goes on",
}
Action = Literal["again", "anew", "marked", "refused"]


class Watch:
    """Judges block after block of a measurement, and writes down what it does about what it notices.

    Parameters
    ----------
    journal : Journal
        Is given a ``guard`` record of everything noticed: its log leaves out the visits that are set aside.
    look : callable
        What speaks against the last block of some visits, :func:`~idealized_runtime.design.guards.notice` or a part.

    Attributes
    ----------
    say : callable
        Told the same, a line each.
    refused : str
        Why what is timed cannot be true, where it lasts.
    """

    def __init__(self, journal, look: Callable[[Sequence[Visit]], Noticed | None] = notice):
        self._journal, self._look, self._in_a_row = journal, look, (None, 0)
        self.say: Callable[[str], object] = lambda sentence: print(sentence, file=sys.stderr)
        self.refused = ""

    def judge(
        self, visits: Sequence[Visit], block: int, found: Noticed | None = None, *, left_s: float | None = None
    ) -> Action | None:
        """Look at the block that was timed last; what is done about it, None where nothing is.

        Parameters
        ----------
        visits : sequence of Visit
            All that are not set aside, in the order of time.
        block : int
            Number of the last one.
        found : Noticed, optional
            What the caller has noticed; else it is looked for.
        left_s : float, optional
            Seconds of runs that may still be spent. Where all would have to be timed anew and these do not suffice for
            half of it, what there is stays, marked: a log of two states tells more than one of nothing.
        """
        found = found or self._look(visits)
        if found is None:
            self._in_a_row = None, 0
            return None
        kind = "level" if found.name in ("throttling", "drift", "cold_start") else found.name
        last_kind, number = self._in_a_row
        number = number + 1 if kind == last_kind else 1
        self._in_a_row = kind, number
        earlier = tuple(visit.number for visit in visits if visit.block < block)
        noted = [(record["finding"], record["action"]) for record in self._journal.log.kept["guard"]]
        num_noted = sum(name == found.name for name, _ in noted)
        if kind in ("below_floor", "clock"):
            self._note(found, "again", found.visits, block)
            if number > _MAX_AGAIN or num_noted > _MAX_NOTED:
                self.refused = f"{found.name}: {found.message}"
                return "refused"
            return "again"
        if (found.name, "marked") in noted:
            # It is known, and of no more use to look at.
            return None
        if kind == "level" and (number >= _MAX_AGAIN or set(found.visits) & set(earlier)):
            # What came before was another state of the machine; the one of two blocks in a row is here to stay.
            aside = set(earlier or found.visits)
            aside_s = sum(sum(it.runtimes_s) for it in visits if it.number in aside)
            is_too_late = left_s is not None and left_s < aside_s / 2
            if is_too_late or sum(action == "anew" for _, action in noted) >= _MAX_ANEW:
                return self._note(found, "marked", (), block)
            self._in_a_row = None, 0
            return self._note(found, "anew", earlier or found.visits, block)
        if number > _MAX_AGAIN or num_noted >= _MAX_NOTED:
            return self._note(found, "marked", (), block)
        return self._note(found, "again", found.visits, block)

    def _note(self, found, action, visits, block) -> Action:
        record = {"finding": found.name, "action": action, "message": found.message, "block": block}
        self._journal.append("guard", {**record, "visits": list(visits)})
        self.say(f"warning: {found.name}: {found.message}: {_DONE[action].format(len(visits))}")
        return action
