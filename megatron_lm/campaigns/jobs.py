"""The jobs of a campaign: one model on one engine and parallelism, timed by one driver run into one log."""

import contextlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from idealized_runtime.architectures import Architecture, get_architecture, name_of_hf_config, weight_bytes
from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.records import LogFormatError, load_log, setting_key
from idealized_runtime.records.journal import differing_fields
from idealized_runtime.records.log import Log
from megatron_lm.arguments import parse_arguments
from megatron_lm.engines import DEFAULT_ENGINE
from megatron_lm.measurement import Measurement

DRIVER = ("idealized_runtime", "time")
# What a campaign of a GPU times where nothing else is said: 7 to 8 B, 13 to 14 B, 32 B, 70 B, experts; then two
# shapes that arXiv:2305.02440 timed in 2022.
GPU_MODELS = ("llama-3-8b", "qwen2.5-14b", "qwen2.5-32b", "llama-3-70b", "mixtral-8x7b", "gpt-j", "davinci")
# Flags that each job is given by the campaign, and what says so in its place.
_OWN_FLAGS = {
    "--architecture": "--model", "--hf-config": "--model", "--inference-engine": "--engines", "--log": "--logs",
    "--tensor-model-parallel-size": "--parallelisms", "--pipeline-model-parallel-size": "--parallelisms",
}  # fmt: skip
# Of the device's memory; the rest is for the cache, the activations of a long prompt and CUDA itself.
_MAX_WEIGHT_SHARE = 0.85
# Where a model does not fit, an eighth and a sixteenth of its layers are timed: trials on a GPU scatter so little
# that the line through small slices is good enough at full depth, and they take less time.
_SLICED_SHARE = 8


@dataclass(frozen=True)
class Job:
    """One driver run."""

    # Of the model: a name of the registry, or the path of a Hugging Face configuration (``*.json``).
    source: str
    # Of the logs of the campaign.
    folder: Path
    engine: str = DEFAULT_ENGINE
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    # The other flags of the driver: sizes, batches, trials.
    driver_flags: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Registry name; for ``NAME/config.json`` and ``NAME.json``, NAME."""
        return name_of_hf_config(Path(self.source)) if self.is_config else self.source

    @property
    def is_config(self) -> bool:
        """Whether the model is that of a Hugging Face configuration."""
        return self.source.endswith(".json")

    @property
    def name(self) -> str:
        """Model, engine and, of several processes, parallelism, such as ``gpt2-small sdpa 2x1``."""
        return " ".join((self.model, *self._stack))

    @property
    def num_processes(self) -> int:
        """Processes that the model is spread over, each on a device of its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def log(self) -> Path:
        """``FOLDER/sdpa-2x1/gpt2-small.jsonl``: a folder a software stack, a file a model, as notebooks read."""
        return self.folder / "-".join(self._stack).replace("+", "-") / f"{self.model}.jsonl"

    @property
    def _stack(self) -> tuple[str, ...]:
        parallelism = f"{self.tensor_parallel_size}x{self.pipeline_parallel_size}"
        return (self.engine,) if self.num_processes == 1 else (self.engine, parallelism)

    @property
    def output(self) -> Path:
        """That of the first node."""
        return self.output_of_node(0)

    def output_of_node(self, node: int) -> Path:
        """Beside the log: command, what it printed, exit status of one of several nodes; rank 0 may be on any."""
        return self.log.with_suffix(f".node{node}.out" if node else ".out")

    @property
    def arguments(self) -> list[str]:
        """Arguments of the driver."""
        return [
            "--hf-config" if self.is_config else "--architecture", self.source,
            "--tensor-model-parallel-size", str(self.tensor_parallel_size),
            "--pipeline-model-parallel-size", str(self.pipeline_parallel_size),
            "--inference-engine", self.engine, *self.driver_flags, "--log", str(self.log),
        ]  # fmt: skip

    @cached_property
    def measurement(self) -> Measurement:
        """What it is to time; the driver's own ValueError or OSError where it refuses the arguments."""
        return Measurement.from_arguments(parse_arguments(self.arguments, num_ranks=self.num_processes))

    def read(self) -> Log | None:
        """Its log as it is; None where there is none that can be read."""
        with contextlib.suppress(OSError, LogFormatError):
            return load_log(self.log)
        return None

    def pending_settings(self) -> list[dict]:
        """Every setting that its log does not hold yet; of a job with a target, those that it may choose from."""
        log = self.read()
        held = set() if log is None else log.completed
        return [setting for setting in self.measurement.settings() if setting_key(setting) not in held]

    def is_complete(self) -> bool:
        """Whether its log has its footer and all that is asked for, timed as is asked for, some of it without error."""
        log = self.read()
        if log is None or not log.is_complete or all("error" in setting for setting in log.records):
            return False
        asked = json.loads(json.dumps(self.measurement.header()))
        if differing_fields(log.header, {**log.header, **asked}):
            return False
        if self.measurement.goal is not None:
            # The target may have become a tighter one since.
            return [log.header, *log.kept["resume"]][-1].get("sweep") == asked["sweep"]
        return {setting_key(setting) for setting in self.measurement.settings()} <= log.completed


def plan_jobs(
    models: Iterable[str],
    engines: Iterable[str],
    parallelisms: Iterable[tuple[int, int]],
    folder,
    driver_flags: Iterable[str],
    accelerator: Accelerator | None = None,
) -> dict[Job, str]:
    """Every model on every engine and parallelism, each once, with what the driver has against it.

    The whole of the first model comes first, then one engine and parallelism after the other: where time ends early,
    there is one comparison of them and, on the first, as many models as can be.

    Parameters
    ----------
    models : iterable of str
        As the ``source`` of a job.
    parallelisms : iterable of (int, int)
        Tensor and pipeline parallel size.
    driver_flags : iterable of str
        For all jobs. Prompts whose longest generation the context of a model does not hold are left out for it.
    accelerator : Accelerator, optional
        A GPU: models that do not fit it are timed in two slices of their layers, unless the flags say how many.

    Returns
    -------
    dict of Job to str
        Why it is refused; empty where it is not.

    Raises
    ------
    ValueError
        A model is unknown, two have one name, or a flag is one that the campaign gives itself.
    """
    models, driver_flags = list(dict.fromkeys(models)), tuple(driver_flags)
    for flag, ours in _OWN_FLAGS.items():
        if has_flag(driver_flags, flag):
            raise ValueError(f"{flag} is given to each job by the campaign: use {ours}")
    _check_models(models)
    stacks = [(engine, *sizes) for engine in dict.fromkeys(engines) for sizes in dict.fromkeys(parallelisms)]
    pairs = [(model, stack) for model in models[:1] for stack in stacks]
    pairs += [(model, stack) for stack in stacks for model in models[1:]]
    plan = {}
    for model, stack in pairs:
        job = Job(model, Path(folder), *stack, driver_flags)
        try:
            job = _within_limits(job, accelerator)
            _ = job.measurement
        except (ValueError, OSError) as error:
            plan[job] = str(error)
        else:
            plan[job] = ""
    return plan


def has_flag(driver_flags: Iterable[str], *flags: str) -> bool:
    """Whether one of some flags is among those given, as ``--flag value`` or ``--flag=value``."""
    return any(word.split("=")[0] in flags for word in driver_flags)


def _check_models(models):
    by_name = {}
    for source in models:
        job = Job(source, Path())
        if not job.is_config:
            get_architecture(source)
        elif not Path(source).is_file():
            raise ValueError(f"--model {source}: no such file")
        if (other := by_name.setdefault(job.model, source)) != source:
            raise ValueError(f"--model {other} {source}: both are named {job.model}; rename one")


def _within_limits(job, accelerator) -> Job:
    """The same job, of the prompts that its model holds and the layers that the device holds."""
    asked, flags = job.measurement, job.driver_flags
    architecture = asked.architecture
    longest = architecture.max_position_embeddings - max(asked.all_num_output_tokens) + 1
    sizes = [size for size in asked.all_num_prompt_tokens if size <= longest]
    if not sizes:
        raise ValueError(
            f"{architecture.name}: no prompt size leaves room for {max(asked.all_num_output_tokens)} output tokens in "
            f"its context of {architecture.max_position_embeddings}"
        )
    if len(sizes) < len(asked.all_num_prompt_tokens):
        flags += ("--all-num-input-tokens", *map(str, sizes))
    if accelerator is not None and job.num_processes == 1 and not has_flag(flags, "--num-layers-profiled"):
        slices = slices_that_fit(architecture, accelerator.memory_bytes, dtype=asked.dtype)
        if slices != [architecture.num_layers]:
            flags += ("--num-layers-profiled", *map(str, slices))
    return replace(job, driver_flags=flags)


def slices_that_fit(architecture: Architecture, memory_bytes: float, *, dtype: str) -> list[int]:
    """Numbers of layers to time on a device of so much memory: all of them, or else two slices.

    Raises
    ------
    ValueError
        Not even two layers fit.
    """
    limit = _MAX_WEIGHT_SHARE * memory_bytes
    if weight_bytes(architecture, dtype=dtype) <= limit:
        return [architecture.num_layers]
    largest = architecture.num_layers // _SLICED_SHARE
    while largest >= 2:
        if weight_bytes(first_layers(architecture, largest), dtype=dtype) <= limit:
            return [largest // 2, largest]
        largest //= 2
    raise ValueError(f"{architecture.name}: not even two of its layers fit {memory_bytes / 1e9:.0f} GB in {dtype}")


def first_layers(architecture: Architecture, num_layers: int) -> Architecture:
    """A model of so many of the layers."""
    return replace(architecture, num_layers=num_layers, num_layers_profiled=None)


def launch_command(job: Job, *, num_nodes: int = 1, endpoint: str = "", run_id: str = "") -> list[str]:
    """Command line of a job on one of ``num_nodes`` nodes: plain Python for one process, torchrun for more.

    Several nodes run it at the same time; they meet at ``endpoint``, the ``host:port`` of one, and ``run_id`` tells
    this run from others.
    """
    launcher = []
    if job.num_processes > 1:
        # `python -m torch.distributed.run` is torchrun, of this environment whatever PATH says.
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        if num_nodes > 1:
            launcher[-1:] = ["--nnodes", str(num_nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint,
                             "--rdzv-id", run_id]  # fmt: skip
        launcher += ["--nproc-per-node", str(job.num_processes // num_nodes)]
    # Without the dashes torchrun takes the driver's --log for a shortened flag of its own.
    dashes = ["--"] if launcher else []
    return [sys.executable, *launcher, "-m", *dashes, *DRIVER, *job.arguments]
