"""What the engines of :mod:`megatron_lm` can build. Imports no torch, so that an argument can be refused at once."""

from collections.abc import Callable, Mapping

# Options of a scaling of rotary positions: those it needs, and those it may have.
_SCALINGS = {
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"},
    ),
}


def _any(value):
    return True


def _one_of(*values):
    return lambda value: value in values


def _is_number(value):
    return isinstance(value, (int, float))


def _is_built_scaling(scaling):
    if scaling["rope_type"] not in _SCALINGS:
        return False
    needed, allowed = _SCALINGS[scaling["rope_type"]]
    # Of the two multipliers each means another thing without the other.
    pairs_up = bool(scaling.get("mscale")) == bool(scaling.get("mscale_all_dim"))
    return needed <= set(scaling) - {"rope_type"} <= needed | allowed and pairs_up


# Features (see Architecture.features) that every engine computes as the model's owners do, and of which values.
BUILT_FEATURES: Mapping[str, Callable[[object], bool]] = {
    "kv_channels": _any,
    "add_attention_bias": _any,
    "add_output_layer_bias": _any,
    "qk_layernorm": _one_of("per_head"),
    "softmax_type": _any,
    "window_size": _any,
    "window_attn_skip_freq": _any,
    "parallel_blocks": _any,
    "norms_per_layer": _one_of(1),
    "num_extra_positions": _any,
    "num_experts": _any,
    "moe_router_topk": _any,
    "moe_ffn_hidden_size": _any,
    "moe_layer_freq": _any,
    "moe_shared_expert_intermediate_size": _any,
    "moe_shared_expert_gate": _any,
    "moe_router_pre_softmax": _any,
    "moe_router_score_function": _one_of("sigmoid"),
    "moe_router_enable_expert_bias": _any,
    "moe_router_num_groups": _any,
    "moe_router_group_topk": _any,
    "moe_router_topk_scaling_factor": _any,
    "q_lora_rank": _any,
    "kv_lora_rank": _any,
    "qk_head_dim": _any,
    "qk_pos_emb_head_dim": _any,
    "v_head_dim": _any,
    "activation_func": _one_of("gelu", "gelu_tanh", "relu", "silu", "clamped swiglu"),
    "swiglu_alpha": _is_number,
    "swiglu_limit": _is_number,
    "rotary_percent": _any,
    "rotary_interleaved": _any,
    "rope_scaling": _is_built_scaling,
    "embedding_multiplier": _any,
    # Weights are random: one that is kept with the 1 added is the same function.
    "layernorm_zero_centered_gamma": _any,
}


def unsupported_features(architecture) -> list[str]:
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


def _unbuilt_combinations(a):
    """Features that Megatron builds, but not together."""
    unbuilt = _unbuilt_with_latents(a) if a.multi_latent_attention else []
    if _rope_type(a) == "yarn":
        refused = ["rotary_percent"] + ([] if a.multi_latent_attention else ["rotary_interleaved"])
        named = [name for name in refused if name in a.uncounted_options]
        unbuilt += [f"rope_scaling of rope_type 'yarn' with {name}" for name in named]
    if a.norms_per_layer == 1 and not a.parallel_blocks:
        unbuilt.append("norms_per_layer = 1 without parallel_blocks")
    if a.num_experts is not None:
        if a.parallel_blocks:
            unbuilt.append("parallel_blocks with num_experts")
        if a.moe_shared_expert_intermediate_size is not None and a.add_bias_linear:
            unbuilt.append("moe_shared_expert_intermediate_size with add_bias_linear")
        if a.moe_router_topk == 1 and not a.uncounted_options.get("moe_router_pre_softmax"):
            unbuilt.append("moe_router_topk = 1 without moe_router_pre_softmax")
        unbuilt += _unbuilt_groups(a)
    return unbuilt


def _unbuilt_with_latents(a):
    scaling, rope_type = a.uncounted_options.get("rope_scaling", {}), _rope_type(a)
    refused = {
        "without rotary_interleaved": not a.uncounted_options.get("rotary_interleaved"),
        f"with position_embedding_type = {a.position_embedding_type!r}": a.position_embedding_type != "rope",
        f"with normalization = {a.normalization!r}": a.normalization != "RMSNorm",
        f"with num_query_groups = {a.num_query_groups}": a.num_query_groups != a.num_attention_heads,
        "with rotary_percent": "rotary_percent" in a.uncounted_options,
        f"with rope_scaling of rope_type {rope_type!r}": rope_type not in (None, "yarn"),
        "with rope_scaling of truncate = False": not scaling.get("truncate", True),
    }
    return [f"kv_lora_rank {what}" for what, is_so in refused.items() if is_so]


def _unbuilt_groups(a):
    """Groups of experts that no router can choose among."""
    num_groups, num_kept = (a.uncounted_options.get(f"moe_router_{name}") for name in ("num_groups", "group_topk"))
    if num_groups is None:
        return []
    are_groups = a.num_experts % num_groups == 0 and num_kept <= num_groups
    if are_groups and a.num_experts // num_groups * num_kept >= a.moe_router_topk:
        return []
    return [f"moe_router_num_groups = {num_groups}, of which {num_kept}, with num_experts = {a.num_experts}"]


def _rope_type(a):
    return a.uncounted_options.get("rope_scaling", {}).get("rope_type")


def _remedy(missing):
    if len(missing) == 1 and missing[0].startswith("quantization_config"):
        return ". Without its quantization_config it is built, and all weights have one data type"
    return ""


def require_buildable(architecture, *, tensor_parallel_size: int = 1):
    """Refuse what would be built otherwise than its owners describe it.

    Raises
    ------
    ValueError
        The message names every feature that is not built, or not with tensor parallelism.
    """
    if missing := unsupported_features(architecture):
        raise ValueError(
            f"{architecture.name} cannot be built here, only counted (num_params, idealized_runtime.architectures): "
            + "; ".join(feature if len(feature) <= 80 else feature[:77] + "..." for feature in missing)
            + _remedy(missing)
        )
    if architecture.multi_latent_attention and tensor_parallel_size > 1:
        raise ValueError(
            f"{architecture.name} has multi-latent attention (kv_lora_rank = {architecture.kv_lora_rank}), which is "
            f"not shared out among tensor parallel ranks here; got --tensor-model-parallel-size {tensor_parallel_size}"
            ": use 1, and --pipeline-model-parallel-size to share the layers out"
        )
    if architecture.num_experts is not None and tensor_parallel_size > 1:
        raise ValueError(
            f"{architecture.name} has experts (num_experts = {architecture.num_experts}), which are not shared out "
            f"among tensor parallel ranks here; got --tensor-model-parallel-size {tensor_parallel_size}: use 1, and "
            "--pipeline-model-parallel-size to share the layers out"
        )
