"""The driver's flags: Megatron's names, in one place."""

import argparse
from pathlib import Path

from idealized_runtime.checks import positive_int, whole_number
from idealized_runtime.cli.flags import SHARED_FLAGS
from megatron_lm.engines import DEFAULT_ENGINE, ENGINES
from megatron_lm.prompts import TOKENIZER_TYPES

SHAPE_FLAGS = ("num_layers", "hidden_size", "num_attention_heads")


def _size(metavar, text=None, **options):
    return {"type": positive_int, "metavar": metavar, "help": text, **options}


def _sizes(metavar, text, **options):
    return _size(metavar, text, nargs="+", **options)


def _file(text):
    return {"type": Path, "metavar": "FILE", "help": text}


def _switch(text=None, default=False):
    return {"action": "store_true", "default": default, "help": text}


_ENGINE_TEXTS = (
    f"{name}: {entry.description}" + (" (one CUDA device)" if entry.needs_cuda else "")
    for name, entry in ENGINES.items()
)
# By the title of their group, which may be followed by what it says.
_FLAGS = {
    "model: one of --architecture, --hf-config, or the sizes themselves": {
        "--architecture": {"metavar": "NAME", "help": "a row of the registry, idealized_runtime/architectures"},
        "--hf-config": _file("a Hugging Face config.json"),
        "--num-layers": _size("N"),
        "--hidden-size": _size("N"),
        "--num-attention-heads": _size("N"),
        "--ffn-hidden-size": _size("N", "default: 4 x hidden size"),
        "--num-query-groups": _size("N", "default: one a head"),
        "--max-position-embeddings": _size("N", "context, in tokens (default: --seq-length)"),
        "--seq-length": _size("N", "as in Megatron (default: 2048)"),
        "--vocab-size": _size("N", "default: the tokenizer's, else 50257"),
        "--make-vocab-size-divisible-by": _size("N", "pad the vocabulary to a multiple (default: 128, as in Megatron)"),
        "--swiglu": _switch("gated feed-forward network", None),
        "--normalization": {"choices": ("LayerNorm", "RMSNorm")},
        "--position-embedding-type": {"choices": ("learned_absolute", "rope")},
        "--rotary-base": {"type": float, "metavar": "X", "help": "default: 10000"},
        "--disable-bias-linear": _switch("linear layers without bias", None),
        "--untie-embeddings-and-output-weights": _switch(default=None),
        "--num-layers-profiled": _sizes(
            "L",
            "time slices of so many layers, where the whole does not fit: one is scaled with depth, through several "
            "goes a line in the number of layers (default: all layers)",
        ),
    },
    "device, precision and parallelism": {
        "--device": {"choices": ("auto", "cpu", "cuda"), "default": "auto", "help": "default: CUDA if there is one"},
        "--fp16": _switch("float16 (CUDA only); without it or --bf16, float32"),
        "--bf16": _switch("bfloat16"),
        "--tensor-model-parallel-size": _size(
            "T", "share every matrix out among T processes (default: 1)", default=1
        ),
        "--pipeline-model-parallel-size": _size(
            "P",
            "share the layers out among P stages (default: 1); T x P processes: torchrun --nproc-per-node N ...",
            default=1,
        ),
        "--inference-engine": {
            "choices": [*ENGINES],
            "default": DEFAULT_ENGINE,
            "help": f"software stack to time. {'; '.join(_ENGINE_TEXTS)} (default: %(default)s)",
        },
    },
    "batches: in sequences; of several sizes, every combination whose micro-batches divide the batch is timed": {
        "--global-batch-size": _sizes("B", "sequences generated together (default: a batch of one micro-batch)"),
        "--micro-batch-size": _sizes(
            "M", "prompts encoded together (default: the batch, or its P-th part; without --global-batch-size, 1)"
        ),
        "--token-micro-batch-size": _sizes(
            "K", "sequences that generate a token together (default: the batch, or its P-th part)"
        ),
    },
    "tokenizer": {
        "--tokenizer-type": {
            "choices": TOKENIZER_TYPES,
            "help": "ByteTokenizer: a token a byte; NullTokenizer: the file holds token ids; GPT2BPETokenizer: needs "
            "the two files below (default: GPT2BPETokenizer where they are given, else ByteTokenizer)",
        },
        "--vocab-file": _file("GPT-2's vocab.json"),
        "--merge-file": _file("GPT-2's merges.txt"),
    },
    "text generation": {
        "--prompts-file": _file(
            "text that is cut to each prompt size (default: data/prompts.txt; data/token_ids.txt for NullTokenizer)"
        ),
        "--all-num-input-tokens": _sizes("P", "prompt sizes, in tokens (each > 0)"),
        "--all-num-output-tokens": _sizes("O", "numbers of tokens to generate (default: --out-seq-length)"),
        "--temperature": {"type": float, "default": 1.0, "help": "sampling temperature (default: %(default)s)"},
        "--top-p": {"type": float, "default": 0.0, "help": "top-p sampling; 0 keeps all (default: %(default)s)"},
        "--top-k": {"type": int, "default": 0, "help": "top-k sampling; 0 keeps all, 1 is greedy (default: 0)"},
        "--out-seq-length": _size("O", "tokens to generate where --all-num-output-tokens is not given"),
    },
    "until it is known well enough: instead of trials, say how well; the sizes are then those that may be timed": {
        "--target-error": SHARED_FLAGS["--target-error"],
        "--queries": {
            **SHARED_FLAGS["--queries"],
            "help": "queries whose runtimes are asked for, one a row: a CSV with num_prompt_tokens and "
            "num_output_tokens, or a HELM run folder; sizes that are not given are then chosen by them",
        },
        "--columns": SHARED_FLAGS["--columns"],
        "--target": SHARED_FLAGS["--target"],
        "--level": {**SHARED_FLAGS["--level"], "default": None},
        "--logs": {
            **SHARED_FLAGS["--logs"],
            "help": "logs of other models on this machine, a folder or a name such as cpu: what is expected of this "
            "one comes from them, and less need be timed (default: nothing is expected)",
        },
        "--max-seconds": SHARED_FLAGS["--max-seconds"],
    },
    "timing and log": {
        "--num-warmup": {
            "type": whole_number, "metavar": "N", "help": "runs before the trials (default: 10; with --target-error 1)",
        },
        "--num-trials": _size("N", "timed runs (default: 50)"),
        "--num-blocks": _size(
            "N",
            "passes over the whole sweep, each in an order of its own, over which the trials of every setting are "
            "spread: a machine that grows slower or faster meanwhile meets all sizes alike. More blocks even out "
            "quicker drift, and cost one more warm-up run of every setting each; 1 times one setting after the other, "
            "in the order given (default: 5, or the number of trials if that is smaller)",
        ),
        "--seed": {
            "type": int, "default": 1234, "help": "of weights, sampling and order (default: %(default)s)",
        },
        "--log": _file(
            "JSON Lines, every trial of every setting; a run that was cut off goes on with it. Without it only the "
            "sentences on standard output remain"
        ),
    },
}  # fmt: skip
# Of launchers, and of Megatron where nothing that is timed here depends on them.
_WITHOUT_EFFECT = (
    "--local-rank", "--local_rank", "--distributed-backend", "--DDP-impl", "--no-load-optim", "--no-load-rng",
    "--use-cpu-initialization", "--hidden-dropout", "--attention-dropout", "--init-method-std",
)  # fmt: skip
# Megatron's scripts have them; what to do instead.
_NOT_HERE = {
    **dict.fromkeys(("--load", "--load-dir"), "weights are random, which changes no runtime; leave it out"),
    **dict.fromkeys(
        ("--genfile", "--num-samples", "--sample-input-file", "--sample-output-file"),
        "no text is read or kept but the prompts of --prompts-file; leave it out",
    ),
    "--batch-size": "use --micro-batch-size",
    "--model-parallel-size": "use --tensor-model-parallel-size",
    "--all-tokens-to-generate": "use --all-num-output-tokens",
    "--greedy": "use --top-k 1",
    "--recompute": "text is generated with a cache of keys and values; leave it out",
    "--num-layers-per-virtual-pipeline-stage": "stages are not interleaved when text is generated; leave it out",
    "--sequence-parallel": "sequences are not split among ranks here; leave it out",
}


class _Refused(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        raise argparse.ArgumentError(self, self.const)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)


def build_parser() -> argparse.ArgumentParser:
    """Parser of the driver alone, which raises a ``ValueError``."""
    parser = _Parser(prog="idealized-runtime time", allow_abbrev=False)
    add_flags(parser)
    return parser


def add_flags(parser: argparse.ArgumentParser):
    """Add the driver's flags to a parser."""
    for heading, flags in _FLAGS.items():
        title, _, description = heading.partition(": ")
        group = parser.add_argument_group(title, description or None)
        for flag, options in flags.items():
            group.add_argument(flag, **options)
    for flag in _WITHOUT_EFFECT:
        parser.add_argument(flag, nargs="?", dest="without_effect", help=argparse.SUPPRESS)
    for flag, remedy in _NOT_HERE.items():
        parser.add_argument(
            flag, nargs="*", dest="not_here", action=_Refused, const=remedy, default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )  # fmt: skip


def flag_of(name: str) -> str:
    """The flag that sets an argument: ``num_layers`` -> ``--num-layers``."""
    return "--" + name.replace("_", "-")
