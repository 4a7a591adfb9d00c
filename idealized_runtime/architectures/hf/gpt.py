"""The families of 2019 to 2023: GPT-2, GPT-J, GPT-NeoX, OPT, BLOOM and Falcon."""

from idealized_runtime.architectures.hf.common import (
    HfFamily,
    family_fields,
    read_sizes,
    require_options,
    rotary_fields,
    sizes,
    unusual_options,
)


def _gpt_sizes(config):
    """Sizes as GPT-2, GPT-J and BLOOM spell them."""
    return {
        "num_layers": config["n_layer"],
        "hidden_size": config["n_embd"],
        "num_attention_heads": config["n_head"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["n_positions"],
        "layernorm_epsilon": config["layer_norm_epsilon"],
    }


def _read_gpt2(config):
    require_options(config, add_cross_attention=(False,))
    usual = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}
    sizes = {**_gpt_sizes(config), "ffn_hidden_size": config["n_inner"]}
    return family_fields(config, sizes, config["activation_function"], options=unusual_options(config, **usual))


def _read_gptj(config):
    head_dim, rotary_dim = config["n_embd"] // config["n_head"], config["rotary_dim"]
    partly = {} if rotary_dim in (None, head_dim) else {"rotary_percent": rotary_dim / head_dim}
    return family_fields(
        config,
        {**_gpt_sizes(config), "ffn_hidden_size": config["n_inner"]},
        config["activation_function"],
        options={**partly, "rotary_interleaved": True},
        position_embedding_type="rope",
        add_attention_bias=False,
        add_qkv_bias=False,
        add_output_layer_bias=True,
        parallel_blocks=True,
        norms_per_layer=1,
    )


def _read_gpt_neox(config):
    return family_fields(
        config,
        read_sizes(config),
        config["hidden_act"],
        rotary=rotary_fields({"partial_rotary_factor": config["rotary_pct"], **config}),
        layernorm_epsilon=config["layer_norm_eps"],
        add_attention_bias=config["attention_bias"],
        add_qkv_bias=config["attention_bias"],
        parallel_blocks=config["use_parallel_residual"],
    )


def _read_opt(config):
    require_options(config, layer_norm_elementwise_affine=(True,))
    is_before = config["do_layer_norm_before"]
    return family_fields(
        config,
        read_sizes({**config, "intermediate_size": config["ffn_dim"]}),
        config["activation_function"],
        options={} if is_before else {"norm_placement": "after each sum"},
        add_bias_linear=config["enable_bias"],
        add_qkv_bias=config["enable_bias"],
        final_layernorm=is_before and not config["_remove_final_layer_norm"],
        embedding_size=config["word_embed_proj_dim"],
        # Its first two positions are padding.
        num_extra_positions=2,
    )


def _read_bloom(config):
    unusual = unusual_options(config, apply_residual_connection_post_layernorm=False)
    fields = {"position_embedding_type": "alibi", "embedding_layernorm": True}
    return family_fields(config, _gpt_sizes(config), "gelu_tanh", options=unusual, **fields)


def _read_falcon(config):
    num_heads, is_new = config["num_attention_heads"], config["new_decoder_architecture"]
    num_norms = config["num_ln_in_parallel_attn"] or (2 if is_new else 1)
    fields = {"position_embedding_type": "alibi"} if config["alibi"] else {}
    return family_fields(
        config,
        read_sizes({**config, "intermediate_size": config["ffn_hidden_size"] or 4 * config["hidden_size"]}),
        config["activation"],
        rotary=rotary_fields(config),
        num_query_groups=(config["num_kv_heads"] or num_heads) if is_new or not config["multi_query"] else 1,
        layernorm_epsilon=config["layer_norm_epsilon"],
        add_bias_linear=config["bias"],
        add_qkv_bias=config["bias"],
        parallel_blocks=is_new or config["parallel_attn"],
        norms_per_layer=num_norms if config["parallel_attn"] else 2,
        **fields,
    )


def _gpt(n_layer, n_embd, n_head, vocab_size) -> dict:
    """Sizes of a class, spelled as GPT-2, GPT-J and BLOOM do."""
    return dict(locals())


_GPT = {"layer_norm_epsilon": 1e-5, "n_inner": None, "activation_function": "gelu_new"}
_ALIASES = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "hidden_size": "n_embd",
            "n_embed": "n_embd", "max_position_embeddings": "n_positions"}  # fmt: skip
_FALCON = {"max_position_embeddings": 2048, "layer_norm_epsilon": 1e-5, "num_ln_in_parallel_attn": None, "alibi": False,
           "num_kv_heads": None, "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True,
           "bias": False, "ffn_hidden_size": None, "activation": "gelu", "rope_theta": 1e4,
           "tie_word_embeddings": True}  # fmt: skip
_REFINED_WEB = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_head_kv": "num_kv_heads"}
FAMILIES = {
    "gpt2": HfFamily(
        _read_gpt2, {**_GPT, **_gpt(12, 768, 12, 50257), "n_positions": 1024, "tie_word_embeddings": True}, _ALIASES
    ),
    "gptj": HfFamily(
        _read_gptj,
        {**_GPT, **_gpt(28, 4096, 16, 50400), "n_positions": 2048, "rotary_dim": 64, "tie_word_embeddings": False},
        _ALIASES,
    ),
    "gpt_neox": HfFamily(
        _read_gpt_neox,
        {**sizes(44, 6144, 64, 50432, 24576), "max_position_embeddings": 2048,
         "layer_norm_eps": 1e-5, "hidden_act": "gelu", "rotary_pct": 0.25,
         "rope_theta": 1e4, "attention_bias": True, "use_parallel_residual": True, "tie_word_embeddings": False},
        {"rotary_emb_base": "rope_theta"},
    ),
    "opt": HfFamily(
        _read_opt,
        {**sizes(12, 768, 12, 50272), "ffn_dim": 3072, "max_position_embeddings": 2048,
         "activation_function": "relu", "enable_bias": True,
         "tie_word_embeddings": True, "do_layer_norm_before": True, "_remove_final_layer_norm": False,
         "word_embed_proj_dim": None},
    ),
    "bloom": HfFamily(
        _read_bloom,
        {**_gpt(2, 64, 8, 250880), "layer_norm_epsilon": 1e-5, "n_positions": 2048, "tie_word_embeddings": True},
        {**_ALIASES, "seq_length": "n_positions"},
    ),
    "falcon": HfFamily(_read_falcon, {**_FALCON, **sizes(32, 4544, 71, 65024)}),
    # Falcon as its owners called it before transformers had it: RefinedWeb the one with groups of heads.
    "RefinedWebModel": HfFamily(_read_falcon, {**_FALCON, "multi_query": False, "parallel_attn": False}, _REFINED_WEB),
    "RefinedWeb": HfFamily(_read_falcon, {**_FALCON, "new_decoder_architecture": True}, _REFINED_WEB),
}  # fmt: skip
