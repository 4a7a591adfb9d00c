"""Today's configurations as layers of parts, against the models that transformers builds of them."""

import dataclasses
import importlib
import inspect
import json
import math
import re
import sys
import warnings
from pathlib import Path

import pytest
from makers import MOE, SIZES, class_of, num_params_of_model, written

from idealized_runtime.architectures import (
    Architecture,
    kept_bytes,
    kv_cache_bytes,
    output_token_flops,
    prompt_encoding_flops,
    read_architecture,
)
from idealized_runtime.architectures.hf import SilentConfigurationWarning, built, options
from idealized_runtime.architectures.hf.classes import OWN_CODE, STYLES

CONFIGS = Path("aiconfigurator/aic-core/src/aiconfigurator_core/model_configs")
FAMILIES = sorted(STYLES.keys() - OWN_CODE.keys())
# Sizes without which a class cannot be built.
NEEDED = {
    "dots1": {"num_local_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "nemotron": {"num_key_value_heads": 8},
    "nemotron_h": {"hybrid_override_pattern": "ME*-ME"},
}
# What changes counts most often among real configurations; classes that do not know an option ignore it.
CHANGES = (
    {}, {"num_hidden_layers": 7}, {"hidden_size": 1024}, {"head_dim": 96}, {"num_key_value_heads": 2},
    {"tie_word_embeddings": True}, {"attention_bias": True}, {"mlp_bias": True}, {"use_qk_norm": True},
    {"q_lora_rank": None}, {"first_k_dense_replace": 2}, {"n_shared_experts": 0}, {"num_experts": 16},
    {"num_local_experts": 16}, {"moe_intermediate_size": 96}, {"intermediate_size": 640}, {"sliding_window": 64},
    {"layer_types": ["full_attention"] * 5}, {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3},
    {"mamba_d_state": 32}, {"conv_kernel": 3}, {"linear_num_value_heads": 48}, {"index_topk_freq": 2},
    {"num_kv_shared_layers": 1}, {"hidden_size_per_layer_input": 64}, {"attention_k_eq_v": True},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::idealized_runtime.architectures.hf.SilentConfigurationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_of_a_class_equal_those_of_the_built_model(family):
    kind, num_tried = class_of(family), 0
    for change in CHANGES:
        sizes = {"num_hidden_layers": 5, **NEEDED.get(family, {}), **change}
        if family == "nemotron_h":
            del sizes["num_hidden_layers"]
        try:
            expected = num_params_of_model(kind(**sizes))
        except Exception:
            # A change that the class refuses.
            continue
        num_tried += 1
        assert Architecture.from_hf_config({"model_type": family, **sizes}).num_params == expected, change
    assert num_tried >= len(CHANGES) // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_configuration_written_in_full_means_what_the_short_one_does(family):
    sizes = {"num_hidden_layers": 6, **NEEDED.get(family, {})}
    if family == "nemotron_h":
        del sizes["num_hidden_layers"]
    full = {**written(class_of(family)(**sizes)), "model_type": family}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SilentConfigurationWarning)
        assert Architecture.from_hf_config(full).num_params == num_params_of_model(class_of(family)(**sizes))


def test_options_of_classes_are_those_of_the_installed_transformers():
    pytest.importorskip("transformers")
    written_names = {name for module in ("layers", "mixers", "networks", "classes") for name in names_in(module)}
    expected = {family: known_options(class_of(family), written_names) for family in FAMILIES}
    path = Path(options.__file__).with_name("class_defaults.json")
    text = "{\n" + ",\n".join(f'"{family}": {json.dumps(row)}' for family, row in expected.items()) + "\n}\n"
    assert options.known_classes() == expected, f"{path} must be\n{text}"


def names_in(module):
    source = Path(options.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    return re.findall(r'"([a-z]\w*)"', source)


def known_options(kind, names):
    """Options that a class has or reads, of those that are named here, with what they are where a file is silent."""
    plain = (bool, int, float, str)
    fields = {f.name: f.default if isinstance(f.default, plain) else None for f in dataclasses.fields(kind)}
    fields.setdefault("tie_word_embeddings", False)
    parents = [base for base in kind.__mro__ if base.__module__.startswith("transformers.models")]
    source = "".join(inspect.getsource(base) for base in parents)
    # Names of older files, which it takes and forgets.
    module = importlib.import_module(kind.__module__.replace("configuration_", "modeling_"))
    source += "".join(re.findall(r'self\.\w+ = getattr\(config, "\w+"', inspect.getsource(module)))
    older = set(re.findall(r'kwargs\.(?:pop|get)\(\s*"(\w+)"', source)) | set(re.findall(r'"(\w+)" in kwargs', source))
    older |= set(re.findall(r'config, "(\w+)"', source))
    pairs = [(a, o) if a not in fields else (o, a) for a, o in kind.attribute_map.items()]
    aliases = {a: o for a, o in pairs if a not in fields and o in fields and (a in names or o in names)}
    known = sorted(names & (fields.keys() | older))
    defaults = {name: fields.get(name) for name in known}
    return {"defaults": defaults | {o: fields[o] for o in aliases.values() if o not in defaults}, "aliases": aliases}


# Families whose models run on a CPU and cache as they count: prompts longer than windows.
SMALL = {**SIZES, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 0}
RUN = {
    "arcee": {},
    "cohere2": {"sliding_window": 8},
    "ernie4_5": {},
    "exaone4": {"sliding_window": 8},
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "use_qk_norm": True},
    "glm4": {"head_dim": 8},
    "granite": {},
    "hy_v3": {**MOE, "head_dim": 16},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "rotary_dim": 8},
    "nemotron": {},
    "olmo3": {"sliding_window": 8},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "seed_oss": {"head_dim": 16},
    "smollm3": {},
    "starcoder2": {},
}  # fmt: skip


@pytest.fixture(scope="module", params=RUN)
def running(request):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(request.param, **{**SMALL, **RUN[request.param]})
    # Grouped and fused kernels are invisible to the counter.
    config._experts_implementation = config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return Architecture.from_hf_config(written(config), name=request.param), model


def count_flops(model, num_prompt_tokens, *, cached):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros((1, num_prompt_tokens), dtype=torch.long)
    with torch.no_grad():
        cache = model(tokens).past_key_values if cached else None
        with FlopCounterMode(display=False) as counter:
            model(tokens[:, :1] if cached else tokens, past_key_values=cache, logits_to_keep=1)
    return counter.get_total_flops()


def test_operations_of_a_class_equal_pytorchs_count(running):
    architecture, model = running
    assert prompt_encoding_flops(architecture, 20) == count_flops(model, 20, cached=False)
    assert output_token_flops(architecture, 21) == count_flops(model, 20, cached=True)


def test_cache_of_a_class_equals_that_of_the_built_model(running):
    torch = pytest.importorskip("torch")
    architecture, model = running
    with torch.no_grad():
        cache = model(torch.zeros((3, 5), dtype=torch.long)).past_key_values
    built = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert kv_cache_bytes(architecture, 5, batch_size=3, dtype="float32") == built


# Recurrent state, convolution and attention of tiny models: all that they keep after five tokens.
KEEPING = {
    "qwen3_next": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16,
                   "shared_expert_intermediate_size": 24, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"], "block_auto_adjust_ff_dim": False},
}  # fmt: skip


@pytest.mark.parametrize("family", KEEPING)
def test_states_of_a_class_equal_those_of_the_built_model(family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(family, **{**SMALL, **KEEPING[family]})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        cache = model(torch.zeros((1, 5), dtype=torch.long)).past_key_values
    architecture = Architecture.from_hf_config(written(config))
    kept = 0
    for layer in cache.layers:
        if hasattr(layer, "keys"):
            kept += layer.keys.numel() + layer.values.numel()
            continue
        # transformers keeps a place for the newest token of a convolution, which comes with the token.
        convolved, recurrent = layer.conv_states[0], layer.recurrent_states[0]
        kept += convolved[..., 1:].numel() + (0 if recurrent is None else recurrent.numel())
    assert kept_bytes(architecture, 5, dtype="float32") == 4 * kept


REFUSED = {
    "hf_quant_config": "it says how weights are stored, not what the model is: give the config.json beside it",
    "Kimi-K3": "kimi_linear with routed_expert_hidden_size = 3584: what it adds is known neither here nor to transf",
}


@pytest.mark.filterwarnings("ignore::idealized_runtime.architectures.hf.SilentConfigurationWarning")
def test_every_published_configuration_is_counted_or_refused_for_its_reason(published):
    transformers = pytest.importorskip("transformers")
    files = sorted((published / CONFIGS).glob("*.json"))
    if not files:
        raise FileNotFoundError(2, "no published configurations", str(published / CONFIGS))
    num_equal = 0
    for path in files:
        reason = next((why for name, why in REFUSED.items() if name in path.name), None)
        if reason is not None:
            with pytest.raises(ValueError, match=re.escape(reason)):
                read_architecture(path)
            continue
        num_params = read_architecture(path).num_params
        config = json.loads(path.read_text(encoding="utf-8"))
        text = {**config, **config.get("text_config", {})}
        family = {"kimi_k2": "deepseek_v3", "deepseek_ref": "deepseek_v4", "step3p7": "step3p5"}.get(
            text["model_type"], text["model_type"]
        )
        if family in OWN_CODE:
            continue
        left_out = ("quantization_config", "auto_map", "model_type", "text_config", "vision_config", "audio_config")
        given = {name: value for name, value in text.items() if name not in left_out}
        described = class_of(family)(**given)
        described.tie_word_embeddings = text.get("tie_word_embeddings", described.tie_word_embeddings)
        assert num_params == num_params_of_model(described), path.name
        num_equal += 1
    assert num_equal >= 0.95 * sum("hf_quant_config" not in path.name for path in files)
    assert transformers.__version__


def test_searched_model_has_what_its_blocks_say(published):
    path = published / CONFIGS / "nvidia--Llama-3_3-Nemotron-Super-49B-v1_config.json"
    model, blocks = read_architecture(path), json.loads(path.read_text())["block_configs"]
    # 31 of 80 layers have no attention; keys and values have 8 heads of 128.
    has_attention = [not block["attention"]["no_op"] for block in blocks]
    widths = [256 * math.ceil(int(2 * block["ffn"]["ffn_mult"] * 8192 / 3) / 256) for block in blocks]
    norms = sum(has_attention) + len(blocks) + 1
    attention = 2 * 8192 * 8192 + 2 * 8 * 128 * 8192
    num_params = 2 * 128256 * 8192 + sum(has_attention) * attention + 3 * 8192 * sum(widths) + norms * 8192
    assert model.num_params == num_params == pytest.approx(49.9e9, rel=0.001)
    assert (model.num_query_groups, model.ffn_hidden_size) == (8, widths[0])
    assert kv_cache_bytes(model, 1000) == 1000 * 49 * 2 * 8 * 128 * 2


@pytest.mark.parametrize(
    ("config", "num_params"),
    [
        # Hand counts, which are the parameters of the files that their owners publish.
        ({"model_type": "baichuan", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
          "num_hidden_layers": 32, "vocab_size": 125696, "tie_word_embeddings": False}, 7_505_973_248),
        ({"model_type": "chatglm", "hidden_size": 4096, "ffn_hidden_size": 13696, "num_attention_heads": 32,
          "num_layers": 28, "padded_vocab_size": 65024, "kv_channels": 128, "multi_query_group_num": 2,
          "add_qkv_bias": True, "add_bias_linear": False, "seq_length": 8192}, 6_243_584_000),
        ({"model_type": "internlm2", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
          "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 92544, "bias": False}, 7_737_708_544),
        ({"model_type": "qwen", "hidden_size": 4096, "intermediate_size": 22016, "num_attention_heads": 32,
          "num_hidden_layers": 32, "vocab_size": 151936, "kv_channels": 128}, 7_721_324_544),
    ],
)  # fmt: skip
def test_class_of_its_owners_alone_has_the_parameters_of_their_files(config, num_params):
    assert Architecture.from_hf_config(config).num_params == num_params


@pytest.mark.parametrize("family", ["afmoe", "gpt_bigcode", "persimmon", "gemma3n_text", "jetmoe", "mpt", "vaultgemma"])
def test_class_that_only_transformers_knows_is_counted_by_building_it(family):
    config = class_of(family)()
    with pytest.warns(
        built.BuiltByTransformersWarning, match=rf"'{family}' is counted by building it with transformers"
    ):
        architecture = Architecture.from_hf_config({"model_type": family})
    assert architecture.num_params == num_params_of_model(config)
    assert re.search(r"built by transformers [\d.]+ without memory", architecture.source)


@pytest.mark.parametrize("family", ["glm4_moe", "minimax_m2", "granite", "exaone4", "qwen3_moe", "gpt2", "deepseek_v3"])
def test_built_model_has_the_cache_and_operations_of_the_described_one(family):
    config = written(class_of(family)())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = Architecture.from_hf_config(config), Architecture("built", **built.read(config))
    assert theirs.num_active_params == ours.num_active_params
    assert kv_cache_bytes(theirs, 100) == kv_cache_bytes(ours, 100)
    assert output_token_flops(theirs, 100) == output_token_flops(ours, 100)


def test_experts_of_a_built_model_are_told_apart():
    # DBRX: 132 billion parameters, of which 36 are active (its model card).
    sizes = {"d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352, "tie_word_embeddings": False,
             "attn_config": {"kv_n_heads": 8, "rope_theta": 5e5, "clip_qkv": 8},
             "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}}  # fmt: skip
    with pytest.warns(built.BuiltByTransformersWarning):
        model = Architecture.from_hf_config({"model_type": "dbrx", **sizes})
    assert model.num_params == pytest.approx(132e9, rel=0.005)
    assert model.num_active_params == pytest.approx(36e9, rel=0.02)


def test_without_transformers_a_class_that_only_it_knows_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"'afmoe' is counted by building it, .*pip install transformers torch"):
        Architecture.from_hf_config({"model_type": "afmoe"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bart"}, "'bart' has an encoder, which is not counted here"),
        ({"model_type": "afmoe", "num_hidden_layers": "many"}, r"transformers [\d.]+ refuses this 'afmoe'"),
        ({"model_type": "qwen3_next", "hidden_size": "8"}, "qwen3_next with hidden_size = '8': must be a whole numb"),
        ({"model_type": "qwen3_next", "layer_types": ["full_attention"]}, "1 layer_types and num_hidden_layers = 48"),
        ({"model_type": "qwen3_next", "layer_types": ["odd"] * 48}, "layer_types = 'odd': must be one of full_att"),
        ({"model_type": "qwen3_next", "num_attention_heads": 5}, r"num_attention_heads \(5\) must be a multiple of"),
        ({"model_type": "glm4_moe", "attention_bias": "no"}, "attention_bias = 'no': must be true or false"),
        ({"model_type": "deepseek_v4", "compress_ratios": [3] * 43}, "compress_ratios = 3: must be one of 0, 4, 128"),
        (
            {"model_type": "nemotron-nas", "hidden_size": 8, "block_configs": [{}]},
            "malformed value: KeyError.'attention'",
        ),
        ({"model_type": "kimi_linear", "linear_attn_config": 3}, "'kimi_linear' has a malformed value"),
        ({"model_type": "blt"}, "family 'blt' lacks 'hidden_size'"),
    ],
)
@pytest.mark.filterwarnings("ignore::idealized_runtime.architectures.hf.SilentConfigurationWarning")
def test_what_cannot_be_counted_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_hf_config(config)


def test_option_that_the_class_does_not_read_is_named():
    with pytest.warns(SilentConfigurationWarning, match="'olmoe' has mlp_bias: not read, as its class in transformers"):
        Architecture.from_hf_config({"model_type": "olmoe", "hidden_size": 64, "mlp_bias": True})


def test_class_is_told_by_the_architecture_that_a_file_names():
    told = {"model_type": "somebodys_own", "architectures": ["DeepseekV3ForCausalLM"]}
    config = {**written(class_of("deepseek_v3")()), **told}
    assert Architecture.from_hf_config(config).num_params == 671_026_404_352
