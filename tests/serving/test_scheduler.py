import numpy as np
import pandas as pd
import pytest
from step_by_step import step_by_step

from idealized_runtime.serving.scheduler import POLICIES, Scheduler
from idealized_runtime.serving.simulation import saturated_rate_per_s, simulate, simulate_closed
from idealized_runtime.serving.steps import StepModel

STEPS = StepModel(0.012, 4e-5, 5e-5, 7e-8)


def make_sizes(number, rng, *, longest=200):
    return pd.DataFrame(
        {"num_prompt_tokens": rng.integers(1, longest, number), "num_output_tokens": rng.integers(1, 60, number)}
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(40))
def test_every_request_ends_when_it_does_step_by_step(policy, seed):
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 40))
    requests = make_sizes(number, rng).assign(
        arrival_s=rng.permutation(np.cumsum(rng.exponential(rng.choice([0.01, 0.1, 1]), number)))
    )
    steps = StepModel(*(rng.exponential(size=5) * [0.01, 1e-4, 1e-3, 1e-5, 0.01]).tolist(), expert_share=0.2)
    scheduler = Scheduler(
        policy, int(rng.integers(1, 20)), int(rng.integers(20, 300)), int(rng.integers(270, 900)) if seed % 4 else None
    )
    first_s, runtime_s, num_preemptions = step_by_step(requests, steps, scheduler)
    simulated = simulate(requests, steps, scheduler)
    np.testing.assert_allclose(simulated["time_to_first_token_s"], first_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(simulated["runtime_s"], runtime_s, rtol=0, atol=1e-9)
    assert simulated["num_preemptions"].tolist() == num_preemptions.tolist()


def test_full_cache_preempts_and_encodes_again():
    requests = pd.DataFrame({"arrival_s": 0.0, "num_prompt_tokens": 100, "num_output_tokens": 100}, index=range(4))
    simulated = simulate(requests, STEPS, Scheduler(cache_tokens=500))
    assert simulated["num_preemptions"].sum() > 0
    assert simulated["runtime_s"].max() > simulate(requests, STEPS, Scheduler())["runtime_s"].max()


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_waiting_one_at_a_time_is_that_of_an_m_d_1_queue(utilisation):
    service_s = float(simulate(make_one(0.0), STEPS, Scheduler(max_num_seqs=1))["runtime_s"].iloc[0])
    rng, number = np.random.default_rng(3), 40_000
    arrivals = np.cumsum(rng.exponential(service_s / utilisation, number))
    simulated = simulate(make_one(arrivals), STEPS, Scheduler(max_num_seqs=1))
    expected_s = utilisation * service_s / (2 * (1 - utilisation))
    assert simulated["queue_s"].mean() == pytest.approx(expected_s, rel=0.05)


def test_waiting_with_mixed_sizes_is_that_of_pollaczek_and_khinchine():
    rng, number, scheduler = np.random.default_rng(4), 40_000, Scheduler(max_num_seqs=1)
    sizes = make_sizes(number, rng)
    service_s = simulate(sizes.assign(arrival_s=1e6 * np.arange(number)), STEPS, scheduler)["runtime_s"]
    rate = 0.6 / service_s.mean()
    simulated = simulate(sizes.assign(arrival_s=np.cumsum(rng.exponential(1 / rate, number))), STEPS, scheduler)
    expected_s = rate * (service_s**2).mean() / (2 * (1 - 0.6))
    assert simulated["queue_s"].mean() == pytest.approx(expected_s, rel=0.06)


def test_stable_rate_one_at_a_time_is_one_over_the_service_time():
    sizes = make_sizes(50, np.random.default_rng(5))
    scheduler = Scheduler(max_num_seqs=1)
    service_s = simulate(sizes.assign(arrival_s=1e6 * np.arange(50)), STEPS, scheduler)["runtime_s"]
    assert saturated_rate_per_s(sizes, STEPS, scheduler) == pytest.approx(1 / service_s.mean(), rel=0.02)


@pytest.mark.parametrize(("factor", "grows"), [(0.9, False), (1.1, True)])
def test_queue_grows_without_end_above_the_stable_rate_only(factor, grows):
    rng, scheduler = np.random.default_rng(6), Scheduler(max_num_seqs=16)
    sizes = make_sizes(8000, rng)
    rate = factor * saturated_rate_per_s(sizes, STEPS, scheduler)
    queue_s = simulate(sizes.assign(arrival_s=np.cumsum(rng.exponential(1 / rate, 8000))), STEPS, scheduler)["queue_s"]
    assert (queue_s[-1000:].mean() > 5 * queue_s[1000:2000].mean() + 1) == grows


def test_two_engines_share_the_requests():
    rng = np.random.default_rng(7)
    requests = make_sizes(400, rng).assign(arrival_s=np.cumsum(rng.exponential(0.05, 400)))
    alone, both = (simulate(requests, STEPS, Scheduler(max_num_seqs=8, num_engines=n)) for n in (1, 2))
    assert both["queue_s"].mean() < 0.5 * alone["queue_s"].mean()


def test_closed_loop_keeps_as_many_requests_as_clients():
    sizes = make_sizes(60, np.random.default_rng(8))
    answered = simulate_closed(sizes, 5, STEPS)
    ends = np.sort(answered["arrival_s"] + answered["runtime_s"])
    assert np.sort(answered["arrival_s"])[5:] == pytest.approx(ends[:-5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": "lifo"}, "policy must be one of continuous, prompts-first, static; got 'lifo'"),
        ({"max_num_seqs": 0}, "max_num_seqs must be an integer of at least 1; got 0"),
        ({"max_num_seqs": 512, "max_num_batched_tokens": 256}, "max_num_batched_tokens must be at least max_num_seqs"),
    ],
)
def test_rules_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Scheduler(**given)


def test_request_that_never_fits_the_cache_is_counted():
    with pytest.raises(ValueError, match="cache_tokens must be at least 199, the longest request; got 150, and 1 of 1"):
        simulate(make_one(0.0), STEPS, Scheduler(cache_tokens=150))


def make_one(arrival_s):
    arrival_s = np.atleast_1d(arrival_s)
    return pd.DataFrame({"arrival_s": arrival_s, "num_prompt_tokens": 100, "num_output_tokens": 100})
