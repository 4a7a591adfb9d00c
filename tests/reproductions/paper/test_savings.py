import numpy as np
import pandas as pd
import pytest

from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.reproductions.paper import savings as cost_analysis
from idealized_runtime.reproductions.paper.savings import (
    BenchmarkCosts,
    denoised_savings,
    idealized_savings,
)

COSTS = BenchmarkCosts(api_usd=100.0, estimable_api_usd=60.0, device_runtime_s=7200.0)
PRICES_USD = {"prompt_price_usd": 0.0015, "output_price_usd": 0.002}


def test_api_cost_is_by_the_thousand_tokens():
    grid = pd.DataFrame({"num_prompt_tokens": [1000, 3000], "num_output_tokens": [1000, 1000]})
    assert cost_analysis.profiling_api_cost_usd(grid, prompt_price_usd=1.0, output_price_usd=2.0) == 8.0


def test_costs_are_recovered_from_the_sums_that_follow_from_them():
    trials = {"num_api_trials": 4, "num_device_trials": 5}
    # At $7.2 an hour, five trials of a second cost a cent.
    costs = BenchmarkCosts.from_printed(
        api_baseline_usd=400.0,
        device_baseline_usd=60.0 + 72.0,
        device_estimate_usd=60.0 + 3.0,
        profiling_runtime_s=300.0,
        device_price_usd_per_hour=7.2,
        **trials,
    )
    assert vars(costs) == pytest.approx(vars(COSTS))


def test_denoised_savings_are_the_trials_when_profiling_is_free():
    assert denoised_savings(100.0, 0.0, num_trials=10) == 10
    assert denoised_savings(100.0, 10.0, num_trials=10) == 5
    assert denoised_savings(100.0, 10.0, num_trials=10, num_profiling_trials=90) == 1


def test_idealized_savings_approach_the_ratio_of_runtimes_with_many_trials():
    factors = idealized_savings(COSTS, 72.0, num_trials=np.array([1e-9, 1.0, 1e9]), price_usd_per_hour=30.0)
    assert factors[0] == pytest.approx(1)
    assert factors[1] == pytest.approx((60 + 60) / (60 + 0.6))
    assert factors[2] == pytest.approx(100)


def test_dearer_apis_lower_idealized_savings():
    options = {"num_trials": 50, "price_usd_per_hour": 40.0}
    cheap = idealized_savings(COSTS.with_api_price(0.1), 72.0, **options)
    dear = idealized_savings(COSTS.with_api_price(10), 72.0, **options)
    assert cheap > idealized_savings(COSTS, 72.0, **options) > dear > 1


def test_tables_hold_the_savings_they_name():
    table = cost_analysis.denoised_savings_table(COSTS, 1.0, sizes=[0.1, 1], num_trials=[2, 10])
    assert table.loc[0.1, 10] == denoised_savings(10.0, 1.0, num_trials=10)
    table = cost_analysis.idealized_savings_table(COSTS, 72.0, num_trials=[1, 50], device_prices_usd=[1, 40])
    assert table.loc[50, 40] == idealized_savings(COSTS, 72.0, num_trials=50, price_usd_per_hour=40)
    assert table.columns.name == "Accelerators ($/h)"
    table = cost_analysis.idealized_savings_table(COSTS, 72.0, num_trials=[50], api_factors=[1, 3])
    assert table.loc[50, 3] == idealized_savings(COSTS.with_api_price(3), 72.0, num_trials=50, price_usd_per_hour=40.96)
    with pytest.raises(ValueError, match="not both"):
        cost_analysis.idealized_savings_table(COSTS, 72.0, num_trials=[1], device_prices_usd=[1, 2], api_factors=[1, 2])


def test_break_even_is_where_both_take_as_long():
    assert cost_analysis.break_even_num_queries(500.0, 0.5) == 1000
    assert cost_analysis.break_even_num_queries(500.0, 0.5, num_trials=10, num_profiling_trials=50) == 5000


@pytest.fixture(scope="module")
def grid(published):
    return read_timed_models("a100", ["davinci"])["davinci"].runtimes


@pytest.fixture(scope="module")
def printed_costs(grid):
    return BenchmarkCosts.from_printed(
        api_baseline_usd=4176.34,
        device_baseline_usd=31128.26,
        device_estimate_usd=545.24,
        profiling_runtime_s=grid["runtime_s"].sum() + 0.227 + 5.356,
        num_api_trials=10,
        num_device_trials=50,
        device_price_usd_per_hour=40.96,
    )


def test_published_denoised_savings_follow_from_the_grid_through_the_api(grid, printed_costs):
    profiling_usd = cost_analysis.profiling_api_cost_usd(grid, **PRICES_USD)
    assert round(denoised_savings(printed_costs.api_usd, profiling_usd, num_trials=10), 2) == 9.93


def test_published_denoised_savings_of_the_other_version_follow_from_the_grid_on_gpus(grid, printed_costs):
    device_usd = (grid["runtime_s"].sum() + 0.227 + 5.356) * 50 * 40.96 / 3600
    factor = denoised_savings(printed_costs.api_usd, device_usd, num_trials=10, num_profiling_trials=1)
    assert round(factor, 2) == 5.87


def test_published_idealized_savings_follow_to_the_cents_they_are_computed_from(grid, printed_costs):
    factor = idealized_savings(printed_costs, grid["runtime_s"].sum(), num_trials=50, price_usd_per_hour=40.96)
    # The sums are printed to the cent; half a cent more of estimate moves the factor by 0.0005.
    assert factor == pytest.approx(57.42, abs=0.005 + 0.0006)
