"""What the engines of :mod:`megatron_lm` can build. Imports no torch, so that an argument can be refused at once."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idealized_runtime.architectures.architecture import Architecture

# Options of a scaling of rotary positions: those it needs, and those it may have.
_SCALINGS = {
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"},
    ),
}


def _one_of(*values):
    return lambda value: value in values


def _is_number(value):
    return isinstance(value, (int, float))


def _is_built_scaling(scaling):
    if not isinstance(scaling, Mapping) or scaling.get("rope_type") not in list(_SCALINGS):
        return False
    if not all(_is_number(value) for name, value in scaling.items() if name != "rope_type"):
        return False
    needed, allowed = _SCALINGS[scaling["rope_type"]]
    # Of the two multipliers each means another thing without the other.
    pairs_up = bool(scaling.get("mscale")) == bool(scaling.get("mscale_all_dim"))
    return needed <= set(scaling) - {"rope_type"} <= needed | allowed and pairs_up


# Features (see Architecture.features) that every engine computes as the model's owners do, and of which values.
BUILT_FEATURES: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(
        ("kv_channels", "add_attention_bias", "add_output_layer_bias", "softmax_type", "window_size",
         "window_attn_skip_freq", "parallel_blocks", "num_extra_positions", "num_experts", "moe_router_topk",
         "moe_ffn_hidden_size", "moe_layer_freq", "moe_shared_expert_intermediate_size", "moe_shared_expert_gate",
         "moe_router_pre_softmax", "moe_router_enable_expert_bias", "moe_router_num_groups", "moe_router_group_topk",
         "moe_router_topk_scaling_factor", "q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim",
         "v_head_dim", "rotary_percent", "rotary_interleaved", "embedding_multiplier",
         # Weights are random: one that is kept with the 1 added is the same function.
         "layernorm_zero_centered_gamma"),
        lambda value: True,
    ),
    "qk_layernorm": _one_of("per_head"),
    "norms_per_layer": _one_of(1),
    "moe_router_score_function": _one_of("sigmoid"),
    "activation_func": _one_of("gelu", "gelu_tanh", "relu", "silu", "clamped swiglu"),
    "swiglu_alpha": _is_number,
    "swiglu_limit": _is_number,
    "rope_scaling": _is_built_scaling,
}  # fmt: skip


def unsupported_features(architecture: "Architecture") -> list[str]:
    """Features of an architecture that cannot be built here, each as ``name = value``; none: it can be built.

    Parameters
    ----------
    architecture : Architecture
    """
    unbuilt = [
        f"{name} = {value!r}"
        for name, value in architecture.features().items()
        if name not in BUILT_FEATURES or not BUILT_FEATURES[name](value)
    ]
    return unbuilt + _unbuilt_combinations(architecture)


def _unbuilt_combinations(a) -> list[str]:
    """Features that Megatron builds, but not together."""
    options, refused = a.uncounted_options, {}
    scaling = options.get("rope_scaling", {})
    rope_type, is_partial = scaling.get("rope_type"), "rotary_percent" in options
    if a.multi_latent_attention:
        refused |= {
            "kv_lora_rank without rotary_interleaved": not options.get("rotary_interleaved"),
            f"kv_lora_rank with position_embedding_type = {a.position_embedding_type!r}":
                a.position_embedding_type != "rope",
            f"kv_lora_rank with normalization = {a.normalization!r}": a.normalization != "RMSNorm",
            f"kv_lora_rank with num_query_groups = {a.num_query_groups}": a.num_query_groups != a.num_attention_heads,
            "kv_lora_rank with rotary_percent": is_partial,
            f"kv_lora_rank with rope_scaling of rope_type {rope_type!r}": rope_type not in (None, "yarn"),
            "kv_lora_rank with rope_scaling of truncate = False": not scaling.get("truncate", True),
        }  # fmt: skip
    is_turned = "rotary_interleaved" in options and not a.multi_latent_attention
    refused |= {
        "rope_scaling of rope_type 'yarn' with rotary_percent": rope_type == "yarn" and is_partial,
        "rope_scaling of rope_type 'yarn' with rotary_interleaved": rope_type == "yarn" and is_turned,
        "norms_per_layer = 1 without parallel_blocks": a.norms_per_layer == 1 and not a.parallel_blocks,
    }
    if a.num_experts is not None:
        num_groups, num_kept = (options.get(f"moe_router_{name}") for name in ("num_groups", "group_topk"))
        # A router chooses among whole groups, and in those it keeps there are as many experts as a token visits.
        can_choose = num_groups is None or (
            a.num_experts % num_groups == 0
            and num_kept <= num_groups
            and a.num_experts // num_groups * num_kept >= a.moe_router_topk
        )
        shared, always = a.moe_shared_expert_intermediate_size, options.get("moe_router_pre_softmax")
        refused |= {
            "parallel_blocks with num_experts": a.parallel_blocks,
            "moe_shared_expert_intermediate_size with add_bias_linear": shared is not None and a.add_bias_linear,
            "moe_router_topk = 1 without moe_router_pre_softmax": a.moe_router_topk == 1 and not always,
            f"moe_router_num_groups = {num_groups}, of which {num_kept}, with num_experts = {a.num_experts}":
                not can_choose,
        }  # fmt: skip
    return [what for what, is_so in refused.items() if is_so]


def require_buildable(architecture: "Architecture", *, tensor_parallel_size: int = 1) -> None:
    """Refuse what would be built otherwise than its owners describe it.

    Raises
    ------
    ValueError
        The message names every feature that is not built, or not with tensor parallelism.
    """
    if missing := unsupported_features(architecture):
        remedy = ""
        if len(missing) == 1 and missing[0].startswith("quantization_config"):
            remedy = ". Without its quantization_config it is built, and all weights have one data type"
        raise ValueError(
            f"{architecture.name} cannot be built here, only counted (num_params, idealized_runtime.architectures): "
            + "; ".join(feature if len(feature) <= 80 else feature[:77] + "..." for feature in missing)
            + remedy
        )
    unshared = unshared_feature(architecture)
    if unshared and tensor_parallel_size > 1:
        raise ValueError(
            f"{architecture.name} has {unshared} not shared out among tensor parallel ranks here; got "
            f"--tensor-model-parallel-size {tensor_parallel_size}: use 1, and --pipeline-model-parallel-size to share "
            "the layers out"
        )


def unshared_feature(architecture) -> str | None:
    """What the engines give every tensor parallel rank in full, in words that go on "... not shared out"."""
    if architecture.multi_latent_attention:
        return f"multi-latent attention (kv_lora_rank = {architecture.kv_lora_rank}), which is"
    if architecture.num_experts is not None:
        return f"experts (num_experts = {architecture.num_experts}), which are"
    return None
