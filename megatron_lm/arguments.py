"""The driver's command line: Megatron's flag names, in one place. Imports neither torch nor Megatron."""

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from idealized_runtime.architectures import Architecture, architecture_of_flags, require_buildable
from megatron_lm import ranks
from megatron_lm.batching import all_batchings
from megatron_lm.prompts import TOKENIZER_TYPES, tokenizer_vocab_size

# Those that need CUDA, and one process.
CUDA_ENGINE_NAMES = ("sdpa+graph", "fused+graph", "megatron")
ENGINE_NAMES = ("sdpa", "eager", *CUDA_ENGINE_NAMES)
# GPT-2's, for shapes given by flags with a tokenizer that has no vocabulary file.
DEFAULT_VOCAB_SIZE = 50257
_OTHER_RANKS_WAIT_S = 2.0
_SHAPE_FLAGS = ("num_layers", "hidden_size", "num_attention_heads")
_OTHER_SHAPE_FLAGS = (
    "ffn_hidden_size", "num_query_groups", "max_position_embeddings", "seq_length", "vocab_size", "swiglu",
    "normalization", "position_embedding_type", "rotary_base", "disable_bias_linear",
    "untie_embeddings_and_output_weights", "make_vocab_size_divisible_by",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Parameters
    ----------
    temperature : float
        Divides the logits; above 0.
    top_k : int
        Keep the k most likely tokens; 0 keeps all, 1 is greedy.
    top_p : float
        Keep the smallest set of most likely tokens whose probabilities sum to at least p; 0 keeps all.

    Raises
    ------
    ValueError
        A value is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0

    def __post_init__(self):
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"--temperature must be above 0 and finite; got {self.temperature} (greedy decoding: --top-k 1)"
            )
        if self.top_k < 0:
            raise ValueError(f"--top-k must be at least 0 (0 keeps all tokens); got {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"--top-p must lie in [0, 1] (0 keeps all tokens); got {self.top_p}")


def parse_arguments(argv=None) -> argparse.Namespace:
    """Arguments of generate_text.py, checked, with ``architecture`` and ``sampling`` resolved to objects."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    try:
        _check(arguments)
        arguments.architecture = _resolve_architecture(arguments)
        require_buildable(arguments.architecture, tensor_parallel_size=arguments.tensor_model_parallel_size)
        arguments.num_layers_profiled = _resolve_slices(arguments)
        _check_parallelism(arguments)
        _check_engine(arguments)
    except ValueError as error:
        # Every rank sees the same fault: rank 0 is given the time to be the one that says so.
        time.sleep(_OTHER_RANKS_WAIT_S if ranks.rank() > 0 else 0)
        parser.error(str(error))
    return arguments


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="generate_text.py",
        description="Time text generation with Megatron: every (prompt size, output size) of a sweep, many trials "
        "each, into a log that is resumed when the same command is given again.",
        epilog="Example: python generate_text.py --architecture gpt2-small --all-num-input-tokens 1 128 512 "
        "--all-num-output-tokens 1 2 8 16 --num-warmup 3 --num-trials 10 --log logs/local/gpt2-small.jsonl",
        allow_abbrev=False,
    )
    for add in (_add_model, _add_parallelism, _add_batches, _add_tokenizer, _add_generation, _add_timing):
        add(parser)
    return parser


def _add_model(parser):
    group = parser.add_argument_group("model", "one of --architecture, --hf-config, or the sizes themselves")
    group.add_argument("--architecture", metavar="NAME", help="a row of the registry, idealized_runtime/architectures")
    group.add_argument("--hf-config", metavar="FILE", type=Path, help="a Hugging Face config.json")
    for flag in _SHAPE_FLAGS:
        group.add_argument(_flag(flag), type=_positive_int, metavar="N")
    group.add_argument("--ffn-hidden-size", type=_positive_int, metavar="N", help="default: 4 x hidden size")
    group.add_argument("--num-query-groups", type=_positive_int, metavar="N", help="default: one a head")
    group.add_argument(
        "--max-position-embeddings", type=_positive_int, metavar="N", help="context, in tokens (default: --seq-length)"
    )
    group.add_argument("--seq-length", type=_positive_int, metavar="N", help="as in Megatron (default: 2048)")
    group.add_argument("--vocab-size", type=_positive_int, metavar="N", help="default: the tokenizer's, else 50257")
    group.add_argument(
        "--make-vocab-size-divisible-by", type=_positive_int, metavar="N",
        help="pad the vocabulary to a multiple (default: 128, as in Megatron)",
    )  # fmt: skip
    group.add_argument("--swiglu", action="store_true", default=None, help="gated feed-forward network")
    group.add_argument("--normalization", choices=("LayerNorm", "RMSNorm"))
    group.add_argument("--position-embedding-type", choices=("learned_absolute", "rope"))
    group.add_argument("--rotary-base", type=float, metavar="X", help="default: 10000")
    group.add_argument("--disable-bias-linear", action="store_true", default=None, help="linear layers without bias")
    group.add_argument("--untie-embeddings-and-output-weights", action="store_true", default=None)
    group.add_argument(
        "--num-layers-profiled", type=_positive_int, nargs="+", metavar="L",
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
        "--tensor-model-parallel-size", type=_positive_int, default=1, metavar="T",
        help="share every matrix out among T processes (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--pipeline-model-parallel-size", type=_positive_int, default=1, metavar="P",
        help="share the layers out among P stages (default: 1); T x P processes: torchrun --nproc-per-node N ...",
    )  # fmt: skip
    group.add_argument(
        "--inference-engine", choices=ENGINE_NAMES, default=ENGINE_NAMES[0],
        help="software stack to time. sdpa: Megatron's parameters, plain torch calls, fused attention; "
        "eager: Megatron's layers as they come; sdpa+graph: sdpa, each generated token a CUDA graph; fused+graph: the "
        "same of six Triton kernels a layer, for layers like Llama's; megatron: Megatron's own static inference "
        "engine; the last three on one CUDA device (default: %(default)s)",
    )  # fmt: skip


def _add_batches(parser):
    group = parser.add_argument_group(
        "batches", "in sequences; of several sizes, every combination whose micro-batches divide the batch is timed"
    )
    group.add_argument(
        "--global-batch-size", type=_positive_int, nargs="+", metavar="B",
        help="sequences generated together (default: a batch of one micro-batch)",
    )  # fmt: skip
    group.add_argument(
        "--micro-batch-size", type=_positive_int, nargs="+", metavar="M",
        help="prompts encoded together (default: the batch, or its P-th part; without --global-batch-size, 1)",
    )  # fmt: skip
    group.add_argument(
        "--token-micro-batch-size", type=_positive_int, nargs="+", metavar="K",
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
        "--all-num-input-tokens", type=_positive_int, nargs="+", required=True, metavar="P",
        help="prompt sizes, in tokens (each > 0)",
    )  # fmt: skip
    group.add_argument(
        "--all-num-output-tokens", type=_positive_int, nargs="+", metavar="O",
        help="numbers of tokens to generate (default: --out-seq-length)",
    )  # fmt: skip
    group.add_argument("--temperature", type=float, default=1.0, help="sampling temperature (default: %(default)s)")
    group.add_argument("--top-p", type=float, default=0.0, help="top-p sampling; 0 keeps all (default: %(default)s)")
    group.add_argument("--top-k", type=int, default=0, help="top-k sampling; 0 keeps all, 1 is greedy (default: 0)")
    group.add_argument(
        "--out-seq-length", type=_positive_int, metavar="O",
        help="tokens to generate where --all-num-output-tokens is not given",
    )  # fmt: skip


def _add_timing(parser):
    group = parser.add_argument_group("timing and log")
    group.add_argument(
        "--num-warmup", type=_non_negative_int, default=10, metavar="N", help="runs before the trials (default: 10)"
    )
    group.add_argument("--num-trials", type=_positive_int, default=50, metavar="N", help="timed runs (default: 50)")
    group.add_argument("--seed", type=int, default=1234, help="of the weights and of sampling (default: %(default)s)")
    group.add_argument(
        "--log", type=Path, metavar="FILE",
        help="JSON Lines, every trial of every setting; a run that was cut off goes on with it. Without it only the "
        "sentences on standard output remain",
    )  # fmt: skip


def _check(arguments):
    if arguments.all_num_output_tokens is None:
        if arguments.out_seq_length is None:
            raise ValueError("give --all-num-output-tokens, or --out-seq-length for a single number of output tokens")
        arguments.all_num_output_tokens = [arguments.out_seq_length]
    for name in ("all_num_input_tokens", "all_num_output_tokens"):
        # A size given twice is the same setting.
        setattr(arguments, name, list(dict.fromkeys(getattr(arguments, name))))
    if arguments.fp16 and arguments.bf16:
        raise ValueError("--fp16 and --bf16 exclude each other; give one, or none for float32")
    arguments.batchings = all_batchings(
        arguments.global_batch_size,
        arguments.micro_batch_size,
        arguments.token_micro_batch_size,
        num_stages=arguments.pipeline_model_parallel_size,
    )
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed must lie in [0, 2**63); got {arguments.seed}")
    arguments.sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    if arguments.log is not None:
        _check_log(arguments.log)


def _check_log(path):
    """Refuse a log that could not be written when the first setting has been timed."""
    if path.exists() and not path.is_file():
        raise ValueError(f"--log {path} is no regular file: it could not be resumed; give a file")
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing != path and not existing.is_dir():
        raise ValueError(f"--log {path}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"--log {path}: no permission to write {existing}")


def _resolve_architecture(arguments) -> Architecture:
    sources = [name for name in ("architecture", "hf_config") if getattr(arguments, name)]
    shape = [name for name in _SHAPE_FLAGS if getattr(arguments, name) is not None]
    if len(sources) > 1 or (sources and shape):
        given = ", ".join(_flag(name) for name in sources + shape)
        raise ValueError(f"give one of --architecture, --hf-config, or the sizes; got {given}")
    if sources:
        if others := [name for name in _OTHER_SHAPE_FLAGS if getattr(arguments, name) is not None]:
            raise ValueError(f"{', '.join(map(_flag, others))}: {_flag(sources[0])} already says; drop one of them")
        return architecture_of_flags(arguments.architecture or None, arguments.hf_config)
    if len(shape) < len(_SHAPE_FLAGS):
        missing = ", ".join(_flag(name) for name in _SHAPE_FLAGS if name not in shape)
        raise ValueError(f"which model? Give --architecture NAME, --hf-config FILE, or the sizes (missing: {missing})")
    return _architecture_of_sizes(arguments)


def _resolve_slices(arguments) -> list[int]:
    num_layers = arguments.architecture.num_layers
    slices = list(dict.fromkeys(arguments.num_layers_profiled or [num_layers]))
    if too_many := " ".join(str(size) for size in slices if size > num_layers):
        raise ValueError(f"--num-layers-profiled {too_many}: {arguments.architecture.name} has {num_layers} layers")
    for size in slices:
        _check_slice(arguments.architecture, size)
    return slices


def _check_slice(architecture, size):
    """Refuse a slice whose layers are not those of the whole: time would not scale with depth."""
    for name in ("moe_layer_freq", "window_attn_skip_freq"):
        pattern = getattr(architecture, name)
        repeats = size % pattern == 0 if isinstance(pattern, int) else pattern is None
        if size < architecture.num_layers and not repeats:
            raise ValueError(
                f"--num-layers-profiled {size}: the layers of {architecture.name} differ ({name} = {pattern}), and so "
                "many of them do not repeat; give all layers, or a multiple of a number that repeats"
            )


def _check_parallelism(arguments):
    """Refuse what cannot be shared out among the processes that there are."""
    tensor_size, num_stages = arguments.tensor_model_parallel_size, arguments.pipeline_model_parallel_size
    num_ranks = ranks.num_ranks()
    if tensor_size * num_stages != num_ranks:
        raise ValueError(
            f"--tensor-model-parallel-size {tensor_size} x --pipeline-model-parallel-size {num_stages} needs "
            f"{tensor_size * num_stages} processes; there are {num_ranks}: start them with torchrun "
            f"--nproc-per-node {tensor_size * num_stages} -- generate_text.py ..., on more machines with --nnodes"
        )
    architecture = arguments.architecture
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
        size = getattr(architecture, name)
        if size % tensor_size:
            raise ValueError(
                f"--tensor-model-parallel-size {tensor_size} must divide {name} of {architecture.name}, {size}"
            )
    for size in arguments.num_layers_profiled:
        if size % num_stages:
            raise ValueError(
                f"--pipeline-model-parallel-size {num_stages} must divide the number of layers; got {size} of the "
                f"{architecture.num_layers} layers of {architecture.name}"
            )


def _check_engine(arguments):
    """Refuse what the software stack cannot do."""
    engine = arguments.inference_engine
    if engine not in CUDA_ENGINE_NAMES:
        return
    if arguments.device == "cpu":
        raise ValueError(f"--inference-engine {engine} needs CUDA; with --device cpu use sdpa or eager")
    if arguments.tensor_model_parallel_size * arguments.pipeline_model_parallel_size > 1:
        raise ValueError(f"--inference-engine {engine} runs on one process; over several use sdpa or eager")
    if engine.endswith("+graph") and arguments.num_warmup == 0:
        raise ValueError(f"--inference-engine {engine} captures its graphs in warm-up runs: --num-warmup at least 1")
    if engine == "fused+graph":
        _check_fused_engine(arguments)
    if engine == "megatron":
        _check_megatron_engine(arguments)


def _check_fused_engine(arguments):
    architecture, head_dim = arguments.architecture, arguments.architecture.head_dim
    unfit = {
        architecture.normalization: architecture.normalization != "RMSNorm",
        "positions that are not rotary": architecture.position_embedding_type != "rope",
        "no SwiGLU": not architecture.swiglu or architecture.uncounted_options.get("activation_func", "silu") != "silu",
        "biases": architecture.add_bias_linear,
        "experts": architecture.num_experts is not None,
        "norms of queries and keys": architecture.qk_layernorm is not None,
        "windows": architecture.window_size is not None,
        f"heads of {head_dim}": head_dim < 16 or head_dim & (head_dim - 1),
    }
    if found := ", ".join(feature for feature, is_unfit in unfit.items() if is_unfit):
        raise ValueError(
            f"--inference-engine fused+graph has kernels for layers like Llama's; {architecture.name} has {found}: "
            "use sdpa+graph"
        )
    sizes = sorted({token_micro_batch_size for *_, token_micro_batch_size in arguments.batchings} - {1})
    if sizes:
        raise ValueError(
            "--inference-engine fused+graph generates tokens of one sequence at a time: --token-micro-batch-size 1; "
            f"got {', '.join(map(str, sizes))}"
        )


def _check_megatron_engine(arguments):
    batch_sizes = {sizes for sizes in arguments.batchings if len(set(sizes)) > 1}
    if batch_sizes:
        raise ValueError(
            "--inference-engine megatron generates a batch as a whole: without --micro-batch-size and "
            f"--token-micro-batch-size, or with those of the batch; got (batch, prompts, tokens) {sorted(batch_sizes)}"
        )
    sampling, vocab_size = arguments.sampling, arguments.architecture.vocab_size
    if sampling.top_k and sampling.top_p:
        raise ValueError("--inference-engine megatron takes --top-k or --top-p, not both")
    if sampling.top_k > 1 and sampling.top_k >= vocab_size:
        raise ValueError(
            f"--inference-engine megatron: --top-k must be below the vocabulary, {vocab_size}; got {sampling.top_k} "
            "(0 keeps all tokens)"
        )


def _architecture_of_sizes(arguments) -> Architecture:
    seq_length = arguments.seq_length or arguments.max_position_embeddings or 2048
    max_position_embeddings = arguments.max_position_embeddings or seq_length
    if seq_length > max_position_embeddings:
        raise ValueError(
            f"--seq-length {seq_length} must not exceed --max-position-embeddings {max_position_embeddings}"
        )
    vocab_size = (
        arguments.vocab_size
        or tokenizer_vocab_size(arguments.tokenizer_type, arguments.vocab_file)
        or DEFAULT_VOCAB_SIZE
    )
    multiple = (arguments.make_vocab_size_divisible_by or 128) * arguments.tensor_model_parallel_size
    optional = {
        name: value
        for name in ("swiglu", "normalization", "position_embedding_type", "rotary_base",
                     "untie_embeddings_and_output_weights")
        if (value := getattr(arguments, name)) is not None
    }  # fmt: skip
    return Architecture(
        f"gpt-l{arguments.num_layers}-h{arguments.hidden_size}-a{arguments.num_attention_heads}",
        num_layers=arguments.num_layers,
        hidden_size=arguments.hidden_size,
        num_attention_heads=arguments.num_attention_heads,
        vocab_size=-(-vocab_size // multiple) * multiple,
        max_position_embeddings=max_position_embeddings,
        ffn_hidden_size=arguments.ffn_hidden_size,
        num_query_groups=arguments.num_query_groups,
        add_bias_linear=not arguments.disable_bias_linear,
        add_qkv_bias=not arguments.disable_bias_linear,
        source="command line",
        **optional,
    )


def _flag(name) -> str:
    return "--" + name.replace("_", "-")


def _positive_int(text) -> int:
    return _int_of_at_least(1, text)


def _non_negative_int(text) -> int:
    return _int_of_at_least(0, text)


def _int_of_at_least(low, text) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be an integer; got {text!r}") from error
    if value < low:
        raise argparse.ArgumentTypeError(f"must be at least {low}; got {value}")
    return value
