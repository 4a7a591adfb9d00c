"""Megatron's models of today's families against models of transformers with the same weights."""

import gc
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from makers_torch import (
    CASES,
    CPU,
    build_family,
    fill_with_noise,
    greedy,
    logits_with_cache,
    random_tokens,
)
from transformers import AutoConfig, AutoModelForCausalLM

from idealized_runtime.architectures import Architecture, kv_cache_bytes
from megatron_lm import device as devices
from megatron_lm.engines import PORTABLE_ENGINES, load_engine
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid


@pytest.fixture(scope="module", autouse=True)
def megatron():
    with ProcessGrid(devices.select_device("cpu")):
        # Engines collect garbage nowhere; what imports left behind need not be searched each time.
        gc.freeze()
        yield
        gc.unfreeze()


@dataclass
class Twins:
    """A model of transformers, and Megatron's of its configuration with the same weights."""

    theirs: torch.nn.Module
    ours: torch.nn.Module
    architecture: Architecture


@pytest.fixture(scope="module", params=CASES)
def twins(request):
    family, config = CASES[request.param]
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).eval().requires_grad_(False)
    theirs.generation_config.eos_token_id = None
    fill_with_noise(theirs)
    architecture = Architecture.from_hf_config(theirs.config.to_dict(), name=family)
    ours = build_model(architecture, device=CPU, dtype=torch.float32, seed=1)
    COPIES.get(family, copy_llama_weights)(theirs, ours, architecture)
    return Twins(theirs, ours, architecture)


def copy_gpt2_weights(theirs, ours, architecture):
    source = theirs.transformer
    ours.embedding.word_embeddings.weight.copy_(source.wte.weight)
    ours.embedding.position_embeddings.weight.copy_(source.wpe.weight)
    for block, layer in zip(source.h, ours.decoder.layers, strict=True):
        attention, mlp = layer.self_attention, layer.mlp
        copy_norm(block.ln_1, layer.input_layernorm)
        # Conv1D keeps its weight as (inputs, outputs).
        attention.linear_qkv.weight.copy_(interleave(block.attn.c_attn.weight.T.chunk(3), architecture))
        attention.linear_qkv.bias.copy_(interleave(block.attn.c_attn.bias.chunk(3), architecture))
        copy_norm(block.ln_2, layer.pre_mlp_layernorm)
        for conv, linear in (
            (block.attn.c_proj, attention.linear_proj),
            (block.mlp.c_fc, mlp.linear_fc1),
            (block.mlp.c_proj, mlp.linear_fc2),
        ):
            linear.weight.copy_(conv.weight.T)
            linear.bias.copy_(conv.bias)
    copy_norm(source.ln_f, ours.decoder.final_layernorm)


def copy_opt_weights(theirs, ours, architecture):
    source = theirs.model.decoder
    ours.embedding.word_embeddings.weight.copy_(source.embed_tokens.weight)
    ours.embedding.position_embeddings.weight.copy_(source.embed_positions.weight)
    for block, layer in zip(source.layers, ours.decoder.layers, strict=True):
        copy_norm(block.self_attn_layer_norm, layer.input_layernorm)
        copy_query_key_value(block.self_attn, layer.self_attention.linear_qkv, architecture)
        copy_linear(block.self_attn.out_proj, layer.self_attention.linear_proj)
        copy_norm(block.final_layer_norm, layer.pre_mlp_layernorm)
        copy_linear(block.fc1, layer.mlp.linear_fc1)
        copy_linear(block.fc2, layer.mlp.linear_fc2)
    copy_norm(source.final_layer_norm, ours.decoder.final_layernorm)


def copy_gptj_weights(theirs, ours, architecture):
    source = theirs.transformer
    ours.embedding.word_embeddings.weight.copy_(source.wte.weight)
    for block, layer in zip(source.h, ours.decoder.layers, strict=True):
        copy_norm(block.ln_1, layer.input_layernorm)
        copy_query_key_value(block.attn, layer.self_attention.linear_qkv, architecture)
        copy_linear(block.attn.out_proj, layer.self_attention.linear_proj)
        copy_linear(block.mlp.fc_in, layer.mlp.linear_fc1)
        copy_linear(block.mlp.fc_out, layer.mlp.linear_fc2)
    copy_norm(source.ln_f, ours.decoder.final_layernorm)
    copy_linear(theirs.lm_head, ours.output_layer)


def copy_gpt_neox_weights(theirs, ours, architecture):
    source = theirs.gpt_neox
    ours.embedding.word_embeddings.weight.copy_(source.embed_in.weight)
    for block, layer in zip(source.layers, ours.decoder.layers, strict=True):
        copy_norm(block.input_layernorm, layer.input_layernorm)
        # As Megatron keeps them: each head's query, key and value together.
        copy_linear(block.attention.query_key_value, layer.self_attention.linear_qkv)
        copy_linear(block.attention.dense, layer.self_attention.linear_proj)
        copy_norm(block.post_attention_layernorm, layer.pre_mlp_layernorm)
        copy_linear(block.mlp.dense_h_to_4h, layer.mlp.linear_fc1)
        copy_linear(block.mlp.dense_4h_to_h, layer.mlp.linear_fc2)
    copy_norm(source.final_layer_norm, ours.decoder.final_layernorm)
    ours.output_layer.weight.copy_(theirs.lm_head.weight)


def copy_falcon_weights(theirs, ours, architecture):
    source = theirs.transformer
    ours.embedding.word_embeddings.weight.copy_(source.word_embeddings.weight)
    for block, layer in zip(source.h, ours.decoder.layers, strict=True):
        has_two = hasattr(block, "ln_attn")
        copy_norm(block.ln_attn if has_two else block.input_layernorm, layer.input_layernorm)
        if has_two:
            copy_norm(block.ln_mlp, layer.pre_mlp_layernorm)
        # As Megatron keeps them: of each group its queries, its key and its value.
        copy_linear(block.self_attention.query_key_value, layer.self_attention.linear_qkv)
        copy_linear(block.self_attention.dense, layer.self_attention.linear_proj)
        copy_linear(block.mlp.dense_h_to_4h, layer.mlp.linear_fc1)
        copy_linear(block.mlp.dense_4h_to_h, layer.mlp.linear_fc2)
    copy_norm(source.ln_f, ours.decoder.final_layernorm)
    if architecture.untie_embeddings_and_output_weights:
        ours.output_layer.weight.copy_(theirs.lm_head.weight)


def copy_llama_weights(theirs, ours, architecture):
    zero_centered = architecture.uncounted_options.get("layernorm_zero_centered_gamma", False)
    ours.embedding.word_embeddings.weight.copy_(theirs.model.embed_tokens.weight)
    for block, layer in zip(theirs.model.layers, ours.decoder.layers, strict=True):
        copy_norm(block.input_layernorm, layer.input_layernorm, zero_centered=zero_centered)
        if architecture.multi_latent_attention:
            copy_latent_attention(block.self_attn, layer.self_attention)
        else:
            copy_query_key_value(block.self_attn, layer.self_attention.linear_qkv, architecture)
        if architecture.qk_layernorm:
            copy_norm(block.self_attn.q_norm, layer.self_attention.q_layernorm)
            copy_norm(block.self_attn.k_norm, layer.self_attention.k_layernorm)
        copy_linear(block.self_attn.o_proj, layer.self_attention.linear_proj)
        copy_norm(block.post_attention_layernorm, layer.pre_mlp_layernorm, zero_centered=zero_centered)
        if architecture.softmax_type == "learnable":
            layer.self_attention.core_attention.softmax_offset.copy_(block.self_attn.sinks)
        if hasattr(block.mlp, "router"):
            copy_gpt_oss_experts(block.mlp, layer.mlp)
        elif hasattr(block.mlp, "experts"):
            copy_experts(block.mlp, layer.mlp)
        else:
            copy_gated(block.mlp, layer.mlp)
    copy_norm(theirs.model.norm, ours.decoder.final_layernorm, zero_centered=zero_centered)
    if architecture.untie_embeddings_and_output_weights:
        ours.output_layer.weight.copy_(theirs.lm_head.weight)


def copy_query_key_value(attention, linear, architecture):
    if hasattr(attention, "qkv_proj"):
        query_size, key_size = (
            num_heads * architecture.head_dim
            for num_heads in (architecture.num_attention_heads, architecture.num_query_groups)
        )
        weights = attention.qkv_proj.weight.split([query_size, key_size, key_size])
        biases = [None] * 3
    else:
        projections = [getattr(attention, f"{name}_proj") for name in "qkv"]
        weights, biases = zip(*((projection.weight, projection.bias) for projection in projections), strict=True)
    linear.weight.copy_(interleave(weights, architecture))
    assert (linear.bias is None) == (biases[0] is None)
    if linear.bias is not None:
        linear.bias.copy_(interleave(biases, architecture))


def copy_latent_attention(source, target):
    queries = {"q_proj": "linear_q_proj", "q_a_proj": "linear_q_down_proj", "q_b_proj": "linear_q_up_proj"}
    latents = {"kv_a_proj_with_mqa": "linear_kv_down_proj", "kv_b_proj": "linear_kv_up_proj"}
    for theirs, ours in {**queries, **latents}.items():
        if getattr(source, theirs, None) is not None:
            copy_linear(getattr(source, theirs), getattr(target, ours))
    if source.q_lora_rank is not None:
        copy_norm(source.q_a_layernorm, target.q_layernorm)
    copy_norm(source.kv_a_layernorm, target.kv_layernorm)


def interleave(query_key_value, architecture):
    """Query, key and value rows as Megatron keeps them: those of one query group together."""
    by_group = [rows.reshape(architecture.num_query_groups, -1, *rows.shape[1:]) for rows in query_key_value]
    return torch.cat(by_group, dim=1).flatten(0, 1)


def copy_gated(source, target):
    joined = hasattr(source, "gate_up_proj")
    up = source.gate_up_proj.weight if joined else torch.cat([source.gate_proj.weight, source.up_proj.weight])
    target.linear_fc1.weight.copy_(up)
    target.linear_fc2.weight.copy_(source.down_proj.weight)


def copy_experts(source, target):
    target.router.weight.copy_(source.gate.weight)
    for expert, up, down in zip(
        target.experts.local_experts, source.experts.gate_up_proj, source.experts.down_proj, strict=True
    ):
        expert.linear_fc1.weight.copy_(up)
        expert.linear_fc2.weight.copy_(down)
    if target.router.expert_bias is not None:
        target.router.expert_bias.copy_(source.gate.e_score_correction_bias)
    if hasattr(source, "shared_expert_gate"):
        copy_gated(source.shared_expert, target.shared_experts)
        target.shared_experts.gate_weight.copy_(source.shared_expert_gate.weight)
    elif target.shared_experts is not None:
        copy_gated(source.shared_experts, target.shared_experts)


def copy_gpt_oss_experts(source, target):
    copy_linear(source.router, target.router)
    for number, expert in enumerate(target.experts.local_experts):
        # Gates and what they gate take turns.
        up, bias = source.experts.gate_up_proj[number].T, source.experts.gate_up_proj_bias[number]
        expert.linear_fc1.weight.copy_(torch.cat((up[::2], up[1::2])))
        expert.linear_fc1.bias.copy_(torch.cat((bias[::2], bias[1::2])))
        expert.linear_fc2.weight.copy_(source.experts.down_proj[number].T)
        expert.linear_fc2.bias.copy_(source.experts.down_proj_bias[number])


def copy_linear(source, target):
    target.weight.copy_(source.weight)
    assert (source.bias is None) == (target.bias is None)
    if source.bias is not None:
        target.bias.copy_(source.bias)


def copy_norm(source, target, *, zero_centered=False):
    assert isinstance(source, torch.nn.LayerNorm) == (getattr(target, "bias", None) is not None)
    target.weight.copy_(source.weight + 1 if zero_centered else source.weight)
    if getattr(target, "bias", None) is not None:
        target.bias.copy_(source.bias)


COPIES = {
    "gpt2": copy_gpt2_weights,
    "opt": copy_opt_weights,
    "gptj": copy_gptj_weights,
    "gpt_neox": copy_gpt_neox_weights,
    "falcon": copy_falcon_weights,
}


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
def test_logits_are_those_of_hugging_face(twins, engine_name):
    tokens = random_tokens(2, 20)
    with torch.inference_mode():
        expected = twins.theirs(tokens).logits
    engine = load_engine(engine_name)(twins.ours, twins.architecture)
    # Prompts longer and shorter than a window.
    for num_prompt_tokens in (8, 1):
        cached = logits_with_cache(engine, tokens, num_prompt_tokens)
        torch.testing.assert_close(cached, expected[:, num_prompt_tokens - 1 :], atol=1e-4, rtol=0)
    assert expected.std() > 0.5, "logits this flat would hide a fault"


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
def test_greedy_tokens_are_those_of_hugging_face(twins, engine_name):
    prompts = random_tokens(2, 7)
    expected = twins.theirs.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=30, do_sample=False, pad_token_id=0
    )[:, 7:]
    tokens = greedy(load_engine(engine_name)(twins.ours, twins.architecture), prompts, 30)
    assert tokens.tolist() == expected.tolist()
    assert len(set(tokens.flatten().tolist())) > 4, "a constant answer would show little"


def test_parameters_of_the_built_model_are_those_the_architecture_counts(twins):
    num_params = sum(parameter.numel() for parameter in twins.ours.parameters())
    assert num_params == twins.architecture.num_params
    assert num_params == sum(parameter.numel() for parameter in twins.theirs.parameters())


def test_eager_keeps_no_hidden_states_of_blocks_side_by_side():
    model, architecture = build_family("falcon")
    logits_with_cache(load_engine("eager")(model, architecture), random_tokens(2, 9), 8)
    assert [layer._attended for layer in model.decoder.layers] == [None, None]


# Experts.

SPARSE = Architecture(
    "sparse", 2, 64, 4, vocab_size=96, max_position_embeddings=40, swiglu=True, normalization="RMSNorm",
    add_bias_linear=False, num_experts=8, moe_router_topk=2, moe_ffn_hidden_size=24,
)  # fmt: skip


def build(architecture, *, dtype=torch.float32, seed=1):
    return build_model(architecture, device=CPU, dtype=dtype, seed=seed)


def parameters(model):
    return dict(model.named_parameters())


def test_same_seed_builds_the_same_experts_and_no_two_are_alike():
    first, again, other = (parameters(build(SPARSE, seed=seed)) for seed in (5, 5, 6))
    names = [name for name in first if "experts" in name or "router" in name]
    assert len(names) == 2 * (8 * 2 + 1)
    assert all(torch.equal(first[name], again[name]) for name in names)
    assert not any(torch.equal(first[name], other[name]) for name in names)
    up = [first[f"decoder.layers.0.mlp.experts.local_experts.{i}.linear_fc1.weight"] for i in range(8)]
    assert not any(torch.equal(up[i], up[j]) for i in range(8) for j in range(i))


def test_engine_keeps_no_second_copy_of_the_experts():
    model = build(SPARSE)
    engine = load_engine("sdpa")(model, SPARSE)
    tokens = random_tokens(1, 6)
    before = logits_with_cache(engine, tokens, 3)
    for name, parameter in model.named_parameters():
        if "local_experts" in name:
            parameter.mul_(-3)
    changed = logits_with_cache(engine, tokens, 3)
    assert not torch.allclose(before, changed)
    torch.testing.assert_close(
        changed, logits_with_cache(load_engine("eager")(model, SPARSE), tokens, 3), atol=1e-4, rtol=0
    )


def test_experts_that_no_token_visits_take_no_part(monkeypatch):
    model = build(SPARSE)
    engine = load_engine("sdpa")(model, SPARSE)
    tokens = random_tokens(1, 3)
    visited = record_visits(engine, monkeypatch)
    expected = logits_with_cache(engine, tokens, 2)
    unvisited = [
        expert
        for layer, chosen in zip(model.decoder.layers, visited, strict=True)
        for number, expert in enumerate(layer.mlp.experts.local_experts)
        if number not in chosen
    ]
    assert unvisited
    for expert in unvisited:
        expert.linear_fc1.weight.fill_(torch.nan)
        expert.linear_fc2.weight.fill_(torch.nan)
    assert torch.equal(logits_with_cache(engine, tokens, 2), expected)


def record_visits(engine, monkeypatch):
    """By layer, the numbers of the experts that any token visits from now on."""
    visited = []
    for layer in engine._layers:
        numbers, route = set(), layer.experts._route

        def recorded(hidden, numbers=numbers, route=route):
            weights, chosen = route(hidden)
            numbers.update(chosen.flatten().tolist())
            return weights, chosen

        monkeypatch.setattr(layer.experts, "_route", recorded)
        visited.append(numbers)
    return visited


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
def test_experts_in_bfloat16_are_near_those_in_float32(engine_name):
    exact_model, model = build(SPARSE), build(SPARSE, dtype=torch.bfloat16)
    fill_with_noise(exact_model)
    fill_with_noise(model)
    tokens = random_tokens(1, 12)
    exact = logits_with_cache(load_engine("eager")(exact_model, SPARSE), tokens, 6)
    logits = logits_with_cache(load_engine(engine_name)(model, SPARSE), tokens, 6)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize(("name", "size"), [("hidden_size", 60), ("moe_ffn_hidden_size", 20)])
def test_widths_that_grouped_products_cannot_take_are_refused_by_name(name, size):
    architecture = replace(SPARSE, **{name: size})
    model = build(architecture, dtype=torch.bfloat16)
    with pytest.raises(
        ValueError, match=f"needs {name} to be a multiple of 8 in torch.bfloat16; got {size}: use .* eager"
    ):
        load_engine("sdpa")(model, architecture)


def test_latent_attention_is_not_built_with_tensor_parallelism():
    _, architecture = build_family("deepseek_v3, dense")
    with pytest.raises(ValueError, match=r"kv_lora_rank = 20.* not shared out .*--tensor-model-parallel-size 2"):
        build_model(architecture, device=CPU, dtype=torch.float32, seed=1, grid=SimpleNamespace(tensor_parallel_size=2))


def test_latents_are_all_that_the_cache_of_sdpa_holds():
    model, architecture = build_family("deepseek_v3")
    engine = load_engine("sdpa")(model, architecture)
    engine.reset(3, 10)
    held = sum(cache.numel() * cache.element_size() for cache in engine._caches)
    assert held == kv_cache_bytes(architecture, 10, batch_size=3, dtype="float32")


def test_experts_are_not_built_with_tensor_parallelism():
    grid = SimpleNamespace(tensor_parallel_size=2)
    with pytest.raises(ValueError, match="--tensor-model-parallel-size 2"):
        build_model(SPARSE, device=CPU, dtype=torch.float32, seed=1, grid=grid)
