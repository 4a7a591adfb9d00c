"""What a sweep times, on what, and how often; and the header by which its log says so."""

from dataclasses import dataclass

import torch

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import BATCH_COLUMNS
from megatron_lm.arguments import Sampling
from megatron_lm.device import dtype_name
from megatron_lm.environment import describe_environment, describe_hardware, describe_software


@dataclass(frozen=True)
class Measurement:
    """What is timed, on what, and how often. Sizes in tokens."""

    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    engine: str
    sampling: Sampling
    seed: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    # (batch size, micro-batch size of prompts, micro-batch size of tokens), in sequences
    batchings: tuple[tuple[int, int, int], ...]
    all_num_layers: tuple[int, ...]
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
            tensor_parallel_size=arguments.tensor_model_parallel_size,
            pipeline_parallel_size=arguments.pipeline_model_parallel_size,
            batchings=tuple(arguments.batchings),
            all_num_layers=tuple(arguments.num_layers_profiled),
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
            {"num_prompt_tokens": p, "num_output_tokens": o, **batching, "num_layers_profiled": num_layers}
            for num_layers in self.all_num_layers
            for batching in self._named_batchings()
            for p in self.all_num_prompt_tokens
            for o in self.all_num_output_tokens
        ]

    def header(self) -> dict:
        """Header record of the log (see :mod:`idealized_runtime.records`)."""
        slices = sorted(self.all_num_layers)
        return {
            "model": self.architecture.name,
            "hardware": describe_hardware(self.device),
            "software": describe_software(self.device),
            "engine": self.engine,
            "architecture": self.architecture.to_dict(),
            "num_layers_profiled": slices[0] if len(slices) == 1 else slices,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "dtype": dtype_name(self.dtype),
            "num_threads": torch.get_num_threads() if self.device.type == "cpu" else None,
            "sampling": vars(self.sampling),
            "seed": self.seed,
            "prompt": {"tokenizer_type": self.tokenizer_type, "sha256": self.prompts_sha256},
            "num_warmup": self.num_warmup,
            "num_trials": self.num_trials,
            "sweep": {
                "all_num_prompt_tokens": self.all_num_prompt_tokens,
                "all_num_output_tokens": self.all_num_output_tokens,
                "batchings": self._named_batchings(),
            },
            "environment": describe_environment(self.device),
        }

    def _named_batchings(self) -> list[dict]:
        return [dict(zip(BATCH_COLUMNS, sizes, strict=True)) for sizes in self.batchings]
