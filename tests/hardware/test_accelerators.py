import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture, output_token_bytes
from idealized_runtime.hardware.accelerators import (
    ACCELERATORS,
    FIGURES,
    Accelerator,
    find_accelerator,
    get_accelerator,
)
from idealized_runtime.hardware.rates import device_rates
from idealized_runtime.hardware.roofline import Roofline

NUM_GPUS = {
    "OpenAI/davinci": (8, 16),
    "AI21/J1-Large v1": (1, 1),
    "AI21/J1-Grande v1": (1, 2),
    "AI21/J1-Jumbo v1": (8, 16),
    "Cohere/XL v20220609": (4, 4),
    "Anthropic/v4-s3": (4, 4),
    "EleutherAI/GPT-J": (1, 1),
    "Yandex/YaLM": (4, 8),
    "BigScience/BLOOM": (8, 16),
}


@pytest.mark.parametrize("accelerator", ACCELERATORS.values(), ids=lambda accelerator: accelerator.name)
def test_every_figure_has_a_source_and_every_price_a_date(accelerator):
    for figure in FIGURES:
        assert not getattr(accelerator, figure) or accelerator.sources[figure]
    assert (accelerator.price_usd_per_hour is None) == (accelerator.price_date is None)


def test_every_machine_that_a_cloud_prices_has_a_price():
    unpriced = {name for name, row in ACCELERATORS.items() if row.price_usd_per_hour is None}
    assert unpriced == {"GB300", "cpu"}


@pytest.mark.parametrize("accelerator", ACCELERATORS.values(), ids=lambda accelerator: accelerator.name)
def test_price_is_that_of_the_instance_in_its_source_over_its_devices(accelerator):
    if quoted := re.search(r"at \$([\d.]+)(?: for (\d+))?", accelerator.sources.get("price_usd_per_hour") or ""):
        usd, number = float(quoted[1]), int(quoted[2] or 1)
        assert accelerator.price_usd_per_hour == pytest.approx(usd / number, rel=1e-3)


def test_ridge_points_grow_with_the_generation():
    """Operations a byte at which compute takes over: catches a rate off by a factor of two or a thousand."""
    ridges = {
        name: get_accelerator(name).peak_flops("float16") / get_accelerator(name).memory_bandwidth_bytes_per_s
        for name in ("V100-32GB", "A100-80GB", "H100")
    }
    assert list(ridges.values()) == sorted(ridges.values())
    assert all(100 < ridge < 350 for ridge in ridges.values())


@pytest.mark.parametrize("accelerator", ACCELERATORS.values(), ids=lambda accelerator: accelerator.name)
def test_tensor_cores_halve_their_rate_with_each_doubling_of_the_operands(accelerator):
    """As dense rates do; a rate with sparsity among them is twice as high."""
    peaks = accelerator.peak_flops_per_s
    for narrow, wide, ratio in (("float8", "float16", 2), ("bfloat16", "float16", 1), ("float16", "tfloat32", 2)):
        if narrow in peaks and wide in peaks:
            assert peaks[narrow] / peaks[wide] == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a100", "A100-80GB"),
        ("V100-32gb", "V100-32GB"),
        ("NVIDIA H200", "H200"),
        ("cpu", "cpu"),
        ("b200_sxm", "B200"),
        ("l4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_names_of_logs_are_found(name, expected):
    assert get_accelerator(name).name == expected


@pytest.mark.parametrize(("name", "expected"), [("v", "V100-32GB"), ("nvidia h100", "H100"), ("A100-8", "A100-80GB")])
def test_beginning_of_a_name_is_enough_where_it_is_of_one_row(name, expected):
    assert get_accelerator(name).name == expected
    assert find_accelerator(name) is None


@pytest.mark.parametrize(("name", "rows"), [("A100-", "A100-40GB, A100-80GB"), ("nvidia h", "H100, H200")])
def test_beginning_of_several_names_lists_their_rows(name, rows):
    with pytest.raises(ValueError, match=f"did you mean {rows}"):
        get_accelerator(name)


def test_unknown_accelerator_names_all_rows():
    with pytest.raises(ValueError, match=r"'foo'; there are: .*A100-80GB.*H100") as raised:
        get_accelerator("foo")
    assert "Build" not in str(raised.value)


def test_unknown_accelerator_names_the_nearest():
    with pytest.raises(ValueError, match="no accelerator named 'H100-PCIe'; did you mean H100"):
        get_accelerator("H100-PCIe")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"power_watts": 0, "sources": {"power_watts": "x"}}, "power_watts must be positive"),
        ({"power_watts": 300.0}, "power_watts has no source"),
        ({"price_usd_per_hour": 1.0, "sources": {"price_usd_per_hour": "x"}}, "a price and its date go together"),
        ({"peak_flops_per_s": {"float16": -1.0}}, "peak_flops_per_s must be positive"),
    ],
)
def test_unsourced_or_impossible_figures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Accelerator("new", **fields)


def test_rows_cannot_be_changed():
    h200 = get_accelerator("H200")
    with pytest.raises(dataclasses.FrozenInstanceError):
        h200.power_watts = 1
    with pytest.raises(TypeError):
        h200.peak_flops_per_s["float16"] = 1
    assert {h200: 1}[get_accelerator("h200")] == 1


def test_one_output_token_of_gpt_j_is_bound_by_memory():
    architecture = get_architecture("gpt-j")
    rates = device_rates(None, hardware="a100", dtype="float16", is_cuda=True)
    bound_s = Roofline(architecture, rates, "float16").output_token_s(512)
    assert bound_s == pytest.approx(output_token_bytes(architecture, 512) / 2039e9)
    # 5.85 B parameters of 2 bytes and a small cache at 2 TB/s.
    assert bound_s == pytest.approx(5.85e-3, rel=0.03)


def test_name_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="the name of an accelerator is text; got None"):
        get_accelerator(None)


def test_missing_peak_is_named():
    with pytest.raises(ValueError, match="V100-32GB: no peak rate is known for 'bfloat16'; known: float32, float16"):
        get_accelerator("V100-32GB").peak_flops("bfloat16")


def test_prices_are_those_of_the_published_figure(published):
    points = pd.read_csv(published / "paper_figures" / "figure8_points.csv")
    for column, name, index in (("a100", "a100", 0), ("v100", "v100", 1)):
        num_gpus = points["model"].map(lambda model, index=index: NUM_GPUS[model][index])
        usd = points[f"runtime_{column}_s"] * num_gpus * get_accelerator(name).price_usd_per_hour / 3600
        np.testing.assert_allclose(100 * usd, points[f"cost_{column}_cents"], atol=1e-6)
