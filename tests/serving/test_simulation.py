import numpy as np
import pandas as pd
import pytest

from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import simulate_days, summarize, time_per_output_token_s
from idealized_runtime.serving.steps import StepModel

STEPS = StepModel(0.013, 4e-5, 1e-4, 7e-8, covariance=np.diag([1e-4, 1e-6, 1e-5, 1e-9, 0]) ** 2)
SIZES = pd.DataFrame({"num_prompt_tokens": [200, 1000], "num_output_tokens": [50, 150]})


def make_days(rate_per_s, number=3):
    return [random_requests(SIZES, rate_per_s=rate_per_s, num_requests=400, rng=seed) for seed in range(number)]


def test_answer_holds_every_number_with_both_kinds_of_interval():
    answer = simulate_days(make_days(2.0), STEPS, num_draws=8)
    assert (answer["num_requests"], answer["is_stable"], answer["probability_stable"]) == (400, True, 1.0)
    assert answer["output_tokens_per_s"] == pytest.approx(200, rel=0.1)
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        for statistic in ("mean", "p50", "p95", "p99"):
            known = answer[metric][statistic]
            assert known["lower"] < known["value"] < known["upper"]
            assert known["day_lower"] < known["day_upper"]


def test_rate_beyond_what_can_be_answered_is_no_steady_state():
    answer = simulate_days(make_days(100.0, 1), STEPS, Scheduler(max_num_seqs=8), num_draws=4)
    assert not answer["is_stable"]
    assert answer["probability_stable"] == 0
    assert answer["saturated_rate_per_s"] < answer["arrival_rate_per_s"]


def test_steps_without_errors_give_no_intervals():
    known = simulate_days(make_days(2.0, 1), StepModel(0.013, 4e-5, 1e-4, 7e-8))["ttft_s"]["mean"]
    assert known["lower"] is None
    assert "day_lower" not in known


def test_answer_of_one_token_has_no_time_per_token():
    served = pd.DataFrame({"num_output_tokens": [1, 3], "time_to_first_token_s": 0.1, "runtime_s": [0.1, 0.3]})
    np.testing.assert_allclose(time_per_output_token_s(served), [np.nan, 0.1])
    assert summarize(served)["tpot_s"]["mean"] == pytest.approx(0.1)


def test_queue_grows_by_what_comes_beyond_what_is_answered():
    answer = simulate_days(make_days(100.0, 1), STEPS, Scheduler(max_num_seqs=8), num_draws=2, rate_per_s=100.0)
    assert answer["arrival_rate_per_s"] == 100
    assert answer["queue_growth_per_s"] == pytest.approx(100 - answer["saturated_rate_per_s"])
    assert simulate_days(make_days(2.0, 1), STEPS, num_draws=2)["queue_growth_per_s"] == 0


def test_requests_that_come_all_at_once_have_no_rate():
    answer = simulate_days([SIZES.assign(arrival_s=0.0)], STEPS, num_draws=2)
    assert not answer["is_stable"]
    assert np.isnan([answer["arrival_rate_per_s"], answer["queue_growth_per_s"]]).all()


def test_throughput_and_the_rate_that_can_be_answered_have_intervals():
    answer = simulate_days(make_days(2.0, 1), STEPS, num_draws=8)
    for name in ("saturated_rate_per_s", "output_tokens_per_s"):
        assert answer[f"{name}_lower"] < answer[name] < answer[f"{name}_upper"]
    assert simulate_days(make_days(2.0, 1), StepModel(0.013, 4e-5, 1e-4, 7e-8))["output_tokens_per_s_lower"] is None


def test_the_day_that_is_answered_lies_between_the_days():
    answers = [simulate_days(make_days(2.0, number), STEPS, num_draws=2)["e2e_s"] for number in (2, 3)]
    for known in (known for answer in answers for known in answer.values()):
        assert known["day_lower"] <= known["value"] <= known["day_upper"]


def test_requests_over_more_years_than_a_clock_tells_apart_are_refused():
    requests = random_requests(SIZES, rate_per_s=1e-12, num_requests=5, rng=0)
    with pytest.raises(ValueError, match=r"arrivals must lie within 1e\+10 s, .* check the rate or the unit"):
        simulate_days([requests], STEPS, num_draws=2)
