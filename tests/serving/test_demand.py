import numpy as np
import pandas as pd
import pytest

from idealized_runtime.serving.demand import Demand

SIZES = pd.DataFrame({"num_prompt_tokens": [10, 500], "num_output_tokens": [5, 50], "weight": [3.0, 1.0]})
TRACE = pd.DataFrame({"arrival_s": [0.0, 1.0, 4.0], "num_prompt_tokens": [9, 8, 7], "num_output_tokens": [1, 2, 3]})


def test_another_rate_brings_the_same_requests_with_the_times_between_them_stretched():
    demand = Demand.of_queries(SIZES, rate_per_s=2, num_requests=50)
    at_2, at_8 = demand.day(3), demand.at_rate(8).day(3)
    np.testing.assert_allclose(at_2[0], 4 * at_8[0])
    np.testing.assert_array_equal(at_2[1:], at_8[1:])
    assert demand.at_rate(8).fingerprint == demand.fingerprint


def test_random_days_differ_and_come_at_their_rate():
    demand = Demand.of_queries(SIZES, rate_per_s=5, num_requests=20_000)
    first, second = demand.day(0), demand.day(1)
    assert not np.array_equal(first[1], second[1])
    assert len(first[0]) / first[0][-1] == pytest.approx(5, rel=0.03)
    assert np.mean(first[1] == 10) == pytest.approx(0.75, abs=0.02)


def test_more_replicas_are_asked_more_requests_of_the_same_day():
    demand = Demand.of_queries(SIZES, rate_per_s=1, num_requests=40)
    one, three = demand.day(0), demand.day(0, num_replicas=3)
    assert (len(one[0]), len(three[0])) == (40, 120)
    np.testing.assert_array_equal(one[1], three[1][:40])


def test_trace_keeps_its_arrivals_and_its_rate():
    demand = Demand.of_trace(TRACE)
    assert demand.rate_per_s == pytest.approx(0.5)
    np.testing.assert_allclose(demand.day(7)[0], [0, 1, 4])
    np.testing.assert_allclose(demand.at_rate(1).day(0)[0], [0, 0.5, 2])


def test_smaller_rate_keeps_a_share_of_a_trace_and_all_of_what_a_smaller_one_keeps():
    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.exponential(0.5, 4000))
    demand = Demand.of_trace(pd.DataFrame({"arrival_s": arrival_s, "num_prompt_tokens": 9, "num_output_tokens": 2}))
    half, tenth = (set(demand.at_rate(share * demand.rate_per_s).day(0)[0]) for share in (0.5, 0.1))
    assert tenth < half < set(arrival_s - arrival_s[0])
    assert len(half) == pytest.approx(2000, rel=0.05)


def test_a_trace_at_a_rate_that_leaves_none_of_it_keeps_one_request():
    arrival_s, p, o = Demand.of_trace(TRACE).at_rate(1e-9).day(0)
    assert len(arrival_s) == len(p) == len(o) == 1


def test_requests_that_are_alone_do_not_meet():
    arrival_s, p, _ = Demand.of_trace(TRACE).alone()
    assert np.diff(arrival_s).min() > 1e4
    assert p.tolist() == [9, 8, 7]


def test_means_are_weighted_and_the_longest_request_counts():
    demand = Demand.of_queries(SIZES, rate_per_s=1)
    assert demand.mean_prompt_tokens == pytest.approx(0.75 * 10 + 0.25 * 500)
    assert demand.longest == 549


def test_requests_without_a_rate_are_refused():
    with pytest.raises(ValueError, match="2 requests within 0 s have no rate"):
        Demand.of_trace(TRACE.iloc[:2].assign(arrival_s=1.0))
    with pytest.raises(ValueError, match="rate_per_s must be a positive finite number"):
        Demand.of_queries(SIZES, rate_per_s=0)
