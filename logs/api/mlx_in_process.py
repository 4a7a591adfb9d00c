"""Make a random Llama for mlx-lm, and time it without a server: the floor below what its API takes.

Runs in an environment with mlx-lm (and nothing of this project):

    python logs/api/mlx_in_process.py make FOLDER
    python logs/api/mlx_in_process.py time FOLDER --log logs/api/NAME.jsonl --hardware NAME
"""

import argparse
import json
import os
import random
import string
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter

# 4 M parameters: small enough to be made anywhere, large enough that the arithmetic outweighs the server's work.
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 704,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
DEFINITIONS = "in-process"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="write config, weights and tokenizer")
    make.set_defaults(run=make_model)
    make.add_argument("folder", type=Path)
    timed = commands.add_parser("time", help="time generation in this process")
    timed.set_defaults(run=time_model)
    timed.add_argument("folder", type=Path)
    timed.add_argument("--log", type=Path, required=True)
    timed.add_argument("--hardware", required=True)
    timed.add_argument("--all-num-input-tokens", type=int, nargs="+", required=True)
    timed.add_argument("--all-num-output-tokens", type=int, nargs="+", required=True)
    timed.add_argument("--num-trials", type=int, default=10)
    timed.add_argument("--num-warmup", type=int, default=2)
    timed.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.run(arguments)


def make_model(arguments):
    """Random weights of standard deviation 0.02, and a tokenizer of one token a word of four letters."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(CONFIG))
    weights = {
        name: mx.ones(value.shape) if "norm" in name else 0.02 * mx.random.normal(value.shape)
        for name, value in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    write_tokenizer(folder)


def write_tokenizer(folder):
    """``tokenizer.json`` and its configuration: words of four letters, of which every text has as many tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    generator = random.Random(0)
    words = {"</s>": 0, "<unk>": 1}
    while len(words) < CONFIG["vocab_size"]:
        words.setdefault("".join(generator.choices(string.ascii_lowercase, k=4)), len(words))
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))


def time_model(arguments):
    """Time all settings in shuffled blocks, each trial with tokens of its own."""
    from mlx_lm import load

    model, _ = load(str(arguments.folder))
    settings = [(p, o) for p in arguments.all_num_input_tokens for o in arguments.all_num_output_tokens]
    generator = random.Random(arguments.seed)
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    with arguments.log.open("x", encoding="utf-8") as file:
        write(file, header(arguments))
        for block in range(-arguments.num_warmup, arguments.num_trials):
            for p, o in generator.sample(settings, len(settings)):
                number = block if block >= 0 else block + arguments.num_warmup
                key = {"num_prompt_tokens": p, "num_output_tokens": o, "trial": number, "is_warmup": block < 0}
                write(file, {"record": "trial", **key, "block": max(block, 0), **time_once(model, p, o, generator)})
        num_trials = len(settings) * (arguments.num_warmup + arguments.num_trials)
        write(file, {"record": "footer", "num_trials": num_trials, "finished_at": now()})


def time_once(model, num_prompt_tokens, num_output_tokens, generator) -> dict:
    """Seconds from the prompt's tokens to each output token, greedy, no end of text."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    tokens = mx.array([generator.randrange(2, CONFIG["vocab_size"]) for _ in range(num_prompt_tokens)])
    mx.eval(tokens)
    sent_at, start_s, times_s = now(), perf_counter(), []
    for _ in islice(generate_step(tokens, model, max_tokens=num_output_tokens), num_output_tokens):
        times_s.append(perf_counter() - start_s)
    usage = {"prompt_tokens": num_prompt_tokens, "completion_tokens": len(times_s)}
    return {
        "sent_at": sent_at,
        "time_to_first_token_s": times_s[0],
        "runtime_s": times_s[-1],
        "chunk_times_s": times_s,
        "usage": usage,
        "definitions": DEFINITIONS,
    }


def header(arguments) -> dict:
    return {
        "record": "header",
        "schema_version": 1,
        "kind": "api",
        "model": arguments.folder.name,
        "hardware": arguments.hardware,
        "software": f"mlx-lm {version('mlx-lm')}, mlx {version('mlx')}, in process",
        "base_url": "in-process",
        "endpoint": "mlx_lm.generate.generate_step",
        "sweep": {
            "all_num_prompt_tokens": arguments.all_num_input_tokens,
            "all_num_output_tokens": arguments.all_num_output_tokens,
            "num_trials": arguments.num_trials,
            "num_warmup": arguments.num_warmup,
            "seed": arguments.seed,
        },
        "environment": {"num_cpus": os.cpu_count()},
        "started_at": now(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def write(file, record):
    file.write(json.dumps(record) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
