"""Command line of a sweep: plan the jobs, run those that are not finished, draw the summary."""

import argparse
import re
import sys
from pathlib import Path

from megatron_lm.campaigns.execution import (
    COMPLETE,
    UNFINISHED,
    Outcome,
    is_finished,
    refusal,
    run_job,
    stop_signals_as_interrupts,
)
from megatron_lm.campaigns.jobs import Job, describe_command, launch_command, plan_jobs
from megatron_lm.campaigns.sweep_summary import format_summary, summarize

_PROGRAM = "sweep.py"
_EXECUTORS = ("local", "slurm", "submitit-local")
# An option given with another executor would be ignored: it is refused.
_SLURM_DEFAULTS = {
    "partition": None, "time": 60, "max_requeues": 3, "nodes": 1, "gpus_per_node": None, "cpus_per_process": 1,
    "share_nodes": False, "sbatch": [],
}  # fmt: skip
_DESCRIPTION = """\
Time several architectures on several parallelisms with generate_text.py, here or on a Slurm cluster: one job and one
log for each pair, with every batch size in it. A job that fails is reported with its own first error and the rest
goes on; a table of the best settings comes at the end."""
_EPILOG = """\
All other flags are those of generate_text.py and go to every job; `generate_text.py -h` explains them. Most used:
  --all-num-input-tokens P [P ...]  --all-num-output-tokens O [O ...]     prompt and output sizes, in tokens
  --global-batch-size B [B ...]  --micro-batch-size M [M ...]  --token-micro-batch-size K [K ...]
                                                                          sequences; prompts, tokens at a time
  --num-warmup N  --num-trials N  --device cpu|cuda  --bf16

what is where
  DIR/tensor2-pipeline1/gpt2-small.jsonl   log; notebooks read it with hardware = "DIR/tensor2-pipeline1"
  DIR/tensor2-pipeline1/gpt2-small.out     what the job printed, its command first, its exit status last
  DIR/.submitit/                           scripts and output of submitted jobs

The same command goes on where an earlier one stopped: finished logs are skipped, cut off ones continued, jobs still in
Slurm's queue waited for. Exit status: 0 all complete, 1 a job failed (the others were run), 2 bad arguments,
130 interrupted.

examples
  sweep.py --architectures gpt2-small gpt2-medium --parallelisms 1x1 2x1 1x2 --logs logs/mybox \\
      --all-num-input-tokens 128 --all-num-output-tokens 1 32 --num-warmup 2 --num-trials 5 \\
      --global-batch-size 1 8 32 --token-micro-batch-size 1 2 4 8
  sweep.py --architectures opt-66b --parallelisms 8x1 8x2 --logs logs/mycluster --executor slurm --partition gpu \\
      --nodes 2 --gpus-per-node 8 --time 120 --sbatch account=nlp --bf16 \\
      --all-num-input-tokens 512 --all-num-output-tokens 1 64
"""


def main(argv=None) -> int:
    """Run a sweep; see ``scripts/sweep.py --help``.

    Returns
    -------
    int
        0 where every job is complete, 1 where one failed, 2 for bad arguments, 130 where it was interrupted.
    """
    parser = _build_parser()
    arguments, driver_arguments = parser.parse_known_args(argv)
    try:
        jobs = plan_jobs(arguments.architectures, arguments.parallelisms, arguments.logs, driver_arguments)
        execute = _executor(arguments, jobs)
        if arguments.dry_run:
            _print_commands(jobs, arguments.nodes)
            return 0
        outcomes, is_interrupted = _run(jobs, execute)
        _report(outcomes, arguments)
    except (ValueError, OSError) as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    if is_interrupted:
        print(f"{_PROGRAM}: interrupted; what was measured is kept: give the same command to go on", file=sys.stderr)
        return 130
    return 0 if all(outcome == COMPLETE for outcome in outcomes.values()) else 1


def _run(jobs, execute) -> tuple[dict[Job, Outcome], bool]:
    """Outcome of every job, and whether Ctrl-C or a stop signal came before the end."""
    from tqdm import tqdm

    outcomes = dict.fromkeys(jobs, UNFINISHED)
    bar_format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} elapsed, {remaining} left"
    try:
        with stop_signals_as_interrupts(), tqdm(total=len(jobs), desc="jobs", bar_format=bar_format) as progress:
            for job, outcome in _outcomes(jobs, execute, lambda text: progress.write(text, file=sys.stderr)):
                outcomes[job] = outcome
                progress.update()
    except KeyboardInterrupt:
        return outcomes, True
    return outcomes, False


def _outcomes(jobs, execute, announce):
    """Each job with its outcome, as it ends: those that need no launch first."""
    pending = []
    for job in jobs:
        if is_finished(job):
            announce(f"{job.name}: complete already, skipped")
            yield job, COMPLETE
        elif error := refusal(job):
            announce(f"{job.name}: failed: {error}")
            yield job, Outcome("failed", error)
        else:
            pending.append(job)
    for job, outcome in execute(pending, announce) if pending else ():
        announce(f"{job.name}: {outcome.status}" + (f": {outcome.error}" if outcome.error else ""))
        yield job, outcome


def _run_here(jobs, announce):
    for job in jobs:
        announce(f"{job.name}: running, output in {job.output}")
        yield job, run_job(job)


def _executor(arguments, jobs):
    """Function of jobs and ``announce`` that gives each job with its outcome as it ends."""
    if arguments.executor == "local":
        if given := [flag for flag in _SLURM_DEFAULTS if getattr(arguments, flag) != _SLURM_DEFAULTS[flag]]:
            named = ", ".join("--" + flag.replace("_", "-") for flag in given)
            raise ValueError(f"{named}: of Slurm; add --executor slurm")
        return _run_here
    try:
        from megatron_lm.campaigns import slurm as cluster
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--executor {arguments.executor} needs {error.name}: pip install -c requirements.txt submitit"
        ) from error
    allocation = cluster.Allocation(
        partition=arguments.partition, time_min=arguments.time, max_requeues=arguments.max_requeues,
        num_nodes=arguments.nodes, gpus_per_node=arguments.gpus_per_node, cpus_per_process=arguments.cpus_per_process,
        shares_nodes=arguments.share_nodes, sbatch=dict(arguments.sbatch),
    )  # fmt: skip
    for job in jobs:
        allocation.nodes_of(job)
    run = cluster.run_on_slurm if arguments.executor == "slurm" else cluster.run_with_submitit_here
    return lambda pending, announce: run(pending, allocation, announce)


def _print_commands(jobs, num_nodes):
    for job in jobs:
        num_job_nodes = min(num_nodes, job.num_processes)
        command = launch_command(job, num_nodes=num_job_nodes, endpoint="FIRST_NODE:PORT", run_id="JOB_ID")
        state = ", complete already" if is_finished(job) else ""
        where = f", on each of {num_job_nodes} nodes" if num_job_nodes > 1 else ""
        print(f"# {job.name}{where}{state}\n{describe_command(command)}")


def _report(outcomes, arguments):
    summary = summarize(outcomes)
    print(format_summary(summary))
    for path in filter(None, (arguments.csv, arguments.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if arguments.csv is not None:
        summary.to_csv(arguments.csv, index=False)
    if arguments.json is not None:
        summary.to_json(arguments.json, orient="records", indent=2)
    failed = {job.name: outcome.error for job, outcome in outcomes.items() if outcome.status == "failed"}
    if failed:
        print(f"{len(failed)} of {len(outcomes)} jobs failed:", file=sys.stderr)
        print(*(f"  {name}: {error}" for name, error in failed.items()), sep="\n", file=sys.stderr)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage="%(prog)s --architectures NAME [NAME ...] --logs DIR [options] [flags of generate_text.py]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for add in (_add_jobs, _add_slurm):
        add(parser)
    return parser


def _add_jobs(parser):
    group = parser.add_argument_group("what is swept")
    group.add_argument(
        "--architectures", nargs="+", required=True, metavar="NAME",
        help="names of idealized_runtime/architectures.py, or Hugging Face configurations: NAME/config.json, NAME.json",
    )  # fmt: skip
    group.add_argument(
        "--parallelisms", nargs="+", type=_parallelism, default=[(1, 1)], metavar="TxP",
        help="tensor x pipeline parallel size, such as 1x1 2x1 1x2; T x P processes each (default: 1x1)",
    )  # fmt: skip
    group.add_argument("--logs", type=Path, required=True, metavar="DIR", help="folder of the logs; where to go on")
    group.add_argument(
        "--executor", choices=_EXECUTORS, default="local",
        help="local: on this machine, one job after the other; slurm: submitted all at once and waited for; "
        "submitit-local: as slurm, but run here, to try it out (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="print the command of each job and stop")
    group.add_argument("--csv", type=Path, metavar="FILE", help="write the table there too, unrounded")
    group.add_argument("--json", type=Path, metavar="FILE", help="the same as JSON")


def _add_slurm(parser):
    group = parser.add_argument_group("Slurm (--executor slurm); DIR must lie on a file system that all nodes see")
    help_of = {
        "partition": "default: the cluster's",
        "time": "minutes; 90 s before the end a job is queued again and goes on with its log (default: %(default)s)",
        "max_requeues": "how often (default: %(default)s)",
        "nodes": "spread each job over so many nodes; one of fewer processes takes a node each (default: %(default)s)",
        "gpus_per_node": "GPUs that a node has; a job asks for one a process (default: ask for none)",
        "cpus_per_process": "also its threads, unless OMP_NUM_THREADS is set (default: %(default)s)",
    }
    for name, text in help_of.items():
        default = _SLURM_DEFAULTS[name]
        kind = {"type": str, "metavar": "NAME"} if name == "partition" else {"type": _positive_int, "metavar": "N"}
        group.add_argument("--" + name.replace("_", "-"), default=default, help=text, **kind)
    group.add_argument(
        "--share-nodes", action="store_true", help="let others run beside a job; without it nodes are asked for whole"
    )
    group.add_argument(
        "--sbatch", nargs="+", type=_sbatch_option, default=[], metavar="OPTION=VALUE",
        help="other options of sbatch, such as account=nlp constraint=a100",
    )  # fmt: skip


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


def _positive_int(text) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)
