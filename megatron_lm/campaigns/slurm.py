"""Submits the jobs of a campaign to Slurm with submitit, waits for them, and finds those of an earlier call again."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable

from megatron_lm.campaigns.execution import run_command
from megatron_lm.campaigns.jobs import Job, launch_command
from megatron_lm.campaigns.outcomes import Outcome, first_error, outcome_of

# Between two looks at the queue, seconds: a controller serves all users of a cluster.
_POLL_S = 5.0
# A network file system shows a file of another node late.
_RESULT_TIMEOUT_S = 15.0
# Ports for the rendezvous of jobs that run beside each other on a node: one a job id.
_FIRST_PORT, _NUM_PORTS = 20000, 10000
# Reasons of a waiting job that no waiting cures.
_HOPELESS = {"BadConstraints", "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"}
# Submission scripts, pickles and the output of the task around each job.
_FOLDER = ".submitit"


@dataclass(frozen=True)
class Allocation:
    """What each job of a campaign asks Slurm for; the flags of the command say more."""

    partition: str | None = None
    # Minutes until a job is stopped; it then is queued again, this often, and goes on with its log.
    time_min: int = 60
    max_requeues: int = 3
    # A job of fewer processes takes a node for each.
    num_nodes: int = 1
    # A job asks for one a process; for none where it is not given.
    gpus_per_node: int | None = None
    # Also the number of threads of a process, unless ``OMP_NUM_THREADS`` is set.
    cpus_per_process: int = 1
    # By default a job has its nodes for itself: a neighbour changes what is timed.
    shares_nodes: bool = False
    # Other options of sbatch by name, such as ``{"account": "nlp"}``.
    sbatch: dict[str, str] = field(default_factory=dict)

    def nodes_of(self, job: Job) -> int:
        """Number of nodes of a job; a ValueError where its processes are more than the GPUs, or not spread evenly."""
        num_nodes = min(self.num_nodes, job.num_processes)
        if job.num_processes % num_nodes:
            raise ValueError(
                f"{job.name}: {job.num_processes} processes cannot be spread evenly over --nodes {self.num_nodes}; "
                "give a number that divides them"
            )
        num_processes = job.num_processes // num_nodes
        if self.gpus_per_node is not None and num_processes > self.gpus_per_node:
            raise ValueError(
                f"{job.name}: {num_processes} processes on a node of --gpus-per-node {self.gpus_per_node}; "
                f"give --nodes {-(-job.num_processes // self.gpus_per_node)} or more"
            )
        return num_nodes


class Task(Checkpointable):
    """What each node of a submitted job runs: its share of the job. A job queued again goes on with its log."""

    def __init__(self, job: Job, num_nodes: int, num_threads: int):
        self.job, self.num_nodes, self.num_threads = job, num_nodes, num_threads

    def __call__(self) -> int:
        environment = submitit.JobEnvironment()
        meeting = {}
        if self.num_nodes > 1:
            port = _FIRST_PORT + int(environment.raw_job_id) % _NUM_PORTS
            meeting = {"endpoint": f"{environment.hostnames[0]}:{port}", "run_id": environment.raw_job_id}
        os.environ.setdefault("OMP_NUM_THREADS", str(self.num_threads))
        command = launch_command(self.job, num_nodes=self.num_nodes, **meeting)
        return run_command(command, self.job.output_of_node(environment.node))


def run_on_slurm(jobs: list[Job], announce: Callable, allocation: Allocation) -> Iterator[tuple[Job, Outcome]]:
    """Submit every job, then give each as it ends; what an earlier call left in the queue is not submitted again.

    Raises
    ------
    ValueError
        There is no Slurm here, or it does not answer.
    """
    queue = _queue()
    waiting = {}
    try:
        for job in jobs:
            known = "submitted"
            if slurm_name(job) in queue:
                known, (job_id, _) = "in the queue already", queue[slurm_name(job)]
                submitted = submitit.SlurmJob(_folder_of(job), job_id, range(allocation.nodes_of(job)))
            else:
                try:
                    submitted = _submit(job, allocation)
                except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
                    lines = [line for line in str(error).splitlines() if "error:" in line]
                    yield job, Outcome("failed", f"not submitted: {(lines or [str(error)])[0]}")
                    continue
            waiting[job] = submitted
            announce(f"{job.name}: {known}, Slurm job {submitted.job_id}, output in {job.output}")
        yield from _wait(waiting)
    except KeyboardInterrupt:
        if waiting:
            ids = " ".join(submitted.job_id for submitted in waiting.values())
            announce(
                f"Slurm goes on with its jobs: `scancel {ids}` cancels them, the same command waits for them again"
            )
        raise


def slurm_name(job: Job) -> str:
    """Name of a job in the queue: it tells the log, so that no two jobs write to one."""
    digest = hashlib.sha256(str(job.log.resolve()).encode()).hexdigest()[:8]
    # In a script of sbatch a blank would end it.
    return f"{re.sub(r'[^a-zA-Z0-9.+_-]', '-', job.name)}-{digest}"


def _folder_of(job):
    return job.folder.resolve() / _FOLDER / "%j"


def _submit(job, allocation) -> submitit.SlurmJob:
    num_nodes = allocation.nodes_of(job)
    num_processes = job.num_processes // num_nodes
    num_cpus = num_processes * allocation.cpus_per_process
    executor = submitit.AutoExecutor(_folder_of(job), cluster="slurm", slurm_max_num_timeout=allocation.max_requeues)
    parameters = {
        "name": slurm_name(job),
        "timeout_min": allocation.time_min,
        "nodes": num_nodes,
        "tasks_per_node": 1,
        "cpus_per_task": num_cpus,
        "stderr_to_stdout": True,
        # srun reads the number of CPUs from sbatch only up to Slurm 22.05.
        "slurm_srun_args": ["--cpus-per-task", str(num_cpus)],
        "slurm_additional_parameters": {"requeue": True, **allocation.sbatch},
    }
    if allocation.gpus_per_node is not None:
        parameters["gpus_per_node"] = num_processes
    if allocation.partition is not None:
        parameters["slurm_partition"] = allocation.partition
    if not allocation.shares_nodes:
        parameters["slurm_exclusive"] = True
    executor.update_parameters(**parameters)
    return executor.submit(Task(job, num_nodes, allocation.cpus_per_process))


def _queue() -> dict[str, tuple[str, str]]:
    """By name, job id and reason of what this user has in the queue, running or not."""
    if shutil.which("sbatch") is None:
        raise ValueError(f"--executor slurm needs sbatch, which is not on the PATH of {os.uname().nodename}")
    # The name comes last: other jobs of this user may have a bar in theirs, or a line's end.
    command = ["squeue", "--me", "--noheader", "--format", "%A|%r|%j"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise ValueError(f"Slurm does not answer: {(answer.stderr.strip() or 'squeue failed').splitlines()[0]}")
    rows = (line.split("|", 2) for line in answer.stdout.split("\n"))
    return {row[2]: (row[0], row[1]) for row in rows if len(row) == 3}


def _wait(waiting) -> Iterator[tuple[Job, Outcome]]:
    # The queue, and not Slurm's accounting, which many small clusters do without.
    while waiting:
        time.sleep(_POLL_S)
        try:
            queue = _queue()
        except ValueError as error:
            print(f"{error}; still waiting", file=sys.stderr)
            continue
        for job, submitted in list(waiting.items()):
            _, reason = queue.get(slurm_name(job), (None, None))
            if reason is None or reason in _HOPELESS:
                del waiting[job]
                yield job, _outcome(job, submitted) if reason is None else _give_up(submitted, reason)


def _give_up(submitted, reason) -> Outcome:
    submitted.cancel(check=False)
    return Outcome(
        "failed",
        f"Slurm cannot start job {submitted.job_id} ({reason}), which was cancelled: no node has what it asks for; "
        "compare --nodes, --cpus-per-process, --gpus-per-node and --time with `sinfo --Node --long`",
    )


def _outcome(job, submitted) -> Outcome:
    """Outcome of a job that is over; submitit would wait for ever for one that left no result."""
    paths = submitted.task(0).paths
    deadline_s = time.monotonic() + _RESULT_TIMEOUT_S
    while not paths.result_pickle.exists() and time.monotonic() < deadline_s:
        time.sleep(0.5)
    if not paths.result_pickle.exists():
        error = "ended without a result: cancelled, out of time too often, or lost with its node"
    elif (exception := submitted.task(0).exception()) is None:
        return outcome_of(job, submitted.task(0).result(), submitted.num_tasks)
    else:
        error = f"failed around the driver: {first_error(str(exception))}"
    return Outcome("failed", f"job {submitted.job_id} {error}; see {paths.stdout}")
