import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from idealized_runtime.lifetime import chinchilla_ratio_maps, flop_costs
from idealized_runtime.lifetime.comparison import Assumptions, compare_with_guess
from idealized_runtime.lifetime.costs import rent
from idealized_runtime.lifetime.measured import MeasuredQueryCost, profile_table
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.lifetime.scaling_law import get_scaling_law
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.plots import make_panels
from idealized_runtime.plots.lifetime import (
    plot_against_demand,
    plot_cost_vs_size,
    plot_loss_errors,
    plot_loss_vs_tokens_per_param,
    plot_ratio_map,
    plot_size_curve,
    plot_utilization,
)
from idealized_runtime.queries.mix import QueryMix

LAW = get_scaling_law()
PEAK = 312e12


@pytest.fixture(scope="module")
def query_cost():
    return MeasuredQueryCost.fit(read_profiles(ROOT / "processed_jsons" / "a100.json"), QueryMix.from_means(200, 60))


@pytest.fixture(scope="module")
def assumptions():
    return Assumptions(rent("A100_80", "bf16"), rent("a100", "fp16"))


@pytest.fixture(scope="module")
def comparison(query_cost, assumptions):
    # The last optimum lies below the smallest measured model.
    return compare_with_guess(LAW, 2.4, [1e6, 1e8, 1e11], query_cost, assumptions, num_draws=100)


@pytest.fixture
def runs():
    sizes, ratio = (grid.ravel() for grid in np.meshgrid([1e8, 1e9], [10.0, 100.0, 1000.0]))
    runs = pd.DataFrame({"num_params": sizes, "num_training_tokens": ratio * sizes})
    return runs.assign(loss=LAW.loss(sizes, ratio * sizes))


def lines_of(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def test_lines_of_equal_ratio_are_labelled_in_per_cent():
    demands, losses = np.geomspace(1e9, 1e13, 30), np.linspace(2.0, 2.6, 20)
    ratios = pd.DataFrame(np.outer(np.ones(20), np.linspace(1.0, 0.25, 30)), index=losses, columns=demands)
    ax = plot_ratio_map(ratios)
    assert {text.get_text() for text in ax.texts} == {"30 %", "50 %", "70 %", "90 %", "98 %"}
    # Better models on top.
    assert ax.get_ylim() == (2.6, 2.0)


def test_label_of_a_line_in_a_corner_is_not_cut_by_the_edge():
    losses, demands = np.linspace(1.9, 2.6, 40), np.geomspace(1e9, 1e14, 50)
    *_, flops = chinchilla_ratio_maps(get_scaling_law("chinchilla"), losses, demands, flop_costs(demands)).values()
    _, axes = make_panels(["a", "b", "c"])
    for ax in axes.values():
        plot_ratio_map(flops, ax=ax).figure.canvas.draw()
        (label,) = [text for text in ax.texts if text.get_text() == "20 %"]
        frame, box = ax.get_window_extent(), label.get_window_extent()
        assert (frame.x0 < box.x0, box.x1 < frame.x1, frame.y0 < box.y0, box.y1 < frame.y1) == (True,) * 4


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_no_difference_is_white_whatever_the_range(ratio):
    ratios = pd.DataFrame([[1.0, ratio], [1.0, ratio]], index=[2.0, 2.5], columns=[1e9, 1e12])
    (mesh, *_) = plot_ratio_map(ratios).collections
    assert mesh.norm(0.0) == pytest.approx(0.5)


def test_losses_of_each_size_are_points_on_the_line_of_the_law(runs):
    ax = plot_loss_vs_tokens_per_param(runs, LAW)
    for size, label in ((1e8, "100 M"), (1e9, "1 B")):
        (points,) = lines_of(ax, label)
        np.testing.assert_allclose(points.get_xdata(), [10, 100, 1000])
        np.testing.assert_allclose(points.get_ydata(), LAW.loss(size, size * np.array([10, 100, 1000])))
        (line,) = [line for line in ax.lines if line.get_color() == points.get_color() and line is not points]
        np.testing.assert_allclose(np.interp(100, line.get_xdata(), line.get_ydata()), points.get_ydata()[1], rtol=1e-3)


def test_error_of_a_law_is_positive_where_it_predicts_too_high_a_loss(runs):
    ax = plot_loss_errors(runs.assign(loss=runs["loss"] / 1.02), {"chinchilla": LAW})
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), 2.0)
    assert ax.lines[-1].get_label() == "chinchilla (median 2.0 %)"


def test_size_curve_is_solid_over_the_measured_sizes_and_dashed_beyond(query_cost):
    curve = query_cost.per_query
    ax = plot_size_curve(curve, num_params=(1e8, 1e12))
    (points,), (line,), (dashed,) = (
        lines_of(ax, name) for name in ("Measured model", "Regression", "Outside the measured sizes")
    )
    np.testing.assert_array_equal(points.get_ydata(), curve.costs)
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == pytest.approx((curve.num_params[0], curve.num_params[-1]))
    assert (dashed.get_xdata()[0], dashed.get_xdata()[-1]) == pytest.approx((1e8, 1e12))
    assert dashed.get_linestyle() == "--"


def test_ways_of_serving_stand_in_one_panel_by_label_and_colour(comparison):
    ax = plot_against_demand(comparison, value="num_params", label="Batch 1")
    plot_against_demand(comparison.assign(num_params=2 * comparison["num_params"]), value="num_params",
                        label="Planned", color="blue", ax=ax)  # fmt: skip
    (alone,), (planned,) = lines_of(ax, "Batch 1"), lines_of(ax, "Planned")
    np.testing.assert_array_equal(planned.get_ydata(), 2 * alone.get_ydata())
    assert planned.get_color() == "blue"


def test_measured_utilization_stands_beside_the_guess(query_cost, assumptions):
    ax = plot_utilization(query_cost, PEAK, assumptions)
    (points,), (guess,) = (lines_of(ax, f"Output tokens, {name}") for name in ("measured", "guessed"))
    np.testing.assert_array_equal(points.get_ydata(), profile_table(query_cost, PEAK)["output_tokens"])
    assert set(guess.get_ydata()) == {assumptions.output_mfu}


def test_optima_outside_the_measured_sizes_are_dashed(comparison):
    assert comparison["is_extrapolated"].tolist() == [False, False, True]
    ax = plot_against_demand(comparison, value="num_params", guessed="guessed_num_params")
    (solid,), (dashed,), (guess,) = (
        lines_of(ax, name) for name in ("Measured", "Outside the measured sizes", "Guessed")
    )
    np.testing.assert_array_equal(np.isnan(solid.get_ydata()), [False, False, True])
    np.testing.assert_array_equal(dashed.get_ydata(), comparison["num_params"])
    np.testing.assert_array_equal(guess.get_ydata(), comparison["guessed_num_params"])
    (band,) = [artist for artist in ax.collections if isinstance(artist, PolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(comparison["num_params_lower"].min())


def test_cheapest_size_is_the_lowest_point_of_the_drawn_cost(comparison, query_cost, assumptions):
    row = comparison.iloc[1]
    ax = plot_cost_vs_size(LAW, row, query_cost, assumptions)
    (both,), (cheapest,) = (lines_of(ax, name) for name in ("Both, measured", "Cheapest size"))
    lowest = np.argmin(both.get_ydata())
    assert both.get_xdata()[lowest] == pytest.approx(cheapest.get_xdata()[0], rel=0.03)
    assert both.get_ydata()[lowest] == pytest.approx(cheapest.get_ydata()[0], rel=1e-3)
    bottom, top = ax.get_ylim()
    assert bottom < both.get_ydata().min() / 10
    assert 5 * row["cost_usd"] < top < 50 * row["cost_usd"]
    (span,) = ax.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx(
        (row["num_params_lower"], row["num_params_upper"])
    )


def test_sizes_are_labelled_in_words(comparison, query_cost, assumptions):
    ax = plot_cost_vs_size(LAW, comparison.iloc[1], query_cost, assumptions)
    ax.figure.canvas.draw()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert all(label.endswith((" M", " B")) for label in labels)
