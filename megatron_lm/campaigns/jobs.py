"""The jobs of a sweep: one architecture on one parallelism, timed by one driver run into one log."""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from idealized_runtime.architectures import get_architecture, name_of_hf_config
from idealized_runtime.measurements.published import ROOT

DRIVER = ROOT / "generate_text.py"
# Driver flags that the sweep gives to each job itself.
_OWN_FLAGS = (
    "--architecture", "--hf-config", "--log", "--tensor-model-parallel-size", "--pipeline-model-parallel-size",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One driver run of a sweep.

    Parameters
    ----------
    architecture : str
        A name of the registry, or the path of a Hugging Face configuration (``*.json``).
    tensor_parallel_size, pipeline_parallel_size : int
        Their product is the number of processes.
    folder : Path
        Of the logs of the sweep.
    driver_arguments : tuple of str
        Flags of generate_text.py that all jobs share: sizes, batches, trials.
    """

    architecture: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    folder: Path
    driver_arguments: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Registry name; for ``NAME/config.json`` and ``NAME.json``, NAME."""
        if not _is_config(self.architecture):
            return self.architecture
        return name_of_hf_config(Path(self.architecture))

    @property
    def name(self) -> str:
        """Model and parallelism, such as ``gpt2-small 2x1``."""
        return f"{self.model} {self.tensor_parallel_size}x{self.pipeline_parallel_size}"

    @property
    def num_processes(self) -> int:
        """Processes that the model is spread over, each on a device of its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def log(self) -> Path:
        """``FOLDER/tensor2-pipeline1/gpt2-small.jsonl``: a folder a parallelism, a file a model, as notebooks read."""
        parallelism = f"tensor{self.tensor_parallel_size}-pipeline{self.pipeline_parallel_size}"
        return self.folder / parallelism / f"{self.model}.jsonl"

    @property
    def output(self) -> Path:
        """Beside the log: the command, what it printed, its exit status."""
        return self.output_of_node(0)

    def output_of_node(self, node: int) -> Path:
        """The same of one of several nodes, counted from 0; rank 0, which prints, may be on any."""
        return self.log.with_suffix(f".node{node}.out" if node else ".out")

    @property
    def arguments(self) -> list[str]:
        """Arguments of generate_text.py."""
        source = "--hf-config" if _is_config(self.architecture) else "--architecture"
        return [
            source, self.architecture,
            "--tensor-model-parallel-size", str(self.tensor_parallel_size),
            "--pipeline-model-parallel-size", str(self.pipeline_parallel_size),
            *self.driver_arguments, "--log", str(self.log),
        ]  # fmt: skip


def plan_jobs(
    architectures: Iterable[str], parallelisms: Iterable[tuple[int, int]], folder, driver_arguments=()
) -> list[Job]:
    """Every architecture on every parallelism, each once.

    Parameters
    ----------
    architectures : iterable of str
        Registry names, or paths of Hugging Face configurations (``*.json``).
    parallelisms : iterable of (int, int)
        Tensor and pipeline parallel size.
    folder : path-like
        Of the logs.
    driver_arguments : iterable of str
        Flags of generate_text.py for all jobs.

    Raises
    ------
    ValueError
        An architecture is unknown, two have one name, or a flag is one that the sweep gives itself.
    """
    driver_arguments = tuple(driver_arguments)
    _check_driver_arguments(driver_arguments)
    parallelisms = list(dict.fromkeys(parallelisms))
    jobs = [
        Job(architecture, *parallelism, Path(folder), driver_arguments)
        for architecture in dict.fromkeys(architectures)
        for parallelism in parallelisms
    ]
    _check_architectures(jobs)
    return jobs


def launch_command(job: Job, *, num_nodes: int = 1, endpoint: str = "", run_id: str = "") -> list[str]:
    """Command line of a job on one node: plain Python for one process, torchrun for more.

    Parameters
    ----------
    job : Job
    num_nodes : int
        Nodes that run this command at the same time; divides the number of processes.
    endpoint, run_id : str
        With several nodes: ``host:port`` where they meet, on one of them, and what tells this run from others.
    """
    if job.num_processes == 1:
        launcher = []
    else:
        # `python -m torch.distributed.run` is torchrun, of this environment whatever PATH says.
        launcher = ["-m", "torch.distributed.run"]
        if num_nodes == 1:
            launcher += ["--standalone"]
        else:
            launcher += ["--nnodes", str(num_nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint,
                         "--rdzv-id", run_id]  # fmt: skip
        # Without the dashes torchrun takes the driver's --log for a shortened flag of its own.
        launcher += ["--nproc-per-node", str(job.num_processes // num_nodes), "--"]
    return [sys.executable, *launcher, str(DRIVER), *job.arguments]


def describe_command(command: list[str]) -> str:
    """The command as a shell takes it."""
    return shlex.join(command)


def _check_driver_arguments(driver_arguments):
    for flag in _OWN_FLAGS:
        if any(argument.split("=")[0] == flag for argument in driver_arguments):
            raise ValueError(f"{flag} is given to each job by the sweep: use --architectures, --parallelisms, --logs")


def _check_architectures(jobs):
    by_model = {}
    for job in jobs:
        if _is_config(job.architecture):
            if not Path(job.architecture).is_file():
                raise ValueError(f"--architectures {job.architecture}: no such file")
        else:
            get_architecture(job.architecture)
        other = by_model.setdefault(job.model, job.architecture)
        if other != job.architecture:
            raise ValueError(f"--architectures {other} {job.architecture}: both are named {job.model}; rename one")


def _is_config(architecture) -> bool:
    return architecture.endswith(".json")
