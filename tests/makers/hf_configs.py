"""Small configurations of every family, beside transformers' own."""

import json

import pytest

SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}

GPT_SIZES = {"n_layer": 4, "n_embd": 48, "n_head": 6, "n_positions": 64, "vocab_size": 99}

BLOOM_SIZES = {"n_layer": 4, "hidden_size": 48, "n_head": 6, "vocab_size": 99}

FALCON_SIZES = {name: SIZES[name] for name in SIZES if name not in ("num_key_value_heads", "intermediate_size")}

OPT_SIZES = {**FALCON_SIZES, "ffn_dim": 72}

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "q_lora_rank": 20,
            "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
            "num_key_value_heads": 6}  # fmt: skip

LLAMA_4 = {"num_local_experts": 4, "head_dim": 16, "intermediate_size_mlp": 56}

# Small shapes of every family; head_dim where the default of the family's class would be large.
FAMILIES = {
    "gpt2": GPT_SIZES,
    "gptj": {**GPT_SIZES, "rotary_dim": 4},
    "gpt_neox": SIZES,
    "opt": OPT_SIZES,
    "bloom": BLOOM_SIZES,
    "falcon": FALCON_SIZES,
    "llama": SIZES,
    "llama4_text": {**SIZES, **LLAMA_4},
    "mistral": SIZES,
    "mixtral": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": SIZES,
    "qwen2_moe": {**SIZES, **MOE, "shared_expert_intermediate_size": 40},
    "qwen3": SIZES,
    "qwen3_moe": {**SIZES, **MOE},
    "gemma": {**SIZES, "head_dim": 16},
    "gemma2": {**SIZES, "head_dim": 16},
    "gemma3_text": {**SIZES, "head_dim": 16},
    "phi3": {**SIZES, "pad_token_id": 0},
    "olmo2": SIZES,
    "deepseek_v2": {**SIZES, **DEEPSEEK},
    "deepseek_v3": {**SIZES, **DEEPSEEK, "n_group": 2, "topk_group": 1},
    "gpt_oss": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 3},
}


def hf_config(family, **change):
    """The configuration that transformers makes of a small shape of this family."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoConfig.for_model(family, **{**FAMILIES[family], **change})


def written(config):
    """A config.json as transformers writes it, with every option."""
    return json.loads(config.to_json_string(use_diff=False))
