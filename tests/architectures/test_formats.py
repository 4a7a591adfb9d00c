"""Bytes of weights as configurations store them, by hand and against the files that owners publish."""

import dataclasses
import json
import warnings

import pytest

from idealized_runtime.architectures import (
    Architecture,
    kv_cache_bytes,
    parts,
    read_architecture,
    weight_bytes,
    weight_bytes_read,
)
from idealized_runtime.architectures.formats import Format, shares_by_bits, stored_bytes
from idealized_runtime.architectures.hf import SilentConfigurationWarning
from idealized_runtime.architectures.parts import Matrix, Part

# One layer: attention of 2 heads 64 wide over 128, a feed-forward network of 256; embeddings of 10 words.
MODEL = Architecture(
    "toy", 2, 128, 2, vocab_size=10, normalization="RMSNorm", position_embedding_type="rope", add_bias_linear=False,
    add_qkv_bias=False, ffn_hidden_size=256,
    layers=((parts.attention(128, 2, 2, 64), Part("norms", vectors=128)), (parts.feed_forward(128, 256),)),
)  # fmt: skip
ATTENTION, NETWORK = 4 * 128 * 128, 3 * 128 * 256
# Embeddings, norms of the layer and at the end.
PLAIN = 2 * (10 * 128 + 128 + 128)


def stored(**quantization):
    return stored_bytes(dataclasses.replace(MODEL, uncounted_options={"quantization_config": quantization}))


def test_weights_have_16_bits_where_nothing_is_said():
    assert stored_bytes(MODEL) == weight_bytes(MODEL, dtype="stored") == 2 * MODEL.num_params


@pytest.mark.parametrize(
    ("matrix", "stored_as", "num_bytes"),
    [
        # Blocks that are not full have a scale too: 2 x 3 of them.
        (Matrix("m", 200, 300), Format(8, 128, 128, 4), 200 * 300 + 2 * 3 * 4),
        (Matrix("m", 3, 64), Format(4, 1, 32, 1), 3 * 32 + 3 * 2),
        (Matrix("m", 3, 64), Format(4, 1, 16, 1, 8), 3 * 32 + 3 * 4 + 8),
        (Matrix("m", 3, 64), Format(8, scale_bytes=4), 3 * 64 + 4),
    ],
)
def test_scales_are_counted_by_the_block(matrix, stored_as, num_bytes):
    assert stored_as.num_bytes(matrix) == num_bytes


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
GROUP = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


@pytest.mark.parametrize(
    ("quantization", "num_bytes"),
    [
        (FP8, ATTENTION + NETWORK + 4 * (4 + 3 * 2)),
        ({**FP8, "scale_fmt": "ue8m0"}, ATTENTION + NETWORK + 10),
        ({**FP8, "modules_to_not_convert": ["model.layers.0.self_attn"]},
         2 * ATTENTION + NETWORK + 4 * 3 * 2),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["model.layers.0*"]},
         2 * ATTENTION + NETWORK // 2 + NETWORK // 16 + 3 * 8),
        ({"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["model.layers.1*"]}},
         2 * NETWORK + ATTENTION // 2 + ATTENTION // 16 + 4 * 8),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"], "weights": GROUP}},
          "ignore": ["lm_head", "re:.*self_attn.*"]}, 2 * ATTENTION + NETWORK // 2 + 2 * NETWORK // 32),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.1.mlp.down_proj": {"quant_algo": "FP8"}}},
         2 * ATTENTION + 2 * NETWORK - NETWORK // 3 + 4),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128},
         (ATTENTION + NETWORK) // 2 + (ATTENTION + NETWORK) // 128 * 2.5),
        ({"quant_method": "mxfp4"}, 2 * (ATTENTION + NETWORK)),
    ],
)  # fmt: skip
def test_formats_of_every_framework_are_read(quantization, num_bytes):
    assert stored(**quantization) == num_bytes + PLAIN


def test_format_that_is_not_known_is_refused_by_name():
    with pytest.raises(ValueError, match="weights quantised by 'quip' are not counted in bytes here; known: fp8"):
        stored(quant_method="quip")


@pytest.mark.parametrize("damaged", [{"config_groups": 3}, {"quantized_layers": {"a": 1}}, {"weight_block_size": 128}])
def test_damaged_quantisation_is_refused_by_name(damaged):
    with pytest.raises(ValueError, match="toy: quantization_config has a malformed value"):
        stored(quant_method="fp8", **damaged)


def test_experts_that_a_batch_visits_are_read_in_their_format():
    mixture = parts.experts(128, 64, num_experts=8, topk=2)
    model = dataclasses.replace(
        MODEL, layers=((mixture,), (Part("norms"),)), num_experts=8, moe_router_topk=2, moe_ffn_hidden_size=64,
        uncounted_options={"quantization_config": {"quant_method": "mxfp4"}},
    )  # fmt: skip
    router, expert = 2 * 8 * 128, 3 * 64 * 128
    for batch_size, visited in ((1, 2), (3, 6), (5, 8)):
        read = weight_bytes_read(model, batch_size=batch_size, dtype="stored")
        assert read == 2 * (10 * 128 + 128) + router + visited * (expert // 2 + expert // 32)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        # Sizes of the files on Hugging Face, layers for predicting several tokens left out where there are any.
        ("openai--gpt-oss-20b", 13.76),
        ("Qwen--Qwen3-30B-A3B-FP8", 31.2),
    ],
)
def test_bytes_are_those_of_the_published_files(published, name, gigabytes):
    folder = published / "aiconfigurator" / "aic-core" / "src" / "aiconfigurator_core" / "model_configs"
    assert weight_bytes(read_architecture(folder / f"{name}_config.json"), dtype="stored") == pytest.approx(
        gigabytes * 1e9, rel=0.005
    )


CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "vocab_size": 99,
          "intermediate_size": 128}  # fmt: skip


@pytest.mark.parametrize("stem", ["", "model_"])
def test_quantisation_that_stands_beside_a_configuration_is_read(tmp_path, stem):
    path = tmp_path / f"{stem}config.json"
    path.write_text(json.dumps(CONFIG))
    plain = weight_bytes(read_architecture(path), dtype="stored")
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / f"{stem}hf_quant_config.json").write_text(json.dumps(beside))
    quantised = read_architecture(path)
    assert weight_bytes(quantised, dtype="stored") < 0.8 * plain
    assert kv_cache_bytes(quantised, 9, dtype="stored") == kv_cache_bytes(quantised, 9, dtype="float8")
    with pytest.raises(ValueError, match=r"it says how weights are stored, .* give the config\.json beside it"):
        read_architecture(tmp_path / f"{stem}hf_quant_config.json")


@pytest.mark.parametrize(
    ("name", "said"), [("Llama-8B-Instruct-FP8", "FP8"), ("llama-w4a16", "w4a16"), ("m-nvfp4", "nvfp4")]
)
def test_name_of_fewer_bits_with_a_configuration_of_sixteen_is_noticed(tmp_path, name, said):
    path = tmp_path / name / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    with pytest.warns(SilentConfigurationWarning, match=f"its name says {said}, .* they count with 16 bits"):
        read_architecture(path)
    (path.parent / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_architecture(path)
    assert not any("its name says" in str(warning.message) for warning in caught)


def test_shares_by_bits_are_those_of_the_matrices_that_formats_name():
    groups = {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}}
    config = CONFIG | {
        "quantization_config": {"quant_method": "modelopt", "config_groups": groups, "ignore": ["*self_attn*"]}
    }
    model = Architecture.from_hf_config(config)
    attention, network = 4 * 64 * 64, 3 * 64 * 128
    assert shares_by_bits(model, of_experts=False) == {
        16: pytest.approx(attention / (attention + network)), 4: pytest.approx(network / (attention + network))
    }  # fmt: skip
    assert shares_by_bits(model, of_experts=True) == {}
