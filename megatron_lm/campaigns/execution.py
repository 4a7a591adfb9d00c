"""Runs the jobs of a campaign on this machine, each in a process of its own.

Importing torch and Megatron takes about as long as timing a small model: a server imports them once, and every job of
one process is a fork of it; one of several is torchrun, in the place of a fork. The server itself must not touch
CUDA, which does not survive a fork; where it did, a job begins as a new program.
"""

import contextlib
import multiprocessing
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic

from tqdm import tqdm

from idealized_runtime.measurements.published import ROOT
from megatron_lm import driver
from megatron_lm.campaigns.budget import Budget, estimated_s
from megatron_lm.campaigns.jobs import Job, launch_command
from megatron_lm.campaigns.outcomes import COMPLETE, UNFINISHED, Outcome, outcome_of

# torchrun gives its processes 30 s to stop before it kills them.
_STOP_TIMEOUT_S = 45


def run_campaign(
    plan: Mapping[Job, str], execute: Callable[[list[Job], Callable], Iterable], announce: Callable[[str], object]
) -> tuple[dict[Job, Outcome], bool]:
    """Run what is not complete, one failure or many notwithstanding; and whether it was interrupted before the end.

    ``execute`` takes jobs and ``announce``, which is told what happens, a line at a time; it gives each job with its
    outcome, as it ends. ``plan`` is that of :func:`megatron_lm.campaigns.jobs.plan_jobs`.
    """
    outcomes = {job: Outcome("failed", why) if why else UNFINISHED for job, why in plan.items()}
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if str(ROOT) not in paths:
        # Wherever they run, jobs find this package, also where it is not installed.
        os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), *paths))
    # Drawn on a terminal only.
    with tqdm(total=len(plan), desc="campaign", unit="job", disable=None) as progress:

        def say(sentence):
            with tqdm.external_write_mode():
                announce(sentence)

        for job, why in plan.items():
            if why:
                say(f"{job.name}: refused: {why}")
            elif job.is_complete():
                say(f"{job.name}: complete already, skipped")
                outcomes[job] = COMPLETE
        pending = [job for job, outcome in outcomes.items() if outcome == UNFINISHED]
        progress.update(len(plan) - len(pending))
        try:
            for job, outcome in execute(pending, say) if pending else ():
                outcomes[job] = outcome
                say(f"{job.name}: {outcome.status}" + (f": {outcome.error}" if outcome.error else ""))
                progress.update()
        except KeyboardInterrupt:
            return outcomes, True
    return outcomes, False


def run_here(jobs: list[Job], announce: Callable, budget: Budget | None = None) -> Iterator[tuple[Job, Outcome]]:
    """Each job with its outcome, one after the other; none is started that would outrun the budget, none may hang."""
    server = JobServer(is_preloaded=any(job.num_processes == 1 for job in jobs))
    for job in jobs:
        about, limit_s = "", None
        if budget is not None:
            estimate_s = estimated_s(job, budget.accelerator)
            expected_s = budget.expected_s(estimate_s)
            about, limit_s = f", about {expected_s:.0f} s", budget.limit_s(expected_s)
            if expected_s > budget.left_s:
                announce(f"{job.name}: not started{about}; {max(budget.left_s, 0):.0f} s of the budget left")
                yield job, UNFINISHED
                continue
        announce(f"{job.name}: running{about}, output in {job.output}")
        started_s = monotonic()
        outcome = server.run(job, limit_s)
        if budget is not None and outcome == COMPLETE:
            budget.note(estimate_s, monotonic() - started_s)
        yield job, outcome


class JobServer:
    """Starts jobs; where ``is_preloaded``, what those of one process need is imported when it is made."""

    def __init__(self, *, is_preloaded: bool = True):
        # Counting devices through NVML does not begin CUDA, which the server must not.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        driver.let_threads_sleep()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *(["megatron_lm.sweep"] if is_preloaded else [])])
        process = self._context.Process(target=os.getpid)
        process.start()
        process.join()

    def run(self, job: Job, timeout_s: float | None = None) -> Outcome:
        """Run a job to its end, or stop it in order after so many seconds: its log is then resumed another time.

        What it prints, its command first and its exit status last, goes to ``job.output``; an exception, such as
        Ctrl-C, stops its processes first.
        """
        command = launch_command(job)
        _begin_output(job.output, command)
        process = self._context.Process(target=_drive, args=(job, command))
        process.start()
        try:
            process.join(timeout_s)
        finally:
            if is_stopped := process.is_alive():
                stop_processes(process.pid, process.terminate)
                process.join()
        _end_output(job.output, process.exitcode)
        return UNFINISHED if is_stopped else outcome_of(job, process.exitcode)


def _drive(job, command):
    """The driver, in this process; what it prints goes to a file."""
    with job.output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A session of its own: a terminal's Ctrl-C reaches the campaign alone, which then stops its job in order.
    os.setsid()
    torch = sys.modules.get("torch")
    if job.num_processes > 1 or (torch and torch.cuda._is_in_bad_fork()):
        os.execv(command[0], command)
    from idealized_runtime.cli.main import main

    sys.exit(main(["time", *job.arguments]))


def run_command(command: list[str], output: Path) -> int:
    """Exit status of a command; ``output`` gets the command, all that it prints, and the exit status."""
    _begin_output(output, command)
    with output.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        status = process.wait()
    except BaseException:
        stop_processes(process.pid, process.terminate)
        raise
    _end_output(output, status)
    return status


def _begin_output(output, command):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(f"$ {shlex.join(command)}\n", encoding="utf-8")


def _end_output(output, status):
    with output.open("a", encoding="utf-8") as file:
        print(f"\nexit status {status}", file=file)


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
