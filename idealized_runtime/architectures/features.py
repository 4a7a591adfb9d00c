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
    "qk_layernorm": _one_of("per_head"),
    "softmax_type": _any,
    "window_size": _any,
    "window_attn_skip_freq": _any,
    "num_extra_positions": _any,
    "num_experts": _any,
    "moe_router_topk": _any,
    "moe_ffn_hidden_size": _any,
    "moe_layer_freq": _any,
    "moe_shared_expert_intermediate_size": _any,
    "moe_shared_expert_gate": _any,
    "moe_router_pre_softmax": _any,
    "activation_func": _one_of("gelu", "gelu_tanh", "relu", "silu", "clamped swiglu"),
    "swiglu_alpha": _is_number,
    "swiglu_limit": _is_number,
    "rotary_percent": _any,
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
    unbuilt = []
    if _rope_type(a) == "yarn" and "rotary_percent" in a.uncounted_options:
        unbuilt.append("rope_scaling of rope_type 'yarn' with rotary_percent")
    if a.num_experts is not None:
        if a.moe_shared_expert_intermediate_size is not None and a.add_bias_linear:
            unbuilt.append("moe_shared_expert_intermediate_size with add_bias_linear")
        if a.moe_router_topk == 1 and not a.uncounted_options.get("moe_router_pre_softmax"):
            unbuilt.append("moe_router_topk = 1 without moe_router_pre_softmax")
    return unbuilt


def _rope_type(a):
    return a.uncounted_options.get("rope_scaling", {}).get("rope_type")


def require_buildable(architecture, *, tensor_parallel_size: int = 1):
    """Refuse what would be built otherwise than its owners describe it.

    Raises
    ------
    ValueError
        The message names every feature that is not built, or not with tensor parallelism.
    """
    if missing := unsupported_features(architecture):
        raise ValueError(
            f"{architecture.name} cannot be built here, only counted (num_params, idealized_runtime.flops): "
            + "; ".join(feature if len(feature) <= 80 else feature[:77] + "..." for feature in missing)
        )
    if architecture.num_experts is not None and tensor_parallel_size > 1:
        raise ValueError(
            f"{architecture.name} has experts (num_experts = {architecture.num_experts}), which are not shared out "
            f"among tensor parallel ranks here; got --tensor-model-parallel-size {tensor_parallel_size}: use 1, and "
            "--pipeline-model-parallel-size to share the layers out"
        )
