import pytest
from makers import (
    BLOOM_SIZES,
    DEEPSEEK,
    FALCON_SIZES,
    FAMILIES,
    GPT_SIZES,
    LLAMA_4,
    MOE,
    OPT_SIZES,
    SIZES,
    class_of,
    hf_config,
    num_params_of_model,
    written,
)

from idealized_runtime.architectures import HF_FAMILIES, Architecture, get_architecture, unsupported_features
from idealized_runtime.architectures.hf import LanguageModelWarning, SilentConfigurationWarning
from idealized_runtime.architectures.open_models import OPEN_MODELS

OPTIONS = [
    ("gpt2", {"n_inner": 100}),
    ("gpt2", {"tie_word_embeddings": False}),
    ("gptj", {"n_inner": 100}),
    ("gptj", {"rotary_dim": 8}),
    ("gpt_neox", {"attention_bias": False}),
    ("gpt_neox", {"use_parallel_residual": False, "tie_word_embeddings": True}),
    ("opt", {"enable_bias": False}),
    ("opt", {"tie_word_embeddings": False}),
    ("opt", {"word_embed_proj_dim": 24, "do_layer_norm_before": False}),
    ("opt", {"word_embed_proj_dim": 24, "_remove_final_layer_norm": True, "tie_word_embeddings": False}),
    ("bloom", {"tie_word_embeddings": False}),
    ("falcon", {"multi_query": False}),
    ("falcon", {"multi_query": False, "num_kv_heads": 6, "bias": True}),
    ("falcon", {"parallel_attn": False, "alibi": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("falcon", {"ffn_hidden_size": 100, "tie_word_embeddings": False}),
    ("llama", {"num_key_value_heads": 6, "tie_word_embeddings": True}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": 16}),
    ("llama4_text", {"interleave_moe_layer_step": 2}),
    ("llama4_text", {"moe_layers": [1, 2]}),
    ("llama4_text", {"attention_bias": True, "use_qk_norm": False}),
    ("mistral", {"sliding_window": 8, "head_dim": 16}),
    ("mistral", {"sliding_window": 64, "tie_word_embeddings": True}),
    ("mixtral", {"sliding_window": 8}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen2", {"attention_bias": True}),
    ("qwen2_moe", {"attention_bias": True}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}),
    ("qwen2_moe", {"mlp_only_layers": [0, 2]}),
    ("qwen2_moe", {"decoder_sparse_step": 2, "qkv_bias": False}),
    ("qwen3", {"attention_bias": True, "head_dim": 16}),
    ("qwen3_moe", {"mlp_only_layers": [3], "attention_bias": True, "head_dim": 16}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 8}),
    ("gemma", {"attention_bias": True, "num_key_value_heads": 1}),
    ("gemma2", {"sliding_window": 8}),
    ("gemma3_text", {"sliding_window": 8, "num_hidden_layers": 13}),
    ("phi3", {"tie_word_embeddings": True, "sliding_window": 8}),
    ("olmo2", {"attention_bias": True, "num_key_value_heads": 6}),
    ("deepseek_v2", {"q_lora_rank": None, "first_k_dense_replace": 1, "n_shared_experts": 1}),
    ("deepseek_v3", {"first_k_dense_replace": 4, "n_shared_experts": 3}),
    ("deepseek_v3", {"first_k_dense_replace": 0, "tie_word_embeddings": True}),
    ("gpt_oss", {"attention_bias": False, "sliding_window": 8}),
]
LLAMA = {**SIZES, "model_type": "llama"}


def sizes_and_options(architecture):
    """What describes the layers."""
    fields = architecture.to_dict().items()
    return {name: value for name, value in fields if name not in ("name", "source", "published_params")}


def test_every_family_is_tried():
    assert set(HF_FAMILIES) == {*FAMILIES, "gemma3", "llama4", "RefinedWeb", "RefinedWebModel"}


@pytest.mark.parametrize(("family", "change"), [*((family, {}) for family in FAMILIES), *OPTIONS])
def test_parameters_equal_those_of_the_built_model(family, change):
    config = hf_config(family, **change)
    assert Architecture.from_hf_config(written(config), name="toy").num_params == num_params_of_model(config)


def described(model):
    """What transformers makes of the configuration of a row."""
    options = {name: value for name, value in model.config.items() if name != "model_type"}
    return class_of(model.config["model_type"])(**options)


@pytest.mark.parametrize("model", OPEN_MODELS, ids=lambda model: model.name)
def test_parameters_of_an_open_model_equal_those_of_the_built_model(model):
    config = described(model)
    assert model.architecture().num_params == num_params_of_model(config)


@pytest.mark.parametrize("model", OPEN_MODELS, ids=lambda model: model.name)
def test_row_of_an_open_model_is_what_its_full_configuration_says(model):
    full = {**written(described(model)), "model_type": model.config["model_type"]}
    assert sizes_and_options(Architecture.from_hf_config(full)) == sizes_and_options(model.architecture())


@pytest.mark.parametrize("family", FAMILIES)
def test_silent_configuration_has_the_defaults_of_its_family(family):
    config = hf_config(family)
    full = written(config)
    reader = HF_FAMILIES[family]
    derived = ("rope_parameters", "layer_types", "no_rope_layers", "moe_layers")
    silent = {
        name: value
        for name, value in full.items()
        if name in FAMILIES[family] or name not in (*reader.defaults, *derived)
    }
    assert len(silent) < len(full)
    assert Architecture.from_hf_config(silent, name="toy") == Architecture.from_hf_config(full, name="toy")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"model_type": "RefinedWebModel", "multi_query": True, "parallel_attn": True}, {}),
        ({"model_type": "RefinedWebModel", "alibi": True, "bias": True},
         {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}),
        ({"model_type": "RefinedWeb", "n_head_kv": 2, "parallel_attn": True},
         {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ],
)  # fmt: skip
def test_falcon_is_read_under_its_first_names_too(old, new):
    sizes = {"hidden_size": 48, "vocab_size": 99}
    before = Architecture.from_hf_config({**sizes, "n_layer": 4, "n_head": 6, **old}, name="toy")
    sizes |= {"num_hidden_layers": 4, "num_attention_heads": 6}
    assert Architecture.from_hf_config({**sizes, "model_type": "falcon", **new}, name="toy") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no_such"}, "model_type 'no_such' is known neither here nor to transformers"),
        ({"model_type": None}, "model_type None cannot be counted here"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\] cannot be counted here"),
        ({"num_hidden_layers": "4", "model_type": "mistral"}, "num_hidden_layers = '4': must be a whole number, wit"),
        ({"num_hidden_layers": True}, "llama with num_hidden_layers = True: must be a whole number"),
        ({"num_hidden_layers": 4.0}, "num_hidden_layers = 4.0: must be a whole number"),
        ({"vocab_size": float("nan")}, "vocab_size = nan: must be a whole number"),
        ({"vocab_size": -5}, "vocab_size = -5: must be at most"),
        ({"num_attention_heads": [6]}, r"num_attention_heads = \[6\]: must be a whole number"),
        ({"rms_norm_eps": float("inf")}, r"rms_norm_eps = inf: must be at most 2\*\*40"),
        ({"rms_norm_eps": None}, "layernorm_epsilon must be a positive number .*; got None"),
        ({"rope_theta": 10**400}, r"rope_theta = a number of 1329 bits: must be at most 2\*\*40"),
        ({"rope_theta": True}, "rope_theta = True: must be a number"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_parameters .* must hold numbers of at most"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, "rope_theta = '1e4': must be a positive number"),
        ({"rope_scaling": {"type": ["linear"]}}, r"type = \['linear'\]: must be text"),
        ({"rope_scaling": "linear"}, "rope_scaling = 'linear': must be an object"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings = 1: must be true or false"),
        ({"hidden_act": 5}, "hidden_act = 5: must be text"),
        ({"quantization_config": [4]}, "quantization_config = .*: must be an object"),
        ({"model_type": "gemma2", "query_pre_attn_scalar": "x"}, "query_pre_attn_scalar = 'x': must be a number"),
        ({"model_type": "qwen2_moe", **MOE, "mlp_only_layers": 3}, "mlp_only_layers = 3: must be a list"),
        ({"model_type": "qwen3_moe", **MOE, "decoder_sparse_step": 0}, "'qwen3_moe' has a malformed value: .*zero"),
        ({"model_type": "gpt2", "n_layer": 10**6}, "n_layer = 1000000: must be at most 100000"),
        ({"_name_or_path": "x" * 300}, "name must be printable text of at most 200 characters; got 'xxx"),
        ({"_name_or_path": "a\x1b[2J"}, "name must be printable text"),
        ({"num_hidden_layers": 10**30, "model_type": "mistral"}, "num_hidden_layers = a number of 100 bits: must"),
        ({"hidden_size": 48 * 10**400}, r"hidden_size = a number of 1335 bits: must be at most 2\*\*40"),
        ({"tie_word_embeddings": "false"}, "llama with tie_word_embeddings = 'false': must be true or false, without"),
        ({"rope_theta": "1e4"}, "llama with rope_theta = '1e4': must be a number, without quotes"),
        ({"intermediate_size": None}, "family 'llama' lacks 'intermediate_size'"),
        ({"model_type": "qwen3_moe", **MOE, "moe_intermediate_size": None}, "lacks 'moe_intermediate_size'"),
        ({"text_config": [SIZES]}, "text_config must be a JSON object; got"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "llama with rope_parameters = .*full_attention"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 4}, "qwen2 with layer_types = "),
        ({"model_type": "gemma2", "layer_types": ["linear_attention"] * 4}, "layer_types = 'linear_attention'"),
        ({"model_type": "gemma2", "layer_types": ["sliding_attention", "full_attention"]},
         "gemma2 with 2 layer_types and num_hidden_layers = 4: must be as many"),
        ({"model_type": "llama4_text", **LLAMA_4, "no_rope_layers": [1, 0]}, "llama4_text with 2 no_rope_layers"),
        ({"model_type": "mistral", "attention_bias": True}, "mistral with attention_bias = True cannot be counted"),
        ({"model_type": "opt", "layer_norm_elementwise_affine": False}, "opt with layer_norm_elementwise_affine = F"),
        ({"model_type": "gpt2", **GPT_SIZES, "add_cross_attention": True}, "gpt2 with add_cross_attention = True"),
        ({"model_type": "deepseek_v3", **DEEPSEEK, "attention_bias": True}, "deepseek_v3 with attention_bias = True"),
        ({"model_type": "gptj", **GPT_SIZES, "n_head": 0}, "'gptj' has a malformed value: .*zero"),
    ],
)  # fmt: skip
def test_what_would_be_counted_wrongly_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_hf_config({**LLAMA, **change})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("helm_names", [{}], "must be text"),
        ("helm_names", {"a": 1}, "must be text"),
        ("source", [], "must be text"),
        ("published_params", {}, "published_params must be a number"),
        ("hidden_size", None, "hidden_size must be an integer"),
        ("uncounted_options", [1], "uncounted_options must be an object"),
        ("moe_layer_freq", [[1]] * 4, "moe_layer_freq|need num_experts"),
        ("name", "x" * 300, "name must be printable text"),
    ],
)
def test_fields_of_a_damaged_header_are_refused_by_name(field, value, message):
    fields = Architecture.from_hf_config(LLAMA).to_dict()
    with pytest.raises(ValueError, match=message):
        Architecture.from_dict({**fields, field: value})


def test_rotary_parameters_nested_beyond_reason_are_refused():
    deep = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(ValueError, match=r"quantization_config = .*must not be nested more than 50 deep"):
        Architecture.from_hf_config({**LLAMA, "quantization_config": deep})


@pytest.mark.filterwarnings("ignore::idealized_runtime.architectures.hf.SilentConfigurationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_configuration_without_sizes_has_those_of_its_class(family):
    transformers = pytest.importorskip("transformers")
    # The class of DeepSeek-V2 has none of its own.
    given = {"num_experts_per_tok": 6} if family == "deepseek_v2" else {}
    config = transformers.AutoConfig.for_model(family, **given)
    ours = Architecture.from_hf_config({"model_type": family, **given}, name="toy")
    assert ours.num_params == num_params_of_model(config)
    assert ours == Architecture.from_hf_config(written(config), name="toy")


@pytest.mark.parametrize("missing", ["vocab_size", "intermediate_size", "num_hidden_layers"])
def test_size_that_a_configuration_leaves_out_is_named(missing):
    config = {name: value for name, value in LLAMA.items() if name != missing}
    with pytest.warns(SilentConfigurationWarning, match=rf"'llama' leaves out {missing} \(\d+\): taken as"):
        Architecture.from_hf_config(config)


def test_misspelt_option_is_named_beside_what_is_taken_for_it():
    config = {**LLAMA, "num_key_value_headz": 2}
    config.pop("num_key_value_heads", None)
    with pytest.warns(SilentConfigurationWarning, match="no num_key_value_heads, but 'num_key_value_headz': not read"):
        Architecture.from_hf_config(config)


@pytest.mark.filterwarnings("error", "ignore::idealized_runtime.architectures.hf.LanguageModelWarning")
@pytest.mark.parametrize(
    ("wrapper", "text", "num_params"),
    [
        # LLaVA 1.5, 1.6 with Mistral, Pixtral, a PaliGemma; as their owners write them.
        ("llava", {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}, 6_738_939_904),
        ("llava", {"vocab_size": 32064}, 6_738_939_904),
        ("llava_next", {"model_type": "mistral", "vocab_size": 32064, "sliding_window": None}, 7_242_256_384),
        ("llava", {"model_type": "mistral", "hidden_size": 5120, "head_dim": 128, "num_hidden_layers": 40,
                   "vocab_size": 131072}, 12_247_782_400),
        ("paligemma", {"hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8, "vocab_size": 257216,
                       "num_hidden_layers": 18, "num_key_value_heads": 1}, 2_508_662_784),
    ],
)  # fmt: skip
def test_language_model_that_lists_what_differs_from_its_class_is_counted(wrapper, text, num_params):
    config = {"model_type": wrapper, "text_config": text, "vision_config": {"hidden_size": 1024}}
    assert Architecture.from_hf_config(config).num_params == num_params


def test_what_reads_images_too_is_said_to_be_counted_without_it():
    config = {"model_type": "mistral3", "text_config": {**LLAMA}, "vision_config": {"hidden_size": 8}}
    with pytest.warns(LanguageModelWarning, match="'mistral3' has vision_config: its language model alone is counted"):
        Architecture.from_hf_config(config)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
DEEPSEEK_V2, DEEPSEEK_V3 = ({"model_type": f"deepseek_v{version}", **DEEPSEEK} for version in (2, 3))
GPT_OSS = {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2}
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 32}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"rope_scaling": LONG_ROPE}, f"rope_scaling = {LONG_ROPE}"),
        ({"rope_parameters": {**LONG_ROPE, "rope_theta": 5e5}}, f"rope_scaling = {LONG_ROPE}"),
        ({"rope_scaling": {**YARN, "attention_factor": 1.5}}, "rope_scaling = {'rope_type': 'yarn', "),
        ({"rope_scaling": {**YARN, "mscale": 0.7}}, "rope_scaling = {'rope_type': 'yarn', "),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling = {'rope_type': 'yarn', "),
        ({"rope_scaling": YARN, "model_type": "phi3", "partial_rotary_factor": 0.5},
         "rope_scaling of rope_type 'yarn' with rotary_percent"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling = {'rope_type': 'llama3', 'fact"),
        ({"rope_scaling": {**LLAMA_3, "attention_factor": 2.0}}, "rope_scaling = {'rope_type': 'llama3', 'fact"),
        ({"hidden_act": "quick_gelu"}, "activation_func = 'quick_gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
        ({**OPT_SIZES, "model_type": "opt", "word_embed_proj_dim": 24}, "embedding_size = 24"),
        ({**OPT_SIZES, "model_type": "opt", "do_layer_norm_before": False}, "norm_placement = 'after each sum'"),
        ({**OPT_SIZES, "model_type": "opt", "_remove_final_layer_norm": True}, "final_layernorm = False"),
        ({"model_type": "olmo2"}, "norm_placement = 'after each block'"),
        ({"model_type": "olmo2"}, "qk_layernorm = 'all_heads'"),
        ({"model_type": "gemma2"}, "attn_logit_softcapping = 50.0"),
        ({"model_type": "gemma3_text"}, "norms_per_layer = 4"),
        ({**GPT_OSS, "swiglu_limit": None}, "swiglu_limit = None"),
        ({"model_type": "bloom", **BLOOM_SIZES}, "position_embedding_type = 'alibi'"),
        ({"model_type": "falcon", **FALCON_SIZES, "alibi": True}, "position_embedding_type = 'alibi'"),
        ({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 1},
         "moe_router_topk = 1 without moe_router_pre_softmax"),
        (DEEPSEEK_V3, "moe_router_num_groups = 8, of which 4, with num_experts = 4"),
        ({**DEEPSEEK_V3, "n_group": 4, "topk_group": 2}, "moe_router_group_score = 'sum of the best two'"),
        ({**DEEPSEEK_V2, "topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
         "moe_router_group_score = 'best'"),
        ({**DEEPSEEK_V2, "topk_method": "noaux_tc"}, "topk_method = 'noaux_tc'"),
        ({**DEEPSEEK_V2, "norm_topk_prob": True}, "norm_topk_prob = True"),
        ({**DEEPSEEK_V3, "norm_topk_prob": False}, "norm_topk_prob = False"),
        ({**DEEPSEEK_V3, "num_experts_per_tok": 1}, "moe_router_topk = 1 without moe_router_pre_softmax"),
        ({**DEEPSEEK_V3, "rope_interleave": False}, "kv_lora_rank without rotary_interleaved"),
        ({**DEEPSEEK_V3, "partial_rotary_factor": 0.5}, "kv_lora_rank with rotary_percent"),
        ({**DEEPSEEK_V3, "rope_scaling": LLAMA_3}, "kv_lora_rank with rope_scaling of rope_type 'llama3'"),
        ({**DEEPSEEK_V3, "rope_scaling": {**YARN, "truncate": False}},
         "kv_lora_rank with rope_scaling of truncate = False"),
        ({"model_type": "llama4_text", **LLAMA_4}, "qk_l2_norm = True"),
    ],
)  # fmt: skip
def test_option_that_is_counted_but_not_built_is_a_named_feature(change, feature):
    unsupported = unsupported_features(Architecture.from_hf_config({**LLAMA, **change}))
    assert any(name.startswith(feature) for name in unsupported), unsupported


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        {**LLAMA, "model_type": "qwen2"},
        {**LLAMA, "model_type": "mistral"},
        {**LLAMA, "head_dim": 8, "attention_bias": False},
        {**GPT_SIZES, "model_type": "gpt2"},
        {**LLAMA, "head_dim": 16, "rope_scaling": LLAMA_3},
        {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {**LLAMA, "rope_scaling": {**YARN, "beta_fast": 16.0, "truncate": False, "mscale": 1.0, "mscale_all_dim": 1.0}},
        {**LLAMA, **GPT_OSS},
        {**LLAMA, **DEEPSEEK_V2, "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}},
        {**LLAMA, **DEEPSEEK_V3, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 4},
        {**LLAMA, "model_type": "phi3", "partial_rotary_factor": 0.5},
        {**LLAMA, "model_type": "mistral", "sliding_window": 32},
        {**LLAMA, "model_type": "qwen3"},
        {**LLAMA, "model_type": "gemma"},
        {**OPT_SIZES, "model_type": "opt"},
        {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
        {**LLAMA, **MOE, "model_type": "qwen2_moe", "shared_expert_intermediate_size": 40},
        {**LLAMA, **MOE, "model_type": "qwen3_moe", "norm_topk_prob": True},
    ],
)
def test_model_of_built_features_has_none_that_is_not(config):
    assert unsupported_features(Architecture.from_hf_config(config)) == []


def test_open_model_whose_router_scores_groups_otherwise_is_not_built():
    assert unsupported_features(get_architecture("deepseek-v2")) == ["moe_router_group_score = 'best'"]


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_theta": 1e4},
    ],
)
def test_rotary_base_is_read_from_either_spelling(spelling):
    plain = Architecture.from_hf_config({**LLAMA, "rope_theta": 5e5})
    assert Architecture.from_hf_config({**LLAMA, **spelling}) == plain
    assert plain.rotary_base == 5e5


def test_rotary_parameters_of_a_configuration_stand_alone():
    given = Architecture.from_hf_config({**LLAMA, **GPT_OSS, "rope_parameters": {**YARN, "rope_theta": 5e5}})
    assert given.uncounted_options["rope_scaling"] == YARN
    silent = Architecture.from_hf_config({**LLAMA, **GPT_OSS})
    assert silent.uncounted_options["rope_scaling"]["truncate"] is False


def test_rotary_base_has_its_usual_value_where_the_configuration_is_silent():
    assert Architecture.from_hf_config(LLAMA).rotary_base == 10000.0


@pytest.mark.parametrize(
    ("config", "size", "skip_freq", "num_windowed"),
    [
        ({"model_type": "mistral", "sliding_window": 32}, 32, None, 4),
        ({"model_type": "mistral", "sliding_window": 64}, None, None, 0),
        ({"model_type": "mistral", "sliding_window": 8, "layer_types": ["full_attention"] + ["sliding_attention"] * 3},
         8, (0, 1, 1, 1), 3),
        ({"model_type": "gemma2", "sliding_window": 8}, 8, 2, 2),
        ({"model_type": "gemma3_text", "sliding_window": 8, "num_hidden_layers": 13}, 8, 6, 11),
        ({"model_type": "gemma3_text", "sliding_window": 8, "sliding_window_pattern": 2}, 8, 2, 2),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
         8, (0, 0, 0, 1), 1),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}, None, None, 0),
        ({"model_type": "llama4", "text_config": {**SIZES, "attention_chunk_size": 8}}, 8, 4, 3),
    ],
)  # fmt: skip
def test_windowed_layers_are_those_of_the_configuration(config, size, skip_freq, num_windowed):
    architecture = Architecture.from_hf_config({**LLAMA, **config})
    assert (architecture.window_size, architecture.window_attn_skip_freq) == (size, skip_freq)
    assert architecture.num_windowed_layers == num_windowed


def test_language_model_is_taken_of_one_that_reads_images_too():
    transformers = pytest.importorskip("transformers")
    text = {**SIZES, "head_dim": 16}
    both = transformers.AutoConfig.for_model("gemma3", text_config=text)
    # As its owners write it: only what differs from the class.
    sparse = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}}
    alone = Architecture.from_hf_config({"model_type": "gemma3_text", **text}, name="toy")
    for wrapper in (written(both), sparse):
        alike = Architecture.from_hf_config(wrapper)
        assert sizes_and_options(alike) == sizes_and_options(alone)
        assert alike.source.endswith("; language model only")


@pytest.mark.parametrize("family", ["mistral", "llama", "qwen3", "deepseek_v3"])
def test_language_model_of_a_known_family_is_taken_of_an_unknown_one(family):
    # As Mistral Small 3.1, LLaVA or Kimi VL.
    text = {"model_type": family, **FAMILIES[family], "sliding_window": None}
    both = {"model_type": "mistral3", "text_config": text, "vision_config": {"model_type": "pixtral", "hidden_size": 8}}
    alike, alone = Architecture.from_hf_config(both), Architecture.from_hf_config(text)
    assert sizes_and_options(alike) == sizes_and_options(alone)
    assert alike.source.endswith("; language model only")


@pytest.mark.parametrize(
    ("change", "name"),
    [({}, "llama"), ({"_name_or_path": "meta/Tiny-Llama/"}, "Tiny-Llama"), ({"_name_or_path": ""}, "llama")],
)
def test_architecture_is_named_after_its_path(change, name):
    assert Architecture.from_hf_config({**LLAMA, **change}).name == name
    assert Architecture.from_hf_config({**LLAMA, **change}, name="mine").name == "mine"
