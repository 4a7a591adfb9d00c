"""What an architecture must satisfy before anything is counted, built or timed."""

from collections.abc import Mapping

from idealized_runtime.checks import is_number

POSITION_EMBEDDINGS = ("learned_absolute", "rope", "alibi")
NORMALIZATIONS = ("LayerNorm", "RMSNorm")
_SIZES = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "vocab_size",
          "max_position_embeddings", "ffn_hidden_size")  # fmt: skip
_OPTIONAL_SIZES = ("kv_channels", "moe_shared_expert_intermediate_size", "window_size", "q_lora_rank", "embedding_size")
_EXPERT_FIELDS = ("num_experts", "moe_router_topk", "moe_ffn_hidden_size")
_LATENT_FIELDS = ("kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim")
# Logs are files of this name.
_LONGEST_NAME = 200
# Counts are polynomials of sizes, and must stay within a float's range.
_LARGEST_SIZE = 2**40
_CHOICES = {
    "normalization": NORMALIZATIONS,
    "position_embedding_type": POSITION_EMBEDDINGS,
    "qk_layernorm": (None, "per_head", "all_heads"),
    "softmax_type": ("vanilla", "learnable"),
    "norms_per_layer": (2, 1, 4),
    "add_attention_bias": (None, False, True),
    **dict.fromkeys(
        ("swiglu", "add_bias_linear", "add_qkv_bias", "untie_embeddings_and_output_weights", "window_is_chunk",
         "moe_shared_expert_gate", "parallel_blocks", "embedding_layernorm", "final_layernorm",
         "add_output_layer_bias"),
        (False, True),
    ),
}  # fmt: skip


def check_architecture(architecture):
    """Refuse what no model can be.

    Raises
    ------
    ValueError
        A size is not positive, heads do not divide the width, or a choice is unknown; the message says which.
    """
    name = architecture.name
    if not (isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        raise ValueError(
            f"a model's name must be printable text of at most {_LONGEST_NAME} characters; got {name!r:.80}"
        )
    if not isinstance(architecture.uncounted_options, Mapping):
        raise ValueError(f"{name}: uncounted_options must be an object; got {architecture.uncounted_options!r:.60}")
    checks = (_check_sizes, _check_choices, _check_experts, _check_latent_attention)
    for check in (*checks, _check_heads if architecture.layers is None else _check_layers):
        for refusal in check(architecture):
            raise ValueError(f"{architecture.name}: {refusal}")


def _check_sizes(a):
    for name in (*_SIZES, *(name for name in _OPTIONAL_SIZES if getattr(a, name) is not None)):
        yield from _no_integer(a, name)
    yield from _no_integer(a, "num_extra_positions", at_least=0)
    if a.num_layers_profiled is not None and a.num_layers_profiled not in range(1, a.num_layers + 1):
        yield f"num_layers_profiled must lie in [1, {a.num_layers}]; got {a.num_layers_profiled!r}"
    if a.window_size is None and (a.window_attn_skip_freq is not None or a.window_is_chunk):
        yield "window_attn_skip_freq and window_is_chunk need window_size"
    if a.window_attn_skip_freq is not None:
        yield from _no_pattern(a, "window_attn_skip_freq", at_least=2)


def _no_integer(a, name, *, at_least=1, where=""):
    value = getattr(a, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        yield f"{where}{name} must be an integer of at least {at_least}; got {value!r:.80}"
    elif value > _LARGEST_SIZE:
        yield f"{where}{name} must be at most 2**40; got a number of {value.bit_length()} bits"


def _no_pattern(a, name, *, at_least):
    pattern = getattr(a, name)
    if not isinstance(pattern, tuple):
        yield from _no_integer(a, name, at_least=at_least)
    elif len(pattern) != a.num_layers or 1 not in pattern or any(layer not in (0, 1) for layer in pattern):
        yield (
            f"{name} must be a number, or a 0 or 1 for each of {a.num_layers} layers with at least one 1; "
            f"got {pattern!r:.80}"
        )


def _check_choices(a):
    for name, allowed in _CHOICES.items():
        value = getattr(a, name)
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            yield f"{name} must be one of {allowed}; got {value!r:.80}"
    for name in ("rotary_base", "layernorm_epsilon"):
        value = getattr(a, name)
        if not (is_number(value) and 0 < value <= _LARGEST_SIZE):
            yield f"{name} must be a positive number of at most 2**40; got {value!r:.80}"
    if a.published_params is not None and not is_number(a.published_params):
        yield f"published_params must be a number; got {a.published_params!r:.80}"
    names = a.helm_names if isinstance(a.helm_names, tuple) else (None,)
    if not all(isinstance(text, str) for text in (*names, a.source, a.published_log or "")):
        yield "helm_names, source and published_log must be text"


def _check_experts(a):
    if all(getattr(a, name) is None for name in _EXPERT_FIELDS):
        if a.moe_shared_expert_intermediate_size or a.moe_shared_expert_gate or a.moe_layer_freq != 1:
            yield "shared experts and moe_layer_freq need num_experts"
        return
    for name in _EXPERT_FIELDS:
        yield from _no_integer(a, name, where="with experts, ")
    if a.moe_router_topk > a.num_experts:
        yield f"moe_router_topk must not exceed num_experts; got {a.moe_router_topk}"
    if a.moe_shared_expert_gate and a.moe_shared_expert_intermediate_size is None:
        yield "moe_shared_expert_gate needs moe_shared_expert_intermediate_size"
    yield from _no_pattern(a, "moe_layer_freq", at_least=1)


def _check_latent_attention(a):
    if not a.multi_latent_attention:
        if given := [name for name in ("q_lora_rank", *_LATENT_FIELDS) if getattr(a, name) is not None]:
            yield f"{', '.join(given)}: multi-latent attention needs kv_lora_rank"
        return
    for name in _LATENT_FIELDS:
        yield from _no_integer(a, name, where="with multi-latent attention, ")
    for name in ("kv_channels", "qk_layernorm", "window_size"):
        if getattr(a, name) is not None:
            yield f"multi-latent attention has no {name}; got {getattr(a, name)!r}"
    if a.add_qkv_bias or a.add_bias_linear or a.add_attention_bias or a.softmax_type != "vanilla":
        yield "multi-latent attention has no bias and no attention sinks here"


def _check_heads(a):
    divisors = [("num_query_groups", "num_attention_heads")]
    if a.kv_channels is None and not a.multi_latent_attention:
        divisors.insert(0, ("num_attention_heads", "hidden_size"))
    for divisor, dividend in divisors:
        if getattr(a, dividend) % getattr(a, divisor):
            yield f"{dividend} ({getattr(a, dividend)}) must be a multiple of {divisor} ({getattr(a, divisor)})"
    rotated = a.qk_pos_emb_head_dim or a.head_dim
    if a.position_embedding_type == "rope" and rotated % 2:
        yield (
            "rotary positions turn pairs of dimensions; the width of a head (hidden_size / num_attention_heads, or "
            f"kv_channels) must be even, got {rotated}"
        )


def _check_layers(a):
    if not isinstance(a.layers, tuple) or len(a.layers) != a.num_layers:
        yield f"layers must be one for each of num_layers = {a.num_layers}; got {len(a.layers)}"
