"""The smallest model and campaign there are, and the logs that their jobs leave."""

import json

from makers.logs import write_log

SIZES = ("--all-num-input-tokens", "1", "4", "--all-num-output-tokens", "1", "3")

TINY = (*SIZES, "--num-warmup", "1", "--num-trials", "2", "--device", "cpu")

CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 256, "n_positions": 64,
          "activation_function": "gelu_new"}  # fmt: skip


def write_config(path, **change):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**CONFIG, **change}))
    return str(path.name)


def write_log_of(job, settings=None, *, finish=True, **change):
    """The log of a job that timed its settings, or other ones, in 1 s each."""
    header = {"hardware": "box", "software": {"megatron-core": "1", "torch": "2"}, **job.measurement.header(), **change}
    if settings is None:
        settings = [{**setting, "runtimes_s": [1.0]} for setting in job.measurement.settings()]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    return write_log(job.log, settings, header, finish=finish)
