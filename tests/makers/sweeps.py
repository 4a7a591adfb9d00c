"""The smallest model and sweep there are."""

import json

SIZES = ("--all-num-input-tokens", "1", "4", "--all-num-output-tokens", "1", "3")

TINY = (*SIZES, "--num-warmup", "1", "--num-trials", "2", "--device", "cpu")

CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 256, "n_positions": 64,
          "activation_function": "gelu_new"}  # fmt: skip


def write_config(path, behaviour="succeed", **change):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**CONFIG, "behaviour": behaviour, **change}))
    return str(path.name)
