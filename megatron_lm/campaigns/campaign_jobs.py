"""What a campaign times: a model on an engine is a job, one driver run into one log."""

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from idealized_runtime.architectures import Architecture, weight_bytes
from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.hardware.rates import device_rates
from idealized_runtime.hardware.roofline import Roofline
from idealized_runtime.records import LogFormatError, load_log, setting_key
from megatron_lm.arguments import parse_arguments
from megatron_lm.campaigns.execution import first_error
from megatron_lm.campaigns.jobs import Job

# 7 to 8 B, 13 to 14 B, 32 B, 70 B, experts; then two shapes that arXiv:2305.02440 timed in 2022.
MODELS = ("llama-3-8b", "qwen2.5-14b", "qwen2.5-32b", "llama-3-70b", "mixtral-8x7b", "gpt-j", "davinci")
ENGINES = ("sdpa+graph", "sdpa", "eager")
# Of the device's memory; the rest is for the cache, the activations of a long prompt and CUDA itself.
_MAX_WEIGHT_SHARE = 0.85
# Where a model does not fit, an eighth and a sixteenth of its layers are timed: trials on a GPU scatter so little
# that the line through small slices is good enough at full depth, and they take less of the budget.
_SLICED_SHARE = 8
# For estimates, roughly: to start a process and CUDA; to make weights; how far engines are from their floors; seconds
# to launch a layer's kernels.
_START_S, _BUILD_BYTES_PER_S, _OVER_FLOOR = 12.0, 3e10, 1.4
_LAUNCH_S = {"eager": 4e-4, "megatron": 4e-4, "sdpa": 1.5e-4, "sdpa+graph": 1e-5}


@dataclass(frozen=True)
class Settings:
    """Settings that every job of a campaign times, and how often.

    Parameters
    ----------
    all_num_prompt_tokens, all_num_output_tokens : tuple of int
    num_warmup, num_trials : int
    device : {"auto", "cpu", "cuda"}
    dtype : {"bfloat16", "float32"}
    """

    all_num_prompt_tokens: tuple[int, ...] = (1, 128, 512, 1024, 2048, 4096)
    all_num_output_tokens: tuple[int, ...] = (1, 2, 16, 64)
    num_warmup: int = 3
    num_trials: int = 10
    device: str = "cuda"
    dtype: str = "bfloat16"

    def prompt_sizes(self, architecture: Architecture) -> list[int]:
        """Prompt sizes whose longest generation the context of a model holds.

        Raises
        ------
        ValueError
            There is none.
        """
        longest = architecture.max_position_embeddings - max(self.all_num_output_tokens) + 1
        sizes = [size for size in self.all_num_prompt_tokens if size <= longest]
        if not sizes:
            raise ValueError(
                f"{architecture.name}: no prompt size leaves room for {max(self.all_num_output_tokens)} output tokens "
                f"in its context of {architecture.max_position_embeddings}"
            )
        return sizes


@dataclass(frozen=True)
class CampaignJob(Job):
    """A model on an engine.

    Parameters
    ----------
    engine : str
        A value of ``--inference-engine``.
    accelerator : Accelerator
        What the estimate of its time is for.
    """

    engine: str = ""
    accelerator: Accelerator | None = None

    @property
    def name(self) -> str:
        """Model and engine, such as ``llama-3-8b sdpa``."""
        return f"{self.model} {self.engine}"

    @property
    def log(self) -> Path:
        """``FOLDER/sdpa-graph/llama-3-8b.jsonl``: a folder an engine, a file a model, as notebooks read."""
        return self.folder / self.engine.replace("+", "-") / f"{self.model}.jsonl"

    @cached_property
    def parsed(self):
        """The driver's arguments, parsed.

        Raises
        ------
        ValueError
            The driver refuses them.
        """
        return parse_quietly(self.arguments)

    def pending_settings(self) -> list[tuple[int, int, int]]:
        """Layers, prompt and output tokens of every setting that its log does not hold yet."""
        done = _settings_of_log(self.log)
        settings = [
            {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": 1, "micro_batch_size": 1,
             "token_micro_batch_size": 1, "num_layers_profiled": num_layers}
            for num_layers in self.parsed.num_layers_profiled
            for p in self.parsed.all_num_input_tokens
            for o in self.parsed.all_num_output_tokens
        ]  # fmt: skip
        columns = ("num_layers_profiled", "num_prompt_tokens", "num_output_tokens")
        return [tuple(setting[name] for name in columns) for setting in settings if setting_key(setting) not in done]

    def is_complete(self) -> bool:
        """Whether its log has its footer and every setting, timed as often as asked for."""
        try:
            log = load_log(self.log)
        except (OSError, LogFormatError):
            return False
        asked = self.parsed.num_warmup, self.parsed.num_trials
        timed = log.header.get("num_warmup"), log.header.get("num_trials")
        return log.is_complete and asked == timed and not self.pending_settings()

    def estimated_s(self) -> float:
        """About how long the settings that are left will take, by the floors of the accelerator."""
        pending = self.pending_settings()
        dtype = "bfloat16" if self.parsed.bf16 else "float32"
        num_runs = self.parsed.num_warmup + self.parsed.num_trials
        seconds = _START_S
        for num_layers in {setting[0] for setting in pending}:
            part = _first_layers(self.parsed.architecture, num_layers)
            seconds += weight_bytes(part, dtype=dtype) / _BUILD_BYTES_PER_S
            p, o = np.array([setting[1:] for setting in pending if setting[0] == num_layers]).T
            seconds += num_runs * _runtimes_s(part, p, o, self.accelerator, self.engine, dtype).sum()
        return seconds


def plan_campaign(
    models: Iterable[str], engines: Iterable[str], settings: Settings, folder, accelerator: Accelerator
) -> tuple[list[CampaignJob], dict[str, str]]:
    """Every model on every engine, and what is refused.

    All engines of the first model come first, then one engine after the other: where the budget ends early, there is
    one comparison of engines and, on the first of them, as many models as can be.

    Parameters
    ----------
    models : iterable of str
        Registry names, or paths of Hugging Face configurations (``*.json``).
    engines : iterable of str
    settings : Settings
    folder : path-like
        Of the logs.
    accelerator : Accelerator
        Whose memory decides what is timed in slices of the layers.

    Returns
    -------
    jobs : list of CampaignJob
    refused : dict of str to str
        What the driver has against a model or a job, by its name.
    """
    jobs, refused, engines = [], {}, list(dict.fromkeys(engines))
    for model in dict.fromkeys(models):
        try:
            shared = _driver_arguments(model, settings, accelerator)
        except ValueError as error:
            refused[model] = str(error)
            continue
        for engine in engines:
            arguments = (*shared, "--inference-engine", engine)
            job = CampaignJob(model, 1, 1, Path(folder), arguments, engine, accelerator)
            try:
                _ = job.parsed
            except ValueError as error:
                refused[job.name] = str(error)
            else:
                jobs.append(job)
    rank = {engine: place for place, engine in enumerate(engines)}
    first = jobs[0].model if jobs else None
    return sorted(jobs, key=lambda job: (job.model != first, rank[job.engine])), refused


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
        if weight_bytes(_first_layers(architecture, largest), dtype=dtype) <= limit:
            return [largest // 2, largest]
        largest //= 2
    raise ValueError(f"{architecture.name}: not even two of its layers fit {memory_bytes / 1e9:.0f} GB in {dtype}")


def parse_quietly(arguments: list[str]):
    """Arguments of the driver as it parses them.

    Raises
    ------
    ValueError
        It refuses them; the message is the driver's.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return parse_arguments(arguments)
    except SystemExit as exit_:
        raise ValueError(first_error(stderr.getvalue()) or stderr.getvalue()) from exit_


def _driver_arguments(model, settings: Settings, accelerator) -> tuple[str, ...]:
    """Arguments that a model's jobs share, whatever the engine."""
    sizes = ("--all-num-input-tokens", "1", "--all-num-output-tokens", "1")
    architecture = parse_quietly(Job(model, 1, 1, Path(), sizes).arguments).architecture
    slices = slices_that_fit(architecture, accelerator.memory_bytes, dtype=settings.dtype)
    return (
        "--all-num-input-tokens", *map(str, settings.prompt_sizes(architecture)),
        "--all-num-output-tokens", *map(str, settings.all_num_output_tokens),
        "--num-layers-profiled", *map(str, slices),
        "--num-warmup", str(settings.num_warmup), "--num-trials", str(settings.num_trials),
        "--device", settings.device, *(["--bf16"] if settings.dtype == "bfloat16" else []),
    )  # fmt: skip


def _settings_of_log(path) -> set[tuple]:
    try:
        return load_log(path).keys()
    except (OSError, LogFormatError):
        return set()


def _first_layers(architecture, num_layers) -> Architecture:
    return replace(architecture, num_layers=num_layers, num_layers_profiled=None)


def _runtimes_s(architecture, p, o, accelerator, engine, dtype) -> np.ndarray:
    """About how long each of some queries will take."""
    # Of the cache, which depends on it, an estimate knows nothing.
    rates = device_rates(None, hardware=accelerator.name, dtype=dtype, is_cuda=True)
    roofline = Roofline(architecture, rates, dtype)
    launch_s = architecture.num_layers * _LAUNCH_S.get(engine, max(_LAUNCH_S.values()))
    prompt_s = np.maximum(_OVER_FLOOR * roofline.prompt_encoding_s(p), launch_s)
    return prompt_s + (o - 1) * np.maximum(_OVER_FLOOR * roofline.output_token_s(p + o), launch_s)
