"""The model that the flags ask for, and the slices of its layers."""

from itertools import product

from idealized_runtime.architectures import Architecture, read_architecture
from megatron_lm.arguments.flags import SHAPE_FLAGS, flag_of
from megatron_lm.prompts import tokenizer_vocab_size

# GPT-2's, for shapes given by flags with a tokenizer that has no vocabulary file.
_DEFAULT_VOCAB_SIZE = 50257
_OTHER_SHAPE_FLAGS = (
    "ffn_hidden_size", "num_query_groups", "max_position_embeddings", "seq_length", "vocab_size", "swiglu",
    "normalization", "position_embedding_type", "rotary_base", "disable_bias_linear",
    "untie_embeddings_and_output_weights", "make_vocab_size_divisible_by",
)  # fmt: skip
# Fields of an architecture that a flag of the same name sets, where it is given.
_OPTIONAL_FLAGS = (
    "swiglu", "normalization", "position_embedding_type", "rotary_base", "untie_embeddings_and_output_weights",
)  # fmt: skip


def resolve_architecture(arguments) -> Architecture:
    """The architecture of the registry, of a Hugging Face config, or of the sizes.

    Raises
    ------
    ValueError
        The flags name none, or more than one, or one that cannot be; the message says which.
    """
    sources = [name for name in ("architecture", "hf_config") if getattr(arguments, name)]
    shape = [name for name in SHAPE_FLAGS if getattr(arguments, name) is not None]
    if len(sources) > 1 or (sources and shape):
        given = ", ".join(flag_of(name) for name in sources + shape)
        raise ValueError(f"give one of --architecture, --hf-config, or the sizes; got {given}")
    if sources:
        if others := [name for name in _OTHER_SHAPE_FLAGS if getattr(arguments, name) is not None]:
            raise ValueError(f"{', '.join(map(flag_of, others))}: {flag_of(sources[0])} already says; drop one of them")
        return read_architecture(arguments.architecture or arguments.hf_config)
    if len(shape) < len(SHAPE_FLAGS):
        missing = ", ".join(flag_of(name) for name in SHAPE_FLAGS if name not in shape)
        raise ValueError(f"which model? Give --architecture NAME, --hf-config FILE, or the sizes (missing: {missing})")
    return _architecture_of_sizes(arguments)


def _architecture_of_sizes(arguments) -> Architecture:
    seq_length = arguments.seq_length or arguments.max_position_embeddings or 2048
    max_position_embeddings = arguments.max_position_embeddings or seq_length
    if seq_length > max_position_embeddings:
        raise ValueError(
            f"--seq-length {seq_length} must not exceed --max-position-embeddings {max_position_embeddings}"
        )
    vocab_size = arguments.vocab_size or tokenizer_vocab_size(arguments.tokenizer_type, arguments.vocab_file)
    multiple = (arguments.make_vocab_size_divisible_by or 128) * arguments.tensor_model_parallel_size
    return Architecture(
        f"gpt-l{arguments.num_layers}-h{arguments.hidden_size}-a{arguments.num_attention_heads}",
        num_layers=arguments.num_layers,
        hidden_size=arguments.hidden_size,
        num_attention_heads=arguments.num_attention_heads,
        vocab_size=-(-(vocab_size or _DEFAULT_VOCAB_SIZE) // multiple) * multiple,
        max_position_embeddings=max_position_embeddings,
        ffn_hidden_size=arguments.ffn_hidden_size,
        num_query_groups=arguments.num_query_groups,
        add_bias_linear=not arguments.disable_bias_linear,
        add_qkv_bias=not arguments.disable_bias_linear,
        source="command line",
        **{name: value for name in _OPTIONAL_FLAGS if (value := getattr(arguments, name)) is not None},
    )


def resolve_slices(arguments) -> list[int]:
    """Numbers of layers to time, each once; all layers where nothing else is asked for.

    Raises
    ------
    ValueError
        A slice is larger than the model, or is not made as the whole is.
    """
    architecture = arguments.architecture
    slices = list(dict.fromkeys(arguments.num_layers_profiled or [architecture.num_layers]))
    if too_many := " ".join(str(size) for size in slices if size > architecture.num_layers):
        raise ValueError(f"--num-layers-profiled {too_many}: {architecture.name} has {architecture.num_layers} layers")
    for size, name in product(slices, ("moe_layer_freq", "window_attn_skip_freq")):
        # Time does not scale with depth where the layers of a slice are not those of the whole.
        pattern = getattr(architecture, name)
        repeats = size % pattern == 0 if isinstance(pattern, int) else pattern is None
        if size < architecture.num_layers and not repeats:
            raise ValueError(
                f"--num-layers-profiled {size}: the layers of {architecture.name} differ ({name} = {pattern}), and so "
                "many of them do not repeat; give all layers, or a multiple of a number that repeats"
            )
    return slices
