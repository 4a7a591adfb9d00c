"""Process groups of Megatron's tensor and pipeline parallelism."""

import os

import torch
from megatron.core import parallel_state


def check_parallelism(tensor_parallel_size: int, pipeline_parallel_size: int):
    """Refuse what this many processes cannot run.

    Raises
    ------
    ValueError
        The product of the sizes is not the number of processes.
    """
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if tensor_parallel_size * pipeline_parallel_size != 1 or num_processes != 1:
        raise ValueError(
            f"--tensor-model-parallel-size {tensor_parallel_size} x --pipeline-model-parallel-size "
            f"{pipeline_parallel_size} on {num_processes} process(es): this release times one process on one device; "
            "allowed: 1 x 1, or a model that fits one device"
        )


def start_process_groups(device: torch.device):
    """Set up the groups of a single process, which Megatron's layers look up as they are built."""
    if torch.distributed.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()


def stop_process_groups():
    """Undo :func:`start_process_groups`."""
    if torch.distributed.is_initialized():
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
