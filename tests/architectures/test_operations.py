import dataclasses

import numpy as np
import pandas as pd
import pytest
from makers import hf_config, written

from idealized_runtime.architectures import (
    ARCHITECTURES,
    Architecture,
    get_architecture,
    kv_cache_bytes,
    kv_cache_bytes_per_token,
    output_token_bytes,
    output_token_flops,
    prompt_encoding_flops,
    query_flops,
    weight_bytes,
)
from idealized_runtime.architectures.closed_forms import (
    closed_form_flops_without_attention,
    closed_form_output_token_flops,
    closed_form_prompt_encoding_flops,
)

GPT2 = Architecture("gpt2-like", 3, 48, 4, vocab_size=101, max_position_embeddings=64)
LLAMA = Architecture(
    "llama-like", 2, 48, 4, vocab_size=103, ffn_hidden_size=80, num_query_groups=2, swiglu=True,
    normalization="RMSNorm", position_embedding_type="rope", add_bias_linear=False, add_qkv_bias=False,
    untie_embeddings_and_output_weights=True,
)  # fmt: skip
MIXTRAL = dataclasses.replace(
    LLAMA, name="mixtral-like", num_experts=5, moe_router_topk=2, moe_ffn_hidden_size=56, ffn_hidden_size=56
)
LLAMA_3_8B = Architecture(
    "llama-3-8b", 32, 4096, 32, vocab_size=128256, max_position_embeddings=8192, ffn_hidden_size=14336,
    num_query_groups=8, swiglu=True, normalization="RMSNorm", position_embedding_type="rope",
    add_bias_linear=False, add_qkv_bias=False, untie_embeddings_and_output_weights=True,
)  # fmt: skip
EXAMPLES = (GPT2, LLAMA, MIXTRAL)
MODEL_NAMES = {
    "OpenAI/davinci": "davinci",
    "AI21/J1-Large v1": "j1-large",
    "AI21/J1-Grande v1": "j1-grande",
    "AI21/J1-Jumbo v1": "j1-jumbo",
    "Cohere/XL v20220609": "anthropic-v4-s3",
    "Anthropic/v4-s3": "anthropic-v4-s3",
    "Microsoft+NV/TNLG v2": "tnlg-v2",
    "EleutherAI/GPT-J": "gpt-j",
    "Yandex/YaLM": "yalm",
    "BigScience/BLOOM": "bloom",
}


def hf_model(architecture, device):
    """The Transformers model of this shape with random weights: a witness that knows nothing of our formulas."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    a = architecture
    if a.position_embedding_type == "learned_absolute":
        config = transformers.GPT2Config(
            n_layer=a.num_layers, n_embd=a.hidden_size, n_head=a.num_attention_heads, vocab_size=a.vocab_size,
            n_positions=a.max_position_embeddings, n_inner=a.ffn_hidden_size, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        kind = transformers.GPT2LMHeadModel
    else:
        shape = {
            "num_hidden_layers": a.num_layers, "hidden_size": a.hidden_size, "vocab_size": a.vocab_size,
            "num_attention_heads": a.num_attention_heads, "num_key_value_heads": a.num_query_groups,
            "intermediate_size": a.moe_ffn_hidden_size or a.ffn_hidden_size, "tie_word_embeddings": False,
            "max_position_embeddings": a.max_position_embeddings, "head_dim": a.head_dim,
        }  # fmt: skip
        if a.num_experts is None:
            config, kind = transformers.LlamaConfig(**shape), transformers.LlamaForCausalLM
        else:
            config = transformers.MixtralConfig(
                **shape, num_local_experts=a.num_experts, num_experts_per_tok=a.moe_router_topk
            )
            kind = transformers.MixtralForCausalLM
            # Grouped kernels are invisible to the counter.
            config._experts_implementation = "eager"
    # Fused attention on CPU is invisible to the counter.
    config._attn_implementation = "eager"
    with torch.device(device):
        return kind(config).eval()


def counted_flops(model, num_prompt_tokens, *, batch_size=1, cached=False, logits_to_keep=1):
    """Operations that PyTorch counts for one prompt, or for one more token after it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros((batch_size, num_prompt_tokens), dtype=torch.long, device=model.device)
    with torch.no_grad():
        cache = model(tokens).past_key_values if cached else None
        with FlopCounterMode(display=False) as counter:
            model(tokens[:, :1] if cached else tokens, past_key_values=cache, logits_to_keep=logits_to_keep)
    return counter.get_total_flops()


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda architecture: architecture.name)
def example(request):
    architecture = request.param
    # Routing depends on values, so experts need a real device.
    return architecture, hf_model(architecture, "cpu" if architecture.num_experts else "meta")


@pytest.mark.parametrize(("batch_size", "num_prompt_tokens"), [(1, 1), (1, 7), (3, 16)])
def test_prompt_encoding_equals_pytorchs_count(example, batch_size, num_prompt_tokens):
    architecture, model = example
    expected = counted_flops(model, num_prompt_tokens, batch_size=batch_size)
    assert prompt_encoding_flops(architecture, num_prompt_tokens, batch_size=batch_size) == expected


def test_logits_of_all_positions_equal_pytorchs_count(example):
    architecture, model = example
    assert prompt_encoding_flops(architecture, 7, logits="all") == counted_flops(model, 7, logits_to_keep=0)


@pytest.mark.parametrize(("batch_size", "num_prompt_tokens"), [(1, 1), (1, 7), (3, 16)])
def test_cached_token_equals_pytorchs_count(example, batch_size, num_prompt_tokens):
    architecture, model = example
    expected = counted_flops(model, num_prompt_tokens, batch_size=batch_size, cached=True)
    assert output_token_flops(architecture, num_prompt_tokens + 1, batch_size=batch_size) == expected


def test_parameters_equal_those_of_the_built_model(example):
    architecture, model = example
    assert architecture.num_params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("architecture", [LLAMA_3_8B, get_architecture("gpt2-small")], ids=lambda a: a.name)
def test_real_sizes_equal_pytorchs_count(architecture):
    model = hf_model(architecture, "meta")
    assert prompt_encoding_flops(architecture, 1000) == counted_flops(model, 1000)
    assert output_token_flops(architecture, 1001) == counted_flops(model, 1000, cached=True)


# Small models of every family that transformers builds, windows shorter than the prompts. Not Llama 4, of which
# transformers sends every token to all experts.
HF_EXAMPLES = {
    "gptj": {},
    "gpt_neox": {},
    "opt": {},
    "bloom": {},
    "falcon": {},
    "mistral": {"sliding_window": 8, "head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    "qwen2_moe": {"mlp_only_layers": [0]},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {},
    "gemma": {"num_key_value_heads": 1},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "num_hidden_layers": 7},
    "phi3": {"eos_token_id": 0},
    "olmo2": {"eos_token_id": 0},
    "gpt_oss": {"sliding_window": 8},
    "deepseek_v2": {"q_lora_rank": None, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
}


@pytest.fixture(scope="module", params=HF_EXAMPLES)
def hf_example(request):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = hf_config(request.param, **HF_EXAMPLES[request.param])
    architecture = Architecture.from_hf_config(written(config), name=request.param)
    # Grouped and fused kernels are invisible to the counter.
    config._experts_implementation = config._attn_implementation = "eager"
    torch.manual_seed(0)
    return architecture, transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(("batch_size", "num_prompt_tokens"), [(1, 1), (2, 20)])
def test_prompt_of_every_family_equals_pytorchs_count(hf_example, batch_size, num_prompt_tokens):
    architecture, model = hf_example
    expected = counted_flops(model, num_prompt_tokens, batch_size=batch_size)
    assert prompt_encoding_flops(architecture, num_prompt_tokens, batch_size=batch_size) == expected


@pytest.mark.parametrize(("batch_size", "num_prompt_tokens"), [(1, 5), (2, 20)])
def test_cached_token_of_every_family_equals_pytorchs_count(hf_example, batch_size, num_prompt_tokens):
    a, model = hf_example
    expected = counted_flops(model, num_prompt_tokens, batch_size=batch_size, cached=True)
    if a.multi_latent_attention:
        # transformers projects the latents of the whole context again; the count here is of the query brought to them.
        latent_sizes, head_sizes = 2 * a.kv_lora_rank + a.qk_pos_emb_head_dim, a.head_dim + a.v_head_dim
        again = num_prompt_tokens * a.kv_lora_rank * (a.qk_head_dim + a.v_head_dim)
        per_head = again + (num_prompt_tokens + 1) * (head_sizes - latent_sizes)
        expected -= 2 * batch_size * a.num_layers * a.num_attention_heads * per_head
    assert output_token_flops(a, num_prompt_tokens + 1, batch_size=batch_size) == expected


def test_cache_of_every_family_equals_that_of_the_built_model(hf_example):
    torch = pytest.importorskip("torch")
    architecture, model = hf_example
    # Fewer tokens than a window.
    with torch.no_grad():
        cache = model(torch.zeros((3, 5), dtype=torch.long)).past_key_values
    built = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))  # noqa: PD011
    assert kv_cache_bytes(architecture, 5, batch_size=3, dtype="float32") == built
    assert 3 * 5 * kv_cache_bytes_per_token(architecture, dtype="float32") == built


def test_embeddings_of_another_width_are_projected_as_pytorch_counts():
    transformers = pytest.importorskip("transformers")
    config = hf_config("opt", word_embed_proj_dim=24, do_layer_norm_before=False)
    architecture = Architecture.from_hf_config(written(config), name="opt-350m-like")
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    # transformers projects all positions back to embeddings, even where the last one only gets logits.
    assert prompt_encoding_flops(architecture, 7, logits="all") == counted_flops(model, 7, logits_to_keep=0)
    assert output_token_flops(architecture, 8, batch_size=2) == counted_flops(model, 7, batch_size=2, cached=True)
    untied = dataclasses.replace(architecture, untie_embeddings_and_output_weights=True)
    # Of an embedding table of its own, one row is read.
    assert output_token_bytes(untied, 8) - output_token_bytes(architecture, 8) == 24 * 2


WINDOWED = dataclasses.replace(LLAMA, name="windowed", num_layers=5, window_size=8, window_attn_skip_freq=2)
LATENT = get_architecture("deepseek-v2-lite")
CHUNKED = dataclasses.replace(WINDOWED, name="chunked", window_is_chunk=True)


def test_windowed_layers_keep_no_more_than_their_window():
    # Layers 1, 3 and 5 of five are windowed. Two of four heads' keys and values, 12 wide, in 2 bytes.
    per_token_and_layer = 2 * 2 * 12 * 2
    num_tokens = np.array([1, 8, 9, 20])
    kept = per_token_and_layer * (2 * num_tokens + 3 * np.array([1, 8, 8, 8]))
    assert kv_cache_bytes(WINDOWED, num_tokens).tolist() == kept.tolist()
    in_chunk = per_token_and_layer * (2 * num_tokens + 3 * np.array([1, 8, 1, 4]))
    assert kv_cache_bytes(CHUNKED, num_tokens).tolist() == in_chunk.tolist()


def test_latents_are_what_multi_latent_attention_caches():
    # arXiv:2412.19437: 61 layers, 512 latent and 64 rotary numbers.
    assert kv_cache_bytes_per_token(get_architecture("deepseek-v3"), dtype="bfloat16") == 61 * (512 + 64) * 2


def test_output_token_reads_the_window_only():
    one_more = output_token_bytes(WINDOWED, 21) - output_token_bytes(WINDOWED, 20)
    assert one_more == 2 * 2 * 2 * 12 * 2
    assert output_token_bytes(WINDOWED, 20) - output_token_bytes(WINDOWED, 1) == kv_cache_bytes(
        WINDOWED, 20
    ) - kv_cache_bytes(WINDOWED, 1)


@pytest.mark.parametrize("architecture", [*EXAMPLES, WINDOWED, CHUNKED], ids=lambda a: a.name)
def test_causal_prompt_is_the_sum_of_its_tokens_one_at_a_time(architecture):
    one_by_one = sum(output_token_flops(architecture, i, logits="none") for i in range(1, 18))
    assert prompt_encoding_flops(architecture, 17, attention="causal", logits="none") == one_by_one


@pytest.mark.parametrize("attention", ["square", "causal", "none"])
@pytest.mark.parametrize("logits", ["last", "all", "none"])
@pytest.mark.parametrize("num_output_tokens", [1, 2, 7, 8])
@pytest.mark.parametrize("architecture", [LLAMA, WINDOWED, CHUNKED, LATENT], ids=lambda a: a.name)
def test_query_is_the_sum_of_its_tokens(architecture, attention, logits, num_output_tokens):
    options = {"attention": attention, "logits": logits}
    expected = prompt_encoding_flops(architecture, 5, **options) + sum(
        output_token_flops(architecture, 5 + i, **options) for i in range(1, num_output_tokens)
    )
    assert query_flops(architecture, 5, num_output_tokens, **options) == expected


@pytest.mark.parametrize("name", ["davinci", "bloom", "gpt-j"])
def test_closed_forms_are_the_exact_count_of_a_plain_layer(name):
    architecture = get_architecture(name)
    assert closed_form_prompt_encoding_flops(architecture, 777, batch_size=2) == prompt_encoding_flops(
        architecture, 777, batch_size=2, logits="none"
    )
    assert closed_form_output_token_flops(architecture, 777) == output_token_flops(architecture, 777, logits="none")
    assert closed_form_flops_without_attention(architecture, 777) == prompt_encoding_flops(
        architecture, 777, attention="none", logits="none"
    )


def test_closed_forms_are_the_printed_expressions():
    h, num_layers, p = 12288, 96, 512
    assert closed_form_prompt_encoding_flops(get_architecture("davinci"), p, batch_size=3) == pytest.approx(
        24 * 3 * p * h**2 * num_layers * (1 + p / (6 * h)), rel=1e-12
    )
    assert closed_form_output_token_flops(get_architecture("davinci"), p) == pytest.approx(
        24 * h**2 * num_layers * (1 + p / (6 * h)), rel=1e-12
    )


@pytest.mark.parametrize("attention", ["square", "causal", "none"])
@pytest.mark.parametrize("architecture", [LLAMA, WINDOWED, CHUNKED], ids=lambda a: a.name)
def test_arrays_agree_with_scalars_and_stay_integers(architecture, attention):
    sizes = np.array([[1, 2], [300, 2048]])
    for count in (prompt_encoding_flops, output_token_flops):
        flops = count(architecture, sizes, attention=attention)
        assert flops.dtype == np.int64
        assert flops.tolist() == [[count(architecture, int(p), attention=attention) for p in row] for row in sizes]
    assert query_flops(architecture, sizes, np.array([1, 9]), attention=attention).tolist() == [
        [query_flops(architecture, int(p), o, attention=attention) for p, o in zip(row, (1, 9), strict=True)]
        for row in sizes
    ]


def test_counts_beyond_64_bits_are_exact_for_scalars_and_refused_for_arrays():
    davinci = get_architecture("davinci")
    exact = prompt_encoding_flops(davinci, 2048, batch_size=10**5)
    assert exact == 10**5 * prompt_encoding_flops(davinci, 2048) > 2**63
    with pytest.raises(OverflowError, match="num_prompt_tokens as real numbers"):
        prompt_encoding_flops(davinci, np.array([1, 2048]), batch_size=10**5)
    with pytest.raises(OverflowError, match="does not fit 64 bits"):
        query_flops(davinci, np.array([2048]), 10**9)


def test_mean_token_counts_are_allowed():
    assert closed_form_flops_without_attention(GPT2, 10.5) == pytest.approx(10.5 * 24 * 48**2 * 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prompt_encoding_flops(GPT2, 0), "num_prompt_tokens must be finite and at least 1; got [0]"),
        (lambda: query_flops(GPT2, 1, np.inf), "num_output_tokens must be finite and at least 1; got [inf]"),
        (
            lambda: closed_form_output_token_flops(GPT2, 1, batch_size=None),
            "batch_size must be an integer of at least 1; got None",
        ),
        (
            lambda: output_token_flops(GPT2, np.array([3, np.nan])),
            "num_context_tokens must be finite and at least 1; got [nan]",
        ),
        (lambda: prompt_encoding_flops(GPT2, 3, attention="half"), "attention must be one of"),
        (lambda: output_token_flops(GPT2, 3, logits="some"), "logits must be one of"),
        (lambda: prompt_encoding_flops(GPT2, 3, batch_size=0), "batch_size must be an integer of at least 1; got 0"),
        (lambda: weight_bytes(GPT2, dtype="fp4"), "dtype must be one of"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert message in str(error.value)


def test_weight_bytes_equal_those_of_the_built_model(example):
    architecture, model = example
    built = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert weight_bytes(architecture, dtype="float32") == built


@pytest.mark.parametrize("architecture", EXAMPLES, ids=lambda a: a.name)
def test_kv_cache_bytes_equal_those_of_the_built_model(architecture):
    torch = pytest.importorskip("torch")
    model = hf_model(architecture, "cpu")
    with torch.no_grad():
        cache = model(torch.zeros((3, 11), dtype=torch.long)).past_key_values
    built = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))  # noqa: PD011
    assert 3 * 11 * kv_cache_bytes_per_token(architecture, dtype="float32") == built


def test_output_token_reads_each_used_weight_once_and_the_cache():
    # Tied embeddings are read whole as the output projection; one row of the position table.
    weights = 4 * (GPT2.num_params - 63 * 48)
    assert output_token_bytes(GPT2, 10, dtype="float32") == weights + 10 * 2 * 3 * 48 * 4
    # An untied input embedding gives one row a sequence; 2 of 4 heads' keys and values.
    weights = 2 * (LLAMA.num_params - 103 * 48 + 5 * 48)
    assert output_token_bytes(LLAMA, 10, batch_size=5) == weights + 5 * 10 * 2 * 2 * 24 * 2


def test_one_sequence_reads_the_experts_it_visits_and_many_read_all():
    expert = 3 * 48 * 56
    assert MIXTRAL.num_params - MIXTRAL.num_active_params == 2 * 3 * expert
    one, two, many = (output_token_bytes(MIXTRAL, 1, batch_size=b, dtype="int8") for b in (1, 2, 50))
    per_sequence = 48 + kv_cache_bytes_per_token(MIXTRAL, dtype="int8")
    assert two - one == 2 * 2 * expert + per_sequence
    assert many - one == 2 * 3 * expert + 49 * per_sequence


def test_cache_may_have_a_type_of_its_own():
    difference = output_token_bytes(LLAMA, 7) - output_token_bytes(LLAMA, 7, kv_cache_dtype="float8")
    assert difference == 7 * kv_cache_bytes_per_token(LLAMA, dtype="float8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts": 4}, "with experts, moe_router_topk must be an integer"),
        ({"moe_router_topk": 2}, "with experts, num_experts must be an integer"),
        ({"num_experts": 4, "moe_router_topk": 5}, "moe_router_topk must not exceed num_experts; got 5"),
    ],
)
def test_incomplete_experts_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Architecture("mixture", 2, 48, 4, **fields)


def test_experts_survive_the_round_trip_through_json():
    assert Architecture.from_dict(MIXTRAL.to_dict()) == MIXTRAL
    assert "num_experts" not in LLAMA.to_dict()


def test_published_flops_are_the_closed_form_without_attention(published):
    points = pd.read_csv(published / "paper_figures" / "figure9_points.csv").query("metric == 'flops'")
    per_token = points["model"].map(
        lambda model: closed_form_flops_without_attention(ARCHITECTURES[MODEL_NAMES[model]], 1)
    )
    num_tokens = points["value"] / per_token
    # The three AI21 models share a tokenizer and, on IMDB and MMLU, every query; so do four others on MMLU.
    ai21 = points["model"].str.startswith("AI21/")
    for task in ("imdb", "mmlu:subject=college_chemistry"):
        tokens = num_tokens[ai21 & (points["task"] == task)]
        assert len(tokens) == 6
        assert np.ptp(tokens) < 1e-6 * tokens.mean()
    gpt2_tokenizer = ["OpenAI/davinci", "Anthropic/v4-s3", "Microsoft+NV/TNLG v2", "EleutherAI/GPT-J"]
    tokens = num_tokens[points["model"].isin(gpt2_tokenizer) & points["task"].str.startswith("mmlu")]
    assert len(tokens) == 8
    assert np.ptp(tokens) < 1e-6 * tokens.mean()
