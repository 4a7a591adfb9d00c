import re
import warnings

import numpy as np
import pandas as pd
import pytest
from step_by_step import step_by_step

from idealized_runtime.serving.fitting import (
    PublishedPoints,
    ServedRequests,
    ServingWarning,
    StepsNotFittedError,
    TimedBatches,
    bootstrap_steps,
    fit_steps,
)
from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import simulate
from idealized_runtime.serving.steps import StepModel

TRUTH = StepModel(0.012, 4e-5, 1e-4, 2e-7)
RULES = Scheduler(max_num_seqs=64, max_num_batched_tokens=512)


def make_requests(rng, *, rate_per_s=4.0, number=150):
    rng = np.random.default_rng(rng)
    sizes = pd.DataFrame(
        {"num_prompt_tokens": rng.integers(50, 1500, 300), "num_output_tokens": rng.integers(2, 120, 300)}
    )
    return random_requests(sizes, rate_per_s=rate_per_s, num_requests=number, rng=rng)


def test_steps_are_recovered_from_requests_without_noise():
    served = simulate(make_requests(0), TRUTH, RULES)
    fitted = fit_steps([ServedRequests(served, RULES)])
    assert fitted.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.01)


def test_share_of_experts_is_told_from_the_fixed_time():
    truth = StepModel(0.008, 4e-5, 1e-4, 2e-7, 0.02, expert_share=1 / 16)
    served = simulate(make_requests(1, rate_per_s=2.0), truth, RULES)
    fitted = fit_steps([ServedRequests(served, RULES)], expert_share=1 / 16)
    assert fitted.expert_s == pytest.approx(0.02, rel=0.05)


def test_requests_without_times_are_in_the_server_but_not_fitted():
    served = simulate(make_requests(2, rate_per_s=5.0), TRUTH, RULES)
    ends = served["arrival_s"] + served["runtime_s"]
    known = served.copy()
    known.loc[ends > ends.median(), ["time_to_first_token_s", "runtime_s"]] = np.nan
    evidence = ServedRequests(known, RULES)
    fitted = fit_steps([evidence])
    assert fitted.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.03)
    assert len(evidence) == len(served) // 2


def test_intervals_hold_the_truth():
    rng, held = np.random.default_rng(3), []
    for seed in range(12):
        requests = make_requests(seed, number=100)
        first_s, runtime_s, _ = step_by_step(requests, TRUTH, RULES, noise=lambda: rng.gamma(1 / 0.05**2, 0.05**2))
        served = requests.assign(time_to_first_token_s=first_s, runtime_s=runtime_s)
        fitted = fit_steps([ServedRequests(served, RULES)])
        errors = np.sqrt(np.diag(fitted.covariance))[:4]
        held.append(np.abs(fitted.coefficients - TRUTH.coefficients)[:4] < 1.96 * errors)
    # Of 48; fewer than 41 hold once in a thousand times where 95 % are right.
    assert np.sum(held) >= 41


def test_batches_and_requests_count_together():
    p, o, batch = (grid.ravel() for grid in np.meshgrid([32, 128, 512], [1, 8, 32], [1, 4, 16]))
    encoding_s = TRUTH.fixed_s + TRUTH.prompt_token_s * p * batch + TRUTH.sequence_s * batch
    generation_s = [
        sum(TRUTH.seconds(num_sequences=b, num_cached_tokens=b * (a + j)) for j in range(c - 1))
        for a, c, b in zip(p, o, batch, strict=True)
    ]
    timings = pd.DataFrame(
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": batch, "micro_batch_size": batch,
         "token_micro_batch_size": batch, "prompt_encoding_time_s": encoding_s, "generation_time_s": generation_s}
    )  # fmt: skip
    alone = fit_steps([TimedBatches(timings)])
    assert alone.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=1e-6)
    served = simulate(make_requests(4, number=60), TRUTH, RULES)
    both = fit_steps([ServedRequests(served, RULES), TimedBatches(timings)])
    assert both.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.01)


def test_points_give_the_steps_between_their_tokens():
    c, p, o = (grid.ravel() for grid in np.meshgrid([1, 4, 16, 64], [256, 1024], [128, 1024]))
    tpot_s = TRUTH.seconds(num_sequences=c, num_cached_tokens=c * (p + o / 2)) + TRUTH.prompt_token_s * c * p / o
    points = pd.DataFrame(
        {"concurrency": c, "num_prompt_tokens": p, "num_output_tokens": o, "time_per_output_token_s": tpot_s}
    )
    fitted = fit_steps([PublishedPoints(points, Scheduler())])
    assert fitted.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=1e-3)


def test_overloaded_run_is_named():
    served = simulate(make_requests(5, rate_per_s=200.0), TRUTH, RULES)
    with pytest.warns(ServingWarning, match=r"run 0 was overloaded: \d+ requests/s came, and .* can be answered"):
        fit_steps([ServedRequests(served, RULES)])


def test_runs_of_several_sources_are_told_apart():
    sources = [ServedRequests(simulate(make_requests(5, rate_per_s=rate), TRUTH, RULES), RULES) for rate in (2, 200)]
    with pytest.warns(ServingWarning, match="run 0 of source 2 was overloaded") as warned:
        fit_steps(sources)
    assert not any("of source 1" in str(warning.message) for warning in warned)


@pytest.mark.parametrize(
    ("slower", "said"), [(1.1, r"take (9\.\d|10|11) % longer in source 2 than in source 1"), (1, None)]
)
def test_runs_of_one_server_that_differ_beyond_the_interval_are_named_with_the_size(slower, said):
    truths = [TRUTH, StepModel(*(slower * TRUTH.coefficients).tolist())]
    sources = [
        ServedRequests(simulate(make_requests(seed, rate_per_s=2.0), truth, RULES), RULES)
        for seed, truth in enumerate(truths, 30)
    ]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit_steps(sources)
    found = [str(warning.message) for warning in warned if "longer in source" in str(warning.message)]
    assert len(found) == (said is not None)
    if said:
        assert re.search(said, found[0])
        assert re.search(r"interval of the fit reaches [\d.e-]+ % to each side", found[0])


def test_another_scheduler_than_the_given_one_is_noticed():
    served = simulate(make_requests(6, rate_per_s=3.0), TRUTH, Scheduler(max_num_seqs=2))
    with pytest.warns(ServingWarning, match="the server may work by other rules"):
        fit_steps([ServedRequests(served, RULES)])


def test_requests_of_one_token_tell_no_step_time():
    served = simulate(make_requests(7).assign(num_output_tokens=1), TRUTH, RULES)
    with pytest.raises(StepsNotFittedError, match="no time of a further output token"):
        fit_steps([ServedRequests(served, RULES)])


def test_run_whose_requests_come_mostly_in_one_half_is_named():
    requests = make_requests(8)
    requests["arrival_s"] = requests["arrival_s"].max() * (requests["arrival_s"] / requests["arrival_s"].max()) ** 3
    with pytest.warns(ServingWarning, match=r"run 0 is not stationary: \d+ requests came in the first half"):
        fit_steps([ServedRequests(simulate(requests, TRUTH, RULES), RULES)])


def test_requests_of_one_token_count_beside_others():
    single = simulate(make_requests(9, number=40).assign(num_output_tokens=1), TRUTH, RULES)
    both = fit_steps([ServedRequests(single, RULES), ServedRequests(simulate(make_requests(10), TRUTH, RULES), RULES)])
    assert both.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.02)


def test_passes_of_batches_visit_experts_too():
    truth = StepModel(0.008, 4e-5, 1e-4, 2e-7, 0.02, expert_share=1 / 16)
    p, o, batch = (grid.ravel() for grid in np.meshgrid([4, 32, 256], [2, 9, 40], [1, 4, 16]))
    encoding_s = truth.fixed_s + truth.prompt_token_s * p * batch + truth.sequence_s * batch
    encoding_s = encoding_s + truth.expert_s * (1 - (1 - truth.expert_share) ** (p * batch))
    generation_s = [
        sum(truth.seconds(num_sequences=b, num_cached_tokens=b * (a + j)) for j in range(c - 1))
        for a, c, b in zip(p, o, batch, strict=True)
    ]
    timings = pd.DataFrame(
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": batch, "micro_batch_size": batch,
         "token_micro_batch_size": batch, "prompt_encoding_time_s": encoding_s, "generation_time_s": generation_s}
    )  # fmt: skip
    fitted = fit_steps([TimedBatches(timings)], expert_share=1 / 16)
    assert fitted.coefficients == pytest.approx(truth.coefficients, rel=1e-5)


def test_time_outside_of_steps_is_told_from_that_of_encoding():
    truth = StepModel(0.012, 4e-5, 1e-4, 2e-7, request_s=0.08)
    fitted = fit_steps([ServedRequests(simulate(make_requests(12), truth, RULES), RULES)])
    assert fitted.coefficients == pytest.approx(truth.coefficients, rel=0.01)


def test_steps_are_recovered_from_answers_that_came_whole():
    served = simulate(make_requests(13), TRUTH, RULES).assign(time_to_first_token_s=np.nan)
    fitted = fit_steps([ServedRequests(served, RULES)])
    assert fitted.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.02)


@pytest.mark.parametrize(("last", "said"), [(1.3, "slower"), (1 / 1.3, "quicker")])
def test_server_whose_steps_drift_is_named(last, said):
    requests = make_requests(14, rate_per_s=1.0, number=200)
    slowness = iter(np.geomspace(1, last, 100_000)[::6])
    first_s, runtime_s, _ = step_by_step(requests, TRUTH, RULES, noise=lambda: next(slowness))
    served = requests.assign(time_to_first_token_s=first_s, runtime_s=runtime_s)
    with pytest.warns(ServingWarning, match=rf"run 0 is not stationary: .*steps became \d+% {said}"):
        fit_steps([ServedRequests(served, RULES)])


def test_few_requests_are_not_said_to_overload():
    served = simulate(make_requests(11, number=3), TRUTH, RULES).assign(arrival_s=[0.0, 1e-3, 2e-3])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit_steps([ServedRequests(simulate(served, TRUTH, RULES), RULES)])
    assert not any("overloaded" in str(warning.message) for warning in warned)


def test_requests_that_come_all_at_once_are_fitted_without_a_rate():
    bursts = [
        simulate(make_requests(seed, number=number).assign(arrival_s=0.0), TRUTH, RULES).assign(run=seed)
        for seed, number in enumerate((1, 2, 4, 4, 8, 8, 16, 32))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit_steps([ServedRequests(pd.concat(bursts, ignore_index=True), RULES)])
    assert fitted.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.02)


def test_bootstrap_over_blocks_of_requests_scatters_as_the_covariance_says():
    rng, requests = np.random.default_rng(15), make_requests(15, number=400)
    first_s, runtime_s, _ = step_by_step(requests, TRUTH, RULES, noise=lambda: rng.gamma(1 / 0.05**2, 0.05**2))
    evidence = [ServedRequests(requests.assign(time_to_first_token_s=first_s, runtime_s=runtime_s), RULES)]
    fitted = fit_steps(evidence)
    drawn = bootstrap_steps(evidence, fitted, rng=0).to_numpy()[:, :4]
    assert drawn.mean(axis=0) == pytest.approx(fitted.coefficients[:4], rel=0.05)
    ratios = drawn.std(axis=0, ddof=1) / np.sqrt(np.diag(fitted.covariance)[:4])
    assert ((ratios > 0.5) & (ratios < 2)).all()
