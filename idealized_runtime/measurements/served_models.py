"""Which published names of models are one architecture: what is left out together, and counted alike."""

import warnings

from idealized_runtime.architectures import ARCHITECTURES, Architecture, read_architecture
from idealized_runtime.architectures.hf import LanguageModelWarning
from idealized_runtime.measurements.published import PublishedDataMissingError, published_data

_CONFIGS = "aiconfigurator/aic-core/src/aiconfigurator_core/model_configs"
# Registry names, or names of our own where the registry has none, with the ids that others publish.
_IDS = {
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", "nvidia/Llama-3.1-8B-Instruct-FP8"),
    "llama-3.1-70b": (
        "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct",
    ),
    "llama-3.1-405b": ("meta-llama/Llama-3.1-405B-Instruct", "meta-llama/Llama-3.1-405B-Instruct-FP8"),
    "llama-4-scout": ("meta-llama/Llama-4-Scout-17B-16E-Instruct",),
    "llama-4-maverick": ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",),
    "qwen3-8b": ("Qwen/Qwen3-8B",),
    "qwen3-14b": ("Qwen/Qwen3-14B",),
    "qwen3-32b": ("Qwen/Qwen3-32B", "nvidia/Qwen3-32B-NVFP4"),
    "qwen3-30b-a3b": (
        "Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    ),
    "qwen3-235b-a22b": (
        "Qwen/Qwen3-235B-A22B-FP8", "Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
        "Qwen/Qwen3-235B-A22B-Thinking-2507", "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
    ),
    "qwen3-coder-480b-a35b": ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8"),
    "deepseek-v3": (
        "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3.1", "deepseek-ai/DeepSeek-R1",
        "deepseek-ai/DeepSeek-R1-0528", "nvidia/DeepSeek-R1-NVFP4", "nvidia/DeepSeek-V3.1-NVFP4",
    ),
    "gemma-3-12b": ("google/gemma-3-12b-it",),
    "gemma-3-27b": ("google/gemma-3-27b-it",),
    "gpt-oss-20b": ("openai/gpt-oss-20b",),
    "gpt-oss-120b": ("openai/gpt-oss-120b",),
    "nemotron-nano-9b-v2": ("nvidia/NVIDIA-Nemotron-Nano-9B-v2",),
    "nemotron-nano-12b-v2": ("nvidia/NVIDIA-Nemotron-Nano-12B-v2",),
    "glm-5": ("zhipuai/GLM-5", "zai-org/GLM-5"),
}  # fmt: skip
_NAMES = {model: name for name, models in _IDS.items() for model in models}


def architecture_name(model: str) -> str:
    """What the architecture of a published model is called: the same for all its ids; the id itself where unknown."""
    return _NAMES.get(model, model)


def served_architecture(model: str) -> Architecture | None:
    """Architecture of a published model: the registry's, or that of a published config.json.

    None where neither counts it.
    """
    name = architecture_name(model)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    for known in dict.fromkeys((model, *_IDS.get(name, ()))):
        try:
            # Published points are of text: that a vision encoder is not counted need not be said.
            with warnings.catch_warnings(action="ignore", category=LanguageModelWarning):
                return read_architecture(published_data(f"{_CONFIGS}/{known.replace('/', '--')}_config.json"))
        except (PublishedDataMissingError, ValueError):
            continue
    return None
