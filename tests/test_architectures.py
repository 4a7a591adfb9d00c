import json

import pytest

from idealized_runtime.architectures import ARCHITECTURES, Architecture, get_architecture, published_architecture

# Profiled with an ungated feed-forward network, which has fewer parameters than the gated one of its owners.
UNGATED = {"yalm": 78.8e9}


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.published_params])
def test_num_params_agrees_with_what_the_owners_state(name):
    row = get_architecture(name)
    assert row.num_params == pytest.approx(UNGATED.get(name, row.published_params), rel=0.06)


def test_yalm_is_profiled_smaller_than_its_owners_state():
    row = get_architecture("yalm")
    assert row.num_params < 0.8 * row.published_params


def test_gpt2_small_has_its_published_parameter_count():
    # Hand count: 50257 x 768 + 1024 x 768 + 12 x (12 x 768^2 + 13 x 768) + 2 x 768.
    assert get_architecture("gpt2-small").num_params == 124_439_808


def test_smollm2_135m_has_its_published_parameter_count():
    # Hand count: 49152 x 576 + 30 x (2 x 576^2 + 2 x 576 x 192 + 3 x 576 x 1536 + 2 x 576) + 576.
    assert get_architecture("smollm2-135m").num_params == 134_515_008


def test_bias_of_all_linear_layers_includes_that_of_the_query_key_value_projection():
    sizes = dict(num_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=16, max_position_embeddings=4)
    with_all = Architecture("toy", **sizes, add_bias_linear=True, add_qkv_bias=False)
    without = Architecture("toy", **sizes, add_bias_linear=False, add_qkv_bias=False)
    # Query, key, value 3 x 8; attention output 8; feed-forward 32 and 8.
    assert with_all.num_params - without.num_params == 3 * 8 + 8 + 32 + 8


def test_registry_names_logs_and_helm_names_are_unique_and_sourced():
    rows = ARCHITECTURES.values()
    assert all(row.source for row in rows)
    for names in (
        [row.published_log for row in rows if row.published_log],
        [n for row in rows for n in row.helm_names],
    ):
        assert len(names) == len(set(names))


def test_unknown_name_is_answered_with_near_ones():
    with pytest.raises(ValueError, match=r"'gpt2-smal'; did you mean gpt2-small.*--hf-config"):
        get_architecture("gpt2-smal")


def test_published_log_is_found_by_its_stem():
    assert published_architecture("mt_nlg") is get_architecture("tnlg-v2")
    assert published_architecture("no_such_log") is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_survives_json(name):
    row = get_architecture(name)
    assert Architecture.from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers must be an integer of at least 1; got 0"),
        ({"hidden_size": "8"}, "hidden_size must be an integer"),
        ({"vocab_size": True}, "vocab_size must be an integer"),
        ({"num_attention_heads": 3}, r"hidden_size \(8\) must be a multiple of num_attention_heads \(3\)"),
        ({"num_query_groups": 3}, r"num_attention_heads \(4\) must be a multiple of num_query_groups \(3\)"),
        ({"num_layers_profiled": 3}, r"num_layers_profiled must lie in \[1, 2\]; got 3"),
        ({"num_layers_profiled": 0}, r"num_layers_profiled must lie in \[1, 2\]; got 0"),
        ({"normalization": "BatchNorm"}, "normalization must be one of .*; got 'BatchNorm'"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type must be one of"),
        ({"swiglu": "no"}, r"swiglu must be one of \(False, True\); got 'no'"),
        ({"rotary_base": 0}, "rotary_base must be a positive number"),
        ({"layernorm_epsilon": float("nan")}, "layernorm_epsilon must be a positive number"),
        ({"num_attention_heads": 8, "position_embedding_type": "rope"}, "must be even, got 1"),
        ({"depth": 2}, "unknown architecture field.*depth"),
    ],
)
def test_impossible_architecture_is_refused(change, message):
    fields = {"name": "toy", "num_layers": 2, "hidden_size": 8, "num_attention_heads": 4}
    with pytest.raises(ValueError, match=message):
        Architecture.from_dict({**fields, **change})


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match="an architecture needs hidden_size, num_attention_heads"):
        Architecture.from_dict({"name": "toy", "num_layers": 2})


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}


def hf_sizes(family, **change):
    """Keyword arguments of a transformers configuration, small, of ``family``."""
    if family == "gpt2":
        sizes = {"n_layer": 3, "n_embd": 48, "n_head": 6, "n_positions": 64, "vocab_size": 99}
    else:
        sizes = {name: value for name, value in LLAMA.items() if name != "model_type"}
        sizes["sliding_window"] = None
    return {**sizes, **change}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("gpt2", {}),
        ("gpt2", {"n_inner": 100}),
        ("llama", {}),
        ("llama", {"num_key_value_heads": 6, "tie_word_embeddings": True}),
        ("mistral", {}),
        ("mistral", {"tie_word_embeddings": True}),
        ("mistral", {"sliding_window": 64}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
    ],
)
def test_hugging_face_model_has_the_same_number_of_parameters(tmp_path, family, change):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(family, **hf_sizes(family, **change))
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    # model.parameters() counts a tied matrix once.
    num_params = sum(parameter.numel() for parameter in model.parameters())
    written = json.loads((tmp_path / "config.json").read_text())
    assert Architecture.from_hf_config(written, name="toy").num_params == num_params


@pytest.mark.parametrize(("family", "kv_heads"), [("llama", 32), ("mistral", 8), ("qwen2", 32)])
def test_silent_hugging_face_configuration_has_the_defaults_of_its_family(family, kv_heads):
    transformers = pytest.importorskip("transformers")
    defaults = transformers.AutoConfig.for_model(family)
    config = {**LLAMA, "model_type": family, "hidden_size": 4096, "num_attention_heads": 32}
    # Mistral attends to a window by default, which is refused.
    config |= {"sliding_window": None} if family == "mistral" else {}
    del config["num_key_value_heads"], config["max_position_embeddings"]
    architecture = Architecture.from_hf_config(config)
    assert architecture.max_position_embeddings == defaults.max_position_embeddings
    assert architecture.num_query_groups == kv_heads == defaults.num_key_value_heads
    assert architecture.layernorm_epsilon == defaults.rms_norm_eps


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
    assert Architecture.from_hf_config({**LLAMA, **spelling}).rotary_base == 5e5


def test_rotary_base_has_its_usual_value_where_the_configuration_is_silent():
    assert Architecture.from_hf_config(LLAMA).rotary_base == 10000.0


SCALED = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": SCALED}, r"rope_scaling = .*llama3.* cannot be built here"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling = .*linear"),
        ({"rope_parameters": SCALED}, "rope_parameters = .*llama3"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters = .*full_attention"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"hidden_act": "gelu"}, r"llama with hidden_act = 'gelu' cannot be built here; allowed: 'silu'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"head_dim": 16}, "head_dim = 16"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "mistral", "sliding_window": 32}, "mistral with sliding_window = 32"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "qwen2 with use_sliding_window = True"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 3}, "layer_types"),
        ({"model_type": "mamba"}, "model_type 'mamba' cannot be built here; families that can: gpt2, llama"),
        ({"model_type": None}, "model_type None cannot be built here"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1"),
    ],
)
def test_hugging_face_option_that_is_not_built_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_hf_config({**LLAMA, **change})


def test_mistral_that_is_silent_about_its_window_is_refused():
    # Its default of 4096 tokens is shorter than its context of 131072.
    config = {**LLAMA, "model_type": "mistral"}
    assert Architecture.from_hf_config(config).max_position_embeddings == 64
    del config["max_position_embeddings"]
    with pytest.raises(ValueError, match="mistral with sliding_window = 4096"):
        Architecture.from_hf_config(config)


def test_missing_hugging_face_field_is_named():
    config = {name: value for name, value in LLAMA.items() if name != "intermediate_size"}
    with pytest.raises(ValueError, match="family 'llama' lacks 'intermediate_size'"):
        Architecture.from_hf_config(config)


@pytest.mark.parametrize(
    ("change", "name"),
    [({}, "llama"), ({"_name_or_path": "meta/Tiny-Llama/"}, "Tiny-Llama"), ({"_name_or_path": ""}, "llama")],
)
def test_hugging_face_architecture_is_named_after_its_path(change, name):
    assert Architecture.from_hf_config({**LLAMA, **change}).name == name
    assert Architecture.from_hf_config({**LLAMA, **change}, name="mine").name == "mine"
