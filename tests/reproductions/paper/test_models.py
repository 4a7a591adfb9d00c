import dataclasses

import pytest

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.architectures.devices import num_accelerators_needed, parallelism_needed
from idealized_runtime.reproductions.paper.models import PAPER_MODELS, by_printed_name, device_table, model_table


def make_architecture(**sizes):
    return Architecture("test", **{"num_layers": 6, "hidden_size": 1024, "num_attention_heads": 16, **sizes})


def test_every_model_has_a_row_of_the_registry_that_knows_its_helm_name():
    for row in PAPER_MODELS.values():
        assert row.helm_name in row.architecture.helm_names
        assert row.architecture.published_params == row.num_params_printed


def test_printed_names_are_found_by_registry_and_by_helm_names_in_the_order_of_table_1():
    assert by_printed_name({"bloom": 1, "davinci": 2}) == {"OpenAI/davinci": 2, "BigScience/BLOOM": 1}
    assert list(by_printed_name({"together/bloom": 1, "openai/davinci": 2})) == ["OpenAI/davinci", "BigScience/BLOOM"]
    # The log of one stands for the other, which was never timed.
    assert set(by_printed_name({"anthropic-v4-s3": 1})) == {"Anthropic/v4-s3", "Cohere/XL v20220609"}


def test_one_device_suffices_for_what_fits_and_two_for_a_byte_more():
    shape = make_architecture()
    cache_bytes = 2 * 2 * shape.num_layers * shape.hidden_size * 100
    needed = 2 * shape.num_params + cache_bytes
    assert num_accelerators_needed(shape, needed, num_context_tokens=100) == 1
    assert num_accelerators_needed(shape, needed - 1, num_context_tokens=100) == 2
    assert num_accelerators_needed(shape, needed / 2, num_context_tokens=100) == 2


def test_tensor_parallelism_takes_powers_of_two_and_the_fullest_stage_decides():
    shape = make_architecture()
    total = 2 * shape.num_params
    # 5 devices would do by memory: 8 are the next width.
    assert num_accelerators_needed(shape, total / 4.9, num_context_tokens=1) == 8
    # 6 layers: 2 stages of 8 devices, then 3.
    assert num_accelerators_needed(shape, total / 15, num_context_tokens=1) == 16
    assert num_accelerators_needed(shape, total / 17, num_context_tokens=1) == 24
    # 5 layers: the fullest of 2 stages has 3 of them, so that it holds 8 / 0.6 shares of the whole.
    five = dataclasses.replace(shape, num_layers=5)
    total = 2 * five.num_params
    assert num_accelerators_needed(five, total / 13, num_context_tokens=1) == 16
    assert num_accelerators_needed(five, total / 15, num_context_tokens=1) == 24


def test_stages_alike_must_divide_the_layers():
    five = dataclasses.replace(make_architecture(), num_layers=5)
    total = 2 * five.num_params
    assert num_accelerators_needed(five, total / 13, num_context_tokens=1, even_stages=True) == 40


def test_layers_of_a_prime_number_are_shared_out_unevenly():
    # 61 layers: 2 stages of 31 layers do not fit, 3 of 21 do.
    assert parallelism_needed(get_architecture("deepseek-v3"), 80e9, num_context_tokens=4096) == (8, 3)


def test_devices_are_tensor_times_pipeline_parallel_size_whatever_the_heads():
    # 25 heads, which only one device can hold: what outgrows it is shared out by layers.
    shape = make_architecture(hidden_size=100, num_attention_heads=25)
    needed = 2 * shape.num_params / 1.9
    assert parallelism_needed(shape, needed, num_context_tokens=1) == (1, 2)
    assert num_accelerators_needed(shape, needed, num_context_tokens=1) == 2


def test_heads_bound_tensor_parallelism():
    shape = make_architecture(num_attention_heads=2)
    assert num_accelerators_needed(shape, 2 * shape.num_params / 3.9, num_context_tokens=1) == 4


def test_a_layer_that_does_not_fit_a_server_is_refused():
    with pytest.raises(ValueError, match=r"test: .* bytes a layer do not fit 8 devices"):
        num_accelerators_needed(make_architecture(num_layers=1), 1000.0)


def test_devices_are_those_of_table_1_and_figure_8_but_for_the_models_of_52_billion():
    table = device_table({"a100": "A100-80GB", "v100": "V100-32GB"})
    printed = table[table["num_accelerators_printed"].notna()]
    assert printed.groupby("hardware").size().to_dict() == {"a100": 10, "v100": 9}
    differs = printed[printed["num_accelerators"] != printed["num_accelerators_printed"]]
    assert set(differs["hardware"]) == {"a100"}
    assert set(differs["model"]) == {"Cohere/XL v20220609", "Anthropic/v4-s3"}


def test_tnlg_needed_three_stages_because_two_do_not_divide_105_layers():
    tnlg = get_architecture("tnlg-v2")
    assert num_accelerators_needed(tnlg, 80e9, even_stages=True) == 24
    assert num_accelerators_needed(tnlg, 80e9) == 16
    even = dataclasses.replace(tnlg, num_layers=104, num_layers_profiled=None)
    assert num_accelerators_needed(even, 80e9, even_stages=True) == 16


@pytest.mark.parametrize("options", [{"memory_bytes": 0}, {"memory_bytes": 1e9, "num_context_tokens": 0}])
def test_memory_and_context_are_positive(options):
    with pytest.raises(ValueError, match=r"(memory_bytes|num_context_tokens) must be a positive finite number; got 0"):
        num_accelerators_needed(make_architecture(), **options)


def test_parameters_are_those_of_table_1_but_for_yalm():
    table = model_table()
    ratio = table["params_billion"] / table["params_printed_billion"]
    assert ratio["Yandex/YaLM"] == pytest.approx(0.788, abs=1e-3)
    assert ratio.drop("Yandex/YaLM").between(0.97, 1.01).all()
