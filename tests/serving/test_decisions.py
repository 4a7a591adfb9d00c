from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.serving.decisions import break_even, replicas_by_hour, tighter_objective, value_of_measuring
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, Simulations, plan
from idealized_runtime.serving.steps import StepModel

QUERIES = pd.DataFrame({"num_prompt_tokens": [1000], "num_output_tokens": [100]})
TTFT = Objective.parse("ttft:p95=0.5")
STEPS = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1)
CANDIDATE = Candidate("m", STEPS, price_usd_per_hour=DeviceRate.exactly(3.6))


def answer(candidate=CANDIDATE, rate=5.0):
    return plan([candidate], Demand.of_queries(QUERIES, rate_per_s=rate), [TTFT]).answers[0]


def test_break_even_is_where_one_replica_costs_what_the_api_asks():
    own = answer()
    # 1000 and 100 tokens: 0.5e-3 $ a query; a replica of 3.6 $/h pays off from 7200 requests an hour on.
    found = break_even(own, 0.4, 1.0)
    assert found["usd_per_query_api"] == pytest.approx(0.5e-3)
    assert found["requests_per_hour_from"] == pytest.approx(7200)
    assert found["usd_per_query_full"] == pytest.approx(3.6 / (3600 * own.max_requests_per_s))


def test_own_replicas_are_cheaper_at_every_rate_from_the_one_that_is_said():
    own = answer()
    full_usd = 1e-3 / own.max_requests_per_s
    # Half as dear again as a full replica: just behind the first and second step the API is cheaper still.
    found = break_even(own, 0.0, 1.5 * full_usd * 1e4)
    most = 3600 * own.max_requests_per_s
    rates = np.linspace(0.01, 8, 4000) * most
    is_cheaper = np.ceil(rates / most) * 3.6 <= rates * found["usd_per_query_api"] * (1 + 1e-9)
    assert rates[is_cheaper][0] == pytest.approx(found["requests_per_hour_from"], rel=0.01)
    assert rates[~is_cheaper][-1] == pytest.approx(found["requests_per_hour_always"], rel=0.01)


def test_api_that_is_cheaper_than_a_full_replica_is_cheaper_always():
    found = break_even(answer(), 0.0, 1e-4)
    assert found["requests_per_hour_from"] is None
    assert "cheaper at every rate" in found["sentence"]


@pytest.mark.parametrize(
    ("prices", "message"), [((0, 0), "asks nothing"), ((-1, 2), "zero or a positive finite number")]
)
def test_prices_that_are_none_are_refused(prices, message):
    with pytest.raises(ValueError, match=message):
        break_even(answer(), *prices)
    with pytest.raises(ValueError, match="has no price: give --price-usd-per-hour"):
        break_even(answer(replace(CANDIDATE, price_usd_per_hour=None)), 1, 1)


def test_hours_have_the_replicas_of_their_rates():
    rates = [2.0, 70.0, 2.0]
    found = replicas_by_hour(answer(rate=70.0), rates, [TTFT], Simulations())
    expected = [answer(rate=rate).num_replicas for rate in rates]
    assert found["by_hour"]["num_replicas"].tolist() == expected
    assert expected[1] > expected[0]
    assert found["usd_per_day_fixed"] == pytest.approx(24 * 3.6 * expected[1])
    assert found["usd_per_day_following"] == pytest.approx(24 * 3.6 * np.mean(expected))


def test_tighter_objective_costs_no_less():
    demand = Demand.of_queries(QUERIES, rate_per_s=60)
    curve = tighter_objective([CANDIDATE], demand, TTFT, [0.1, 0.3, 1.0])
    assert curve["seconds"].tolist() == [0.1, 0.3, 1.0]
    assert curve["usd_per_hour"].is_monotonic_decreasing


def test_what_is_left_open_holds_the_replicas_that_the_slack_of_the_last_one_allows():
    steps = replace(STEPS, covariance=np.diag([1e-4, 4e-7, 0, 0, 0, 0]) ** 2)
    largest = answer(replace(CANDIDATE, steps=steps)).max_requests_per_s
    # Two replicas are half as many again as are needed: one per cent of error never asks for a third.
    found = answer(replace(CANDIDATE, steps=steps), rate=1.4 * largest)
    assert found.num_replicas == 2
    table = value_of_measuring(found)
    assert table.loc["nothing", ["num_replicas_lower", "num_replicas_upper"]].tolist() == [2, 2]


def test_measuring_the_uncertain_term_narrows_the_replicas():
    errors = np.array([0.002, 0.25, 0.002, 0.002, 0, 0]) * STEPS.coefficients
    unsure = replace(CANDIDATE, steps=replace(STEPS, covariance=np.diag(errors**2)))
    table = value_of_measuring(answer(unsure, rate=120.0))
    width = table["num_replicas_upper"] - table["num_replicas_lower"]
    assert table.index[:2].tolist() == ["nothing", "prompt_token_s"]
    assert width["prompt_token_s"] <= 1 < width["nothing"]
    assert width["fixed_s"] == pytest.approx(width["nothing"], abs=1)
    with pytest.raises(ValueError, match="no error of its step times is known"):
        value_of_measuring(answer())
