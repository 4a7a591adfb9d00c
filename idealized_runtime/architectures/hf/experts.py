"""Mixtures of experts: Mixtral, Qwen, gpt-oss, Llama 4, DeepSeek."""

from idealized_runtime.architectures.hf.common import (
    LLAMA_DEFAULTS,
    HfFamily,
    read_llama_like,
    require_one_a_layer,
    require_options,
    required_size,
    sizes,
    unusual_options,
    window_fields,
)
from idealized_runtime.architectures.hf.llama import QWEN_DEFAULTS, qwen_windows


def _read_mixtral(config):
    require_options(config, attention_bias=(False, None))
    windows = window_fields(config, lambda layer: True)
    experts = _experts(config, "num_local_experts", "intermediate_size")
    return read_llama_like(config, **windows, **experts)


def _experts(config, number, size):
    """Fields of a model whose options ``number`` and ``size`` say how many experts a layer has, and how wide."""
    return {
        "num_experts": config[number],
        "moe_router_topk": config["num_experts_per_tok"],
        "moe_ffn_hidden_size": required_size(config, size),
    }


def _read_qwen2_moe(config):
    config = {**config, "attention_bias": False}
    shared = {
        "moe_shared_expert_intermediate_size": config["shared_expert_intermediate_size"],
        "moe_shared_expert_gate": True,
    }
    windows = qwen_windows(config, lambda layer: layer % 2 == 0 and layer < config["max_window_layers"])
    return _read_qwen_moe(config, add_qkv_bias=config["qkv_bias"], **shared, **windows)


def _read_qwen3_moe(config):
    return _read_qwen_moe(config, qk_layernorm="per_head", **qwen_windows(config, lambda layer: True))


def _read_qwen_moe(config, **fields):
    dense = set(config["mlp_only_layers"] or ())
    step, layers = config["decoder_sparse_step"], range(config["num_hidden_layers"])
    has_experts = tuple(int(layer not in dense and (layer + 1) % step == 0) for layer in layers)
    experts = _experts(config, "num_experts", "moe_intermediate_size")
    options = {} if config["norm_topk_prob"] else {"moe_router_pre_softmax": True}
    return read_llama_like(config, options=options, moe_layer_freq=has_experts, **experts, **fields)


def _read_gpt_oss(config):
    windows = window_fields(config, lambda layer: layer % 2 == 0)
    clamped = {"activation_func": "clamped swiglu", **unusual_options(config, swiglu_alpha=1.702, swiglu_limit=7.0)}
    biases = {"add_bias_linear": True, "add_qkv_bias": config["attention_bias"]}
    experts = _experts(config, "num_local_experts", "intermediate_size")
    if config.get("rope_parameters"):
        # What they leave out is as usual, not as in the class.
        config = {**config, "rope_scaling": None}
    return read_llama_like(config, softmax_type="learnable", options=clamped, **biases, **experts, **windows)


def _read_llama4(config):
    num_layers = config["num_hidden_layers"]
    step, turns = config["interleave_moe_layer_step"], _rotary_layers(config)
    chunks = {**config, "sliding_window": config["attention_chunk_size"]}
    windows = window_fields(chunks, lambda layer: bool(turns[layer]))
    with_experts = range(step - 1, num_layers, step) if config["moe_layers"] is None else config["moe_layers"]
    experts = _experts(config, "num_local_experts", "intermediate_size")
    options = {"rotary_interleaved": True, "moe_router_score_function": "sigmoid of the input"}
    options |= {"qk_l2_norm": True} if config["use_qk_norm"] else {}
    options |= {"no_rope_layers": turns} if 0 in turns else {}
    options |= {"attn_temperature_tuning": True} if config["attn_temperature_tuning"] and 0 in turns else {}
    fields = {
        **experts,
        "ffn_hidden_size": config["intermediate_size_mlp"],
        "moe_layer_freq": tuple(int(layer in set(with_experts)) for layer in range(num_layers)),
        "moe_shared_expert_intermediate_size": config["intermediate_size"],
        "window_is_chunk": bool(windows),
    }
    return read_llama_like(config, options=options, **windows, **fields)


def _rotary_layers(config):
    """Llama 4: a 1 for each layer with rotary positions, a 0 for one without."""
    if config["no_rope_layers"]:
        require_one_a_layer(config, "no_rope_layers")
        return config["no_rope_layers"]
    return [int((layer + 1) % config["no_rope_layer_interval"] != 0) for layer in range(config["num_hidden_layers"])]


def _read_deepseek(config):
    require_options(config, attention_bias=(False,), mlp_bias=(False,), moe_layer_freq=(1,))
    num_shared, num_dense = config["n_shared_experts"] or 0, config["first_k_dense_replace"] or 0
    latent = {
        "q_lora_rank": config["q_lora_rank"],
        "kv_lora_rank": config["kv_lora_rank"],
        "qk_head_dim": config["qk_nope_head_dim"],
        "qk_pos_emb_head_dim": config["qk_rope_head_dim"],
        "v_head_dim": config["v_head_dim"],
        "num_query_groups": None,
    }
    has_experts = tuple(int(layer >= num_dense) for layer in range(config["num_hidden_layers"]))
    experts = {}
    if any(has_experts):
        experts = {
            **_experts(config, "n_routed_experts", "moe_intermediate_size"),
            "moe_layer_freq": has_experts,
            "moe_shared_expert_intermediate_size": num_shared * config["moe_intermediate_size"] or None,
        }
    config = {**config, "head_dim": None}
    return read_llama_like(config, options=_deepseek_options(config), **latent, **experts)


def _deepseek_options(config):
    options = {"rotary_interleaved": True} if config.get("rope_interleave", True) else {}
    if config["model_type"] == "deepseek_v3":
        options |= {"moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True}
        options |= {**unusual_options(config, norm_topk_prob=True), **_expert_groups(config, num_best=2)}
    else:
        options |= {"moe_router_pre_softmax": True, **unusual_options(config, norm_topk_prob=False)}
        if config["topk_method"] == "group_limited_greedy":
            options |= _expert_groups(config, num_best=1)
        else:
            options |= unusual_options(config, topk_method="greedy")
    if config["routed_scaling_factor"] != 1.0:
        options |= {"moe_router_topk_scaling_factor": config["routed_scaling_factor"]}
    return options


def _expert_groups(config, *, num_best):
    """Groups of experts of which a token visits some, by the sum of the best scores in each."""
    if (config["n_group"] or 1) == 1:
        return {}
    options = {"moe_router_num_groups": config["n_group"], "moe_router_group_topk": config["topk_group"]}
    # As many as Megatron sums: then no option of its own.
    if config["num_experts_per_tok"] // config["topk_group"] != num_best:
        options["moe_router_group_score"] = "sum of the best two" if num_best == 2 else "best"
    return options


_QWEN_MOE = {**QWEN_DEFAULTS, "decoder_sparse_step": 1, "mlp_only_layers": None, "norm_topk_prob": False}
_DEEPSEEK = {**LLAMA_DEFAULTS, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
             "qk_rope_head_dim": 64, "v_head_dim": 128}  # fmt: skip
_DEEPSEEK_V2 = {**_DEEPSEEK, **sizes(32, 4096, 32, 102400, 11008), "n_routed_experts": 64,
                "moe_intermediate_size": 1407, "max_position_embeddings": 2048, "n_shared_experts": 2,
                "first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "n_group": None, "topk_group": None,
                "topk_method": "greedy", "norm_topk_prob": False}  # fmt: skip
_LLAMA_4 = HfFamily(
    _read_llama4,
    {**LLAMA_DEFAULTS, "max_position_embeddings": 131072, "rope_theta": 5e5, "rms_norm_eps": 1e-5, "head_dim": 128,
     "num_key_value_heads": 8, **sizes(48, 5120, 40, 202048, 8192), "intermediate_size_mlp": 16384,
     "num_experts_per_tok": 1,
     "num_local_experts": 16, "interleave_moe_layer_step": 1, "moe_layers": None, "no_rope_layers": None,
     "no_rope_layer_interval": 4, "attention_chunk_size": 8192, "use_qk_norm": True, "attn_temperature_tuning": True},
)  # fmt: skip
FAMILIES = {
    "mixtral": HfFamily(
        _read_mixtral,
        {**LLAMA_DEFAULTS, **sizes(32, 4096, 32, 32000, 14336), "num_local_experts": 8, "num_experts_per_tok": 2,
         "max_position_embeddings": 131072, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        {"num_experts": "num_local_experts"},
    ),
    "qwen2_moe": HfFamily(
        _read_qwen2_moe,
        {**_QWEN_MOE, **sizes(24, 2048, 16, 151936, 5632), "num_experts": 60, "num_experts_per_tok": 4,
         "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_key_value_heads": 16,
         "qkv_bias": True},
    ),
    "qwen3_moe": HfFamily(
        _read_qwen3_moe,
        {**_QWEN_MOE, **sizes(24, 2048, 32, 151936, 6144), "num_experts": 128, "num_experts_per_tok": 8,
         "moe_intermediate_size": 768, "num_key_value_heads": 4},
        {"num_local_experts": "num_experts"},
    ),
    "llama4": _LLAMA_4,
    "llama4_text": _LLAMA_4,
    "deepseek_v2": HfFamily(_read_deepseek, _DEEPSEEK_V2, {"num_experts": "n_routed_experts"}),
    "deepseek_v3": HfFamily(
        _read_deepseek,
        {**_DEEPSEEK_V2, **sizes(61, 7168, 128, 129280, 18432), "n_routed_experts": 256, "num_experts_per_tok": 8,
         "moe_intermediate_size": 2048, "max_position_embeddings": 4096, "n_shared_experts": 1,
         "first_k_dense_replace": 3, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4,
         "norm_topk_prob": True},
        {"num_local_experts": "n_routed_experts"},
    ),
    "gpt_oss": HfFamily(
        _read_gpt_oss,
        {**LLAMA_DEFAULTS, **sizes(36, 2880, 64, 201088, 2880), "num_local_experts": 128, "num_experts_per_tok": 4,
         "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 150000.0,
         "attention_bias": True, "head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128,
         "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                          "truncate": False, "original_max_position_embeddings": 4096}},
        {"num_experts": "num_local_experts"},
    ),
}  # fmt: skip
