"""Published scores of open models on MMLU and MMLU-Pro, five shots: what the models of the registry can do.

Scores of pre-trained models, not of those tuned to follow instructions, in per cent of right answers, as their
owners state them or, where the source is another model's, as that model's owners measured them. Owners differ in
their prompts by a point or two of MMLU, of MMLU-Pro by more (DeepSeek-V3 has 64.4 by its owners, 59.8 by Qwen's;
Llama 3.1 405B 61.6, and 52.8 by DeepSeek's): a smaller difference between two of them says nothing. Each number was
compared in November 2026 with the document named or a public transcription of it; models whose score was not found are
left out, among them those whose owners state scores after post-training alone (gpt-oss, Qwen3-Coder).
"""

from dataclasses import dataclass

import pandas as pd

from idealized_runtime.architectures import get_architecture


@dataclass(frozen=True)
class CapabilityScore:
    """Score of one model.

    Parameters
    ----------
    architecture_name : str
        Row of the registry.
    mmlu_percent : float
        Right answers of the Massive Multitask Language Understanding test, five examples given; guessing has 25.
    source : str
        Table or card that states it, and the other.
    mmlu_pro_percent : float, optional
        Of MMLU-Pro, whose questions are harder and have ten answers, five examples given; guessing has 10 or so.
    """

    architecture_name: str
    mmlu_percent: float
    source: str
    mmlu_pro_percent: float | None = None


_LLAMA_1 = "arXiv:2302.13971, Table 9"
_LLAMA_2 = "arXiv:2307.09288, Table 3"
_LLAMA_3_1 = "model card of Llama 3.1, base models (github.com/meta-llama/llama-models)"
_LLAMA_3_2 = "model card of Llama 3.2, base models (github.com/meta-llama/llama-models)"
_LLAMA_4 = "model card of Llama 4, pre-trained models (github.com/meta-llama/llama-models)"
_QWEN_2 = "arXiv:2407.10671; qwenlm.github.io/blog/qwen2.5-llm, base models"
_QWEN_2_5 = "qwenlm.github.io/blog/qwen2.5-llm, base models"
_QWEN_3 = "arXiv:2505.09388, base models"
_GEMMA_1 = "arXiv:2403.08295, Table 6"
_GEMMA_2 = "model card of Gemma 2, pre-trained models; arXiv:2408.00118"
_GEMMA_3 = "model card of Gemma 3, pre-trained models"
_NEMOTRON_NANO_2 = "model card of NVIDIA-Nemotron-Nano-9B-v2-Base; arXiv:2508.14444, base models"
_OLMO_2 = "model card of OLMo-2-1124-13B; arXiv:2501.00656"
_DEEPSEEK_V2 = "arXiv:2405.04434; README of github.com/deepseek-ai/DeepSeek-V2, base models"

SCORES = (
    # These two in the shape that was timed in 2022, which pads the vocabulary differently.
    CapabilityScore("gpt-neox-20b", 33.6, _LLAMA_1),
    CapabilityScore("bloom", 39.13, "arXiv:2303.17564, knowledge assessments"),
    CapabilityScore("llama-7b", 35.1, _LLAMA_1),
    CapabilityScore("llama-13b", 46.9, _LLAMA_1),
    CapabilityScore("llama-30b", 57.8, _LLAMA_1),
    CapabilityScore("llama-65b", 63.4, _LLAMA_1),
    CapabilityScore("falcon-7b", 26.2, _LLAMA_2),
    CapabilityScore("falcon-40b", 55.4, _LLAMA_2),
    CapabilityScore("llama-2-7b", 45.3, _LLAMA_2),
    CapabilityScore("llama-2-13b", 54.8, _LLAMA_2),
    CapabilityScore("llama-2-70b", 68.9, _LLAMA_2),
    CapabilityScore("llama-3-8b", 66.7, _LLAMA_3_1, 36.2),
    CapabilityScore("llama-3-70b", 79.5, _LLAMA_3_1, 55.0),
    CapabilityScore("llama-3.1-8b", 66.7, _LLAMA_3_1, 37.1),
    CapabilityScore("llama-3.1-70b", 79.3, _LLAMA_3_1, 53.8),
    CapabilityScore("llama-3.1-405b", 85.2, _LLAMA_3_1, 61.6),
    CapabilityScore("llama-3.2-1b", 32.2, _LLAMA_3_2),
    CapabilityScore("llama-3.2-3b", 58.0, _LLAMA_3_2),
    CapabilityScore("llama-4-scout", 79.6, _LLAMA_4, 58.2),
    CapabilityScore("llama-4-maverick", 85.5, _LLAMA_4, 62.9),
    CapabilityScore("mistral-7b-v0.1", 60.1, "arXiv:2310.06825, Table 2"),
    CapabilityScore("mistral-nemo-12b", 68.0, "model card of Mistral-Nemo-Base-2407"),
    CapabilityScore("mixtral-8x7b", 70.6, "arXiv:2401.04088, Table 2"),
    CapabilityScore("mixtral-8x22b", 77.6, _DEEPSEEK_V2),
    CapabilityScore("qwen1.5-moe-a2.7b", 62.5, "qwenlm.github.io/blog/qwen-moe"),
    CapabilityScore("qwen2-57b-a14b", 76.5, _QWEN_2),
    CapabilityScore("qwen2.5-0.5b", 47.5, _QWEN_2_5, 15.7),
    CapabilityScore("qwen2.5-1.5b", 60.9, _QWEN_2_5, 28.5),
    CapabilityScore("qwen2.5-3b", 65.6, _QWEN_2_5, 34.6),
    CapabilityScore("qwen2.5-7b", 74.2, _QWEN_2_5, 45.0),
    CapabilityScore("qwen2.5-14b", 79.7, _QWEN_2_5, 51.2),
    CapabilityScore("qwen2.5-32b", 83.3, _QWEN_2_5, 55.1),
    CapabilityScore("qwen2.5-72b", 86.1, _QWEN_2_5, 58.1),
    CapabilityScore("qwen3-0.6b", 52.81, _QWEN_3, 24.74),
    CapabilityScore("qwen3-1.7b", 62.63, _QWEN_3, 36.76),
    CapabilityScore("qwen3-4b", 72.99, _QWEN_3, 50.58),
    CapabilityScore("qwen3-8b", 76.89, _QWEN_3, 56.73),
    CapabilityScore("qwen3-14b", 81.05, _QWEN_3, 61.03),
    CapabilityScore("qwen3-32b", 83.61, _QWEN_3, 65.54),
    CapabilityScore("qwen3-30b-a3b", 81.38, _QWEN_3, 61.49),
    CapabilityScore("qwen3-235b-a22b", 87.81, _QWEN_3, 68.18),
    CapabilityScore("gemma-2b", 42.3, _GEMMA_1),
    CapabilityScore("gemma-7b", 64.3, _GEMMA_1),
    CapabilityScore("gemma-2-9b", 71.3, _GEMMA_2),
    CapabilityScore("gemma-2-27b", 75.2, _GEMMA_2),
    CapabilityScore("gemma-3-4b", 59.6, _GEMMA_3, 29.2),
    CapabilityScore("gemma-3-12b", 74.5, _GEMMA_3, 45.3),
    CapabilityScore("gemma-3-27b", 78.6, _GEMMA_3, 52.2),
    CapabilityScore("nemotron-nano-9b-v2", 74.53, _NEMOTRON_NANO_2, 59.43),
    CapabilityScore("nemotron-nano-12b-v2", 78.24, _NEMOTRON_NANO_2, 63.98),
    CapabilityScore("olmo-2-7b", 63.7, _OLMO_2),
    CapabilityScore("olmo-2-13b", 67.5, _OLMO_2),
    CapabilityScore("deepseek-v2-lite", 58.3, _DEEPSEEK_V2),
    CapabilityScore("deepseek-v2", 78.5, _DEEPSEEK_V2),
    CapabilityScore("deepseek-v3", 87.1, "arXiv:2412.19437, Table 3", 64.4),
)
# Questions of each test, by the name of its score: Hendrycks et al. 2021, arXiv:2009.03300; Wang et al. 2024,
# arXiv:2406.01574.
NUM_QUESTIONS = {"mmlu_percent": 14_042, "mmlu_pro_percent": 12_032}
CAPABILITY_SCORES = {row.architecture_name: row for row in SCORES}


def capability_table() -> pd.DataFrame:
    """Scores beside the sizes they are bought with.

    Returns
    -------
    DataFrame, by name of the registry
        ``mmlu_percent, mmlu_pro_percent`` (missing where not published); ``params_billion`` and
        ``active_params_billion`` counted; ``source`` of the scores.
    """
    rows = {}
    for name, row in CAPABILITY_SCORES.items():
        architecture = get_architecture(name)
        rows[name] = {
            "mmlu_percent": row.mmlu_percent,
            "mmlu_pro_percent": row.mmlu_pro_percent,
            "params_billion": architecture.num_params / 1e9,
            "active_params_billion": architecture.num_active_params / 1e9,
            "source": row.source,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
