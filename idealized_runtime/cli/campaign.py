"""Time many models on many engines and parallelisms, each with every batch size: here, within a budget, or on Slurm.

Each model on an engine and a parallelism is a job: one run of `idealized-runtime time` into one log. A job that fails
is reported with its own first error and the rest goes on. The same command goes on where an earlier one stopped:
complete logs are skipped, those that were cut off continued, jobs still in Slurm's queue waited for. A model that does
not fit the GPU is timed in two slices of its layers. A table comes at the end: of the longest query the best batch,
fitted times beside the floors of the machine, joules where they were measured.
"""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from idealized_runtime.checks import positive_int, positive_number
from idealized_runtime.cli.flags import add_shared

# All flags that are not named here are the driver's, and go to every job.
PASSES_FLAGS_ON = True
EXAMPLES = """\
All other flags are those of `idealized-runtime time` and go to every job. Most used:
  --all-num-input-tokens P ...  --all-num-output-tokens O ...     sizes, in tokens (default: 1 128 512 1024 2048 4096,
                          of which each model is given those that its context holds; 1 2 16 64)
  --num-warmup N  --num-trials N     runs of each setting (default: 3, 10)
  --target-error X  --queries FILE  --max-seconds S     instead of trials: until each job knows what is asked for
  --global-batch-size B ...  --micro-batch-size M ...  --token-micro-batch-size K ...     sequences at a time
  --device cpu|cuda  --bf16  --fp16  --num-layers-profiled L ...

what is where
  DIR/ENGINE/MODEL.jsonl          log of one process; notebooks read it with hardware = "DIR/ENGINE"
  DIR/ENGINE-TxP/MODEL.jsonl      of several, such as DIR/sdpa-2x1/gpt2-small.jsonl; sdpa+graph is written sdpa-graph
  DIR/.../MODEL.out               what the job printed, its command first, its exit status last
  DIR/.submitit/                  scripts and output of jobs on Slurm

Exit codes: 0 nothing failed (the budget may have left jobs over, and then says so); 1 a job failed or was refused, the
others were run; 2 bad input; 130 interrupted.

examples
  idealized-runtime campaign --budget-minutes 25 --dry-run
  idealized-runtime campaign --model gpt2-small gpt2-medium --parallelisms 1x1 2x1 1x2 --logs logs/mybox \\
      --all-num-input-tokens 128 --all-num-output-tokens 1 32 --global-batch-size 1 8 32
  idealized-runtime campaign --model gpt2-small gpt2-medium --logs logs/mybox --target-error 0.03 --max-seconds 60
  idealized-runtime campaign --model opt-66b --parallelisms 8x1 8x2 --logs logs/mycluster --bf16 --executor slurm \\
      --partition gpu --nodes 2 --gpus-per-node 8 --time 120 --sbatch account=nlp
"""
# An option given with another executor would be ignored: it is refused.
_SLURM_DEFAULTS = {
    "partition": None, "time": 60, "max_requeues": 3, "nodes": 1, "gpus_per_node": None, "cpus_per_process": 1,
    "share_nodes": False, "sbatch": [],
}  # fmt: skip
# What a driver is told unless one of these flags says otherwise; and on a GPU where no model is named.
_DEFAULTS = {
    ("--all-num-input-tokens",): ("1", "128", "512", "1024", "2048", "4096"),
    ("--all-num-output-tokens", "--out-seq-length"): ("1", "2", "16", "64"),
}
# And how often, unless a target says until when.
_TRIALS = {("--num-warmup",): ("3",), ("--num-trials",): ("10",)}
_GPU_DEFAULTS = {("--device",): ("cuda",), ("--bf16", "--fp16"): ()}


def add_arguments(parser):
    """Add the flags of what is timed, where, and of Slurm."""
    from megatron_lm.engines import DEFAULT_ENGINE, GPU_ENGINES

    group = parser.add_argument_group("what is timed: all of the first model, then one engine and size after the other")
    add_shared(
        group, "--model", nargs="+", action="extend",
        help="names of the registry, or Hugging Face configurations: NAME/config.json, NAME.json (default: on a GPU, "
        "dense models of 8 to 70 B, experts, and two shapes of 2022, in bfloat16)",
    )  # fmt: skip
    group.add_argument(
        "--engines", nargs="+", metavar="ENGINE",
        help=f"values of --inference-engine (default: {DEFAULT_ENGINE}; without --model {' '.join(GPU_ENGINES)})",
    )  # fmt: skip
    group.add_argument(
        "--parallelisms", nargs="+", type=_parallelism, default=[(1, 1)], metavar="TxP",
        help="tensor x pipeline parallel size, such as 1x1 2x1 1x2; T x P processes each (default: 1x1)",
    )  # fmt: skip
    group = parser.add_argument_group("where, and for how long")
    group.add_argument("--logs", type=Path, metavar="DIR", help="folder of the logs (default: logs/HARDWARE)")
    group.add_argument("--executor", choices=("here", "slurm"), default="here", help="default: %(default)s")
    group.add_argument(
        "--budget-minutes", type=positive_number, metavar="M",
        help="start no job that would outrun it, stop one that hangs and, at the end, the last one in order",
    )  # fmt: skip
    add_shared(group, "--hardware", help="accelerator whose memory and rates make the plan (default: this machine's)")
    group.add_argument("--dry-run", action="store_true", help="print the command of each job and its time, and stop")
    add_shared(group, "--out", "--json")
    group = parser.add_argument_group("Slurm (--executor slurm); DIR must lie on a file system that all nodes see")
    group.add_argument("--partition", metavar="NAME", help="default: the cluster's")
    for flag, text in {
        "--time": "minutes; 90 s before the end a job is queued again and goes on with its log (default: %(default)s)",
        "--max-requeues": "how often (default: %(default)s)",
        "--nodes": "spread each job over so many; one of fewer processes takes a node each (default: %(default)s)",
        "--gpus-per-node": "GPUs that a node has; a job asks for one a process (default: ask for none)",
        "--cpus-per-process": "also its threads, unless OMP_NUM_THREADS is set (default: %(default)s)",
    }.items():
        group.add_argument(flag, type=positive_int, metavar="N", help=text)
    group.add_argument(
        "--share-nodes", action="store_true", help="let others run beside a job; without it nodes are asked for whole"
    )
    group.add_argument(
        "--sbatch", nargs="+", type=_sbatch_option, metavar="OPTION=VALUE",
        help="other options of sbatch, such as account=nlp constraint=a100",
    )  # fmt: skip
    parser.set_defaults(**_SLURM_DEFAULTS)


def run(arguments) -> int:
    """Run the jobs that are not complete, or print them; print the table of what all of them measured."""
    from idealized_runtime.cli import output
    from megatron_lm.campaigns.execution import run_campaign

    if arguments.out is not None:
        output.check_format(arguments.out)
    plan, accelerator = _plan(arguments)
    execute = _executor(arguments, plan, accelerator)
    if arguments.dry_run:
        _print_plan(plan, arguments, accelerator)
        return 1 if any(plan.values()) else 0
    outcomes, is_interrupted = run_campaign(plan, execute, output.say)
    failed = _report(outcomes, arguments)
    if is_interrupted:
        raise KeyboardInterrupt("what was measured is kept: give the same command to go on")
    return 1 if failed else 0


def _plan(arguments):
    """Jobs with what the driver has against each, and the accelerator that they are planned for (None: not known)."""
    from megatron_lm.arguments import build_parser
    from megatron_lm.campaigns.jobs import GPU_MODELS, has_flag, plan_jobs
    from megatron_lm.engines import DEFAULT_ENGINE, ENGINES, GPU_ENGINES

    is_default = arguments.model is None
    flags = arguments.passed_on
    is_until_known = has_flag(flags, "--target-error")
    defaults = {} if has_flag(flags, "--queries") else _DEFAULTS
    defaults = {**defaults, **({} if is_until_known else _TRIALS), **(_GPU_DEFAULTS if is_default else {})}
    for names, values in defaults.items():
        flags = flags if has_flag(flags, *names) else [*flags, names[0], *values]
    # A mistyped flag is refused at once, and not by every job.
    device = build_parser().parse_args(flags).device
    engines = arguments.engines or (GPU_ENGINES if is_default else [DEFAULT_ENGINE])
    if unknown := [engine for engine in engines if engine not in ENGINES]:
        raise ValueError(f"--engines {' '.join(unknown)}: there are {', '.join(ENGINES)}")
    accelerator = _accelerator(arguments, device)
    is_gpu = accelerator is not None and accelerator.name != "cpu"
    if is_default and not is_gpu:
        raise ValueError(
            "no model is named, and no GPU found to choose models for: give --model, or plan by --hardware"
        )
    folder = arguments.logs
    if folder is None:
        if accelerator is None:
            raise ValueError("which folder? Give --logs: the hardware, which names it elsewhere, is not known here")
        name = re.sub(r"[^a-z0-9]+", "-", accelerator.name.casefold()).strip("-") if is_gpu else "local"
        folder = Path("logs") / name
    models = GPU_MODELS if is_default else arguments.model
    plan = plan_jobs(models, engines, arguments.parallelisms, folder, flags, accelerator if is_gpu else None)
    if all(plan.values()):
        raise ValueError(f"every job is refused; {next(iter(plan)).name}: {next(iter(plan.values()))}")
    return plan, accelerator


def _accelerator(arguments, device):
    from idealized_runtime.hardware.accelerators import get_accelerator

    if arguments.hardware is not None:
        return get_accelerator(arguments.hardware)
    if arguments.executor == "slurm":
        return None
    name = "cpu"
    if device != "cpu" and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        name = answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout.strip() else name
    try:
        return get_accelerator(name)
    except ValueError as error:
        if arguments.model and arguments.budget_minutes is None:
            return None
        raise ValueError(f"{error}; or give --hardware with the nearest: its rates and memory make the plan") from error


def _executor(arguments, plan, accelerator):
    """Function of jobs and ``announce`` that gives each job with its outcome as it ends."""
    if arguments.executor == "here":
        if given := [flag for flag, default in _SLURM_DEFAULTS.items() if getattr(arguments, flag) != default]:
            named = ", ".join("--" + flag.replace("_", "-") for flag in given)
            raise ValueError(f"{named}: of Slurm; add --executor slurm")
        from megatron_lm.campaigns.budget import Budget
        from megatron_lm.campaigns.execution import run_here

        minutes = arguments.budget_minutes
        budget = None if minutes is None else Budget(60 * minutes, accelerator)
        return lambda jobs, announce: run_here(jobs, announce, budget)
    if arguments.budget_minutes is not None:
        raise ValueError("--budget-minutes is of this machine; on Slurm give --time, the minutes of each job")
    try:
        from megatron_lm.campaigns import slurm
    except ModuleNotFoundError as error:
        remedy = "pip install -c requirements.txt submitit"
        raise ValueError(f"--executor slurm needs {error.name}: {remedy}") from error
    allocation = slurm.Allocation(
        partition=arguments.partition, time_min=arguments.time, max_requeues=arguments.max_requeues,
        num_nodes=arguments.nodes, gpus_per_node=arguments.gpus_per_node, cpus_per_process=arguments.cpus_per_process,
        shares_nodes=arguments.share_nodes, sbatch=dict(arguments.sbatch),
    )  # fmt: skip
    for job in plan:
        allocation.nodes_of(job)
    return lambda jobs, announce: slurm.run_on_slurm(jobs, announce, allocation)


def _print_plan(plan, arguments, accelerator):
    """Commands of all jobs, with the time that each and those before it will take where the hardware is known."""
    from megatron_lm.campaigns.budget import estimated_s
    from megatron_lm.campaigns.jobs import launch_command

    budget_s, total_s = 60 * (arguments.budget_minutes or float("inf")), 0.0
    for job, why_refused in plan.items():
        num_nodes = min(arguments.nodes, job.num_processes)
        state = f"on each of {num_nodes} nodes, " if num_nodes > 1 else ""
        if why_refused:
            state = f"refused: {why_refused}"
        elif job.is_complete():
            state = "complete already"
        else:
            number, goal = len(job.pending_settings()), job.measurement.goal
            state += f"{number} settings" if goal is None else f"some of {number} settings, to {goal.target_error:.3g}"
            if accelerator is not None:
                job_s = estimated_s(job, accelerator)
                is_within = total_s + job_s <= budget_s
                total_s += job_s if is_within else 0.0
                state += f", about {job_s:.0f} s, "
                state += f"{total_s / 60:.1f} min so far" if is_within else "beyond the budget"
        command = launch_command(job, num_nodes=num_nodes, endpoint="FIRST_NODE:PORT", run_id="JOB_ID")
        print(f"# {job.name}: {state}\n{shlex.join(command)}")
    if accelerator is not None:
        limit = f" of {budget_s / 60:.1f}" if arguments.budget_minutes else ""
        print(f"# about {total_s / 60:.1f}{limit} minutes on {accelerator.name}")


def _report(outcomes, arguments) -> int:
    """Print and write the summary; the number of jobs that failed."""
    from idealized_runtime.cli import output
    from megatron_lm.campaigns.summary import shorten, summary_table

    summary = summary_table(outcomes)
    if arguments.out is not None:
        output.write_table(summary, arguments.out)
    if arguments.json:
        output.print_json({"jobs": summary})
    else:
        output.print_table(shorten(summary))
    for job, findings in zip(outcomes, summary["findings"], strict=True):
        if findings:
            output.say(f"{job.name}: {findings}")
    failed = {job.name: outcome.error for job, outcome in outcomes.items() if outcome.status == "failed"}
    if failed:
        named = (f"  {name}: {error}" for name, error in failed.items())
        output.say("\n".join([f"{len(failed)} of {len(outcomes)} jobs failed:", *named]))
    if num_left := sum(outcome.status == "unfinished" for outcome in outcomes.values()):
        output.say(f"{num_left} of {len(outcomes)} jobs are left over: the same command goes on with them")
    return len(failed)


def _parallelism(text) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be TENSORxPIPELINE, such as 2x1; got {text!r}")
    return int(match[1]), int(match[2])


def _sbatch_option(text) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"must be OPTION=VALUE, such as account=nlp; got {text!r}")
    return name.removeprefix("--"), value
