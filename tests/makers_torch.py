"""Small models that tests of several files build and run, and what they generate."""

from contextlib import contextmanager, nullcontext

import torch
from makers import LLAMA
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig

from idealized_runtime.architectures import Architecture
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.sampling import Sampling

CPU = torch.device("cpu")

# Of a machine that no test is too fast for; to measure those of this one takes most of a short run.
RATES = {
    "memory_bytes_per_s": 1e18, "copy_bytes_per_s": 1e18, "read_bytes_per_s": 1e18,
    "matmul_flops_per_s": {"float32": 1e18, "bfloat16": 1e18},
}  # fmt: skip

GPT = Architecture("tiny", 2, 64, 4, vocab_size=96, max_position_embeddings=40)

# Every option of an Architecture alone, then together.
OPTIONS = {
    "gpt2": {},
    "rmsnorm": {"normalization": "RMSNorm"},
    "epsilon": {"layernorm_epsilon": 0.5},
    "rope": {"position_embedding_type": "rope"},
    "rotary base": {"position_embedding_type": "rope", "rotary_base": 50.0},
    "swiglu": {"swiglu": True},
    "ffn size": {"ffn_hidden_size": 100},
    "grouped query": {"num_query_groups": 2},
    "multi-query": {"num_query_groups": 1},
    "no bias": {"add_bias_linear": False, "add_qkv_bias": False},
    "qkv bias only": {"add_bias_linear": False, "add_qkv_bias": True},
    "untied": {"untie_embeddings_and_output_weights": True},
    "llama": LLAMA,
    "qwen2": {**LLAMA, "add_qkv_bias": True, "untie_embeddings_and_output_weights": False},
    "gpt-j-like": {"position_embedding_type": "rope", "num_query_groups": 1, "swiglu": True},
}


def build(architecture, dtype=torch.float32):
    """Model whose every parameter counts: Megatron's own biases are zero and its weights small."""
    model = build_model(architecture, device=CPU, dtype=dtype, seed=1)
    fill_with_noise(model)
    return model


def fill_with_noise(model):
    """Every parameter counts: those that begin at 1 stay near it."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        center = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
        parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))


def random_tokens(*shape, vocab_size=96):
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits_with_cache(engine, tokens, num_prompt_tokens):
    """Logits from the last prompt position on, as generation sees them: one pass, then one a token."""
    batch_size, num_tokens = tokens.shape
    engine.reset(batch_size, num_tokens)
    logits = [engine.encode(tokens[:, :num_prompt_tokens])]
    logits += [engine.decode(tokens[:, i : i + 1], i) for i in range(num_prompt_tokens, num_tokens)]
    return torch.stack(logits, dim=1)


@torch.inference_mode()
def greedy(engine, prompts, num_output_tokens):
    engine.reset(prompts.shape[0], prompts.shape[1] + num_output_tokens - 1)
    return generate(engine, prompts, num_output_tokens, Sampling(top_k=1), generator=torch.Generator())


# One small model of every family

SIZES = {
    "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 100, "max_position_embeddings": 40, "rms_norm_eps": 1e-3,
}  # fmt: skip

GPT_SIZES = {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 40, "layer_norm_epsilon": 1e-3}

OPT_SIZES = {name: SIZES[name] for name in SIZES if name not in ("num_key_value_heads", "intermediate_size")}
OPT_SIZES |= {"ffn_dim": 100}

GPT_NEOX = {**OPT_SIZES, "intermediate_size": 100, "layer_norm_eps": 1e-3}

FALCON = {name: SIZES[name] for name in OPT_SIZES if name in SIZES} | {"layer_norm_epsilon": 1e-3, "alibi": False}

EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24}

QWEN_2_MOE = {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 40}

# A context short enough for all three kinds of frequencies to be there: kept, blended and slowed down.
LLAMA_3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 24, "rope_theta": 1e4}  # fmt: skip

# Each frequency is of another kind if 8 are slowed down little by little, as those of 16 dimensions are here.
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "beta_fast": 3.0, "beta_slow": 0.5,
        "rope_theta": 1e3}  # fmt: skip

GPT_OSS = {**SIZES, "intermediate_size": 24, "head_dim": 24, "num_local_experts": 8, "num_experts_per_tok": 3,
           "sliding_window": 6}  # fmt: skip

DEEPSEEK = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
DEEPSEEK |= {"num_hidden_layers": 3, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
             "kv_lora_rank": 20, "q_lora_rank": 28, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
             "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}  # fmt: skip

# Four groups of two experts, of which the two are kept whose experts have the largest sum.
DEEPSEEK_V3 = {**DEEPSEEK, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2}

LATENT_YARN = {**YARN, "mscale": 1.5, "mscale_all_dim": 0.5}

LINEAR_SCALING = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}

# By name of the case: family and configuration, one small instance a family, then its options.
CASES = {
    "gpt2": ("gpt2", GPT_SIZES),
    "gpt2, exact gelu": ("gpt2", {**GPT_SIZES, "activation_function": "gelu"}),
    "opt": ("opt", OPT_SIZES),
    "llama": ("llama", {**SIZES, "tie_word_embeddings": False}),
    "llama 3.1": ("llama", {**SIZES, "rope_parameters": LLAMA_3_SCALING}),
    "llama, linear scaling": ("llama", {**SIZES, "rope_parameters": LINEAR_SCALING}),
    "llama, yarn": ("llama", {**SIZES, "rope_parameters": YARN}),
    "llama, yarn of two multipliers": ("llama", {**SIZES, "rope_parameters": {**YARN, "truncate": False,
                                                                              "mscale": 1.5, "mscale_all_dim": 0.5}}),
    "llama, wide heads": ("llama", {**SIZES, "head_dim": 24, "tie_word_embeddings": True}),
    "mistral": ("mistral", SIZES),
    "mistral, windows": ("mistral", {**SIZES, "sliding_window": 6}),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "mixtral, windows": ("mixtral", {**SIZES, "num_local_experts": 4, "sliding_window": 6}),
    "qwen2": ("qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen2, some windows": ("qwen2", {**SIZES, "use_sliding_window": True, "sliding_window": 6,
                                      "max_window_layers": 1}),
    "qwen2_moe": ("qwen2_moe", QWEN_2_MOE),
    "qwen2_moe, normalised": ("qwen2_moe", {**QWEN_2_MOE, "norm_topk_prob": True}),
    "qwen2_moe, some dense": ("qwen2_moe", {**QWEN_2_MOE, "mlp_only_layers": [0]}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 24}),
    "qwen3_moe": ("qwen3_moe", {**SIZES, **EXPERTS, "head_dim": 24, "norm_topk_prob": True}),
    "qwen3_moe, some dense": ("qwen3_moe", {**SIZES, **EXPERTS, "num_hidden_layers": 3, "decoder_sparse_step": 2}),
    "gemma": ("gemma", {**SIZES, "head_dim": 24, "num_key_value_heads": 1}),
    "phi3": ("phi3", {**SIZES, "pad_token_id": 0}),
    "phi3, partial rotary": ("phi3", {**SIZES, "pad_token_id": 0, "partial_rotary_factor": 0.75,
                                      "tie_word_embeddings": True}),
    "gpt_oss": ("gpt_oss", GPT_OSS),
    "gpt_oss, tight gate": ("gpt_oss", {**GPT_OSS, "swiglu_alpha": 1.1, "swiglu_limit": 0.5,
                                        "rope_parameters": YARN}),
    "llama, biases in attention": ("llama", {**SIZES, "attention_bias": True}),
    "gpt_oss, no biases in attention": ("gpt_oss", {**GPT_OSS, "attention_bias": False}),
    "gptj": ("gptj", {**GPT_SIZES, "rotary_dim": 12}),
    "gptj, whole heads": ("gptj", {**GPT_SIZES, "rotary_dim": 16, "activation_function": "gelu"}),
    "gpt_neox": ("gpt_neox", GPT_NEOX),
    "gpt_neox, one after the other": ("gpt_neox", {**GPT_NEOX, "use_parallel_residual": False, "rotary_pct": 1.0}),
    "falcon": ("falcon", FALCON),
    "falcon, two norms": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon, as many keys": ("falcon", {**FALCON, "multi_query": False, "tie_word_embeddings": False}),
    "deepseek_v2": ("deepseek_v2", DEEPSEEK),
    "deepseek_v2, full queries": ("deepseek_v2", {**DEEPSEEK, "q_lora_rank": None, "routed_scaling_factor": 1.7,
                                                  "rope_parameters": LATENT_YARN}),
    "deepseek_v2, best of groups": ("deepseek_v2", {**DEEPSEEK, "topk_method": "group_limited_greedy",
                                                    "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2}),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK_V3),
    "deepseek_v3, yarn": ("deepseek_v3", {**DEEPSEEK_V3, "rope_parameters": LATENT_YARN, "n_group": 1,
                                          "topk_group": 1}),
    "deepseek_v3, dense": ("deepseek_v3", {**DEEPSEEK_V3, "first_k_dense_replace": 3, "q_lora_rank": None,
                                           "rope_parameters": YARN}),
}  # fmt: skip


def build_family(case):
    """Megatron's model of a case, every parameter of which counts, and its architecture."""
    family, config = CASES[case]
    architecture = Architecture.from_hf_config(AutoConfig.for_model(family, **config).to_dict(), name=family)
    return build(architecture), architecture


# A CUDA graph's twin


class RecordedGraph(TorchDispatchMode):
    """Operations in order. As in a CUDA graph, nothing that Python decided on the way is decided anew."""

    captured = 0

    def __init__(self):
        super().__init__()
        self._calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self._calls.append((function, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        for function, args, kwargs, outputs in self._calls:
            again = tree_leaves(function(*args, **kwargs))
            for old, new in zip(tree_leaves(outputs), again, strict=True):
                # Views and results in place are where they were; the rest goes to the place it had in the recording.
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def pool(self):
        return "pool"


class Stream:
    """Nothing runs beside anything here. A class: annotations elsewhere name it as a type."""

    def wait_stream(self, other):
        pass


@contextmanager
def recording(graph, *, pool=None, capture_error_mode):
    RecordedGraph.captured += 1
    with graph:
        yield


def stand_in_for_cuda_graphs(monkeypatch):
    """Let what captures CUDA graphs record on a CPU instead."""
    monkeypatch.setattr(RecordedGraph, "captured", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
