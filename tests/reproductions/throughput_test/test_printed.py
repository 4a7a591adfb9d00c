import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.architectures.closed_forms import closed_form_prompt_encoding_flops
from idealized_runtime.reproductions.throughput_test import consistency, recomputed
from idealized_runtime.reproductions.throughput_test.printed import (
    GPT_66B,
    GPT_175B,
    GPT_175B_A40,
    GPT_175B_CPU_1,
    GPT_175B_CPU_2,
    GPT_J,
    PIPELINE_TABLES,
    TABLES,
)
from idealized_runtime.reproductions.throughput_test.recomputed import CUT, DIFFERS, FOLLOWS, judge


@pytest.fixture(scope="module")
def numbers() -> pd.DataFrame:
    return recomputed.recompute_tables()


def select(numbers, table, quantity):
    return numbers[(numbers["table"] == table.name) & (numbers["quantity"] == quantity)]


@pytest.mark.parametrize(
    ("printed", "values", "verdict"),
    [
        ("0.47", (0.4657, 0.4657), FOLLOWS),
        ("0.46", (0.4657, 0.4657), CUT),
        ("0.45", (0.4657, 0.4657), DIFFERS),
        ("0.49", (0.4425, 0.4554), DIFFERS),
        ("2.387", (2.376, 2.392), FOLLOWS),
        ("31.48", (31.48, 31.50), FOLLOWS),
        ("10", (10.5, 10.5), FOLLOWS),
        ("10", (10.9, 10.9), CUT),
        ("10", (11.0, 11.0), DIFFERS),
    ],
)
def test_verdict_goes_by_the_digits_printed(printed, values, verdict):
    assert judge(printed, *values) == verdict


def test_every_table_has_a_cell_for_each_of_its_columns():
    for table in TABLES:
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_every_derived_number_is_judged_once(numbers):
    assert len(numbers) == 54
    assert not numbers.duplicated(["table", "row", "quantity"]).any()
    assert set(numbers["verdict"]) == {FOLLOWS, CUT, DIFFERS}


def test_every_number_that_does_not_follow_has_a_sentence(numbers):
    assert (numbers.loc[numbers["verdict"] != FOLLOWS, "finding"] != "").all()


def test_overall_times_are_the_sums_of_their_parts(numbers):
    assert (numbers.loc[numbers["quantity"] == "runtime_s", "verdict"] == FOLLOWS).all()
    assert (numbers["quantity"] == "runtime_s").sum() == sum(len(table.rows) for table in PIPELINE_TABLES)


@pytest.mark.parametrize("table", [GPT_66B, GPT_175B])
def test_rates_of_the_large_models_are_twice_the_closed_form(numbers, table):
    rates = select(numbers, table, "tflops_per_s_per_device")
    assert (rates["verdict"] == DIFFERS).all()
    ratio = rates["printed"].astype(float) / rates["recomputed"]
    assert ratio.tolist() == pytest.approx([2, 2, 2], rel=0.003)


@pytest.mark.parametrize(
    ("table", "time_name", "num_accelerators", "named"),
    [
        (GPT_66B, "runtime_s", 8, ["16.45", "16.43", "5.60"]),
        (GPT_175B, "estimated_runtime_s", 24, ["6.95", "7.87", "3.22"]),
    ],
)
def test_reading_that_explains_the_rates_gives_what_the_finding_says(
    numbers, table, time_name, num_accelerators, named
):
    sequence = closed_form_prompt_encoding_flops(get_architecture(table.architecture), 1124)
    times_s = table.frame()[time_name].astype(float)
    rates = 2 * 20 * sequence / times_s / num_accelerators / 1e12
    assert [f"{rate:.2f}" for rate in rates] == named
    assert rates.tolist() == pytest.approx(table.frame()["tflops_per_s_per_device"].astype(float).tolist(), rel=0.002)
    finding = select(numbers, table, "tflops_per_s_per_device")["finding"].iloc[0]
    assert all(text in finding for text in named)


def test_labels_of_the_second_cpu_setting_are_swapped(numbers):
    token = select(numbers, GPT_175B_CPU_2, "token_tflops").iloc[0]
    prompt = select(numbers, GPT_175B_CPU_2, "prompt_tflops").iloc[0]
    assert judge(prompt["printed"], *2 * [token["recomputed"]]) == FOLLOWS
    assert judge(token["printed"], *2 * [prompt["recomputed"]]) == CUT
    assert "swapped" in token["finding"]


def test_labels_of_the_first_cpu_setting_are_right(numbers):
    for quantity in ("token_tflops", "prompt_tflops"):
        assert select(numbers, GPT_175B_CPU_1, quantity)["verdict"].tolist() == [FOLLOWS]


def test_cells_of_the_cpu_tables_that_do_not_follow(numbers):
    for table, quantity, rows in [
        (GPT_175B_CPU_1, "tokens_per_s", ["8"]),
        (GPT_175B_CPU_1, "token_tflops_per_s", []),
        (GPT_175B_CPU_1, "prompt_tflops_per_s", []),
        (GPT_175B_CPU_2, "tokens_per_s", []),
        (GPT_175B_CPU_2, "token_tflops_per_s", ["32"]),
    ]:
        cells = select(numbers, table, quantity)
        assert cells.loc[cells["verdict"] == DIFFERS, "row"].tolist() == rows


def test_token_rates_of_the_a40_cluster_do_not_give_its_operations(numbers):
    rates = select(numbers, GPT_175B_A40, "total_tflops_per_s")
    assert rates["recomputed"].tolist() == pytest.approx([260.2, 135.5], abs=0.05)
    assert (rates["verdict"] == DIFFERS).all()
    assert rates["finding"].nunique() == 2


def test_three_nodes_take_three_times_as_long_only_where_the_pipeline_is_not_full():
    factors = consistency.node_estimate_table().set_index("part")["pipeline_factor"]
    assert factors["prompts, m = 20"] == pytest.approx(3)
    assert factors["prompts, m = 1"] == pytest.approx((20 + 24 - 1) / (20 + 8 - 1))
    assert factors.filter(like="output tokens").between(2.98, 3).all()


def test_stages_of_gpt_j_take_alike_for_few_sequences_and_longer_for_many():
    stages = consistency.stage_time_table([GPT_J]).set_index("token_micro_batch_size")["stage_time_ms"]
    assert stages[[1, 3, 6, 12]].between(18, 21).all()
    assert stages[48] - stages[24] == pytest.approx(2 * (stages[24] - stages[12]), rel=0.05)


def test_only_k_of_four_takes_longer_than_its_pipeline_explains():
    stages = consistency.stage_time_table()
    strange = stages[~stages["is_monotone"]]
    assert strange["table"].tolist() == [GPT_66B.name, GPT_175B.name]
    assert strange["token_micro_batch_size"].tolist() == [4, 4]


def test_memory_that_ran_out_halves_with_twice_the_context():
    memory = consistency.memory_table()
    fits = memory["num_sequences_that_fit"]
    assert fits[1] == pytest.approx(2 * fits[0])
    assert (memory["out_of_memory_batch_size"] < fits).all()
    assert memory["out_of_memory_batch_size"].tolist() == [24, 48]


def test_one_sequence_reads_the_same_bytes_at_twice_the_rate_in_the_second_setting():
    rounds = consistency.cpu_round_table().query("batch_size == 1")
    assert rounds["gigabytes"].tolist() == pytest.approx([354.2, 351.7], abs=0.1)
    assert rounds["gigabytes_per_s"].tolist() == pytest.approx([68.3, 152.9], abs=0.1)


def test_rates_of_the_pipelines_know_devices_and_dollars():
    rates = consistency.rate_table().set_index(["table", "token_micro_batch_size"])
    best = rates.loc[(GPT_J.name, 12)]
    assert best["tokens_per_s"] == pytest.approx(48 * 32 / 4.52)
    assert best["usd_per_million_tokens"] == pytest.approx(1e6 * 4 * 3.06 / 3600 / (48 * 32 / 4.52))
    assert rates.loc[(GPT_175B.name, 20), "runtime_s"] == pytest.approx(95.16)
