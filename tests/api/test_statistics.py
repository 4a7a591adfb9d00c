import numpy as np
import pandas as pd
import pytest
from makers import START, make_requests

from idealized_runtime.api.statistics import (
    measure_goodput,
    measure_throughput,
    percentile_bounds,
    summarize_requests,
)


def row(table, quantity):
    return table.set_index("quantity").loc[quantity]


def test_percentiles_are_those_of_numpy():
    runtimes_s = np.random.default_rng(0).exponential(size=50)
    table = summarize_requests(make_requests(runtimes_s), percentiles=[50, 99.9])
    assert row(table, "runtime_s")["p50"] == np.median(runtimes_s)
    assert row(table, "runtime_s")["p99.9"] == np.percentile(runtimes_s, 99.9)
    assert row(table, "time_to_first_token_s")["mean"] == pytest.approx(runtimes_s.mean() / 2)


@pytest.mark.parametrize(("percentile", "num_values"), [(50, 20), (90, 100), (99, 500)])
def test_interval_of_a_percentile_covers_it_as_often_as_it_says(percentile, num_values):
    rng = np.random.default_rng(1)
    truth = -np.log(1 - percentile / 100)
    intervals = [percentile_bounds(rng.exponential(size=num_values), percentile) for _ in range(1000)]
    # Three standard errors of a share of 95 % among 1000.
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.95 - 3 * 0.007


def test_99th_percentile_has_an_upper_bound_from_368_requests_on():
    values = np.arange(1000.0)
    assert np.isnan(percentile_bounds(values[:367], 99)[1])
    assert percentile_bounds(values[:368], 99)[1] == 367


def test_percentile_of_few_values_has_no_bounds():
    assert np.isnan(percentile_bounds([1.0, 2.0], 50)).all()


def test_inter_chunk_times_are_pooled_and_have_no_interval():
    table = summarize_requests(make_requests(np.ones(400)))
    pooled = row(table, "inter_chunk_time_s")
    assert pooled["num_values"] == 1200
    assert np.isnan(pooled["p50_lower"])
    assert not np.isnan(row(table, "runtime_s")["p50_lower"])


def test_least_time_of_a_token_is_told_by_long_answers_only():
    times_s = {"time_per_output_token_s": [1e-6, 0.02, 0.03], "num_output_tokens": [2, 9, 64]}
    table = summarize_requests(make_requests(np.ones(3), **times_s), by=["model"])
    assert row(table, "time_per_output_token_s")["minimum"] == 0.02
    table = summarize_requests(make_requests(np.ones(3)))
    assert table.set_index("quantity")["minimum"].isna().to_dict() == {
        "time_to_first_token_s": False, "time_per_output_token_s": True, "inter_chunk_time_s": True, "runtime_s": False
    }  # fmt: skip


def test_stream_that_was_held_back_meets_no_objective_for_its_tokens():
    unknown = {"time_to_first_token_s": [np.nan, 0.1], "time_per_output_token_s": [np.nan, 0.01]}
    requests = make_requests([0.2, 0.2], is_held_back=[True, False], **unknown)
    for objective in ("ttft", "tpot"):
        assert measure_goodput(requests, {objective: 1.0})["num_met"].item() == 1
    assert measure_goodput(requests, {"e2e": 1.0})["num_met"].item() == 2
    all_held = requests.iloc[:1]
    assert measure_goodput(all_held, {"tpot": 1.0})["num_met"].item() == 0


def test_each_load_and_size_is_a_row_of_its_own():
    requests = pd.concat(
        [
            make_requests([1.0, 2.0], load="closed", num_parallel=1),
            make_requests([3.0], load="closed", num_parallel=2),
            make_requests([4.0], num_output_tokens=8),
        ]
    )
    runtimes = summarize_requests(requests).query("quantity == 'runtime_s'")
    assert runtimes["mean"].tolist() == [1.5, 3.0, 4.0]
    assert runtimes["num_parallel"].isna().tolist() == [False, False, True]


def test_answers_that_were_not_streamed_have_a_runtime_only():
    empty = [np.empty(0)] * 2
    requests = make_requests(
        [1.0, 2.0], time_to_first_token_s=np.nan, time_per_output_token_s=np.nan, inter_chunk_times_s=empty
    )
    assert summarize_requests(requests)["quantity"].tolist() == ["runtime_s"]


def test_warmups_failures_and_deviations_count_in_no_time():
    requests = make_requests(
        [9.0, 1.0, 7.0, 5.0],
        is_warmup=[True, False, False, False],
        error_type=[None, None, "status", None],
        is_fit=[False, True, False, False],
    )
    assert row(summarize_requests(requests), "runtime_s")["maximum"] == 1.0
    throughput = measure_throughput(requests).iloc[0]
    assert throughput[["num_requests", "num_failed", "num_deviating"]].tolist() == [3, 1, 1]


def test_percentile_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and 100, exclusive; got \[100\]"):
        summarize_requests(make_requests([1.0]), percentiles=[50, 100])


def test_throughput_counts_from_the_first_sending_to_the_last_end():
    # Two streams of three requests of one second each.
    sent_at = [START + pd.Timedelta(seconds=second) for second in (0, 0, 1, 1, 2, 2)]
    throughput = measure_throughput(make_requests(np.ones(6), sent_at=sent_at, load="closed")).iloc[0]
    assert throughput["duration_s"] == 3
    assert throughput["requests_per_s"] == 2
    assert throughput["output_tokens_per_s"] == 8
    assert throughput["mean_in_flight"] == 2


def test_time_between_repetitions_is_no_time_of_the_load():
    later = make_requests([1.0, 1.0], repetition=1, load="closed")
    later["sent_at"] += pd.Timedelta(hours=1)
    requests = pd.concat([make_requests([1.0, 1.0], repetition=0, load="closed"), later])
    assert measure_throughput(requests)["duration_s"].item() == 4


def test_requests_under_no_load_have_no_throughput():
    # A sweep asks for another setting in between: what passes until it comes back is no measure of the server.
    assert np.isnan(measure_throughput(make_requests([1.0, 1.0]))["requests_per_s"].item())


def test_requests_without_a_sending_time_have_no_throughput():
    requests = make_requests([1.0, 1.0], load="closed")
    requests["sent_at"] = requests["scheduled_at"]
    assert np.isnan(measure_throughput(requests)["requests_per_s"].item())


def test_goodput_counts_requests_that_meet_every_objective():
    # TTFT is half the runtime, TPOT a sixth of it.
    requests = make_requests([0.6, 1.2, 1.8, 2.4], load="closed")
    good = measure_goodput(requests, {"e2e": 2.0, "ttft": 0.7}).iloc[0]
    assert (good["num_requests"], good["num_met"], good["share_met"]) == (4, 2, 0.5)
    assert good["goodput_per_s"] == pytest.approx(2 / 6)
    # Wilson's interval of 2 of 4.
    assert good[["share_met_lower", "share_met_upper"]].tolist() == pytest.approx([0.1500, 0.8500], abs=1e-4)


def test_failed_and_deviating_requests_meet_no_objective():
    requests = make_requests([0.1] * 4, is_fit=[True, False, False, True])
    assert measure_goodput(requests, {"e2e": 1})["num_met"].item() == 2


def test_answer_of_one_token_meets_an_objective_for_further_tokens():
    requests = make_requests([0.1, 0.1], num_output_tokens=1, time_per_output_token_s=np.nan)
    assert measure_goodput(requests, {"tpot": 0.01})["num_met"].item() == 2


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({}, "goodput needs an objective: ttft, tpot, e2e"),
        ({"itl": 1.0}, "one of ttft, tpot, e2e; got 'itl'"),
        ({"e2e": -1.0}, "'e2e' must be a positive number of seconds; got -1.0"),
    ],
)
def test_unusable_objective_is_refused(objectives, message):
    with pytest.raises(ValueError, match=message):
        measure_goodput(make_requests([1.0]), objectives)


def test_objective_for_a_time_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="'ttft': no request has a time_to_first_token_s; they were not streamed"):
        measure_goodput(make_requests([1.0], time_to_first_token_s=np.nan), {"ttft": 1})
