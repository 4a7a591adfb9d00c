"""Counts of parts against hand counts, and of generated models against those that transformers builds."""

import dataclasses
import json

import numpy as np
import pytest

from idealized_runtime.architectures import (
    Architecture,
    get_architecture,
    kept_bytes,
    kv_cache_bytes,
    kv_cache_bytes_per_token,
    output_token_bytes,
    output_token_flops,
    parts,
    prompt_encoding_flops,
    query_flops,
    require_buildable,
    state_bytes,
    weight_bytes_read,
)
from idealized_runtime.architectures.parts import Context, Matrix, Part

SIZES = {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 10, "normalization": "RMSNorm",
         "position_embedding_type": "rope", "add_bias_linear": False, "add_qkv_bias": False,
         "ffn_hidden_size": 16}  # fmt: skip


def model_of(*layers, **change):
    """A model of these layers, each a part or several; embeddings of 10 x 8, tied; a final norm of 8."""
    layers = tuple(layer if isinstance(layer, tuple) else (layer,) for layer in layers)
    return Architecture("toy", num_layers=len(layers), layers=layers, **{**SIZES, **change})


# Embeddings and final norm.
OUTER = 10 * 8 + 8


def test_attention_with_heads_in_groups_is_counted_by_hand():
    # Queries 3 x 4, keys 1 x 4, values 1 x 5, a gate of one number a head, biases of 7.
    gate = (Matrix("self_attn.g_proj", 3, 8),)
    part = parts.attention(8, 3, 1, 4, value_dim=5, extra=gate, vectors=7)
    matrices = 8 * 12 + 8 * 4 + 8 * 5 + 15 * 8 + 3 * 8
    model = model_of(part)
    assert model.num_params == OUTER + matrices + 7
    assert kv_cache_bytes_per_token(model) == 2 * (4 + 5)
    # Scores of 3 heads 4 wide and values 5 wide, of 6 tokens; the logits of 10 words.
    assert output_token_flops(model, 6) == 2 * matrices + 2 * 3 * (4 + 5) * 6 + 2 * 80


def test_layer_that_uses_keys_and_values_of_another_reads_them_and_keeps_none():
    own, shared = parts.attention(8, 2, 1, 4), parts.attention(8, 2, 1, 4, own_keys=False, own_values=False)
    model = model_of(own, shared)
    assert own.num_params() - shared.num_params() == 2 * 8 * 4
    assert kept_bytes(model, 6) == 6 * 8 * 2
    assert kv_cache_bytes(model, 6) == 2 * kept_bytes(model, 6)


def test_sparse_latent_attention_keeps_all_and_reads_what_its_indexer_selects():
    # Queries of rank 6, a latent of 4 with 2 of position; an indexer of 3 heads, 2 wide, selects 5 tokens.
    options = {"query_rank": 6, "latent_rank": 4, "plain_dim": 3, "rotary_dim": 2, "value_dim": 3}
    full, sparse = (parts.latent_attention(8, 2, **options, indexer=indexer) for indexer in (None, (3, 2, 5)))
    # Of queries from their rank, of keys, of one weight a head; a norm with bias.
    assert sparse.num_params() - full.num_params() == 6 * 6 + 2 * 8 + 3 * 8 + 2 * 2
    model = model_of(sparse)
    assert kept_bytes(model, 20) == 20 * (4 + 2 + 2) * 2
    assert kv_cache_bytes(model, 20) == (5 * (4 + 2) + 20 * 2) * 2
    # Of a selected token the query meets the latent twice and the position once; of every token the indexer's keys.
    attended = 5 * 2 * 2 * (2 * 4 + 2) + 20 * 2 * 3 * 2
    assert output_token_flops(model, 20) - output_token_flops(model, 20, attention="none") == attended
    # A layer that takes the selection of one before has no indexer.
    later = parts.latent_attention(8, 2, **options, indexer=(0, 0, 5))
    assert later.num_params() == full.num_params()
    assert kv_cache_bytes(model_of(later), 20) == 5 * 6 * 2


def test_entries_that_stand_for_several_tokens_are_counted_once_complete():
    context = Context(3, 4, 4, stride=4, kept="all")
    model = model_of(Part("compressed attention", contexts=(context,)))
    num_tokens = np.array([1, 3, 4, 7, 8, 21])
    assert kv_cache_bytes(model, num_tokens).tolist() == (num_tokens // 4 * 3 * 2).tolist()
    assert kv_cache_bytes_per_token(model) == 3 * 2 / 4


@pytest.mark.parametrize("window", [None, 2, 3])
@pytest.mark.parametrize("stride", [1, 4])
def test_prompt_is_the_sum_of_its_tokens_whatever_they_attend_to(stride, window):
    context = Context(3, 4, 4, window=window, stride=stride, kept="all")
    model = model_of(Part("attention", contexts=(context,)))
    for num_tokens in range(1, 30):
        by_token = sum(output_token_flops(model, i, logits="none") for i in range(1, num_tokens + 1))
        assert prompt_encoding_flops(model, num_tokens, attention="causal", logits="none") == by_token


def test_query_is_the_sum_of_its_tokens_with_states_and_entries():
    context = Context(3, 4, 4, window=3, stride=4, kept="all")
    model = model_of((Part("attention", contexts=(context,)), Part("state space", state=7, token_flops=11)))
    by_token = prompt_encoding_flops(model, 5) + sum(output_token_flops(model, 5 + i) for i in range(1, 30))
    assert query_flops(model, 5, 30) == by_token


def test_delta_rule_keeps_a_state_of_keys_times_values():
    part = parts.delta_rule(
        num_key_heads=1, num_value_heads=2, key_dim=3, value_dim=4, kernel=4, projections=(), vectors=5
    )
    # Channels of a query, a key and two values.
    channels = 3 + 3 + 8
    model = model_of(part)
    assert model.num_params == OUTER + 5 + 4 * channels
    assert state_bytes(model) == kv_cache_bytes(model, 1) == kv_cache_bytes(model, 999) == 2 * (24 + 3 * channels)
    assert output_token_flops(model, 1, logits="none") == 6 * 24 + 2 * 4 * channels


def test_state_in_float32_takes_twice_the_bytes_of_one_in_float16():
    options = {"inner_size": 6, "num_heads": 2, "state_size": 5, "num_groups": 1, "kernel": 4}
    half = model_of(parts.state_space(8, **options))
    full = model_of(parts.state_space(8, **options, state_dtype="float32"))
    # Six channels and two groups of five; the convolution keeps three tokens of them.
    assert state_bytes(half) == 2 * (30 + 3 * 16)
    assert state_bytes(full) == 4 * 30
    # In: inner size, channels, heads; out; a kernel and a bias of each channel; three numbers a head; a norm.
    assert half.num_params == OUTER + 8 * (6 + 16 + 2) + 6 * 8 + 5 * 16 + 3 * 2 + 6


def test_output_token_reads_the_state_of_each_sequence():
    model = model_of(Part("state space", state=7))
    per_sequence = [
        output_token_bytes(model, 50, batch_size=b) - weight_bytes_read(model, batch_size=b) for b in (1, 3)
    ]
    assert per_sequence == [2 * 7, 3 * 2 * 7]


def test_experts_with_a_latent_of_their_own_are_counted_by_hand():
    part = parts.experts(8, 3, num_experts=5, topk=2, shared_size=4, latent_size=6, is_gated=False)
    expert, beside = 2 * 3 * 6, 5 * 8 + 2 * 4 * 8 + 2 * 6 * 8
    model = model_of(part, num_experts=5, moe_router_topk=2, moe_ffn_hidden_size=3)
    assert model.num_params == OUTER + 5 * expert + beside
    assert model.num_active_params == OUTER + 2 * expert + beside
    # Two sequences visit four experts at most, three all five.
    read = [weight_bytes_read(model, batch_size=size) // 2 for size in (1, 2, 3)]
    assert read == [OUTER + met * expert + beside for met in (2, 4, 5)]


def test_table_of_every_layers_inputs_is_read_by_the_row():
    table = Matrix("embed_tokens_per_layer", 10, 6, is_table=True)
    model = model_of(Part("norms", vectors=8), outer_parts=(Part("inputs of layers", (table,)),))
    assert model.num_params == OUTER + 8 + 60
    assert [weight_bytes_read(model, batch_size=b) for b in (1, 4)] == [2 * (OUTER + 8 + 6), 2 * (OUTER + 8 + 24)]
    assert output_token_flops(model, 1) == 2 * 80


def test_model_of_parts_survives_json():
    model = model_of(parts.attention(8, 2, 1, 4), (parts.feed_forward(8, 3), Part("norms", vectors=8)), Part("norms"))
    again = Architecture.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    assert again.num_params == model.num_params


@pytest.mark.parametrize("layers", [{"kinds": []}, {"kinds": [[]], "pattern": [1]}, {"kinds": 3, "pattern": []}, 5])
def test_damaged_layers_are_refused(layers):
    fields = {**model_of(Part("norms")).to_dict(), "layers": layers}
    with pytest.raises(ValueError, match="layers of 'toy' are not as to_dict writes them"):
        Architecture.from_dict(fields)


def test_layers_must_be_as_many_as_the_model_says():
    with pytest.raises(ValueError, match="layers must be one for each of num_layers = 2; got 1"):
        dataclasses.replace(model_of(Part("norms")), num_layers=2)


def test_engines_refuse_a_model_of_parts_by_their_names():
    with pytest.raises(ValueError, match=r"cannot be built here, only counted .*layers = 'state space; feed-forward'"):
        require_buildable(model_of(Part("state space"), parts.feed_forward(8, 3)))


def test_as_many_layers_as_a_number_has_room_for_are_counted_at_once():
    many = Architecture("deep", 2**40, 8, 2, vocab_size=10, window_size=4, window_attn_skip_freq=2)
    assert many.num_windowed_layers == 2**39
    assert kv_cache_bytes(many, 100) == 2**39 * (100 + 4) * 2 * 8 * 2


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-2-9b", "mixtral-8x7b", "deepseek-v3", "opt-13b", "bloom-560m"])
def test_fields_alone_and_the_layers_that_they_mean_count_alike(name):
    plain = get_architecture(name)
    in_parts = dataclasses.replace(plain, layers=parts.plain_layers(plain))
    for count in (kv_cache_bytes_per_token, weight_bytes_read):
        assert count(in_parts) == count(plain)
    for count in (output_token_flops, prompt_encoding_flops, kv_cache_bytes):
        assert count(in_parts, 5000) == count(plain, 5000)
    assert in_parts.num_params == plain.num_params
    assert in_parts.num_moe_layers == plain.num_moe_layers
