import json
from pathlib import Path

import pytest

from idealized_runtime.architectures import (
    ARCHITECTURES,
    Architecture,
    get_architecture,
    published_architecture,
    read_architecture,
    require_buildable,
    unsupported_features,
)
from idealized_runtime.architectures.open_models import OPEN_MODELS
from idealized_runtime.records import parse_log

# An API does not tell its architecture.
LOGS = sorted(p for p in (Path(__file__).parents[2] / "logs").glob("*/*.jsonl") if p.parent.name != "api")
# Profiled with an ungated feed-forward network, which has fewer parameters than the gated one of its owners.
UNGATED = {"yalm": 78.8e9}


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.published_params])
def test_num_params_agrees_with_what_the_owners_state(name):
    row = get_architecture(name)
    assert row.num_params == pytest.approx(UNGATED.get(name, row.published_params), rel=0.06)


# Its owners round to "40B"; arXiv:2311.16867 counts more.
ROUNDED = {"falcon-40b": 0.04}


@pytest.mark.parametrize("model", [row for row in OPEN_MODELS if row.published_params], ids=lambda model: model.name)
def test_num_params_of_an_open_model_agree_with_what_its_owners_state(model):
    row = get_architecture(model.name)
    assert row.num_params == pytest.approx(model.published_params, rel=ROUNDED.get(model.name, 0.018))


# Parameters that one token visits, as the owners state them; gpt-oss counts no input embedding (2880 x 201088).
ACTIVE_PARAMS = {
    "mixtral-8x7b": 12.9e9,
    "mixtral-8x22b": 39e9,
    "qwen1.5-moe-a2.7b": 2.7e9,
    "qwen2-57b-a14b": 14.25e9,
    "qwen3-30b-a3b": 3.3e9,
    "qwen3-235b-a22b": 22e9,
    "qwen3-coder-480b-a35b": 35e9,
    "llama-4-scout": 17e9,
    "llama-4-maverick": 17e9,
    "deepseek-v2": 21e9,
    "deepseek-v3": 37e9,
    "minimax-m2.5": 10e9 + 0.615e9 * 2,
    "gpt-oss-20b": 3.61e9 + 0.579e9,
    "gpt-oss-120b": 5.13e9 + 0.579e9,
}


@pytest.mark.parametrize("name", ACTIVE_PARAMS)
def test_active_parameters_agree_with_what_the_owners_state(name):
    assert get_architecture(name).num_active_params == pytest.approx(ACTIVE_PARAMS[name], rel=0.02)


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
    with pytest.raises(ValueError, match=r"'gpt2-smal'; did you mean gpt2-small.*config.json"):
        get_architecture("gpt2-smal")


def test_name_is_a_row_and_a_path_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2-small").mkdir()
    assert read_architecture("gpt2-small") is get_architecture("gpt2-small")
    config = {"model_type": "gpt2", "n_layer": 3, "n_embd": 48, "n_head": 4, "vocab_size": 99}
    for name in ("gpt2-small/config.json", "mine.json", "plain"):
        (tmp_path / name).write_text(json.dumps(config))
    assert [read_architecture(name).name for name in ("gpt2-small/config.json", "mine.json", "plain")] == [
        "gpt2-small", "mine", "plain",
    ]  # fmt: skip
    assert read_architecture(Path("gpt2-small/config.json")).num_layers == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"config\.json: No such file"),
        ("{", r"config\.json is not JSON"),
        ("[" * 100_000, r"config\.json is not JSON"),
        ("[]", r"config\.json is not a JSON object"),
        ("{}", r"config\.json: model_type None cannot be counted"),
    ],
)
def test_file_that_is_no_configuration_is_refused_by_its_path(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_architecture(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a folder: give the path of the config.json in it"),
        ("x" * 300, "no architecture named 'xxx.*; there are: davinci"),
        ("x" * 300 + ".json", "File name too long"),
        ("gpt2-smal", "did you mean gpt2-small"),
    ],
)
def test_what_is_no_name_and_no_file_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        read_architecture(name)


def test_published_log_is_found_by_its_stem():
    assert published_architecture("mt_nlg") is get_architecture("tnlg-v2")
    assert published_architecture("no_such_log") is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_survives_json(name):
    row = get_architecture(name)
    assert Architecture.from_dict(json.loads(json.dumps(row.to_dict()))) == row


EXPERTS = {"num_experts": 4, "moe_router_topk": 2}
LATENT = {"kv_lora_rank": 4, "qk_head_dim": 4, "qk_pos_emb_head_dim": 2, "v_head_dim": 4, "add_bias_linear": False,
          "add_qkv_bias": False}  # fmt: skip


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
        ({"position_embedding_type": "sinusoidal"}, "position_embedding_type must be one of"),
        ({"swiglu": "no"}, r"swiglu must be one of \(False, True\); got 'no'"),
        ({"rotary_base": 0}, "rotary_base must be a positive number"),
        ({"layernorm_epsilon": float("nan")}, "layernorm_epsilon must be a positive number"),
        ({"num_attention_heads": 8, "position_embedding_type": "rope"}, "must be even, got 1"),
        ({"depth": 2}, "unknown architecture field.*depth"),
        ({"kv_channels": 3, "position_embedding_type": "rope"}, "must be even, got 3"),
        ({"qk_layernorm": True}, "qk_layernorm must be one of"),
        ({"norms_per_layer": 3}, r"norms_per_layer must be one of \(2, 1, 4\); got 3"),
        ({"num_extra_positions": -1}, "num_extra_positions must be an integer of at least 0; got -1"),
        ({"moe_layer_freq": 2}, "shared experts and moe_layer_freq need num_experts"),
        ({**EXPERTS, "moe_layer_freq": [1]}, r"moe_layer_freq must be a number, or a 0 or 1 for each of 2 layers"),
        ({**EXPERTS, "moe_layer_freq": [0, 0]}, "with at least one 1"),
        ({**EXPERTS, "moe_shared_expert_gate": True}, "moe_shared_expert_gate needs"),
        ({"window_attn_skip_freq": 2}, "window_attn_skip_freq and window_is_chunk need window_size"),
        ({"window_size": 4, "window_attn_skip_freq": 1}, "window_attn_skip_freq must be an integer of at least 2"),
        ({"v_head_dim": 4}, "v_head_dim: multi-latent attention needs kv_lora_rank"),
        ({"kv_lora_rank": 4}, "with multi-latent attention, qk_head_dim must be an integer"),
        ({**LATENT, "add_qkv_bias": True}, "multi-latent attention has no bias"),
        ({**LATENT, "window_size": 4}, "multi-latent attention has no window_size; got 4"),
    ],
)
def test_impossible_architecture_is_refused(change, message):
    fields = {"name": "toy", "num_layers": 2, "hidden_size": 8, "num_attention_heads": 4}
    with pytest.raises(ValueError, match=message):
        Architecture.from_dict({**fields, **change})


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match="an architecture needs hidden_size, num_attention_heads"):
        Architecture.from_dict({"name": "toy", "num_layers": 2})


TOY = {"name": "toy", "num_layers": 4, "hidden_size": 8, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ({"kv_channels": 4}, {"kv_channels": 8}),
        ({"add_attention_bias": True}, {"add_attention_bias": False}),
        ({**EXPERTS, "moe_layer_freq": [1, 1, 1, 1]}, {**EXPERTS, "moe_layer_freq": [0, 1, 1, 1]}),
    ],
)
def test_field_that_says_what_is_usual_is_no_difference(usual, other):
    plain = Architecture.from_dict({**TOY, **(EXPERTS if "num_experts" in usual else {})})
    assert Architecture.from_dict({**TOY, **usual}) == plain
    assert Architecture.from_dict({**TOY, **other}) != plain


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_architecture_of_a_committed_log_is_written_as_it_was(path):
    # Otherwise a log begun before a field was added could not be continued.
    with path.open(encoding="utf-8") as lines:
        header = json.loads(next(lines))
    assert parse_log(path).architecture().to_dict() == header["architecture"]
    assert unsupported_features(parse_log(path).architecture()) == []


@pytest.mark.parametrize(("freq", "num_moe_layers"), [(1, 5), (2, 3), (3, 2), ([0, 0, 1, 1, 1], 3)])
def test_layers_with_experts_are_counted_as_megatron_places_them(freq, num_moe_layers):
    sparse = Architecture.from_dict({**TOY, "num_layers": 5, **EXPERTS, "moe_layer_freq": freq})
    assert sparse.num_moe_layers == num_moe_layers
    # Experts of width 32 = 4 x 8: two matrices, two biases; the router's matrix and bias.
    expert = 2 * 8 * 32 + 32 + 8
    dense = Architecture.from_dict({**TOY, "num_layers": 5})
    assert sparse.num_params - dense.num_params == num_moe_layers * (3 * expert + 4 * 8 + 4)


@pytest.mark.parametrize(("skip_freq", "num_windowed"), [(None, 4), (2, 2), (3, 3), ([1, 0, 0, 0], 1)])
def test_windowed_layers_are_counted_as_megatron_places_them(skip_freq, num_windowed):
    fields = {**TOY, "window_size": 3, "window_attn_skip_freq": skip_freq}
    assert Architecture.from_dict(fields).num_windowed_layers == num_windowed


def test_uncounted_options_change_the_architecture_but_no_count():
    capped = Architecture.from_dict({**TOY, "uncounted_options": {"attn_logit_softcapping": 50.0}})
    plain = Architecture.from_dict(TOY)
    assert capped != plain
    assert capped.num_params == plain.num_params
    assert hash(capped) == hash(plain)


def test_what_cannot_be_built_is_refused_with_every_feature_named():
    fields = {**TOY, "position_embedding_type": "alibi", "window_size": 3, "embedding_layernorm": True,
              "uncounted_options": {"rotary_percent": 0.5, "qk_l2_norm": True}}  # fmt: skip
    named = "position_embedding_type = 'alibi'; embedding_layernorm = True; qk_l2_norm = True"
    with pytest.raises(ValueError, match=f"toy cannot be built here, only counted .*: {named}"):
        require_buildable(Architecture.from_dict(fields))
    require_buildable(Architecture.from_dict(TOY))


def test_remedy_is_named_where_only_quantised_weights_are_not_built():
    quantised = {"uncounted_options": {"quantization_config": {"quant_method": "mxfp4"}}}
    with pytest.raises(ValueError, match=r"'mxfp4'}\. Without its quantization_config it is built"):
        require_buildable(Architecture.from_dict({**TOY, **quantised}))
    with pytest.raises(ValueError, match=r"'mxfp4'}$"):
        require_buildable(Architecture.from_dict({**TOY, **quantised, "final_layernorm": False}))


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
BUILT = ("qwen2.5-7b", "llama-3-8b", "llama-3.1-70b", "mistral-7b-v0.1", "gpt2-xl", "opt-13b", "qwen3-32b", "gemma-7b",
         "phi-4", "mixtral-8x7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "gpt-oss-20b", "gpt-oss-120b",
         "deepseek-v2-lite", "deepseek-v3", "gpt-j-hf", "pythia-6.9b", "gpt-neox-20b-hf", "falcon-7b",
         "falcon-40b")  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_open_model_of_built_features_can_be_built(name):
    require_buildable(get_architecture(name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norms_per_layer": 1}, "norms_per_layer = 1 without parallel_blocks"),
        ({"uncounted_options": {"rope_scaling": YARN, "rotary_interleaved": True}},
         "rope_scaling of rope_type 'yarn' with rotary_interleaved"),
        ({"parallel_blocks": True, "num_experts": 4, "moe_router_topk": 2}, "parallel_blocks with num_experts"),
    ],
)  # fmt: skip
def test_features_that_are_not_built_together_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        require_buildable(Architecture.from_dict({**TOY, **fields}))


def test_experts_are_refused_with_tensor_parallelism():
    with pytest.raises(ValueError, match=r"experts \(num_experts = 8\), which .*--tensor-model-parallel-size 2: use 1"):
        require_buildable(get_architecture("mixtral-8x7b"), tensor_parallel_size=2)
    require_buildable(get_architecture("llama-3-8b"), tensor_parallel_size=2)
