from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from step_by_step import closed_loop_step_by_step, step_by_step

from idealized_runtime.serving.engine import serve
from idealized_runtime.serving.scheduler import POLICIES, Scheduler
from idealized_runtime.serving.simulation import saturated_rate_per_s, simulate
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


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cache_tokens", [None, 900])
def test_each_of_several_engines_goes_as_it_does_alone_and_the_one_with_the_fewest_gets_a_request(policy, cache_tokens):
    rng = np.random.default_rng(3)
    arrival_s, (p, o) = np.cumsum(rng.exponential(0.05, 400)), make_sizes(400, rng).to_numpy().T
    scheduler = Scheduler(policy, 4, 300, cache_tokens)
    served = serve(arrival_s, p, o, STEPS, replace(scheduler, num_engines=5))
    for engine in range(5):
        is_here = served.engine == engine
        alone = serve(arrival_s[is_here], p[is_here], o[is_here], STEPS, scheduler)
        assert is_here.sum() > 20
        np.testing.assert_allclose(served.first_token_s[is_here], alone.first_token_s, rtol=0, atol=1e-9)
        np.testing.assert_allclose(served.finish_s[is_here], alone.finish_s, rtol=0, atol=1e-9)
        assert served.num_preemptions[is_here].tolist() == alone.num_preemptions.tolist()
        np.testing.assert_allclose(served.totals[engine], alone.totals[0])
    for number, at_s in enumerate(arrival_s):
        # What ends with a step that has begun may count still or no longer; no step takes 50 ms.
        before = served.engine[:number][served.finish_s[:number] > at_s + 0.05]
        now = served.engine[:number][served.finish_s[:number] > at_s]
        least, most = (np.bincount(engines, minlength=5) for engines in (before, now))
        assert least[served.engine[number]] <= most.min()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(20))
def test_closed_loop_goes_as_it_does_step_by_step(policy, seed):
    rng = np.random.default_rng(seed)
    requests, num_parallel = make_sizes(int(rng.integers(1, 60)), rng), int(rng.integers(1, 12))
    steps = StepModel(0.012, 4e-5, 5e-5, 7e-8, request_s=float(rng.choice([0, 0.05, 0.4])))
    scheduler = Scheduler(policy, int(rng.integers(1, 20)), int(rng.integers(20, 300)), 600 if seed % 2 else None)
    expected = closed_loop_step_by_step(requests, steps, scheduler, num_parallel)
    simulated = simulate(requests, steps, scheduler, num_parallel=num_parallel)
    columns = simulated[["arrival_s", "time_to_first_token_s", "runtime_s"]].to_numpy().T
    np.testing.assert_allclose(columns, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_engines", [1, 3])
def test_closed_loop_never_has_more_requests_than_clients(num_engines):
    requests = make_sizes(300, np.random.default_rng(8))
    simulated = simulate(requests, STEPS, Scheduler(num_engines=num_engines), num_parallel=6)
    arrival_s, end_s = simulated["arrival_s"].to_numpy(), (simulated["arrival_s"] + simulated["runtime_s"]).to_numpy()
    under_way = [np.count_nonzero((arrival_s <= at_s) & (at_s < end_s)) for at_s in arrival_s]
    assert max(under_way) == 6
    # Each goes to the engine with the fewest, so that all have a part of it.
    assert (
        num_engines == 1 or simulated["runtime_s"].sum() < simulate(requests, STEPS, num_parallel=6)["runtime_s"].sum()
    )


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
    service_s = simulate(sizes.assign(arrival_s=1e3 * np.arange(number)), STEPS, scheduler)["runtime_s"]
    rate = 0.6 / service_s.mean()
    simulated = simulate(sizes.assign(arrival_s=np.cumsum(rng.exponential(1 / rate, number))), STEPS, scheduler)
    expected_s = rate * (service_s**2).mean() / (2 * (1 - 0.6))
    assert simulated["queue_s"].mean() == pytest.approx(expected_s, rel=0.06)


def test_stable_rate_one_at_a_time_is_one_over_the_service_time():
    sizes = make_sizes(50, np.random.default_rng(5))
    scheduler = Scheduler(max_num_seqs=1)
    service_s = simulate(sizes.assign(arrival_s=1e3 * np.arange(50)), STEPS, scheduler)["runtime_s"]
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


def test_single_request_takes_its_steps_one_after_the_other():
    # 100 prompt tokens in chunks of 40, 40 and 20, each reading the cache before it; then 99 steps.
    simulated = simulate(make_one(0.0), STEPS, Scheduler(max_num_seqs=4, max_num_batched_tokens=40)).iloc[0]
    first_s = 3 * (0.012 + 5e-5) + 100 * 4e-5 + (40 + 80) * 7e-8
    further_s = 99 * (0.012 + 5e-5) + 7e-8 * sum(range(100, 199))
    assert simulated["time_to_first_token_s"] == pytest.approx(first_s)
    assert simulated["runtime_s"] == pytest.approx(first_s + further_s)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_num_seqs", [1, 4, 32])
def test_stable_rate_of_equal_requests_is_a_batch_in_the_time_of_a_batch(policy, max_num_seqs):
    scheduler = Scheduler(policy, max_num_seqs, max_num_batched_tokens=100_000)
    # The first batch and the second, all there from the beginning: one begins where the other ends.
    simulated = simulate(make_one(np.zeros(2 * max_num_seqs)), STEPS, scheduler)
    batch_s = simulated["queue_s"].max()
    assert saturated_rate_per_s(make_one(0.0), STEPS, scheduler) == pytest.approx(max_num_seqs / batch_s, rel=1e-6)


def test_stable_rate_of_static_batches_counts_whole_batches():
    sizes = pd.DataFrame({"num_prompt_tokens": 100, "num_output_tokens": np.arange(80, 121)})
    scheduler = Scheduler("static", 64)
    rate = saturated_rate_per_s(sizes, STEPS, scheduler)
    requests = sizes.sample(64 * 60, replace=True, random_state=0).assign(arrival_s=0.0)
    finish_s = simulate(requests, STEPS, scheduler)["runtime_s"].max()
    assert rate == pytest.approx(len(requests) / finish_s, rel=0.01)


def test_arrivals_may_count_from_any_time():
    requests = make_one([0.0, 0.5, 0.6])
    from_zero = simulate(requests, STEPS)
    for start_s in (-1000.0, 1.7e9):
        later = simulate(requests.assign(arrival_s=requests["arrival_s"] + start_s), STEPS)
        np.testing.assert_allclose(later["runtime_s"], from_zero["runtime_s"], atol=1e-6)


def test_measured_time_per_token_gives_way_to_the_simulated_one():
    simulated = simulate(make_one(0.0).assign(time_per_output_token_s=9.0), STEPS).iloc[0]
    decode_s = simulated["runtime_s"] - simulated["time_to_first_token_s"]
    assert simulated["time_per_output_token_s"] == pytest.approx(decode_s / 99)


@pytest.mark.parametrize(
    "change", [{"num_prompt_tokens": 0}, {"num_output_tokens": 0}, {"num_output_tokens": np.nan}, {"arrival_s": np.nan}]
)
def test_request_without_a_size_or_arrival_is_refused_by_row(change):
    requests = pd.concat([make_one(0.0), make_one(1.0).assign(**change)])
    with pytest.raises(ValueError, match="1 of 2 do not have them, the first is in row 2"):
        simulate(requests, STEPS)
