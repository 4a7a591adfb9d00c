"""Timing logs that tests make up."""

from idealized_runtime.architectures import get_architecture
from idealized_runtime.records import (
    Journal,
)

ARCHITECTURE = get_architecture("gpt2-small")

HEADER = {
    "model": "gpt2-small",
    "hardware": "Some CPU, 2 cores",
    "software": {"megatron-core": "0.16.1", "torch": "2.13.0"},
    "engine": "sdpa",
    "architecture": ARCHITECTURE.to_dict(),
    "num_layers_profiled": 12,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "dtype": "float32",
    "sweep": {"all_num_prompt_tokens": [1, 16], "all_num_output_tokens": [1, 2]},
    "environment": {"cpu_model": "Some CPU", "load_average": [0.5]},
}


def make_setting(num_prompt_tokens, num_output_tokens, runtimes_s=(0.1, 0.2, 0.4), **change):
    sizes = {"num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens, "batch_size": 1}
    return {**sizes, "warmups_s": [9.0], "runtimes_s": list(runtimes_s), **change}


def make_failed(num_prompt_tokens, num_output_tokens):
    setting = make_setting(num_prompt_tokens, num_output_tokens, error={"type": "OutOfMemoryError", "message": "full"})
    del setting["runtimes_s"]
    return setting


SETTINGS = [make_setting(1, 1), make_setting(1, 2, [0.25]), make_setting(16, 1, [0.5, 0.75])]


def write_log(path, settings=SETTINGS, header=HEADER, *, finish=True):
    with Journal(path, header) as journal:
        for setting in settings:
            journal.append("setting", setting)
        if finish:
            journal.finish()
    return path
