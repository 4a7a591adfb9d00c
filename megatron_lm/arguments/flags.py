"""The driver's flags: Megatron's names, in one place."""

import argparse
from pathlib import Path

from idealized_runtime.checks import positive_int, whole_number
from megatron_lm.engines import ENGINES
from megatron_lm.prompts import TOKENIZER_TYPES

SHAPE_FLAGS = ("num_layers", "hidden_size", "num_attention_heads")
PROGRAM = "idealized-runtime time"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message} ({self.prog} -h explains)")


def build_parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """Parser of the driver, which raises a ``ValueError``; what its flags must agree on is checked afterwards."""
    parser = _Parser(
        prog=program,
        description="Time text generation with Megatron: every (prompt size, output size) of a sweep, many trials "
        "each, into a log that is resumed when the same command is given again.",
        epilog=f"Example: {program} --architecture gpt2-small --all-num-input-tokens 1 128 512 "
        "--all-num-output-tokens 1 2 8 16 --num-warmup 3 --num-trials 10 --log logs/local/gpt2-small.jsonl",
        allow_abbrev=False,
    )
    add_flags(parser)
    return parser


def add_flags(parser: argparse.ArgumentParser):
    """Add the driver's flags to a parser."""
    for add in (_add_model, _add_parallelism, _add_batches, _add_tokenizer, _add_generation, _add_timing):
        add(parser)


def _add_model(parser):
    group = parser.add_argument_group("model", "one of --architecture, --hf-config, or the sizes themselves")
    group.add_argument("--architecture", metavar="NAME", help="a row of the registry, idealized_runtime/architectures")
    group.add_argument("--hf-config", metavar="FILE", type=Path, help="a Hugging Face config.json")
    for flag in SHAPE_FLAGS:
        group.add_argument(flag_of(flag), type=positive_int, metavar="N")
    group.add_argument("--ffn-hidden-size", type=positive_int, metavar="N", help="default: 4 x hidden size")
    group.add_argument("--num-query-groups", type=positive_int, metavar="N", help="default: one a head")
    group.add_argument(
        "--max-position-embeddings", type=positive_int, metavar="N", help="context, in tokens (default: --seq-length)"
    )
    group.add_argument("--seq-length", type=positive_int, metavar="N", help="as in Megatron (default: 2048)")
    group.add_argument("--vocab-size", type=positive_int, metavar="N", help="default: the tokenizer's, else 50257")
    group.add_argument(
        "--make-vocab-size-divisible-by", type=positive_int, metavar="N",
        help="pad the vocabulary to a multiple (default: 128, as in Megatron)",
    )  # fmt: skip
    group.add_argument("--swiglu", action="store_true", default=None, help="gated feed-forward network")
    group.add_argument("--normalization", choices=("LayerNorm", "RMSNorm"))
    group.add_argument("--position-embedding-type", choices=("learned_absolute", "rope"))
    group.add_argument("--rotary-base", type=float, metavar="X", help="default: 10000")
    group.add_argument("--disable-bias-linear", action="store_true", default=None, help="linear layers without bias")
    group.add_argument("--untie-embeddings-and-output-weights", action="store_true", default=None)
    group.add_argument(
        "--num-layers-profiled", type=positive_int, nargs="+", metavar="L",
        help="time slices of so many layers, where the whole does not fit: one is scaled with depth, through "
        "several goes a line in the number of layers (default: all layers)",
    )  # fmt: skip


def _add_parallelism(parser):
    group = parser.add_argument_group("device, precision and parallelism")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: CUDA if there is one"
    )
    group.add_argument("--fp16", action="store_true", help="float16 (CUDA only); without it or --bf16, float32")
    group.add_argument("--bf16", action="store_true", help="bfloat16")
    group.add_argument(
        "--tensor-model-parallel-size", type=positive_int, default=1, metavar="T",
        help="share every matrix out among T processes (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--pipeline-model-parallel-size", type=positive_int, default=1, metavar="P",
        help="share the layers out among P stages (default: 1); T x P processes: torchrun --nproc-per-node N ...",
    )  # fmt: skip
    group.add_argument(
        "--inference-engine", choices=[*ENGINES], default="sdpa",
        help="software stack to time. " + "; ".join(
            f"{name}: {entry.description}" + (" (one CUDA device)" if entry.needs_cuda else "")
            for name, entry in ENGINES.items()
        ) + " (default: %(default)s)",
    )  # fmt: skip


def _add_batches(parser):
    group = parser.add_argument_group(
        "batches", "in sequences; of several sizes, every combination whose micro-batches divide the batch is timed"
    )
    group.add_argument(
        "--global-batch-size", type=positive_int, nargs="+", metavar="B",
        help="sequences generated together (default: a batch of one micro-batch)",
    )  # fmt: skip
    group.add_argument(
        "--micro-batch-size", type=positive_int, nargs="+", metavar="M",
        help="prompts encoded together (default: the batch, or its P-th part; without --global-batch-size, 1)",
    )  # fmt: skip
    group.add_argument(
        "--token-micro-batch-size", type=positive_int, nargs="+", metavar="K",
        help="sequences that generate a token together (default: the batch, or its P-th part)",
    )  # fmt: skip


def _add_tokenizer(parser):
    group = parser.add_argument_group("tokenizer")
    group.add_argument(
        "--tokenizer-type", choices=TOKENIZER_TYPES, default=TOKENIZER_TYPES[0],
        help="ByteTokenizer: a token a byte; NullTokenizer: the file holds token ids; GPT2BPETokenizer: needs the "
        "two files below (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--vocab-file", type=Path, metavar="FILE", help="GPT-2's vocab.json")
    group.add_argument("--merge-file", type=Path, metavar="FILE", help="GPT-2's merges.txt")


def _add_generation(parser):
    group = parser.add_argument_group("text generation")
    group.add_argument(
        "--prompts-file", type=Path, metavar="FILE",
        help="text that is cut to each prompt size (default: data/prompts.txt; data/token_ids.txt for NullTokenizer)",
    )  # fmt: skip
    group.add_argument(
        "--all-num-input-tokens", type=positive_int, nargs="+", required=True, metavar="P",
        help="prompt sizes, in tokens (each > 0)",
    )  # fmt: skip
    group.add_argument(
        "--all-num-output-tokens", type=positive_int, nargs="+", metavar="O",
        help="numbers of tokens to generate (default: --out-seq-length)",
    )  # fmt: skip
    group.add_argument("--temperature", type=float, default=1.0, help="sampling temperature (default: %(default)s)")
    group.add_argument("--top-p", type=float, default=0.0, help="top-p sampling; 0 keeps all (default: %(default)s)")
    group.add_argument("--top-k", type=int, default=0, help="top-k sampling; 0 keeps all, 1 is greedy (default: 0)")
    group.add_argument(
        "--out-seq-length", type=positive_int, metavar="O",
        help="tokens to generate where --all-num-output-tokens is not given",
    )  # fmt: skip


def _add_timing(parser):
    group = parser.add_argument_group("timing and log")
    group.add_argument(
        "--num-warmup", type=whole_number, default=10, metavar="N", help="runs before the trials (default: 10)"
    )
    group.add_argument("--num-trials", type=positive_int, default=50, metavar="N", help="timed runs (default: 50)")
    group.add_argument("--seed", type=int, default=1234, help="of the weights and of sampling (default: %(default)s)")
    group.add_argument(
        "--log", type=Path, metavar="FILE",
        help="JSON Lines, every trial of every setting; a run that was cut off goes on with it. Without it only the "
        "sentences on standard output remain",
    )  # fmt: skip


def flag_of(name: str) -> str:
    """The flag that sets an argument: ``num_layers`` -> ``--num-layers``."""
    return "--" + name.replace("_", "-")
