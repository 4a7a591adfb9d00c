"""Loads of a server to measure, for the largest rate of a plan."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.design.loads import RateDesign, loads_of
from idealized_runtime.design.points import POINT_ERROR
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.fitting import PublishedPoints
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, plan, slopes_per_second
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import TERMS, StepModel

QUERIES = pd.DataFrame({"num_prompt_tokens": [200, 1000, 3000], "num_output_tokens": [50, 100, 400]})
RULES = Scheduler(max_num_seqs=64, max_num_batched_tokens=2048)
STEPS = StepModel(0.013, 4e-5, 2e-4, 3e-7, scheduler=RULES, hardware="H100", num_accelerators=1)
LOADS = loads_of(QUERIES, 64)


def answer_with(**relative_std):
    """The plan of a server whose step times are known to these shares."""
    std = STEPS.coefficients * np.array([relative_std.get(term, 0.0) for term in TERMS])
    steps = replace(STEPS, covariance=np.diag(std**2))
    demand = Demand.of_queries(QUERIES, rate_per_s=1.0, num_requests=400)
    return plan([Candidate("m", steps)], demand, [Objective.parse("ttft:p95=2")], num_draws=1).answers[0]


@pytest.fixture(scope="module")
def answer():
    return answer_with(fixed_s=0.3, prompt_token_s=0.3, sequence_s=0.3, cache_token_s=0.3)


def test_load_that_tells_what_is_not_known_narrows_most():
    most = {}
    for term in ("fixed_s", "cache_token_s"):
        worth = RateDesign(answer_with(**{term: 0.5}), LOADS).worth_of_each()
        most[term] = worth.loc[worth["error_after"].idxmin()]
    assert most["fixed_s"]["concurrency"] == 1
    assert most["cache_token_s"]["concurrency"] == 64
    assert most["cache_token_s"]["num_prompt_tokens"] > 200


def test_rates_are_as_far_off_as_the_design_says(answer):
    design = RateDesign(answer, LOADS)
    chosen = design.choose(target_error=0.08)
    assert chosen["error_after"].iloc[-1] <= 0.08 < design.error
    assert chosen["error_after"].is_monotonic_decreasing
    steps, rng = answer.candidate.steps, np.random.default_rng(0)
    slopes, known = slopes_per_second(steps, answer.elasticities), np.diag(steps.covariance) > 0
    table = chosen.assign(time_per_output_token_s=1.0, time_to_first_token_s=1.0)
    rows = PublishedPoints(table, RULES).rows(steps).features
    noise = POINT_ERROR * (rows @ steps.coefficients)
    # Ridge regression towards what was known before: the textbook's estimate, not the design's recursion.
    weighted, precision = rows[:, known] / noise[:, None], np.diag(1 / np.diag(steps.covariance)[known])
    errors = []
    for _ in range(2000):
        moved = rng.standard_normal(known.sum()) * np.sqrt(np.diag(steps.covariance)[known])
        seen = weighted @ moved + rng.standard_normal(len(rows))
        estimate = np.linalg.solve(precision + weighted.T @ weighted, weighted.T @ seen)
        errors.append(slopes[known] @ (estimate - moved))
    assert 1.96 * np.std(errors) == pytest.approx(chosen["error_after"].iloc[-1], rel=0.06)


def test_designed_loads_tell_more_than_random_ones_of_the_same_seconds(answer):
    design, rng = RateDesign(answer, LOADS), np.random.default_rng(1)
    budget_s = 120.0
    designed = design.choose(target_error=0.0, max_seconds=budget_s)
    assert designed["seconds"].sum() <= budget_s
    assert not designed.duplicated(["num_prompt_tokens", "num_output_tokens", "concurrency"]).any()
    assert (designed["num_trials"] == 4 * designed["concurrency"]).all()
    errors = []
    for _ in range(20):
        order = rng.permutation(len(LOADS))
        fitting = order[np.cumsum(design.seconds[order]) <= budget_s]
        few = RateDesign(answer, LOADS.iloc[fitting].reset_index(drop=True)).choose(target_error=0.0)
        errors.append(few["error_after"].iloc[-1] if len(few) else design.error)
    assert designed["error_after"].iloc[-1] < 0.9 * np.median(errors)


def test_step_times_without_errors_are_refused(answer):
    bare = replace(answer, candidate=replace(answer.candidate, steps=STEPS))
    with pytest.raises(ValueError, match="no error of its step times is known"):
        RateDesign(bare, LOADS)
