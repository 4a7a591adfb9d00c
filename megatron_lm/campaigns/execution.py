"""Runs one job of a sweep as processes of their own, keeps its output, and says how it ended."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import LogFormatError, load_log
from megatron_lm.campaigns.jobs import Job, describe_command, launch_command

# torchrun gives its processes 30 s to stop before it kills them.
_STOP_TIMEOUT_S = 45
_PARSE = "from megatron_lm.arguments import parse_arguments; parse_arguments()"
# What torch puts before the lines of an exception that ends a rank.
_RANK = r"(?:\[(?:default|rank)\d+\]:? *)*"
_ERROR_LINES = tuple(
    re.compile(_RANK + pattern)
    for pattern in (
        r"generate_text\.py: (?:rank \d+: )?error: (.+)",
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


@contextlib.contextmanager
def stop_signals_as_interrupts():
    """A scheduler's stop signal and the end of the terminal become Ctrl-C's exception, as long as the block runs."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if handlers[signal.SIGHUP] == signal.SIG_IGN:
        # Under nohup the end of the terminal is not the end of the sweep.
        del handlers[signal.SIGHUP]
    for number in handlers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_job(job: Job) -> Outcome:
    """Run a job on this machine to its end; an exception, such as Ctrl-C, stops its processes first."""
    return outcome_of(job, run_command(launch_command(job), job.output))


def run_command(command: list[str], output: Path) -> int:
    """Exit status of a command; ``output`` gets the command, all that it prints, and the exit status."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as file:
        print("$", describe_command(command), file=file, flush=True)
        # A session of its own: Ctrl-C and a scheduler's signals reach the sweep alone, which then stops it in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait()
        except BaseException:
            stop_processes(process.pid, process.terminate)
            raise
    with output.open("a", encoding="utf-8") as file:
        print(f"\nexit status {status}", file=file)
    return status


def is_finished(job: Job) -> bool:
    """Whether the log is complete and the last run of the job had these arguments and succeeded."""
    try:
        if not load_log(job.log).is_complete:
            return False
        lines = job.output.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, LogFormatError):
        return False
    return lines[0].endswith(shlex.join(job.arguments)) and lines[-1] == "exit status 0"


def refusal(job: Job) -> str | None:
    """What the driver has against the arguments and the parallelism of a job; None where it takes them."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "WORLD_SIZE": str(job.num_processes)}
    command = [sys.executable, "-c", _PARSE, *job.arguments]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return first_error(answer.stderr) if answer.returncode else None


def outcome_of(job: Job, status: int, num_nodes: int = 1) -> Outcome:
    """Outcome of a run that ended with this exit status, by the log and the outputs of its nodes that it left."""
    if status == 0 and is_finished(job):
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
    try:
        settings = load_log(job.log).settings
    except (OSError, LogFormatError):
        return None
    if not settings or any("error" not in setting for setting in settings):
        return None
    return f"no setting could be timed: {settings[0]['error'].get('message', settings[0]['error']['type'])}"


def stop_processes(process_id: int, stop: Callable[[], object]):
    """End a process and all that it started, with ``stop`` that tells it to; what does not obey is killed."""
    import psutil

    leader = psutil.Process(process_id)
    # Processes of torchrun have sessions of their own: one that hangs would hold its cores, too.
    family = [*leader.children(recursive=True), leader]
    stop()
    try:
        psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
    finally:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
