"""Open models as their owners' ``config.json`` describes them, 0.1 to 1000 billion parameters.

A row is a name, the series it belongs to, what tells it from the others of the series, the parameter count
its owners state, if they do, and where. Options that change neither a count nor a computed value are left out.
A name that ends in ``-hf`` tells a model from the shape that arXiv:2305.02440 timed for it.
"""

from dataclasses import dataclass, replace

from idealized_runtime.architectures.architecture import Architecture


@dataclass(frozen=True)
class OpenModel:
    """One row: a name, a Hugging Face configuration, and the parameter count that ``source`` states, if it does."""

    name: str
    config: dict
    published_params: float | None
    source: str

    def architecture(self) -> Architecture:
        """Its row of the registry."""
        described = Architecture.from_hf_config(self.config, name=self.name)
        return replace(described, published_params=self.published_params, source=self.source)


def open_architectures() -> list[Architecture]:
    """Rows of the registry."""
    return [model.architecture() for model in OPEN_MODELS]


def _row(name, series, shape, published_params, source, **config):
    """A row whose ``shape`` is layers, hidden size, attention heads; key-value heads, feed-forward size where told."""
    sizes = dict(zip(_SHAPE, shape, strict=False))
    return OpenModel(name, {**series, **sizes, **config}, published_params, source)


_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


def _llama3_scaling(factor):
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}  # fmt: skip


def _yarn(factor, original, **more):
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **more}


_LLAMA_1 = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
_LLAMA_2 = {**_LLAMA_1, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
_LLAMA_3 = {**_LLAMA_2, "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 5e5}
_LLAMA_3_1 = {**_LLAMA_3, "max_position_embeddings": 131072, "rope_scaling": _llama3_scaling(8.0)}
_LLAMA_3_2 = {**_LLAMA_3_1, "rope_scaling": _llama3_scaling(32.0), "tie_word_embeddings": True}
_LLAMA_4 = {"model_type": "llama4_text", "vocab_size": 202048, "head_dim": 128, "intermediate_size_mlp": 16384,
            "num_experts_per_tok": 1, "rope_theta": 5e5, "attention_chunk_size": 8192}  # fmt: skip
_SMOLLM_2 = {**_LLAMA_1, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
             "rope_theta": 1e5, "tie_word_embeddings": True}  # fmt: skip
_MISTRAL = {"model_type": "mistral", "vocab_size": 32768, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
            "rope_theta": 1e6, "sliding_window": None}  # fmt: skip
_MIXTRAL = {"model_type": "mixtral", "vocab_size": 32000, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
            "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None}  # fmt: skip
_QWEN_2_5 = {"model_type": "qwen2", "vocab_size": 152064, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
             "rope_theta": 1e6, "tie_word_embeddings": False}  # fmt: skip
_SMALL_QWEN_2_5 = {**_QWEN_2_5, "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True}
_QWEN_2_MOE = {"model_type": "qwen2_moe", "vocab_size": 151936, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
_QWEN_3 = {"model_type": "qwen3", "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
           "rope_theta": 1e6, "head_dim": 128}  # fmt: skip
_SMALL_QWEN_3 = {**_QWEN_3, "tie_word_embeddings": True}
_QWEN_3_MOE = {**_QWEN_3, "model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8,
               "norm_topk_prob": True}  # fmt: skip
_GEMMA_1 = {"model_type": "gemma", "vocab_size": 256000, "max_position_embeddings": 8192, "head_dim": 256}
_GEMMA_2 = {**_GEMMA_1, "model_type": "gemma2", "sliding_window": 4096}
_GEMMA_3 = {"model_type": "gemma3_text", "vocab_size": 262208, "max_position_embeddings": 131072, "head_dim": 256,
            "sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
_PHI_3 = {"model_type": "phi3", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
          "sliding_window": 2047}  # fmt: skip
_PHI_4 = {**_PHI_3, "vocab_size": 100352, "max_position_embeddings": 16384, "rope_theta": 250000.0,
          "sliding_window": None}  # fmt: skip
_OLMO_2 = {"model_type": "olmo2", "vocab_size": 100352, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
           "rope_theta": 5e5}  # fmt: skip
_DEEPSEEK = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
             "max_position_embeddings": 163840, "rms_norm_eps": 1e-6}  # fmt: skip
_DEEPSEEK_V2 = {**_DEEPSEEK, "model_type": "deepseek_v2", "vocab_size": 102400, "n_shared_experts": 2,
                "num_experts_per_tok": 6, "first_k_dense_replace": 1,
                "rope_scaling": _yarn(40, 4096, mscale=0.707, mscale_all_dim=0.707)}  # fmt: skip
_DEEPSEEK_V3 = {**_DEEPSEEK, "model_type": "deepseek_v3", "vocab_size": 129280, "q_lora_rank": 1536,
                "n_shared_experts": 1, "n_routed_experts": 256, "moe_intermediate_size": 2048,
                "num_experts_per_tok": 8, "first_k_dense_replace": 3,
                "rope_scaling": _yarn(40, 4096, mscale=1.0, mscale_all_dim=1.0)}  # fmt: skip
_GPT_OSS = {"model_type": "gpt_oss", "vocab_size": 201088, "head_dim": 64, "num_experts_per_tok": 4,
            "sliding_window": 128}  # fmt: skip

_PYTHIA = {"model_type": "gpt_neox", "vocab_size": 50304}
_OPT = {"model_type": "opt", "vocab_size": 50272}
_BLOOM = {"model_type": "bloom", "vocab_size": 250880}
_FALCON = {"model_type": "falcon", "vocab_size": 65024, "max_position_embeddings": 2048}

_LLAMA_1_PAPER = "arXiv:2302.13971, Table 2"
_LLAMA_3_HERD = "arXiv:2407.21783, Table 3; Hugging Face meta-llama"
_LLAMA_3_2_CARD = "model card of Llama 3.2, parameters with shared embeddings"
_LLAMA_4_CARD = "model card of Llama 4; vision encoder left out"
_QWEN_2_5_CARD = "arXiv:2412.15115; Hugging Face Qwen"
_QWEN_3_CARD = "arXiv:2505.09388; Hugging Face Qwen"
_GEMMA_1_PAPER = "arXiv:2403.08295, Tables 1 and 2"
_GEMMA_2_PAPER = "arXiv:2408.00118, Tables 1 and 2"
_GEMMA_3_PAPER = "arXiv:2503.19786, Table 1; vision encoder left out"
_PHI_3_PAPER = "arXiv:2404.14219; Hugging Face microsoft"
_OLMO_2_PAPER = "arXiv:2501.00656; Hugging Face allenai"
_GPT_OSS_CARD = "arXiv:2508.10925, Table 1"
_PYTHIA_CARD = "model card, Hugging Face EleutherAI; arXiv:2304.01373"
_OPT_PAPER = "arXiv:2205.01068, Table 1"
_BLOOM_CARD = "model card, Hugging Face bigscience; arXiv:2211.05100, Table 3"
_FALCON_PAPER = "arXiv:2311.16867; Hugging Face tiiuae"
_MISTRAL_HUB = "Hugging Face mistralai"
_NO_IMAGES = "; vision encoder left out"

_FOLLOWERS_OF_LLAMA = (
    _row("llama-7b", _LLAMA_1, (32, 4096, 32, 32, 11008), 6.7e9, _LLAMA_1_PAPER),
    _row("llama-13b", _LLAMA_1, (40, 5120, 40, 40, 13824), 13.0e9, _LLAMA_1_PAPER),
    _row("llama-30b", _LLAMA_1, (60, 6656, 52, 52, 17920), 32.5e9, _LLAMA_1_PAPER),
    _row("llama-65b", _LLAMA_1, (80, 8192, 64, 64, 22016), 65.2e9, _LLAMA_1_PAPER),
    _row("yi-34b", _LLAMA_2, (60, 7168, 56, 8, 20480), 34.4e9, "arXiv:2403.04652; Hugging Face 01-ai/Yi-34B",
         vocab_size=64000, rope_theta=5e6),
    _row("deepseek-llm-67b", _LLAMA_2, (95, 8192, 64, 8, 22016), 67e9, "arXiv:2401.02954, Table 2",
         vocab_size=102400, rms_norm_eps=1e-6),
    _row("tinyllama-1.1b", _LLAMA_1, (22, 2048, 32, 4, 5632), 1.1e9, "arXiv:2401.02385, Table 2", rms_norm_eps=1e-5),
    _row("llama-2-7b", _LLAMA_2, (32, 4096, 32, 32, 11008), 6.74e9, "arXiv:2307.09288; Hugging Face meta-llama"),
    _row("llama-2-13b", _LLAMA_2, (40, 5120, 40, 40, 13824), 13.0e9, "arXiv:2307.09288; Hugging Face meta-llama"),
    _row("llama-2-70b", _LLAMA_2, (80, 8192, 64, 8, 28672), 69.0e9, "arXiv:2307.09288; Hugging Face meta-llama"),
    _row("llama-3-8b", _LLAMA_3, (32, 4096, 32, 8, 14336), 8.03e9, _LLAMA_3_HERD),
    _row("llama-3-70b", _LLAMA_3, (80, 8192, 64, 8, 28672), 70.6e9, _LLAMA_3_HERD),
    _row("llama-3.1-8b", _LLAMA_3_1, (32, 4096, 32, 8, 14336), 8.03e9, _LLAMA_3_HERD),
    _row("llama-3.1-70b", _LLAMA_3_1, (80, 8192, 64, 8, 28672), 70.6e9, _LLAMA_3_HERD),
    _row("llama-3.1-405b", _LLAMA_3_1, (126, 16384, 128, 8, 53248), 405e9, _LLAMA_3_HERD),
    _row("llama-3.2-1b", _LLAMA_3_2, (16, 2048, 32, 8, 8192), 1.23e9, _LLAMA_3_2_CARD),
    _row("llama-3.2-3b", _LLAMA_3_2, (28, 3072, 24, 8, 8192), 3.21e9, _LLAMA_3_2_CARD),
    _row("llama-3.3-70b", _LLAMA_3_1, (80, 8192, 64, 8, 28672), 70.6e9, "model card of Llama 3.3"),
    _row("smollm2-360m", _SMOLLM_2, (32, 960, 15, 5, 2560), 362e6, "arXiv:2502.02737; Hugging Face HuggingFaceTB"),
    _row("smollm2-1.7b", _SMOLLM_2, (24, 2048, 32, 32, 8192), 1.71e9, "arXiv:2502.02737; Hugging Face HuggingFaceTB",
         rope_theta=130000.0),
    _row("mistral-7b-v0.1", _MISTRAL, (32, 4096, 32, 8, 14336), 7.24e9, "arXiv:2310.06825, Table 1; " + _MISTRAL_HUB,
         vocab_size=32000, rope_theta=1e4, sliding_window=4096),
    _row("mistral-7b-v0.3", _MISTRAL, (32, 4096, 32, 8, 14336), 7.25e9, _MISTRAL_HUB),
    _row("mistral-nemo-12b", _MISTRAL, (40, 5120, 32, 8, 14336), 12.2e9, _MISTRAL_HUB + "/Mistral-Nemo-Base-2407",
         vocab_size=131072, head_dim=128, max_position_embeddings=131072),
    _row("mistral-small-24b", _MISTRAL, (40, 5120, 32, 8, 32768), 23.6e9, _MISTRAL_HUB + "/Mistral-Small-24B-Base-2501",
         vocab_size=131072, head_dim=128, rope_theta=1e8),
    _row("mistral-small-3.1-24b", _MISTRAL, (40, 5120, 32, 8, 32768), 23.6e9,
         _MISTRAL_HUB + "/Mistral-Small-3.1-24B-Base-2503; vision encoder left out",
         vocab_size=131072, head_dim=128, max_position_embeddings=131072, rope_theta=1e9),
    _row("codestral-22b", _MISTRAL, (56, 6144, 48, 8, 16384), 22.2e9, _MISTRAL_HUB + "/Codestral-22B-v0.1"),
    _row("mistral-large-2", _MISTRAL, (88, 12288, 96, 8, 28672), 123e9, _MISTRAL_HUB + "/Mistral-Large-Instruct-2407",
         max_position_embeddings=131072),
    _row("qwen2.5-0.5b", _SMALL_QWEN_2_5, (24, 896, 14, 2, 4864), 0.49e9, _QWEN_2_5_CARD),
    _row("qwen2.5-1.5b", _SMALL_QWEN_2_5, (28, 1536, 12, 2, 8960), 1.54e9, _QWEN_2_5_CARD),
    _row("qwen2.5-3b", _SMALL_QWEN_2_5, (36, 2048, 16, 2, 11008), 3.09e9, _QWEN_2_5_CARD),
    _row("qwen2.5-7b", _QWEN_2_5, (28, 3584, 28, 4, 18944), 7.61e9, _QWEN_2_5_CARD),
    _row("qwen2.5-14b", _QWEN_2_5, (48, 5120, 40, 8, 13824), 14.7e9, _QWEN_2_5_CARD),
    _row("qwen2.5-32b", _QWEN_2_5, (64, 5120, 40, 8, 27648), 32.5e9, _QWEN_2_5_CARD),
    _row("qwen2.5-72b", _QWEN_2_5, (80, 8192, 64, 8, 29568), 72.7e9, _QWEN_2_5_CARD),
    _row("qwen3-0.6b", _SMALL_QWEN_3, (28, 1024, 16, 8, 3072), 0.6e9, _QWEN_3_CARD),
    _row("qwen3-1.7b", _SMALL_QWEN_3, (28, 2048, 16, 8, 6144), 1.7e9, _QWEN_3_CARD),
    _row("qwen3-4b", _SMALL_QWEN_3, (36, 2560, 32, 8, 9728), 4.0e9, _QWEN_3_CARD),
    _row("qwen3-8b", _QWEN_3, (36, 4096, 32, 8, 12288), 8.2e9, _QWEN_3_CARD),
    _row("qwen3-14b", _QWEN_3, (40, 5120, 40, 8, 17408), 14.8e9, _QWEN_3_CARD),
    _row("qwen3-32b", _QWEN_3, (64, 5120, 64, 8, 25600), 32.8e9, _QWEN_3_CARD),
    _row("gemma-2b", _GEMMA_1, (18, 2048, 8, 1, 16384), 2_506_434_560, _GEMMA_1_PAPER),
    _row("gemma-7b", _GEMMA_1, (28, 3072, 16, 16, 24576), 8_538_074_112, _GEMMA_1_PAPER),
    _row("gemma-2-2b", _GEMMA_2, (26, 2304, 8, 4, 9216), 2_614_636_800, _GEMMA_2_PAPER),
    _row("gemma-2-9b", _GEMMA_2, (42, 3584, 16, 8, 14336), 9_242_164_736, _GEMMA_2_PAPER),
    _row("gemma-2-27b", _GEMMA_2, (46, 4608, 32, 16, 36864), 27_227_718_144, _GEMMA_2_PAPER,
         head_dim=128, query_pre_attn_scalar=144),
    _row("gemma-3-1b", _GEMMA_3, (26, 1152, 4, 1, 6912), 1.0e9, _GEMMA_3_PAPER,
         vocab_size=262144, max_position_embeddings=32768, sliding_window=512, rope_scaling=None),
    _row("gemma-3-4b", _GEMMA_3, (34, 2560, 8, 4, 10240), 3.884e9, _GEMMA_3_PAPER),
    _row("gemma-3-12b", _GEMMA_3, (48, 3840, 16, 8, 15360), 11.771e9, _GEMMA_3_PAPER),
    _row("gemma-3-27b", _GEMMA_3, (62, 5376, 32, 16, 21504), 27.016e9, _GEMMA_3_PAPER,
         head_dim=128, query_pre_attn_scalar=168),
    _row("phi-3-mini", _PHI_3, (32, 3072, 32, 32, 8192), 3.8e9, _PHI_3_PAPER + "/Phi-3-mini-4k-instruct"),
    _row("phi-3-medium", _PHI_3, (40, 5120, 40, 10, 17920), 14e9, _PHI_3_PAPER + "/Phi-3-medium-4k-instruct"),
    _row("phi-4", _PHI_4, (40, 5120, 40, 10, 17920), 14.7e9, "arXiv:2412.08905; Hugging Face microsoft/phi-4"),
    _row("olmo-2-1b", _OLMO_2, (16, 2048, 16, 16, 8192), 1.48e9, _OLMO_2_PAPER + "/OLMo-2-0425-1B"),
    _row("olmo-2-7b", _OLMO_2, (32, 4096, 32, 32, 11008), 7.3e9, _OLMO_2_PAPER + "/OLMo-2-1124-7B"),
    _row("olmo-2-13b", _OLMO_2, (40, 5120, 40, 40, 13824), 13.7e9, _OLMO_2_PAPER + "/OLMo-2-1124-13B"),
    _row("olmo-2-32b", _OLMO_2, (64, 5120, 40, 8, 27648), 32.2e9, _OLMO_2_PAPER + "/OLMo-2-0325-32B"),
)  # fmt: skip

_MIXTURES_OF_EXPERTS = (
    _row("mixtral-8x7b", _MIXTRAL, (32, 4096, 32, 8, 14336), 46.7e9, "arXiv:2401.04088",
         max_position_embeddings=32768),
    _row("mixtral-8x22b", _MIXTRAL, (56, 6144, 48, 8, 16384), 141e9, _MISTRAL_HUB + "/Mixtral-8x22B-v0.1",
         max_position_embeddings=65536),
    _row("qwen1.5-moe-a2.7b", _QWEN_2_MOE, (24, 2048, 16, 16, 5632), 14.3e9, "Hugging Face Qwen/Qwen1.5-MoE-A2.7B",
         max_position_embeddings=8192, num_experts=60, num_experts_per_tok=4, moe_intermediate_size=1408,
         shared_expert_intermediate_size=5632),
    _row("qwen2-57b-a14b", _QWEN_2_MOE, (28, 3584, 28, 4, 18944), 57.41e9, "arXiv:2407.10671; Hugging Face Qwen",
         max_position_embeddings=131072, num_experts=64, num_experts_per_tok=8, moe_intermediate_size=2560,
         shared_expert_intermediate_size=20480),
    _row("qwen3-30b-a3b", _QWEN_3_MOE, (48, 2048, 32, 4, 6144), 30.5e9, _QWEN_3_CARD, moe_intermediate_size=768),
    _row("qwen3-235b-a22b", _QWEN_3_MOE, (94, 4096, 64, 4, 12288), 235e9, _QWEN_3_CARD, moe_intermediate_size=1536),
    _row("qwen3-coder-480b-a35b", _QWEN_3_MOE, (62, 6144, 96, 8, 8192), 480e9, "model card of Qwen3-Coder",
         moe_intermediate_size=2560, num_experts=160, max_position_embeddings=262144, rope_theta=1e7),
    _row("llama-4-scout", _LLAMA_4, (48, 5120, 40, 8, 8192), 109e9, _LLAMA_4_CARD, num_local_experts=16,
         interleave_moe_layer_step=1, use_qk_norm=True, max_position_embeddings=10485760),
    _row("llama-4-maverick", _LLAMA_4, (48, 5120, 40, 8, 8192), 400e9, _LLAMA_4_CARD, num_local_experts=128,
         interleave_moe_layer_step=2, use_qk_norm=False, max_position_embeddings=1048576),
    _row("deepseek-v2-lite", _DEEPSEEK_V2, (27, 2048, 16, 16, 10944), 15.7e9, "arXiv:2405.04434, appendix B",
         q_lora_rank=None, n_routed_experts=64, moe_intermediate_size=1408),
    _row("deepseek-v2", _DEEPSEEK_V2, (60, 5120, 128, 128, 12288), 236e9, "arXiv:2405.04434, section 3.1.2",
         q_lora_rank=1536, n_routed_experts=160, moe_intermediate_size=1536, topk_method="group_limited_greedy",
         n_group=8, topk_group=3,
         routed_scaling_factor=16.0),
    _row("deepseek-v3", _DEEPSEEK_V3, (61, 7168, 128, 128, 18432), 671e9, "arXiv:2412.19437, section 4.2"),
    _row("deepseek-r1", _DEEPSEEK_V3, (61, 7168, 128, 128, 18432), 671e9, "arXiv:2501.12948: the shape of DeepSeek V3"),
    _row("gpt-oss-20b", _GPT_OSS, (24, 2880, 64, 8, 2880), 20.91e9, _GPT_OSS_CARD, num_local_experts=32),
    _row("gpt-oss-120b", _GPT_OSS, (36, 2880, 64, 8, 2880), 116.83e9, _GPT_OSS_CARD, num_local_experts=128),
)  # fmt: skip


_FROM_2019_TO_2023 = (
    _row("gpt2-xl", {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024}, (48, 1600, 25), 1.558e9,
         "Radford et al. 2019; Hugging Face gpt2-xl"),
    _row("gpt-j-hf", {"model_type": "gptj", "vocab_size": 50400}, (28, 4096, 16), 6_053_381_344,
         "model card, Hugging Face EleutherAI/gpt-j-6b"),
    _row("gpt-neox-20b-hf", _PYTHIA, (44, 6144, 64, 64, 24576), 20_554_567_680,
         "model card, Hugging Face EleutherAI/gpt-neox-20b; arXiv:2204.06745", vocab_size=50432),
    _row("pythia-1.4b", _PYTHIA, (24, 2048, 16, 16, 8192), 1_414_647_808, _PYTHIA_CARD),
    _row("pythia-2.8b", _PYTHIA, (32, 2560, 32, 32, 10240), 2_775_208_960, _PYTHIA_CARD),
    _row("pythia-6.9b", _PYTHIA, (32, 4096, 32, 32, 16384), 6_857_302_016, _PYTHIA_CARD, vocab_size=50432),
    _row("pythia-12b", _PYTHIA, (36, 5120, 40, 40, 20480), 11_846_072_320, _PYTHIA_CARD, vocab_size=50688),
    _row("opt-125m", _OPT, (12, 768, 12), 125e6, _OPT_PAPER, ffn_dim=3072),
    _row("opt-1.3b", _OPT, (24, 2048, 32), 1.3e9, _OPT_PAPER, ffn_dim=8192),
    _row("opt-2.7b", _OPT, (32, 2560, 32), 2.7e9, _OPT_PAPER, ffn_dim=10240),
    _row("opt-6.7b", _OPT, (32, 4096, 32), 6.7e9, _OPT_PAPER, ffn_dim=16384),
    _row("opt-13b", _OPT, (40, 5120, 40), 13e9, _OPT_PAPER, ffn_dim=20480),
    _row("opt-30b", _OPT, (48, 7168, 56), 30e9, _OPT_PAPER, ffn_dim=28672),
    _row("opt-66b-hf", _OPT, (64, 9216, 72), 66e9, _OPT_PAPER, ffn_dim=36864),
    _row("opt-175b", _OPT, (96, 12288, 96), 175e9, _OPT_PAPER, ffn_dim=49152),
    _row("bloom-560m", _BLOOM, (24, 1024, 16), 559_214_592, _BLOOM_CARD),
    _row("bloom-1b1", _BLOOM, (24, 1536, 16), 1_065_314_304, _BLOOM_CARD),
    _row("bloom-1b7", _BLOOM, (24, 2048, 16), 1_722_408_960, _BLOOM_CARD),
    _row("bloom-3b", _BLOOM, (30, 2560, 32), 3_002_557_440, _BLOOM_CARD),
    _row("bloom-7b1", _BLOOM, (30, 4096, 32), 7_069_016_064, _BLOOM_CARD),
    _row("bloom-hf", _BLOOM, (70, 14336, 112), 176_247_271_424, _BLOOM_CARD),
    _row("falcon-7b", _FALCON, (32, 4544, 71), 7e9, _FALCON_PAPER, multi_query=True),
    _row("falcon-40b", _FALCON, (60, 8192, 128), 40e9, _FALCON_PAPER, new_decoder_architecture=True, num_kv_heads=8),
    _row("falcon-180b", _FALCON, (80, 14848, 232), 180e9, _FALCON_PAPER, new_decoder_architecture=True, num_kv_heads=8),
)  # fmt: skip

# Of 2025 and 2026: layers that differ, described by their parts. Options that are left out are as in the class.
_QWEN_3_5 = {"model_type": "qwen3_5_text", "vocab_size": 248320, "max_position_embeddings": 262144,
             "tie_word_embeddings": False, "linear_num_value_heads": 48, "mamba_ssm_dtype": "float32"}  # fmt: skip
_QWEN_3_5_MOE = {**_QWEN_3_5, "model_type": "qwen3_5_moe_text", "num_experts": 256, "num_experts_per_tok": 8,
                 "linear_num_value_heads": 64}  # fmt: skip
_GLM_5 = {"model_type": "glm_moe_dsa", "vocab_size": 154880, "kv_lora_rank": 512, "q_lora_rank": 2048,
          "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
          "tie_word_embeddings": False, "max_position_embeddings": 202752}  # fmt: skip
_GEMMA_4 = {"model_type": "gemma4_text", "vocab_size": 262144, "max_position_embeddings": 262144, "head_dim": 256,
            "sliding_window": 1024, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True}  # fmt: skip
_NEMOTRON_H = {"model_type": "nemotron_h", "vocab_size": 131072, "head_dim": 128}
_NEMOTRON_3 = {"mamba_ssm_cache_dtype": "float32", "max_position_embeddings": 262144, "num_key_value_heads": 2}
# Of the config.json files, as Megatron-LM's examples and Megatron-Bridge's documentation quote them.
_NEMOTRON_NANO_2 = {"mamba_ssm_cache_dtype": "float32", "max_position_embeddings": 131072, "num_key_value_heads": 8,
                    "mamba_num_heads": 128, "mamba_head_dim": 80, "n_groups": 8, "ssm_state_size": 128,
                    "conv_kernel": 4, "tie_word_embeddings": False}  # fmt: skip
_LARGE_NEMOTRON_3 = {**_NEMOTRON_3, "n_routed_experts": 512, "num_experts_per_tok": 22}


def _nemotron(name, pattern, hidden_size, heads, published_params, source, **config):
    """A row of Nemotron-H, whose layers are single blocks: M a state space, * attention, - or E what follows."""
    pattern = {"hybrid_override_pattern": pattern, "hidden_size": hidden_size, "num_attention_heads": heads}
    return OpenModel(name, {**_NEMOTRON_H, **config, **pattern}, published_params, source)


_TODAY = (
    _row("qwen3-next-80b-a3b", {"model_type": "qwen3_next", "vocab_size": 151936, "num_experts": 512,
                                "num_experts_per_tok": 10, "moe_intermediate_size": 512, "head_dim": 256,
                                "shared_expert_intermediate_size": 512, "tie_word_embeddings": False,
                                "max_position_embeddings": 262144},
         (48, 2048, 16, 2, 5120), 80e9, "Hugging Face Qwen/Qwen3-Next-80B-A3B-Instruct"),
    _row("qwen3.5-35b-a3b", _QWEN_3_5_MOE, (40, 2048, 16, 2), 35e9, "Hugging Face Qwen/Qwen3.5-35B-A3B" + _NO_IMAGES,
         moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_value_heads=32),
    _row("qwen3.5-122b-a10b", _QWEN_3_5_MOE, (48, 3072, 32, 2), 122e9,
         "Hugging Face Qwen/Qwen3.5-122B-A10B" + _NO_IMAGES,
         moe_intermediate_size=1024, shared_expert_intermediate_size=1024),
    _row("qwen3.5-397b-a17b", _QWEN_3_5_MOE, (60, 4096, 32, 2), 397e9,
         "Hugging Face Qwen/Qwen3.5-397B-A17B" + _NO_IMAGES, num_experts=512, num_experts_per_tok=10,
         moe_intermediate_size=1024, shared_expert_intermediate_size=1024),
    _row("qwen3.6-27b", _QWEN_3_5, (64, 5120, 24, 4, 17408), 27e9,
         "Hugging Face nvidia/Qwen3.6-27B-NVFP4" + _NO_IMAGES),
    _row("minimax-m2.5", {"model_type": "minimax_m2", "vocab_size": 200064, "num_local_experts": 256, "head_dim": 128,
                          "num_experts_per_tok": 8, "max_position_embeddings": 196608, "tie_word_embeddings": False},
         (62, 3072, 48, 8, 1536), 230e9, "Hugging Face MiniMaxAI/MiniMax-M2.5"),
    _row("kimi-k2.5", {**_DEEPSEEK_V3, "vocab_size": 163840, "n_routed_experts": 384, "n_group": 1, "topk_group": 1,
                       "max_position_embeddings": 262144, "rms_norm_eps": 1e-5, "first_k_dense_replace": 1,
                       "rope_theta": 50000.0, "routed_scaling_factor": 2.827,
                       "rope_scaling": _yarn(64, 4096, mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0)},
         (61, 7168, 64, 64, 18432), None, "Hugging Face moonshotai/Kimi-K2.5" + _NO_IMAGES),
    _row("deepseek-v3.2", {"model_type": "deepseek_v32", "vocab_size": 129280, "kv_lora_rank": 512, "q_lora_rank": 1536,
                           "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
                           "tie_word_embeddings": False, "max_position_embeddings": 163840},
         (61, 7168, 128, 128, 18432), None, "Hugging Face nvidia/DeepSeek-V3.2-NVFP4"),
    _row("deepseek-v4-flash", {"model_type": "deepseek_v4", "vocab_size": 129280, "q_lora_rank": 1024, "head_dim": 512,
                               "n_routed_experts": 256, "num_experts_per_tok": 6, "moe_intermediate_size": 2048,
                               "max_position_embeddings": 1048576, "tie_word_embeddings": False,
                               "compress_ratios": [0, 0, *[4, 128] * 20, 4]},
         (43, 4096, 64, 1), None, "Hugging Face deepseek-ai/DeepSeek-V4-Flash"),
    _row("glm-5", _GLM_5, (78, 6144, 64, 64, 12288), 744e9, "Hugging Face zai-org/GLM-5"),
    _row("glm-5.2", _GLM_5, (78, 6144, 64, 64, 12288), None, "Hugging Face zai-org/GLM-5.2",
         max_position_embeddings=1048576, index_topk_freq=4, index_skip_topk_offset=3),
    _row("gemma-4-26b-a4b", _GEMMA_4, (30, 2816, 16, 8, 2112), None,
         "Hugging Face google/gemma-4-26B-A4B" + _NO_IMAGES, enable_moe_block=True, num_experts=128, top_k_experts=8,
         moe_intermediate_size=704, num_global_key_value_heads=2),
    _row("gemma-4-31b", _GEMMA_4, (60, 5376, 32, 16, 21504), 31e9,
         "Hugging Face nvidia/Gemma-4-31B-IT-NVFP4" + _NO_IMAGES, num_global_key_value_heads=4),
    _row("mimo-v2-flash", {"model_type": "mimo_v2_flash", "vocab_size": 152576, "n_routed_experts": 256,
                           "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "head_dim": 192, "v_head_dim": 128,
                           "sliding_window_size": 128, "max_position_embeddings": 262144,
                           "tie_word_embeddings": False},
         (48, 4096, 64, 4, 16384), 309e9, "Hugging Face XiaomiMiMo/MiMo-V2-Flash"),
    _row("step-3.7-flash", {"model_type": "step3p5", "vocab_size": 128896, "n_routed_experts": 288,
                            "num_experts_per_tok": 8, "moe_intermediate_size": 1280, "share_expert_dim": 1280,
                            "head_dim": 128, "sliding_window": 512, "max_position_embeddings": 65536,
                            "layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 11 + ["full_attention"],
                            "tie_word_embeddings": False},
         (45, 4096, 64, 8, 11264), None, "Hugging Face stepfun-ai/Step-3.7-Flash"),
    _nemotron("nemotron-nano-9b-v2", "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", 4480, 40, 8.89e9,
              "arXiv:2508.14444; Hugging Face nvidia/NVIDIA-Nemotron-Nano-9B-v2", **_NEMOTRON_NANO_2,
              num_hidden_layers=56, intermediate_size=15680),
    _nemotron("nemotron-nano-12b-v2", "M-M-M-M*-" * 6 + "M-M-M-M-", 5120, 40, 12.31e9,
              "arXiv:2508.14444; Hugging Face nvidia/NVIDIA-Nemotron-Nano-12B-v2", **_NEMOTRON_NANO_2,
              num_hidden_layers=62, intermediate_size=20480),
    _nemotron("nemotron-h-56b", "M-M-M-M*-" + "M-M-M-M-M*-" * 9 + "M-M-M-M-M-", 8192, 64, 56e9,
              "arXiv:2504.03624; Hugging Face nvidia/Nemotron-H-56B-Base-8K", mamba_num_heads=256, ssm_state_size=256,
              intermediate_size=32768, num_key_value_heads=8, max_position_embeddings=8192),
    _nemotron("nemotron-3-nano-30b-a3b", "MEMEM*E" + "MEMEM*E" * 4 + "MEMEMEM*EMEMEMEME", 2688, 32, None,
              "Hugging Face nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", **_NEMOTRON_3, mamba_num_heads=64,
              n_routed_experts=128, num_experts_per_tok=6, moe_intermediate_size=1856, intermediate_size=1856,
              moe_shared_expert_intermediate_size=3712),
    _nemotron("nemotron-3-super-120b-a12b",
              "MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
              4096, 32, 120e9, "Hugging Face nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", **_LARGE_NEMOTRON_3,
              mamba_num_heads=128, moe_intermediate_size=2688, intermediate_size=2688,
              moe_shared_expert_intermediate_size=5376,
              moe_latent_size=1024),
    _nemotron("nemotron-3-ultra-550b-a55b",
              "MEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
              8192, 64, 550e9, "Hugging Face nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8", **_LARGE_NEMOTRON_3,
              mamba_num_heads=256, moe_intermediate_size=5120, intermediate_size=5120,
              moe_shared_expert_intermediate_size=10240, moe_latent_size=2048),
)  # fmt: skip
OPEN_MODELS = (*_FROM_2019_TO_2023, *_FOLLOWERS_OF_LLAMA, *_MIXTURES_OF_EXPERTS, *_TODAY)
