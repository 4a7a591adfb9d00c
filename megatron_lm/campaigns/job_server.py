"""Runs the jobs of a campaign, each in a process of its own that starts with torch and Megatron loaded.

Importing them takes about as long as timing a small model: a server imports them once, and every job is a fork of
it. The server itself must not touch CUDA, which does not survive a fork; where it did, a job begins as a new program.
"""

import multiprocessing
import os
import sys
from pathlib import Path

from idealized_runtime.measurements.published import ROOT
from megatron_lm.campaigns.campaign_jobs import CampaignJob
from megatron_lm.campaigns.execution import UNFINISHED, Outcome, outcome_of
from megatron_lm.campaigns.jobs import DRIVER, describe_command, launch_command

# The driver keeps what it measured and ends at once, unless it waits for a kernel.
_STOP_TIMEOUT_S = 20


class JobServer:
    """Starts jobs; what they need is imported when it is made."""

    def __init__(self):
        # Counting devices through NVML does not begin CUDA, which the server must not.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["megatron_lm.campaigns.preloaded"])
        process = self._context.Process(target=os.getpid)
        process.start()
        process.join()

    def run(self, job: CampaignJob, timeout_s: float) -> Outcome:
        """Run a job to its end, or stop it in order after so many seconds: its log is then resumed another time.

        What it prints, its command first and its exit status last, goes to ``job.output``.
        """
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.write_text(f"$ {describe_command(launch_command(job))}\n", encoding="utf-8")
        process = self._context.Process(target=drive, args=(job.arguments, job.output))
        process.start()
        try:
            process.join(timeout_s)
            is_stopped = process.is_alive()
        finally:
            _stop(process)
        with job.output.open("a", encoding="utf-8") as file:
            print(f"\nexit status {process.exitcode}", file=file)
        return UNFINISHED if is_stopped else outcome_of(job, process.exitcode)


def drive(arguments: list[str], output: Path):
    """The driver, in this process; what it prints goes to a file."""
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A terminal's Ctrl-C reaches the campaign alone, which then stops its job in order.
    os.setsid()
    import torch

    if torch.cuda._is_in_bad_fork():
        os.execv(sys.executable, [sys.executable, str(DRIVER), *arguments])
    sys.path.insert(0, str(ROOT))
    import generate_text

    sys.exit(generate_text.main(arguments))


def _stop(process):
    """End a process; one that ended already is left alone."""
    if process.is_alive():
        process.terminate()
        process.join(_STOP_TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()
