"""Command line of a campaign: plan the jobs, run what the budget allows, draw the summary."""

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.measurements.published import ROOT
from megatron_lm.campaigns.campaign_jobs import ENGINES, MODELS, CampaignJob, Settings, plan_campaign
from megatron_lm.campaigns.campaign_summary import format_summary, summarize
from megatron_lm.campaigns.execution import COMPLETE, UNFINISHED, Outcome, stop_signals_as_interrupts
from megatron_lm.campaigns.jobs import describe_command, launch_command

_PROGRAM = "profile_gpu.py"
# Of a job in the middle of its work, when the budget ends.
_LAST_SECONDS = 20.0
# A job that takes so many times what is expected of it hangs: it is stopped, for the others' sake. Estimates of short
# jobs are the worst.
_MAX_OVER_EXPECTED, _LEAST_LIMIT_S = 3.0, 120.0
_DESCRIPTION = """\
Time language models on several engines of one GPU with generate_text.py within a budget of time, most valuable
first. A model that does not fit the device is timed in two slices of its layers. A job that would outrun the budget
is not started; one that fails is reported, one that hangs is stopped, and the rest goes on. The same command goes on
where an earlier one stopped: finished logs are skipped, those that were cut off continued."""
_EPILOG = """\
what is where
  logs/h200/sdpa-graph/llama-3-8b.jsonl   log; notebooks read it with hardware = "h200/sdpa-graph"
  logs/h200/sdpa-graph/llama-3-8b.out     what the job printed, its command first, its exit status last

Exit status: 0 nothing failed (the budget may have left jobs over, and then says so), 1 a job failed or was refused,
2 bad arguments, 130 interrupted.

examples
  profile_gpu.py --dry-run
  profile_gpu.py --budget-minutes 25
  profile_gpu.py --models llama-3-8b --engines sdpa eager --budget-minutes 5
"""


@dataclass
class Budget:
    """Seconds that may still be used, and what the estimates of this run were worth."""

    seconds: float
    started_s: float = field(default_factory=monotonic)
    estimated_s: float = 0.0
    used_s: float = 0.0

    @property
    def left_s(self) -> float:
        """Until the end of the budget."""
        return self.seconds - (monotonic() - self.started_s)

    def expected_s(self, job: CampaignJob) -> float:
        """Estimate of a job, corrected by how long the jobs before it took."""
        return job.estimated_s() * (self.used_s / self.estimated_s if self.estimated_s else 1.0)

    def limit_s(self, job: CampaignJob) -> float:
        """Seconds after which a job is stopped."""
        longest_s = max(_MAX_OVER_EXPECTED * self.expected_s(job), _LEAST_LIMIT_S)
        return max(min(longest_s, self.left_s - _LAST_SECONDS), 1.0)


def main(argv=None) -> int:
    """Run a campaign; see ``scripts/profile_gpu.py --help``.

    Returns
    -------
    int
        0 where nothing failed, 1 where a job failed or was refused, 2 for bad arguments, 130 where it was interrupted.
    """
    arguments = _build_parser().parse_args(argv)
    try:
        return (_dry_run if arguments.dry_run else _campaign)(arguments)
    except (ValueError, OSError) as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return 2


def _dry_run(arguments) -> int:
    jobs, refused, accelerator = _plan(arguments)
    _print_plan(jobs, 60 * arguments.budget_minutes, accelerator)
    return 1 if refused else 0


def _campaign(arguments) -> int:
    budget = Budget(60 * arguments.budget_minutes)
    jobs, refused, _ = _plan(arguments)
    outcomes, is_interrupted = _run(jobs, budget)
    summary = summarize(outcomes)
    _report(summary, arguments.csv)
    if is_interrupted:
        print(f"{_PROGRAM}: interrupted; what was measured is kept: give the same command to go on", file=sys.stderr)
        return 130
    return 1 if refused or (summary["status"] == "failed").any() else 0


def _plan(arguments) -> tuple[list[CampaignJob], dict[str, str], Accelerator]:
    accelerator = _accelerator(arguments.hardware or _hardware(arguments.device))
    settings = Settings(
        tuple(arguments.all_num_input_tokens), tuple(arguments.all_num_output_tokens),
        arguments.num_warmup, arguments.num_trials, arguments.device, arguments.dtype,
    )  # fmt: skip
    folder = arguments.logs or ROOT / "logs" / _slug(accelerator.name)
    jobs, refused = plan_campaign(arguments.models, arguments.engines, settings, folder, accelerator)
    for name, why in refused.items():
        print(f"{name}: refused: {why}", file=sys.stderr)
    if not jobs:
        raise ValueError("every job is refused: nothing to time")
    return jobs, refused, accelerator


def _run(jobs, budget) -> tuple[dict[CampaignJob, Outcome], bool]:
    """Outcome of every job, and whether Ctrl-C or a stop signal came before the end."""
    from tqdm import tqdm

    from megatron_lm.campaigns.job_server import JobServer

    outcomes = dict.fromkeys(jobs, UNFINISHED)
    bar_format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} elapsed"
    try:
        with stop_signals_as_interrupts():
            server = JobServer() if any(not job.is_complete() for job in jobs) else None
            with tqdm(total=len(jobs), desc="jobs", bar_format=bar_format) as progress:
                for job in jobs:
                    outcomes[job] = _run_job(job, server, budget, lambda text: progress.write(text, file=sys.stderr))
                    progress.update()
    except KeyboardInterrupt:
        return outcomes, True
    return outcomes, False


def _run_job(job, server, budget, announce) -> Outcome:
    """Outcome of one job, which is run where it is not complete and the budget allows it."""
    if job.is_complete():
        announce(f"{job.name}: complete already, skipped")
        return COMPLETE
    estimated_s, expected_s = job.estimated_s(), budget.expected_s(job)
    if expected_s > budget.left_s:
        announce(f"{job.name}: not started: about {expected_s:.0f} s, {max(budget.left_s, 0):.0f} s of the budget left")
        return UNFINISHED
    announce(f"{job.name}: running, about {expected_s:.0f} s, output in {job.output}")
    started_s = monotonic()
    outcome = server.run(job, budget.limit_s(job))
    used_s = monotonic() - started_s
    if outcome == COMPLETE:
        budget.estimated_s, budget.used_s = budget.estimated_s + estimated_s, budget.used_s + used_s
    announce(f"{job.name}: {outcome.status} after {used_s:.0f} s" + (f": {outcome.error}" if outcome.error else ""))
    return outcome


def _print_plan(jobs, budget_s, accelerator):
    """Commands of all jobs, with the time that each and those before it will take."""
    total_s = 0.0
    for job in jobs:
        if job.is_complete():
            state = "complete already"
        else:
            estimated_s = job.estimated_s()
            fits = total_s + estimated_s <= budget_s
            total_s += estimated_s if fits else 0.0
            state = f"{len(job.pending_settings())} settings, about {estimated_s:.0f} s"
            state += f", {total_s / 60:.1f} min so far" if fits else ", beyond the budget"
        print(f"# {job.name}: {state}\n{describe_command(launch_command(job))}")
    print(f"# about {total_s / 60:.1f} of {budget_s / 60:.1f} minutes on {accelerator.name}")


def _report(summary, csv):
    print(format_summary(summary))
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        summary.to_csv(csv, index=False)
    failed = summary[summary["status"] == "failed"]
    for row in failed.itertuples():
        print(f"{row.model} {row.engine}: failed: {row.error}", file=sys.stderr)
    if num_left := int((summary["status"] == "unfinished").sum()):
        print(f"{num_left} of {len(summary)} jobs are left over: the same command goes on with them", file=sys.stderr)


def _accelerator(name) -> Accelerator:
    try:
        return get_accelerator(name)
    except ValueError as error:
        raise ValueError(f"{error}; or give --hardware with the nearest: its rates and memory make the plan") from error


def _hardware(device) -> str:
    """Name of the first GPU; the row of CPUs where the device is one, an H200 where there is no GPU to plan for."""
    if device == "cpu":
        return "cpu"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.splitlines()[0].strip()
    return "H200"


def _slug(name) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_jobs(parser)
    _add_settings(parser)
    return parser


def _add_jobs(parser):
    group = parser.add_argument_group("what is timed: every engine of the first model, then one engine after the other")
    group.add_argument(
        "--models", nargs="+", default=MODELS, metavar="NAME",
        help="names of the registry, or Hugging Face configurations: NAME/config.json, NAME.json "
        f"(default: {' '.join(MODELS)})",
    )  # fmt: skip
    group.add_argument(
        "--engines", nargs="+", default=ENGINES, metavar="ENGINE",
        help=f"values of generate_text.py --inference-engine (default: {' '.join(ENGINES)})",
    )  # fmt: skip
    group.add_argument(
        "--budget-minutes", type=_positive_number, default=25.0, metavar="M",
        help="start no job that would outrun it, and stop the last one in order (default: %(default)g)",
    )  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="print each job with its estimated time, and stop")
    group.add_argument("--logs", type=Path, metavar="DIR", help="folder of the logs (default: logs/HARDWARE)")
    group.add_argument(
        "--hardware", metavar="NAME",
        help="accelerator of the estimates, a name of idealized_runtime/hardware.py (default: that of this machine; "
        "H200 where there is no GPU)",
    )  # fmt: skip
    group.add_argument("--csv", type=Path, metavar="FILE", help="write the summary there too, unrounded")


def _add_settings(parser):
    settings = Settings()
    group = parser.add_argument_group("settings, the same for every job")
    group.add_argument("--device", choices=("cuda", "cpu"), default=settings.device, help="default: %(default)s")
    group.add_argument("--dtype", choices=("bfloat16", "float32"), default=settings.dtype, help="default: %(default)s")
    for flag, sizes, text in (
        (
            "--all-num-input-tokens",
            settings.all_num_prompt_tokens,
            "prompt sizes; those beyond a model's context are left",
        ),
        ("--all-num-output-tokens", settings.all_num_output_tokens, "numbers of tokens to generate"),
    ):
        group.add_argument(
            flag, type=_positive_int, nargs="+", default=sizes, metavar="N",
            help=f"{text} (default: {' '.join(map(str, sizes))})",
        )  # fmt: skip
    group.add_argument(
        "--num-warmup", type=_non_negative_int, default=settings.num_warmup, metavar="N",
        help="runs of each setting before the trials (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--num-trials", type=_positive_int, default=settings.num_trials, metavar="N",
        help="timed runs of each setting (default: %(default)s)",
    )  # fmt: skip


def _positive_number(text) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {text!r}")
    return number


def _positive_int(text) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)


def _non_negative_int(text) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0; got {text!r}")
    return int(text)
