import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture, output_token_flops, prompt_encoding_flops, query_flops
from idealized_runtime.architectures.closed_forms import (
    closed_form_output_token_flops,
    closed_form_prompt_encoding_flops,
    closed_form_query_flops,
)
from idealized_runtime.fits.batched.pipeline import num_passes, passes_per_share
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.throughput import (
    batch_flops,
    cluster_efficiency,
    generation_table,
    generation_tokens_per_s,
    num_sequences_that_fit,
    overall_tokens_per_s,
    throughput_table,
    usd_per_million_tokens,
)
from idealized_runtime.reproductions.throughput_test.consistency import time_on_more_nodes

GPT2 = get_architecture("gpt2-small")


def simulate_pipeline(stage_times_s, num_rounds, num_micro_batches) -> float:
    """Seconds until the last micro-batch has left the last stage in its last round, by walking through every stage."""
    stage_is_free_s = np.zeros(len(stage_times_s))
    micro_batch_is_back_s = np.zeros(num_micro_batches)
    for _ in range(num_rounds):
        for number in range(num_micro_batches):
            now_s = micro_batch_is_back_s[number]
            for stage, time_s in enumerate(stage_times_s):
                now_s = max(now_s, stage_is_free_s[stage]) + time_s
                stage_is_free_s[stage] = now_s
            micro_batch_is_back_s[number] = now_s
    return micro_batch_is_back_s.max()


@pytest.mark.parametrize("num_micro_batches", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("num_rounds", [1, 2, 31])
@pytest.mark.parametrize("stage_times_s", [[1.0], [1.0, 1.0], [1.0] * 8, [1.0, 2.0], [1.0, 3.0, 2.0]])
def test_passes_are_those_of_a_pipeline_walked_through(stage_times_s, num_rounds, num_micro_batches):
    way_s, share = sum(stage_times_s), max(stage_times_s) / sum(stage_times_s)
    expected_s = simulate_pipeline(stage_times_s, num_rounds, num_micro_batches)
    assert way_s * num_passes(num_rounds, num_micro_batches, share) == pytest.approx(expected_s)


def test_prompts_fill_and_drain_the_pipeline():
    # n + P - 1 stage times, a pass being P of them.
    assert 4 * num_passes(1, 12, 1 / 4) == 12 + 4 - 1


def test_no_round_takes_no_time():
    assert num_passes(0, 5, 0.5) == 0
    assert num_passes([0, 1], 1, 1.0).tolist() == [0, 1]


@pytest.mark.parametrize(("num_rounds", "n"), [(0, 4), (1, 4), (31, 1), (31, 2), (31, 8)])
def test_slope_by_share_is_that_of_the_passes(num_rounds, n):
    share, step = 0.4, 1e-6
    slope = (num_passes(num_rounds, n, share + step) - num_passes(num_rounds, n, share - step)) / (2 * step)
    assert passes_per_share(num_rounds, n, share) == pytest.approx(slope, abs=1e-6)


def test_single_micro_batch_takes_longer_on_every_further_node():
    assert time_on_more_nodes(2.0, 3, num_rounds=99, num_micro_batches=1, num_stages=8) == pytest.approx(6.0)


def test_full_pipeline_is_as_fast_on_more_nodes_but_for_its_filling():
    factor = time_on_more_nodes(1.0, 3, num_rounds=1, num_micro_batches=10_000, num_stages=8)
    assert factor == pytest.approx((10_000 + 24 - 1) / (10_000 + 8 - 1))


# Rates


def test_tokens_per_s_count_generated_tokens():
    assert overall_tokens_per_s(4, 10, 2.0) == 20
    assert generation_tokens_per_s(8, 0.5) == 16


@pytest.mark.parametrize(
    ("count", "prompt_flops", "token_flops", "options"),
    [
        (closed_form_query_flops, closed_form_prompt_encoding_flops, closed_form_output_token_flops, {}),
        (query_flops, prompt_encoding_flops, output_token_flops, {"logits": "last"}),
    ],
)
def test_flops_of_a_batch_are_its_prompts_and_each_further_token(count, prompt_flops, token_flops, options):
    p, o, batch_size = 100, 7, 3
    tokens = sum(token_flops(GPT2, context, **options) for context in range(p + 1, p + o))
    expected = batch_size * (prompt_flops(GPT2, p, **options) + tokens)
    assert batch_flops(GPT2, p, o, batch_size, count=count) == pytest.approx(expected, rel=1e-12)
    without_prompt = batch_flops(GPT2, p, o, batch_size, count=count, prompt=False)
    assert without_prompt == pytest.approx(batch_size * tokens, rel=1e-9)


def test_flops_take_columns():
    columns = [np.array([100, 200]), np.array([1, 7]), np.array([3, 2])]
    each = [batch_flops(GPT2, *(int(column[i]) for column in columns)) for i in range(2)]
    assert batch_flops(GPT2, *columns).tolist() == pytest.approx(each)


def test_dollars_are_those_of_all_devices():
    # 16 devices at 2 dollars an hour generate 3.6 million tokens in it.
    assert usd_per_million_tokens(1000.0, 2.0, num_accelerators=16) == pytest.approx(32 / 3.6)


def test_batch_is_bounded_by_what_weights_leave_to_keys_and_values():
    weights = 2 * GPT2.num_params
    # Keys and values: 2 x 12 layers x 768 x 2 bytes a token.
    cache = 100 * 2 * 12 * 768 * 2
    assert num_sequences_that_fit(GPT2, 100, weights + 8 * cache, dtype="bfloat16") == pytest.approx(8)
    assert num_sequences_that_fit(GPT2, 100, weights / 2, dtype="bfloat16") < 1


def test_efficiency_is_the_share_of_all_peaks():
    assert cluster_efficiency(3e14, 16, 1.5e14) == pytest.approx(0.125)


@pytest.fixture
def timings():
    return pd.DataFrame(
        {
            "num_prompt_tokens": [512, 512],
            "num_output_tokens": [32, 1],
            "batch_size": [8, 8],
            "runtime_s": [2.0, 0.5],
            "generation_time_s": [1.55, 0.0],
        },
        index=[5, 9],
    )


def test_table_of_rates_keeps_the_index_and_knows_both_rates(timings):
    table = throughput_table(timings, GPT2, num_accelerators=2, accelerator=get_accelerator("A100-80GB"))
    assert table.index.tolist() == [5, 9]
    assert table["tokens_per_s"].tolist() == pytest.approx([8 * 32 / 2, 8 / 0.5])
    assert table["generation_tokens_per_s"].tolist() == pytest.approx([8 * 31 / 1.55, np.nan], nan_ok=True)
    rate = batch_flops(GPT2, 512, 32, 8) / 2.0
    assert table.loc[5, "exact_flops_per_s_per_device"] == pytest.approx(rate / 2)
    assert table.loc[5, "cluster_efficiency"] == pytest.approx(rate / 2 / 312e12)
    assert table.loc[5, "usd_per_million_tokens"] == pytest.approx(1e6 * 2 * 4.096 / 3600 / 128)
    # The closed form leaves the output projection out.
    assert (table["closed_form_flops_per_s"] < table["exact_flops_per_s"]).all()


def test_table_without_device_or_price_has_neither_share_nor_dollars(timings):
    table = throughput_table(timings, GPT2)
    assert not {"cluster_efficiency", "usd_per_million_tokens"} & set(table.columns)
    assert throughput_table(timings, GPT2, price_usd_per_hour=3.6)["usd_per_million_tokens"].iloc[0] == pytest.approx(
        1e3 / 128
    )


def test_unknown_peak_is_refused(timings):
    with pytest.raises(ValueError, match="no peak rate is known for 'float8'"):
        throughput_table(timings, GPT2, accelerator=get_accelerator("A40"), dtype="float8")


def test_generation_table_refuses_queries_that_generate_nothing_after_the_prompt(timings):
    with pytest.raises(ValueError, match=r"num_output_tokens must be at least 2.*1 of 1 rows have 1"):
        generation_table(timings.iloc[:1].assign(num_output_tokens=1), GPT2)


def test_generation_table_leaves_prompts_out_and_keeps_what_failed(timings):
    failures = pd.DataFrame({"batch_size": pd.array([64], dtype="Int64"), "error_type": ["OutOfMemoryError"]})
    table = generation_table(timings.iloc[:1], GPT2, failures=failures)
    assert table.index.tolist() == [8, 64]
    assert table.loc[8, "time_per_round_s"] == pytest.approx(0.05)
    assert table.loc[8, "tokens_per_s"] == pytest.approx(160)
    rate = batch_flops(GPT2, 512, 32, 8, prompt=False) / 1.55
    assert table.loc[8, "exact_flops_per_s"] == pytest.approx(rate)
    assert table["error_type"].tolist() == ["", "OutOfMemoryError"]
    assert table.loc[64, ["time_per_round_s", "tokens_per_s"]].isna().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overall_tokens_per_s(8, 32, 0.0), "runtime_s must be a positive finite number; got 0"),
        (lambda: overall_tokens_per_s(0, 32, 1.0), "batch_size must be a positive finite number; got 0"),
        (lambda: generation_tokens_per_s(8, [1.0, -2.0]), "time_per_round_s must be .*; got -2"),
        (lambda: batch_flops(GPT2, 1, 1, [1, -1]), "batch_size must be .*; got -1"),
        (lambda: usd_per_million_tokens(0.0, 1.0), "tokens_per_s must be .*; got 0"),
        (lambda: usd_per_million_tokens(1.0, None), r"price_usd_per_hour is not known \(None\): give it"),
        (lambda: usd_per_million_tokens(1.0, 1.0, num_accelerators=0), "num_accelerators must be .*; got 0"),
        (lambda: cluster_efficiency(1e12, 0, 1e12), "num_accelerators must be .*; got 0"),
        (lambda: cluster_efficiency(1e12, 1, 0.0), "peak_flops_per_s must be .*; got 0"),
        (lambda: num_sequences_that_fit(GPT2, 0, 1e9), "num_tokens must be .*; got 0"),
        (lambda: num_sequences_that_fit(GPT2, 10, -1e9), "memory_bytes must be .*; got -1e"),
        (lambda: num_passes(-1, 2, 0.5), "num_rounds must be zero or a positive finite number; got -1"),
        (lambda: num_passes(1, 0, 0.5), "num_micro_batches must be .*; got 0"),
        (lambda: num_passes(1, 2, 1.5), r"bottleneck_share must be in \(0, 1\]; got 1.5"),
        (lambda: time_on_more_nodes(1.0, 0, num_rounds=1, num_micro_batches=1, num_stages=2), "num_nodes must be"),
        (lambda: time_on_more_nodes(1.0, 2, num_rounds=0, num_micro_batches=1, num_stages=2), "num_rounds must be"),
    ],
)
def test_number_that_gives_no_rate_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("table", [throughput_table, generation_table])
def test_table_without_a_column_or_with_a_time_of_zero_is_refused(timings, table):
    name = "runtime_s" if table is throughput_table else "generation_time_s"
    timings = timings.iloc[:1]
    with pytest.raises(ValueError, match=rf"timings: no column batch_size, {name}; needed: num_prompt"):
        table(timings.drop(columns=["batch_size", name]), GPT2)
    with pytest.raises(ValueError, match=f"{name} must be a positive finite number; got 0"):
        table(timings.assign(**{name: 0.0}), GPT2)


@pytest.mark.parametrize("option", ["num_accelerators", "price_usd_per_hour"])
def test_option_of_zero_is_refused_and_not_replaced(timings, option):
    with pytest.raises(ValueError, match=f"{option} must be a positive finite number; got 0"):
        throughput_table(timings, GPT2, accelerator=get_accelerator("A100-80GB"), **{option: 0})


def test_setting_whose_batch_is_not_known_has_no_rate(timings):
    table = throughput_table(timings.assign(batch_size=pd.array([8, pd.NA], dtype="Int64")), GPT2)
    assert table["tokens_per_s"].isna().tolist() == [False, True]


def test_failures_without_their_columns_are_refused(timings):
    with pytest.raises(ValueError, match=r"failures: no column error_type"):
        generation_table(timings.iloc[:1], GPT2, failures=pd.DataFrame({"batch_size": [64]}))
