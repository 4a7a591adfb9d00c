"""Llama and its dense followers: RMSNorm, rotary positions, a gated feed-forward network."""

from idealized_runtime.architectures.hf.common import (
    LLAMA_DEFAULTS,
    HfFamily,
    read_llama_like,
    require_options,
    sizes,
    unusual_options,
    window_fields,
)


def _read_llama(config):
    return read_llama_like(config, add_bias_linear=config["mlp_bias"])


def _read_windowed_everywhere(config):
    require_options(config, attention_bias=(False, None))
    return read_llama_like(config, **window_fields(config, lambda layer: True))


def _read_qwen2(config):
    # Of its queries, keys and values always; some configurations say so, and mean no other.
    config = {**config, "attention_bias": False}
    return read_llama_like(config, add_qkv_bias=True, **qwen_windows(config))


def _read_qwen3(config):
    return read_llama_like(config, qk_layernorm="per_head", **qwen_windows(config))


def qwen_windows(config, usual=None):
    """Fields of the windows of a Qwen, which has them where it says so: in its last layers, if no rule is given."""
    if config["use_sliding_window"]:
        return window_fields(config, usual or (lambda layer: layer >= config["max_window_layers"]))
    require_options(config, layer_types=(None, ["full_attention"] * config["num_hidden_layers"]))
    return {}


def _read_olmo2(config):
    return read_llama_like(config, qk_layernorm="all_heads", options={"norm_placement": "after each block"})


def _read_gemma(config):
    # Its owners' first files say "gelu" and mean the approximation by tanh; later ones say it under another name.
    activation = config.get("hidden_activation") or config["hidden_act"]
    config = {**config, "hidden_act": "gelu_tanh" if activation == "gelu" else activation}
    return read_llama_like(config, options=_gemma_options(config))


def _gemma_options(config):
    embeddings = {"embedding_multiplier": config["hidden_size"] ** 0.5, "layernorm_zero_centered_gamma": True}
    causal = unusual_options(config, use_bidirectional_attention=None)
    return {**embeddings, **{name: value for name, value in causal.items() if value}}


def _read_gemma2(config):
    return _read_later_gemma(config, **window_fields(config, lambda layer: layer % 2 == 0))


def _read_gemma3(config):
    every = config.get("sliding_window_pattern", 6)
    windows = window_fields(config, lambda layer: (layer + 1) % every != 0)
    by_kind = config.get("rope_parameters") or {}
    local_base = (by_kind.get("sliding_attention") or {}).get("rope_theta", config["rope_local_base_freq"])
    options = {"rotary_base_of_windowed_layers": float(local_base)} if windows else {}
    # Read is the base of the full layers.
    config = {**config, "rope_parameters": by_kind.get("full_attention")}
    return _read_later_gemma(config, options=options, qk_layernorm="per_head", **windows)


def _read_later_gemma(config, *, options=None, **fields):
    """Gemma 2 and 3: a norm before and after each block."""
    uncapped = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    unusual = unusual_options(config, **uncapped, query_pre_attn_scalar=config["head_dim"])
    options = {**_gemma_options(config), **unusual, **(options or {})}
    config = {**config, "hidden_act": config["hidden_activation"]}
    return read_llama_like(config, norms_per_layer=4, options=options, **fields)


QWEN_DEFAULTS = {**LLAMA_DEFAULTS, "max_position_embeddings": 32768, "use_sliding_window": False,
                 "sliding_window": 4096, "max_window_layers": 28}  # fmt: skip
_QWEN = sizes(32, 4096, 32, 151936, 22016)
_GEMMA = {**LLAMA_DEFAULTS, "tie_word_embeddings": True, "max_position_embeddings": 8192, "head_dim": 256,
          "hidden_act": "gelu_pytorch_tanh"}  # fmt: skip
_LATER_GEMMA = {**_GEMMA, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256,
                "sliding_window": 4096, "num_key_value_heads": 4}  # fmt: skip
_GEMMA_3 = HfFamily(
    _read_gemma3,
    {**_LATER_GEMMA, **sizes(26, 2304, 8, 262208, 9216), "max_position_embeddings": 131072, "rope_theta": 1e6,
     "rope_local_base_freq": 1e4},
)  # fmt: skip
FAMILIES = {
    "llama": HfFamily(
        _read_llama,
        {**LLAMA_DEFAULTS, **sizes(32, 4096, 32, 32000, 11008), "max_position_embeddings": 2048, "mlp_bias": False},
    ),
    "mistral": HfFamily(
        _read_windowed_everywhere,
        {**LLAMA_DEFAULTS, **sizes(32, 4096, 32, 32000, 14336), "max_position_embeddings": 131072,
         "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": HfFamily(_read_qwen2, {**QWEN_DEFAULTS, **_QWEN, "num_key_value_heads": 32}),
    "qwen3": HfFamily(_read_qwen3, {**QWEN_DEFAULTS, **_QWEN, "num_key_value_heads": 32, "head_dim": 128}),
    "gemma": HfFamily(_read_gemma, {**_GEMMA, **sizes(28, 3072, 16, 256000, 24576), "num_key_value_heads": 16}),
    "gemma2": HfFamily(
        _read_gemma2,
        {**_LATER_GEMMA, **sizes(26, 2304, 8, 256000, 9216), "attn_logit_softcapping": 50.0,
         "final_logit_softcapping": 30.0},
    ),
    "gemma3": _GEMMA_3,
    "gemma3_text": _GEMMA_3,
    "phi3": HfFamily(
        _read_windowed_everywhere,
        {**LLAMA_DEFAULTS, **sizes(32, 3072, 32, 32064, 8192), "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    ),
    "olmo2": HfFamily(
        _read_olmo2,
        {**LLAMA_DEFAULTS, **sizes(32, 4096, 32, 50304, 11008), "max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    ),
}  # fmt: skip
