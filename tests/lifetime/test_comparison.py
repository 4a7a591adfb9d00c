from dataclasses import replace

import numpy as np
import pytest

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.lifetime.bootstrap import UnreachableLossError
from idealized_runtime.lifetime.comparison import (
    SIZING,
    Assumptions,
    chinchilla_ratio_maps,
    compare_servings,
    compare_with_guess,
    sizing_table,
)
from idealized_runtime.lifetime.costs import flop_costs, rent
from idealized_runtime.lifetime.electricity import Electricity
from idealized_runtime.lifetime.measured import MeasuredQueryCost, QueryCost
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.lifetime.scaling_law import get_scaling_law
from idealized_runtime.lifetime.size_curve import SizeCurve
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.queries.mix import QueryMix

LAW = get_scaling_law()
ASSUMPTIONS = Assumptions(rent("A100_80", "bf16"), rent("a100", "fp16"))
DEMANDS = np.geomspace(1e6, 1e11, 6)


@pytest.fixture(scope="module")
def query_cost():
    return MeasuredQueryCost.fit(read_profiles(ROOT / "processed_jsons" / "a100.json"), QueryMix.from_means(200, 60))


@pytest.fixture(scope="module")
def table(query_cost):
    return compare_with_guess(LAW, 2.1, DEMANDS, query_cost, ASSUMPTIONS)


def make_law_draws(spread, num_draws=200):
    draws = np.random.default_rng(0).standard_normal(num_draws)
    return replace(
        LAW, **{name: getattr(LAW, name) * np.exp(spread * draws) for name in ("A", "B", "E", "alpha", "beta")}
    )


def test_estimates_lie_between_their_bounds(table):
    for name in ("num_params", "num_training_tokens", "cost_usd", "num_params_moves", "cost_usd_moves"):
        assert np.all(table[f"{name}_lower"] < table[name]), name
        assert np.all(table[name] < table[f"{name}_upper"]), name


def test_guess_never_costs_less_than_the_measured_optimum(table):
    assert np.all(table[["excess_cost", "excess_cost_lower"]] >= -1e-9)
    np.testing.assert_allclose(table["excess_cost"], table["cost_of_guess_usd"] / table["cost_usd"] - 1)


def test_published_a100_make_inference_dearer_and_the_model_smaller_than_guessed(table):
    # Tokens run at 0.1 to 0.4 % of the peak, not at 1 %.
    assert np.all(table["cost_usd_moves_lower"] > 1)
    assert table["cost_usd_moves"].is_monotonic_increasing
    assert np.all(table["num_params_moves"] < 1)


def test_guess_has_no_interval_without_draws_of_the_law(table):
    np.testing.assert_allclose(table["guessed_num_params_lower"], table["guessed_num_params_upper"])


def test_error_of_the_scaling_law_widens_the_intervals(table, query_cost):
    wide = compare_with_guess(LAW, 2.1, DEMANDS, query_cost, ASSUMPTIONS, law_draws=make_law_draws(0.01))
    ratios = [(frame["num_params_upper"] / frame["num_params_lower"]).to_numpy() for frame in (wide, table)]
    assert np.all(ratios[0] > ratios[1])
    assert (wide["share_of_law_draws"] == 1).all()


def test_draws_that_do_not_reach_the_loss_are_left_out_and_counted(query_cost):
    some = compare_with_guess(LAW, 1.8, 1e9, query_cost, ASSUMPTIONS, law_draws=make_law_draws(0.06))
    assert 0.5 < some["share_of_law_draws"].item() < 1
    with pytest.raises(UnreachableLossError, match=r"loss 1.7 is reached by .* give a higher loss; the median E is"):
        compare_with_guess(replace(LAW, E=1.5), 1.7, 1e9, query_cost, ASSUMPTIONS, law_draws=make_law_draws(0.2))


def test_losses_and_demands_pair_up(query_cost):
    table = compare_with_guess(LAW, [2.1, 2.3], 1e9, query_cost, ASSUMPTIONS)
    assert table["loss"].tolist() == [2.1, 2.3]
    assert table["num_params"].is_monotonic_decreasing


def test_optimum_outside_the_measured_sizes_is_marked(query_cost):
    table = compare_with_guess(LAW, [2.1, 3.3], 1e9, query_cost, ASSUMPTIONS)
    assert table["is_extrapolated"].tolist() == [False, True]


def test_table_of_a_row_has_the_numbers_of_the_row(table):
    row = table.iloc[2]
    found = sizing_table(row)
    assert found.index.tolist() == list(SIZING)
    assert found.loc["num_params"].tolist() == [
        row["guessed_num_params"],
        *row[["num_params", "num_params_lower", "num_params_upper"]],
        *row[["num_params_moves", "num_params_moves_lower", "num_params_moves_upper"]],
    ]
    np.testing.assert_allclose(found["moves"], found["measured"] / found["guessed"])


def test_ratio_map_has_the_published_ratios_of_its_pair():
    # The example of arXiv:2401.00448's code: loss 1.947, 2e12 tokens served.
    demands = [1e10, 2e12]
    maps = chinchilla_ratio_maps(LAW, [1.947, 2.2], demands, flop_costs(np.array(demands)))
    found = [ratios.loc[1.947, 2e12] for ratios in maps.values()]
    assert found == pytest.approx([0.7096, 1.4677, 0.9522], abs=1e-4)


ELECTRICITY = Electricity(DeviceRate.exactly(300), DeviceRate.exactly(200), pue=1.5, kg_co2e_per_kwh=0.1)


@pytest.fixture(scope="module")
def servings(query_cost):
    """One query at a time as measured, and ten at once in the same time."""
    curve = query_cost.per_query
    ten = QueryCost(query_cost.mix, SizeCurve.fit(curve.num_params, curve.costs / 10))
    return {"batch_1": query_cost, "planned": ten}


@pytest.fixture(scope="module")
def served(servings):
    return compare_servings(LAW, 2.1, 1e9, servings, ASSUMPTIONS, electricity=ELECTRICITY)


def test_costs_by_each_way_are_those_by_hand(served, servings):
    training, inference = ASSUMPTIONS.training, ASSUMPTIONS.inference
    for name, curve in servings.items():
        row, per_query = served.loc[name], curve.per_query
        flops = 6 * row["num_params"] * row["num_training_tokens"]
        training_hours = flops / (0.5 * training.accelerator.peak_flops("bfloat16")) / 3600
        inference_hours = 1e9 * per_query(row["num_params"]) / 3600
        assert row["training_usd"] == pytest.approx(training_hours * training.price_usd_per_hour)
        assert row["inference_usd"] == pytest.approx(inference_hours * inference.price_usd_per_hour)
        assert row["cost_usd"] == pytest.approx(row["training_usd"] + row["inference_usd"])
        assert row["energy_kwh"] == pytest.approx(1.5 * (0.3 * training_hours + 0.2 * inference_hours))
        assert row["co2e_kg"] == pytest.approx(0.1 * row["energy_kwh"])


def test_each_way_is_what_it_is_beside_the_guess_alone(served, servings):
    for name, query_cost in servings.items():
        alone = compare_with_guess(LAW, 2.1, 1e9, query_cost, ASSUMPTIONS).iloc[0]
        for quantity in SIZING:
            for side in ("", "_lower", "_upper"):
                assert served.loc[name, f"{quantity}{side}"] == pytest.approx(alone[f"{quantity}{side}"]), quantity
            assert served.loc["guessed", quantity] == pytest.approx(alone[f"guessed_{quantity}"])


def test_no_size_costs_less_than_the_one_planned_for(served):
    assert served.loc["planned", "excess_cost"] == 0
    assert (served["excess_cost"] >= 0).all()
    assert (served["excess_cost_lower"] >= -1e-9).all()


def test_cheaper_serving_makes_the_cheapest_model_larger(served):
    assert served.loc["planned", "num_params"] > served.loc["batch_1", "num_params"]


def test_guess_has_bounds_with_draws_of_the_law_alone(servings, served):
    drawn = compare_servings(LAW, 2.1, 1e9, servings, ASSUMPTIONS, law_draws=make_law_draws(0.01))
    assert np.isnan(served.loc["guessed", "num_params_lower"])
    assert drawn.loc["guessed", "num_params_lower"] < drawn.loc["guessed", "num_params_upper"]


def test_watts_that_are_not_known_leave_energy_out(servings):
    assert "energy_kwh" not in compare_servings(LAW, 2.1, 1e9, servings, ASSUMPTIONS)
