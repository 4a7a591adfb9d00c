"""Logs that tests make up."""

import json

from idealized_runtime.architectures import Architecture

TOY = Architecture("toy", num_layers=4, hidden_size=64, num_attention_heads=4)


def write_log(path, *, batch_sizes=(1,), settings=None, **changes):
    """A JSON Lines log of ``TOY`` with runtime 0.1 p + 0.02 (o - 1) + 1 in every trial; or with given settings."""
    header = {
        "record": "header", "schema_version": 1, "model": "toy", "hardware": "box", "engine": "sdpa",
        "software": {"megatron-core": "0.16", "torch": "2"}, "dtype": "float32", "architecture": TOY.to_dict(),
        "num_layers_profiled": 4, "tensor_parallel_size": 1, "pipeline_parallel_size": 1, **changes,
    }  # fmt: skip
    settings = settings or [
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": b,
         "runtimes_s": [b * (0.1 * p + 0.02 * (o - 1) + 1)] * 2}
        for b in batch_sizes for p in (1, 2, 4) for o in (1, 2)
    ]  # fmt: skip
    records = [
        header,
        *({"record": "setting", **setting} for setting in settings),
        {"record": "footer", "num_settings": len(settings)},
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
