import warnings

import pytest

from idealized_runtime.measurements.inferencex import read_inferencex
from idealized_runtime.measurements.ml_energy import read_ml_energy
from idealized_runtime.measurements.published import published_data
from idealized_runtime.measurements.served_models import _CONFIGS, architecture_name, served_architecture


def test_published_ids_of_one_architecture_share_its_name():
    names = ["deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.1", "nvidia/DeepSeek-R1-NVFP4"]
    assert {architecture_name(name) for name in names} == {"deepseek-v3"}
    assert architecture_name("org/unknown") == "org/unknown"


def test_leaderboard_has_eighteen_architectures():
    assert read_ml_energy()["model"].map(architecture_name).nunique() == 18


@pytest.mark.parametrize(
    ("model", "num_params"),
    [
        ("Qwen/Qwen3-8B", 8.19e9),
        ("openai/gpt-oss-120b", 116.8e9),
        ("meta-llama/Llama-3.1-70B", 70.55e9),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", 8.89e9),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", 12.31e9),
        ("MiniMaxAI/MiniMax-M2.5", 228.7e9),
    ],
)
def test_architecture_of_an_id_is_the_registrys(model, num_params):
    if "/" in architecture_name(model):
        # The registry has none: that of a published configuration.
        published_data(_CONFIGS)
    assert served_architecture(model).num_params == pytest.approx(num_params, rel=0.002)


def test_unknown_id_has_no_architecture():
    assert served_architecture("org/unknown") is None


def test_every_architecture_of_the_points_has_a_name():
    assert {name for name in read_inferencex()["model"].map(architecture_name) if "/" in name} == {
        "MiniMaxAI/MiniMax-M2.5", "Qwen/Qwen3.5-397B-A17B", "moonshotai/Kimi-K2.5",
    }  # fmt: skip


def test_every_published_model_is_counted():
    models = {*read_ml_energy()["model"], *read_inferencex()["model"]}
    assert [model for model in sorted(models) if served_architecture(model) is None] == []


def test_model_with_a_vision_encoder_is_counted_without_a_word():
    """Published points are of text."""
    published_data(_CONFIGS)
    with warnings.catch_warnings(action="error"):
        assert served_architecture("moonshotai/Kimi-K2.5").num_experts == 384
