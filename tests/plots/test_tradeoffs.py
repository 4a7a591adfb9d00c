import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import pandas as pd
from makers import lines_by_label

from idealized_runtime.plots import tradeoffs as plots_tradeoffs
from idealized_runtime.reproductions.paper.models import PAPER_MODELS

DAVINCI, LARGE, BLOOM = "OpenAI/davinci", "AI21/J1-Large v1", "BigScience/BLOOM"
POINTS = pd.DataFrame(
    {
        "model": [DAVINCI, LARGE, BLOOM],
        "value": [2.0, 0.5, 1.0],
        "accuracy": [0.9, 0.6, 0.5],
        "on_frontier": [True, True, False],
        "half_width": [0.2, 0.1, 0.1],
    }
)


def test_frontier_is_squares_joined_by_a_dashed_line_in_order_of_cost():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime")
    lines = lines_by_label(ax)
    assert {name: lines[name].get_marker() for name in POINTS["model"]} == {DAVINCI: "s", LARGE: "s", BLOOM: "o"}
    assert lines["_frontier"].get_linestyle() == "--"
    np.testing.assert_array_equal(lines["_frontier"].get_xydata(), [[0.5, 0.6], [2.0, 0.9]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Idealized runtime (s)", "Accuracy")
    assert ax.get_xscale() == "log"


def test_a_frontier_of_one_point_has_no_line():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS.iloc[1:], metric="idealized_cost")
    assert "_frontier" not in lines_by_label(ax)


def test_points_have_the_colours_of_their_models_and_lie_within_the_limits():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime")
    for name in POINTS["model"]:
        line = lines_by_label(ax)[name]
        assert mpl.colors.same_color(line.get_color(), PAPER_MODELS[name].color)
        assert ax.get_xlim()[0] < line.get_xdata()[0] < ax.get_xlim()[1]


def test_intervals_of_efficiency_are_drawn_where_they_are_given():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime", errors="half_width")
    ends = [line.get_xdata() for line in ax.lines if line.get_label() == "_interval"]
    np.testing.assert_allclose(ends, [[1.8, 2.2], [0.4, 0.6], [0.9, 1.1]])


def test_colours_tell_the_models_apart():
    colors = {mpl.colors.to_hex(row.color) for row in PAPER_MODELS.values()}
    assert len(colors) == 10


def test_hardware_comparison_draws_known_points_and_equality():
    points = pd.DataFrame({"hardware": ["a100"] * 3 + ["v100"] * 3, "model": [DAVINCI, LARGE, BLOOM] * 2,
                           "runtime_s": [1.0, 2.0, 3.0, 2.0, 3.0, np.nan]})  # fmt: skip
    ax = plots_tradeoffs.plot_hardware_comparison(points, value="runtime_s")
    lines = lines_by_label(ax)
    assert set(lines) == {DAVINCI, LARGE, "_equal"}
    assert lines[LARGE].get_xydata().tolist() == [[2.0, 3.0]]
    assert lines["_equal"].get_linestyle() == ":"
    np.testing.assert_array_equal(lines["_equal"].get_xdata(), lines["_equal"].get_ydata())
    assert (ax.get_xlim()[0], ax.get_ylim()[0]) == (0, 0)


def test_values_by_model_stand_in_the_order_of_table_1_from_the_top():
    points = pd.DataFrame({"model": [BLOOM, DAVINCI], "ratio": [3.0, 2.0], "low": [2.5, 1.0], "high": [4.0, 2.5],
                           "print": [3.1, 1.9]})  # fmt: skip
    ax = plots_tradeoffs.plot_by_model(points, value="ratio", interval=("low", "high"), printed="print", reference=1)
    assert [label.get_text() for label in ax.get_yticklabels()] == [DAVINCI, BLOOM]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    bars, dots = ax.collections
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[1.0, 2.5], [2.5, 4.0]]
    assert dots.get_offsets().tolist() == [[2.0, 0.0], [3.0, 1.0]]
    np.testing.assert_array_equal(lines_by_label(ax)["printed"].get_xdata(), [1.9, 3.1])


def test_probabilities_are_written_no_surer_than_draws_make_them():
    assert [plots_tradeoffs.probability_text(p) for p in (0.0, 0.0004, 0.53, 0.9996, 1.0, np.nan)] == [
        "0", "< 0.01", "0.53", "> 0.99", "1", "",
    ]  # fmt: skip
    table = pd.DataFrame({"imdb": [0.0, 1.0], "boolq": [0.25, 0.5]}, index=[DAVINCI, BLOOM])
    ax = plots_tradeoffs.plot_frontier_probabilities(table)
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "0", (1, 0): "0.25", (0, 1): "1", (1, 1): "0.50",
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_xticklabels()] == ["IMDB", "BoolQ"]


def test_ranks_are_drawn_first_row_on_top_with_their_intervals():
    ranks = pd.DataFrame({"imdb": [1, 2], "boolq": [2, 1]}, index=[LARGE, DAVINCI])
    intervals = pd.DataFrame({"task": "imdb", "model": [DAVINCI, LARGE], "lower": [2, 1], "upper": [2, 2]})
    intervals = pd.concat([intervals, intervals.assign(task="boolq", lower=1, upper=1)])
    ax = plots_tradeoffs.plot_ranks(ranks, intervals)
    lines = lines_by_label(ax)
    assert lines["IMDB"].get_xdata().tolist() == [1, 2]
    assert (lines["IMDB"].get_marker(), lines["BoolQ"].get_marker()) == ("s", "^")
    assert lines["IMDB"].get_color() != lines["BoolQ"].get_color()
    bars = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert bars == [[1, 2], [2, 2]]
    assert [label.get_text() for label in ax.get_yticklabels()] == [LARGE, DAVINCI]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_savings_have_a_line_a_column_and_the_published_point():
    table = pd.DataFrame({1.0: [1.0, 2.0], 40.0: [1.0, 1.5]}, index=pd.Index([1, 10], name="Trials"))
    ax = plots_tradeoffs.plot_savings(table.rename_axis(columns="API price"), printed=(5, 1.7))
    lines = lines_by_label(ax)
    np.testing.assert_array_equal(lines["40"].get_xydata(), [[1, 1], [10, 1.5]])
    np.testing.assert_array_equal(lines["published"].get_xydata(), [[5, 1.7]])
    assert ax.get_legend().get_title().get_text() == "API price"
    assert ax.get_xlabel() == "Trials"


def test_a_grid_has_a_row_a_metric_a_titled_column_a_task_and_one_legend():
    figure, axes = plots_tradeoffs.task_grid(["idealized_runtime", "idealized_cost"], ["imdb", "boolq"])
    for (metric, _), ax in axes.items():
        plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric=metric, ax=ax)
    plots_tradeoffs.finish_grid(figure, axes)
    assert [ax.get_title() for ax in axes.values()] == ["IMDB", "BoolQ", "", ""]
    assert [ax.get_ylabel() for ax in axes.values()] == ["Accuracy", "", "Accuracy", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [DAVINCI, LARGE, BLOOM]
