"""What a run is asked to time, and how often; and what its log says of that. Imports neither torch nor Megatron."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idealized_runtime.architectures import Architecture
from idealized_runtime.records import BATCH_COLUMNS
from idealized_runtime.records.files import sha256_of
from megatron_lm.arguments import Sampling

if TYPE_CHECKING:
    from idealized_runtime.design.goal import Goal


@dataclass(frozen=True)
class Measurement:
    """What is timed, and how often, whatever the machine. Sizes in tokens."""

    architecture: Architecture
    dtype: str
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
    # None where settings and trials are chosen until the goal is reached.
    num_trials: int | None
    num_blocks: int | None
    tokenizer_type: str
    prompts_sha256: str
    goal: "Goal | None" = None

    @classmethod
    def from_arguments(cls, arguments) -> "Measurement":
        """Measurement that the driver's arguments ask for, once :func:`megatron_lm.arguments.resolve` has seen them."""
        same = ("architecture", "sampling", "seed", "num_warmup", "num_trials", "tokenizer_type", "goal")
        return cls(
            **{name: getattr(arguments, name) for name in same},
            dtype="float16" if arguments.fp16 else "bfloat16" if arguments.bf16 else "float32",
            engine=arguments.inference_engine,
            tensor_parallel_size=arguments.tensor_model_parallel_size,
            pipeline_parallel_size=arguments.pipeline_model_parallel_size,
            batchings=tuple(arguments.batchings),
            all_num_layers=tuple(arguments.num_layers_profiled),
            all_num_prompt_tokens=tuple(arguments.all_num_input_tokens),
            all_num_output_tokens=tuple(arguments.all_num_output_tokens),
            num_blocks=None if arguments.goal else min(arguments.num_blocks, arguments.num_trials),
            prompts_sha256=sha256_of(arguments.prompts_file),
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

    @property
    def varying_columns(self) -> list[str]:
        """What settings of the same tokens differ in: sizes of batch and micro-batches, and slices of the layers."""
        batchings = self._named_batchings()
        batches = [name for name in BATCH_COLUMNS if len({batching[name] for batching in batchings}) > 1]
        return batches + ["num_layers_profiled"] * (len(self.all_num_layers) > 1)

    def header(self) -> dict:
        """Fields of the log's header (see :mod:`idealized_runtime.records`) that do not depend on the machine."""
        slices = sorted(self.all_num_layers)
        return {
            "model": self.architecture.name,
            "engine": self.engine,
            "architecture": self.architecture.to_dict(),
            "num_layers_profiled": slices[0] if len(slices) == 1 else slices,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "dtype": self.dtype,
            "sampling": vars(self.sampling),
            "seed": self.seed,
            "prompt": {"tokenizer_type": self.tokenizer_type, "sha256": self.prompts_sha256},
            "num_warmup": self.num_warmup,
            "num_trials": self.num_trials,
            "sweep": {
                "all_num_prompt_tokens": self.all_num_prompt_tokens,
                "all_num_output_tokens": self.all_num_output_tokens,
                "batchings": self._named_batchings(),
                **({"target": self.goal.header()} if self.goal else {"num_blocks": self.num_blocks}),
            },
        }

    def _named_batchings(self) -> list[dict]:
        return [dict(zip(BATCH_COLUMNS, sizes, strict=True)) for sizes in self.batchings]
