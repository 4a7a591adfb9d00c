import numpy as np
import pandas as pd
import pytest

from idealized_runtime.serving.accuracy import accuracy_table, forget_later, largest_measured_rate, percentile_table
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.simulation import simulate
from idealized_runtime.serving.steps import StepModel


def make_served(**changes):
    served = {
        "arrival_s": [0.0, 1.0, 2.0, 3.0], "num_output_tokens": 11, "time_to_first_token_s": 0.5, "runtime_s": 1.5,
    }  # fmt: skip
    return pd.DataFrame({**served, **changes})


def test_later_requests_keep_their_sizes_but_not_their_times():
    known, is_later = forget_later(make_served(), share=0.5)
    assert is_later.tolist() == [False, False, True, True]
    assert known["runtime_s"].isna().tolist() == is_later.tolist()
    assert known["num_output_tokens"].notna().all()


def test_errors_are_those_of_the_mean_and_of_single_requests():
    simulated = make_served(time_to_first_token_s=[0.4, 0.6, 0.5, 0.5])
    table = accuracy_table(make_served(), simulated)
    assert table.loc["TTFT", "mean_error_percent"] == pytest.approx(0)
    assert table.loc["TTFT", "median_percent"] == pytest.approx(10)
    assert table.loc["E2E", "median_percent"] == 0
    assert table.loc["TPOT", "measured_mean_s"] == pytest.approx(0.1)
    assert not np.isnan(table.to_numpy()).any()


def test_percentiles_of_runs_are_those_of_the_requests_with_times_and_within_their_intervals():
    steps = StepModel(0.01, 1e-4, 1e-3, 1e-6, covariance=np.diag([1e-3, 1e-5, 1e-4, 0, 0, 0]) ** 2)
    sizes = pd.DataFrame({"num_prompt_tokens": [50, 500], "num_output_tokens": [20, 60]})
    runs = {}
    for rate in (1.0, 4.0):
        run = simulate(random_requests(sizes, rate_per_s=rate, num_requests=60, rng=0), steps)
        runs[rate] = run.assign(runtime_s=run["runtime_s"].where(run.index > 9))
    table = percentile_table(runs, steps, num_draws=8).set_index(["rate_per_s", "measure", "percentile"])
    assert table["value"].to_numpy() == pytest.approx(table["measured"].to_numpy())
    assert table.loc[(4.0, "e2e_s", 95), "measured"] == np.percentile(runs[4.0]["runtime_s"].dropna(), 95)
    assert ((table["lower"] < table["value"]) & (table["value"] < table["upper"])).all()


def test_largest_rate_within_an_objective_lies_between_the_runs_around_it():
    # At a requests a second each took a seconds.
    runs = [
        pd.DataFrame({"arrival_s": np.arange(101) / rate, "num_output_tokens": 2, "time_to_first_token_s": rate / 2,
                      "runtime_s": float(rate), "run": rate})
        for rate in (1, 2, 4)
    ]  # fmt: skip
    served = pd.concat(runs, ignore_index=True)
    assert largest_measured_rate(served, Objective.parse("e2e:mean=3")) == pytest.approx(3)
    assert largest_measured_rate(served, Objective.parse("ttft:p95=0.75")) == pytest.approx(1.5)
    assert np.isnan(largest_measured_rate(served, Objective.parse("e2e:mean=5")))
    assert np.isnan(largest_measured_rate(served, Objective.parse("e2e:mean=0.5")))
