"""How a job ended, by the log and the output that it left."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from megatron_lm.campaigns.jobs import Job

# What torch puts before the lines of an exception that ends a rank.
_RANK = r"(?:\[(?:default|rank)\d+\]:? *)*"
_ERROR_LINES = tuple(
    re.compile(_RANK + pattern)
    for pattern in (
        # Of the driver, by whatever name it runs, or of what launches it.
        r"[\w.-]+(?: time)?: error: (?:rank \d+: )?(.+)",
        # The last line of a traceback; of a chain the first, which is the cause of the others.
        r"((?:\w+\.)*\w*(?:Error|Exception|Exit)(?::.*)?)$",
        # The end of a process that said nothing. SIGTERM is what torchrun sends to those that are left.
        r".*(Signal \d+ \(SIG(?!TERM)\w+\) received by PID \d+)",
    )
)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``status`` is ``complete``, ``failed`` or ``unfinished``; ``error`` says why it failed."""

    status: str
    error: str = ""


COMPLETE = Outcome("complete")
UNFINISHED = Outcome("unfinished")


def outcome_of(job: Job, status: int, num_nodes: int = 1) -> Outcome:
    """Outcome of a run that ended with this exit status, by the log and the outputs of its nodes that it left."""
    if status == 0 and job.is_complete():
        return COMPLETE
    outputs = filter(Path.exists, map(job.output_of_node, range(num_nodes)))
    text = "\n".join(output.read_text(encoding="utf-8", errors="replace") for output in outputs)
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status} without a whole log"
    return Outcome("failed", first_error(text) or _error_of_settings(job) or f"{ended}; see {job.output}")


def first_error(text: str) -> str | None:
    """First line of a program's output that states an error, without what stands before the statement.

    Later ones follow from it: the other ranks lose their neighbour, then torchrun reports them all.
    """
    for line in re.split(r"[\r\n]+", text):
        for pattern in _ERROR_LINES:
            if match := pattern.match(line):
                return match[1]
    return None


def _error_of_settings(job) -> str | None:
    log = job.read()
    settings = [] if log is None else log.records
    if refused := [setting for setting in settings if not log.is_final(setting)]:
        return f"{len(refused)} of {len(settings)} settings are refused: {refused[0]['error'].get('message')}"
    if not settings or len(log.failed) < len(settings):
        return None
    error = settings[0]["error"]
    return f"no setting could be timed: {error.get('message', error['type'])}"
