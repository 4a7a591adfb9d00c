"""A sweep over prompt and output sizes: each setting timed, logged and printed as it is done."""

import sys
from dataclasses import dataclass

import torch
from tqdm import tqdm

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import LogWriter, runtime_sentence
from megatron_lm import device as devices
from megatron_lm.arguments import Sampling
from megatron_lm.engines import ENGINES
from megatron_lm.environment import describe_environment, describe_hardware, describe_software
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.timing import time_trials

# One token is read weights, a prompt is arithmetic: about this many prompt tokens take as long as one output token.
_PROMPT_TOKENS_PER_OUTPUT_TOKEN = 32


@dataclass(frozen=True)
class Measurement:
    """What is timed, on what, and how often. Sizes in tokens."""

    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    engine: str
    sampling: Sampling
    seed: int
    batch_size: int
    all_num_prompt_tokens: tuple[int, ...]
    all_num_output_tokens: tuple[int, ...]
    num_warmup: int
    num_trials: int
    tokenizer_type: str
    prompts_sha256: str

    @classmethod
    def from_arguments(cls, arguments, device, dtype, prompts_sha256) -> "Measurement":
        """Measurement that the driver's arguments ask for."""
        return cls(
            architecture=arguments.architecture,
            device=device,
            dtype=dtype,
            engine=arguments.inference_engine,
            sampling=arguments.sampling,
            seed=arguments.seed,
            batch_size=arguments.micro_batch_size,
            all_num_prompt_tokens=tuple(arguments.all_num_input_tokens),
            all_num_output_tokens=tuple(arguments.all_num_output_tokens),
            num_warmup=arguments.num_warmup,
            num_trials=arguments.num_trials,
            tokenizer_type=arguments.tokenizer_type,
            prompts_sha256=prompts_sha256,
        )

    def settings(self) -> list[dict]:
        """Every setting of the sweep, as the keys of its record."""
        return [
            {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": self.batch_size}
            for p in self.all_num_prompt_tokens
            for o in self.all_num_output_tokens
        ]

    def header(self) -> dict:
        """Header record of the log (see :mod:`idealized_runtime.records`)."""
        return {
            "model": self.architecture.name,
            "hardware": describe_hardware(self.device),
            "software": describe_software(self.device),
            "engine": self.engine,
            "architecture": self.architecture.to_dict(),
            "num_layers_profiled": self.architecture.num_layers,
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
            "dtype": str(self.dtype).removeprefix("torch."),
            "num_threads": torch.get_num_threads() if self.device.type == "cpu" else None,
            "sampling": vars(self.sampling),
            "seed": self.seed,
            "prompt": {"tokenizer_type": self.tokenizer_type, "sha256": self.prompts_sha256},
            "num_warmup": self.num_warmup,
            "num_trials": self.num_trials,
            "sweep": {
                "all_num_prompt_tokens": self.all_num_prompt_tokens,
                "all_num_output_tokens": self.all_num_output_tokens,
                "batch_size": self.batch_size,
            },
            "environment": describe_environment(self.device),
        }


def run_sweep(measurement: Measurement, token_ids: list[int], *, log_path) -> int:
    """Time every setting that the log does not hold yet.

    Parameters
    ----------
    measurement : Measurement
    token_ids : list of int
        At least as many as the longest prompt that fits the model.
    log_path : path-like or None

    Returns
    -------
    int
        Exit status: 0, or 1 where no setting could be timed.

    Raises
    ------
    LogMismatchError
        The log holds another measurement; nothing was timed.
    """
    with LogWriter(log_path, measurement.header()) as log:
        pending = _pending_settings(measurement, log)
        if pending:
            engine = _build_engine(measurement)
            _time_settings(measurement, engine, token_ids, pending, log)
        log.finish()
        return 1 if log.num_failed and log.num_failed == len(log.completed) else 0


def _pending_settings(measurement, log) -> list[dict]:
    settings = measurement.settings()
    pending = [setting for setting in settings if tuple(setting.values()) not in log.completed]
    if len(pending) < len(settings):
        done = ", ".join(_sizes(setting) for setting in settings if setting not in pending)
        left = f"{len(pending)} left" if pending else "nothing left to do"
        print(
            f"{log.path}: skipping {len(settings) - len(pending)} settings it holds ({done}); {left}", file=sys.stderr
        )
    return pending


def _build_engine(measurement):
    architecture = measurement.architecture
    try:
        model = build_model(architecture, device=measurement.device, dtype=measurement.dtype, seed=measurement.seed)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        num_bytes = architecture.num_params * measurement.dtype.itemsize
        raise ValueError(
            f"{architecture.name} does not fit the memory of {describe_hardware(measurement.device)}: its weights "
            f"take {num_bytes / 2**30:.1f} GiB in {measurement.dtype}; use a smaller model, --bf16 or another device"
        ) from error
    return ENGINES[measurement.engine](model, architecture)


def _time_settings(measurement, engine, token_ids, pending, log):
    weights = [_weight(setting, measurement) for setting in pending]
    bar_format = "{desc}{percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"
    with tqdm(total=sum(weights), desc=measurement.architecture.name, bar_format=bar_format) as progress:
        for setting, weight in zip(pending, weights, strict=True):
            progress.set_description(f"{measurement.architecture.name} {_sizes(setting)}")
            num_runs = measurement.num_warmup + measurement.num_trials
            start = progress.n
            record = _time_setting(
                measurement, engine, token_ids, setting, lambda step=weight / num_runs: progress.update(step)
            )
            log.write_setting(record)
            if "error" in record:
                # The trials it did not run are not left to do.
                progress.total -= weight - (progress.n - start)
                progress.write(f"{_sizes(setting)} failed: {record['error']['message']}", file=sys.stderr)
            else:
                progress.write(runtime_sentence(record), file=sys.stdout)
                sys.stdout.flush()


def _time_setting(measurement, engine, token_ids, setting, on_trial) -> dict:
    """Record of one setting: its trials, or its error where it does not fit."""
    num_positions = setting["num_prompt_tokens"] + setting["num_output_tokens"] - 1
    limit = measurement.architecture.max_position_embeddings
    if num_positions > limit:
        message = f"needs {num_positions} positions; the model has {limit}"
        return {**setting, "error": {"type": "ContextLengthError", "message": message}}
    try:
        return {**setting, **_run_trials(measurement, engine, token_ids, setting, on_trial)}
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        message = (str(error) or "out of memory").splitlines()[0]
        failed = {**setting, "error": {"type": "OutOfMemoryError", "message": message}}
    # Only here, with the error and the tensors it holds gone, does freeing give anything back.
    devices.release_memory(measurement.device)
    return failed


def _run_trials(measurement, engine, token_ids, setting, on_trial) -> dict:
    num_prompt_tokens, num_output_tokens = setting["num_prompt_tokens"], setting["num_output_tokens"]
    prompt = torch.tensor(token_ids[:num_prompt_tokens], dtype=torch.int64, device=measurement.device)
    prompts = prompt.expand(setting["batch_size"], -1).contiguous()
    generator = torch.Generator(measurement.device)

    def generate_once():
        engine.reset(setting["batch_size"], num_prompt_tokens + num_output_tokens - 1)
        generator.manual_seed(measurement.seed)
        return generate(engine, prompts, num_output_tokens, measurement.sampling, generator=generator)

    warmups_s, runtimes_s, outputs = time_trials(
        generate_once,
        device=measurement.device,
        num_warmup=measurement.num_warmup,
        num_trials=measurement.num_trials,
        on_trial=on_trial,
    )
    return {"warmups_s": warmups_s, "runtimes_s": runtimes_s, "output_token_ids": outputs[0].tolist()}


def _weight(setting, measurement) -> float:
    """Rough time of a setting, in arbitrary units, for the time left to be worth something."""
    tokens = setting["num_prompt_tokens"] + _PROMPT_TOKENS_PER_OUTPUT_TOKEN * setting["num_output_tokens"]
    return tokens * (measurement.num_warmup + measurement.num_trials)


def _sizes(setting) -> str:
    return f"p={setting['num_prompt_tokens']} o={setting['num_output_tokens']}"
