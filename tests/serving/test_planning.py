from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, Simulations, plan
from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import saturated_rate_per_s, simulate, times_of_requests
from idealized_runtime.serving.steps import STEP_TERMS, StepModel

STEPS = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1)
CHAT = pd.DataFrame({"num_prompt_tokens": [512, 60], "num_output_tokens": [256, 40]})
TTFT = Objective.parse("ttft:p95=0.5")


def with_errors(steps, relative):
    errors = np.append(relative * steps.coefficients[:5], 0.0)
    return replace(steps, covariance=np.diag(errors**2))


def candidate(steps=STEPS, usd=3.0, watts=500.0, model="m"):
    rates = (DeviceRate.exactly(value) for value in (usd, watts))
    return Candidate(model, steps, None, *rates)


def answer_of(steps, demand, *objectives, **options):
    (answer,) = plan([candidate(steps)], demand, objectives, **options).answers
    return answer


def brute_force(steps, queries, rate, objective, *, num_days=3, num_requests=3000):
    """Fewest engines behind one queue that meet an objective, on days of their own."""
    limit, number = saturated_rate_per_s(queries, steps, steps.scheduler), 1
    while True:
        scheduler, values = replace(steps.scheduler, num_engines=number), []
        if rate < number * limit:
            for day in range(num_days):
                requests = random_requests(
                    queries, rate_per_s=rate, num_requests=number * num_requests, rng=[5, day]
                )  # fmt: skip
                times_s = times_of_requests(simulate(requests, steps, scheduler))[objective.metric]
                values.append(np.nanpercentile(times_s, float(objective.statistic[1:])))
            if np.mean(values) <= objective.seconds:
                return number
        number += 1


def random_case(seed):
    rng = np.random.default_rng(seed)
    times = np.exp(rng.normal(np.log([0.013, 4e-5, 4e-5, 7e-8]), 0.6)).tolist()
    scheduler = Scheduler(max_num_seqs=int(rng.choice([16, 64, 256])), max_num_batched_tokens=2048)
    steps = with_errors(StepModel(*times, scheduler=scheduler, num_accelerators=1), rng.uniform(0.01, 0.1))
    queries = pd.DataFrame(
        {"num_prompt_tokens": rng.integers(10, 2000, 4), "num_output_tokens": rng.integers(2, 300, 4)}
    )  # fmt: skip
    limit = saturated_rate_per_s(queries, steps, scheduler)
    metric = rng.choice(["ttft_s", "tpot_s", "e2e_s"])
    idle = simulate(random_requests(queries, rate_per_s=1e-3 * limit, num_requests=300, rng=0), steps)
    seconds = rng.uniform(1.3, 6) * np.nanpercentile(times_of_requests(idle)[metric], 95)
    return steps, queries, limit * rng.uniform(0.3, 3), Objective(str(metric), "p95", float(seconds))


def test_replicas_equal_those_of_brute_force_in_random_cases():
    cases = [random_case(seed) for seed in range(14)]
    found, expected = [], []
    for number, (steps, queries, rate, objective) in enumerate(cases):
        demand = Demand.of_queries(queries, rate_per_s=rate, seed=number)
        found.append(answer_of(steps, demand, objective, num_draws=8))
        expected.append(brute_force(steps, queries, rate, objective))
    numbers = np.array([answer.num_replicas for answer in found])
    assert (numbers == expected).sum() >= 13
    is_sure = np.array([answer.probability_met for answer in found]) >= 0.95
    assert (numbers >= expected)[is_sure].all()


# One replica bears some 31 requests a second: four days say 30.7 of it, and more of them more.
@pytest.mark.parametrize("rate", [30.8, 31.2])
def test_times_at_the_edge_are_those_of_the_days_that_chose_the_number(rate):
    answer = answer_of(STEPS, Demand.of_queries(CHAT, rate_per_s=rate), TTFT, num_draws=2)
    assert answer.times["ttft_s"]["p95"]["value"] <= TTFT.seconds
    assert (answer.num_replicas == 1) == (rate < answer.max_requests_per_s)


@pytest.mark.parametrize("wait", [0.5, 2.0])
def test_largest_rate_is_that_of_an_m_d_1_queue(wait):
    # One at a time, all alike: mean wait = rate S^2 / (2 (1 - rate S)), S seconds of service.
    steps = StepModel(0.01, 1e-4, 0.0, 0.0, scheduler=Scheduler(max_num_seqs=1, max_num_batched_tokens=4096))
    service_s = 0.01 * 10 + 1e-4 * 500
    queries = pd.DataFrame({"num_prompt_tokens": [500], "num_output_tokens": [10]})
    objective = Objective("e2e_s", "mean", service_s * (1 + wait))
    demand = Demand.of_queries(queries, rate_per_s=0.1, num_requests=30_000)
    expected = 2 * wait / (1 + 2 * wait) / service_s
    assert answer_of(steps, demand, objective).max_requests_per_s == pytest.approx(expected, rel=0.03)


def test_slower_steps_bear_a_rate_less_in_proportion_where_times_may_grow_likewise():
    demand = Demand.of_queries(CHAT, rate_per_s=5)
    slower = replace(STEPS, **{term: 3 * getattr(STEPS, term) for term in STEP_TERMS})
    quick, slow = (
        answer_of(steps, demand, Objective("ttft_s", "p95", seconds))
        for steps, seconds in ((STEPS, 0.4), (slower, 1.2))
    )
    assert slow.max_requests_per_s == pytest.approx(quick.max_requests_per_s / 3, rel=0.01)
    assert slow.elasticities.to_numpy() == pytest.approx(quick.elasticities.to_numpy(), abs=0.1)


def test_elasticities_of_a_throughput_add_up_to_minus_one():
    answer = answer_of(STEPS, Demand.of_queries(CHAT, rate_per_s=5), Objective.parse("e2e:p95=1000"))
    assert answer.elasticities.sum() == pytest.approx(-1, abs=0.03)
    assert answer.utilization == pytest.approx(5 / answer.max_requests_per_s, rel=0.01)


def test_a_trace_is_met_or_not_and_replicas_share_its_queue():
    requests = random_requests(CHAT, rate_per_s=60, num_requests=3000, rng=1)
    found = plan([candidate()], Demand.of_trace(requests), [TTFT]).answers[0]
    for number, is_met in ((found.num_replicas, True), (found.num_replicas - 1, False)):
        times_s = simulate(requests, STEPS, replace(STEPS.scheduler, num_engines=number))["time_to_first_token_s"]
        assert (np.percentile(times_s, 95) <= 0.5) == is_met
    assert found.probabilities_met == (0.0, 1.0, 1.0, 1.0)
    assert found.times["ttft_s"]["p95"]["lower"] is None


def test_probability_grows_with_replicas_and_errors_widen_the_interval():
    demand = Demand.of_queries(CHAT, rate_per_s=80)
    sure, unsure = (answer_of(with_errors(STEPS, error), demand, TTFT) for error in (0.005, 0.2))
    assert list(unsure.probabilities_met) == sorted(unsure.probabilities_met)
    assert unsure.num_replicas_lower <= unsure.num_replicas <= unsure.num_replicas_upper
    width = unsure.max_requests_per_s_upper - unsure.max_requests_per_s_lower
    assert width > 5 * (sure.max_requests_per_s_upper - sure.max_requests_per_s_lower)


def test_interval_of_the_largest_rate_holds_what_drawn_steps_bear():
    demand = Demand.of_queries(CHAT, rate_per_s=5)
    steps = with_errors(STEPS, 0.05)
    answer = answer_of(steps, demand, TTFT, num_draws=100)
    exact = [answer_of(model, demand, TTFT, num_draws=1).max_requests_per_s for model in steps.draws(16, 9)]
    is_in = [answer.max_requests_per_s_lower <= rate <= answer.max_requests_per_s_upper for rate in exact]
    assert np.mean(is_in) >= 13 / 16


def test_dollars_and_joules_are_those_of_all_devices_at_the_rate_of_the_demand():
    answer = answer_of(replace(STEPS, num_accelerators=2), Demand.of_queries(CHAT, rate_per_s=60), TTFT)
    n, p, o = answer.num_replicas, 286, 148
    assert n > 1
    assert answer.usd_per_hour == pytest.approx(n * 2 * 3.0)
    assert answer.usd_per_query == pytest.approx(n * 2 * 3.0 / 3600 / 60)
    assert answer.usd_per_million("output") == pytest.approx(1e6 * answer.usd_per_query / o)
    assert answer.usd_per_million("all") == pytest.approx(1e6 * answer.usd_per_query / (p + o))
    assert answer.joules_per_query == pytest.approx(n * 2 * 500 / 60)


def test_cheapest_comes_first_and_what_has_no_price_last():
    dear, free = candidate(usd=9.0, model="dear"), Candidate("unpriced", STEPS)
    found = plan([free, dear, candidate(usd=1.0, model="cheap")], Demand.of_queries(CHAT, rate_per_s=5), [TTFT])
    assert [answer.candidate.model for answer in found.answers] == ["cheap", "dear", "unpriced"]
    assert found.answers[-1].usd_per_hour is None
    assert found.table()["$/h"].tolist()[:2] == [1.0, 9.0]


def test_impossible_objective_is_answered_by_the_fastest_possible():
    found = plan([candidate()], Demand.of_queries(CHAT, rate_per_s=5), [Objective.parse("ttft:p95=0.01")])
    assert not found.answers
    (rejection,) = found.rejections
    assert "TTFT p95 <= 0.01 s is below what an idle replica takes, 0.033" in rejection.reason


def test_request_that_no_cache_holds_is_named():
    small = replace(STEPS, scheduler=Scheduler(cache_tokens=500))
    (rejection,) = plan([candidate(small)], Demand.of_queries(CHAT, rate_per_s=5), [TTFT]).rejections
    assert "cache of 500 tokens does not hold the longest request, of 767" in rejection.reason


@pytest.mark.parametrize(
    ("scheduler", "queries", "limited_by"),
    [
        (Scheduler(), pd.DataFrame({"num_prompt_tokens": [4000], "num_output_tokens": [2]}), "prompts"),
        (Scheduler(max_num_seqs=4), pd.DataFrame({"num_prompt_tokens": [10], "num_output_tokens": [300]}),
         "sequences at once"),
        (Scheduler(cache_tokens=3000), pd.DataFrame({"num_prompt_tokens": [500], "num_output_tokens": [500]}),
         "cache capacity"),
    ],
)  # fmt: skip
def test_what_limits_a_replica_is_named(scheduler, queries, limited_by):
    steps = replace(STEPS, scheduler=scheduler)
    rate = 0.95 * saturated_rate_per_s(queries, steps, scheduler)
    answer = answer_of(steps, Demand.of_queries(queries, rate_per_s=rate), Objective.parse("e2e:p95=1000"))
    assert answer.limited_by == limited_by


def test_the_error_that_decides_is_that_of_the_uncertain_term():
    steps = replace(STEPS, covariance=np.diag(np.array([0.001, 0.1, 0.001, 0.001, 0, 0]) * STEPS.coefficients) ** 2)
    answer = answer_of(steps, Demand.of_queries(CHAT, rate_per_s=5), TTFT)
    assert answer.decisive.idxmax() == "prompt_token_s"
    # They are independent: together they are all of it.
    assert answer.decisive.sum() == pytest.approx(1)


def test_simulations_are_kept_for_the_next_plan(tmp_path):
    path, demand = tmp_path / "kept.npz", Demand.of_queries(CHAT, rate_per_s=30)
    first = Simulations(path)
    before = plan([candidate(with_errors(STEPS, 0.05))], demand, [TTFT], simulations=first)
    again = Simulations(path)
    assert len(again) == len(first) > 20
    after = plan([candidate(with_errors(STEPS, 0.05))], demand, [TTFT], simulations=again)
    assert len(again) == len(first)
    assert after.to_json() == before.to_json()
    other, anew = [Objective.parse("ttft:p95=0.4")], Simulations()
    for simulations in (again, anew):
        plan([candidate(with_errors(STEPS, 0.05))], demand, other, simulations=simulations)
    assert len(again) < len(first) + len(anew)


def test_file_that_holds_no_simulations_is_refused(tmp_path):
    path = tmp_path / "kept.npz"
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"kept\.npz: not simulations that a plan has kept"):
        Simulations(path)


def test_plan_asks_for_candidates_objectives_and_further_tokens():
    demand = Demand.of_queries(CHAT, rate_per_s=5)
    with pytest.raises(ValueError, match="at least one candidate"):
        plan([], demand, [TTFT])
    with pytest.raises(ValueError, match="at least one objective"):
        plan([candidate()], demand, [])
    single = Demand.of_queries(CHAT.assign(num_output_tokens=1), rate_per_s=5)
    with pytest.raises(ValueError, match="answers of more than one token"):
        plan([candidate()], single, [Objective.parse("tpot:p95=0.05")])


def test_sentence_says_replicas_times_dollars_and_what_fewer_would_do():
    demand = Demand.of_queries(CHAT, rate_per_s=60, name="chat")
    sentence = answer_of(with_errors(STEPS, 0.02), demand, TTFT).sentence
    assert "replicas of 1 x H100 serve 60 requests/s of chat with TTFT p95" in sentence
    assert "$/h" in sentence
    assert "the objective is" in sentence


def test_errors_that_go_together_are_all_taken_away_by_one_measurement():
    errors = np.array([0.1, 0.1, 0.1, 0.1, 0, 0]) * STEPS.coefficients
    answer = answer_of(replace(STEPS, covariance=np.outer(errors, errors)), Demand.of_queries(CHAT, rate_per_s=5), TTFT)
    assert answer.decisive["fixed_s"] == pytest.approx(1)
    assert answer.decisive["expert_s"] == 0


def test_phases_add_up_to_what_a_query_costs():
    answer = answer_of(STEPS, Demand.of_queries(CHAT, rate_per_s=5), TTFT)
    p, o = answer.demand.mean_prompt_tokens, answer.demand.mean_output_tokens
    usd = answer.phases["usd_per_million_tokens"] @ [p, o] / 1e6
    assert usd == pytest.approx(answer.usd_per_query)
    assert answer.phases["joules_per_token"] @ [p, o] == pytest.approx(answer.joules_per_query)


def test_rates_that_errors_allow_end_where_a_replica_never_idles():
    # So near to what an idle replica takes, the largest rate hangs on the steps without end.
    idle_s = STEPS.seconds(num_sequences=1, num_cached_tokens=600)
    objective = Objective("tpot_s", "p95", 1.001 * idle_s)
    answer = answer_of(with_errors(STEPS, 0.2), Demand.of_queries(CHAT, rate_per_s=0.01, num_requests=200), objective)
    # Some steps that the errors allow are too slow for any number of replicas.
    assert answer.num_replicas_upper is None
    assert answer.num_replicas_lower == answer.num_replicas == 1
    rates = answer.draw_max_requests_per_s(500, 0)
    assert answer.max_requests_per_s < 0.1 * answer.saturated_requests_per_s
    assert rates.min() < answer.max_requests_per_s
    # Of steps all a fifth shorter, twice over.
    assert rates.max() < 3 * answer.saturated_requests_per_s
    assert answer.max_requests_per_s_upper < 3 * answer.saturated_requests_per_s


def test_rates_are_drawn_as_their_interval_says_and_are_one_where_no_error_is_known():
    demand = Demand.of_queries(CHAT, rate_per_s=5, num_requests=500)
    answer = answer_of(with_errors(STEPS, 0.05), demand, TTFT, num_draws=400)
    drawn = np.quantile(answer.draw_max_requests_per_s(4000, 1), [0.025, 0.975])
    assert drawn == pytest.approx([answer.max_requests_per_s_lower, answer.max_requests_per_s_upper], rel=0.02)
    exact = answer_of(STEPS, demand, TTFT)
    assert exact.draw_max_requests_per_s(3, 0).tolist() == [exact.max_requests_per_s] * 3


def test_plan_that_is_interrupted_stops_and_keeps_its_simulations(tmp_path):
    kept = tmp_path / "kept.npz"

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan([candidate(model=str(number)) for number in range(3)], Demand.of_queries(CHAT, rate_per_s=5), [TTFT],
             simulations=Simulations(kept), report=interrupt)  # fmt: skip
    assert len(Simulations(kept)) > 0
