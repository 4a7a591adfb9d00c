import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import pandas as pd
from makers import lines_by_label

from idealized_runtime.plots import tradeoffs as plots_tradeoffs

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


def test_frontier_is_rings_joined_by_a_dashed_line_in_order_of_cost():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime")
    frontier = lines_by_label(ax)["Pareto frontier"]
    assert (frontier.get_linestyle(), frontier.get_marker(), frontier.get_fillstyle()) == ("--", "o", "none")
    np.testing.assert_array_equal(frontier.get_xydata(), [[0.5, 0.6], [2.0, 0.9]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Idealized runtime (s)", "Accuracy")
    assert ax.get_xscale() == "log"


def test_points_lie_within_the_limits():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime")
    for name in POINTS["model"]:
        line = lines_by_label(ax)[name]
        assert ax.get_xlim()[0] < line.get_xdata()[0] < ax.get_xlim()[1]


def test_intervals_of_efficiency_are_drawn_where_they_are_given():
    ax = plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime", errors="half_width")
    (bars,) = (bars for bars in ax.collections if bars.get_label() == "95 % interval")
    ends = [segment[:, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[1.8, 2.2], [0.4, 0.6], [0.9, 1.1]])


def test_models_have_the_same_colour_and_marker_of_their_own_in_every_figure():
    points = pd.DataFrame({"hardware": ["a100"] * 3 + ["v100"] * 3, "model": [DAVINCI, LARGE, BLOOM] * 2,
                           "runtime_s": [1.0, 2.0, 3.0, 2.0, 3.0, 4.0]})  # fmt: skip
    figures = (
        plots_tradeoffs.plot_hardware_comparison(points, value="runtime_s"),
        plots_tradeoffs.plot_efficiency_vs_capability(POINTS, metric="idealized_runtime"),
    )
    styles = [
        [(line.get_color(), line.get_marker()) for line in map(lines_by_label(ax).get, (DAVINCI, LARGE, BLOOM))]
        for ax in figures
    ]
    assert styles[0] == styles[1]
    assert all(len({style[part] for style in styles[0]}) == 3 for part in (0, 1))


def test_hardware_comparison_draws_known_points_and_equality():
    points = pd.DataFrame({"hardware": ["a100"] * 3 + ["v100"] * 3, "model": [DAVINCI, LARGE, BLOOM] * 2,
                           "runtime_s": [1.0, 2.0, 3.0, 2.0, 3.0, np.nan]})  # fmt: skip
    ax = plots_tradeoffs.plot_hardware_comparison(points, value="runtime_s")
    lines = lines_by_label(ax)
    assert set(lines) == {DAVINCI, LARGE, "Equal"}
    assert lines[LARGE].get_xydata().tolist() == [[2.0, 3.0]]
    assert lines["Equal"].get_linestyle() == ":"
    np.testing.assert_array_equal(lines["Equal"].get_xdata(), lines["Equal"].get_ydata())
    assert (ax.get_xlim()[0], ax.get_ylim()[0]) == (0, 0)


def test_values_by_model_stand_from_small_to_large_from_the_top():
    points = pd.DataFrame({"model": [BLOOM, DAVINCI], "ratio": [3.0, 2.0], "low": [2.5, 1.0], "high": [4.0, 2.5],
                           "print": [3.1, 1.9]})  # fmt: skip
    ax = plots_tradeoffs.plot_by_model(points, value="ratio", interval=("low", "high"), printed="print",
                                       reference=(1, "Equal"))  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == [DAVINCI, BLOOM]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    (bars,), lines = ax.collections, lines_by_label(ax)
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[1.0, 2.5], [2.5, 4.0]]
    assert lines["Recomputed"].get_xydata().tolist() == [[2.0, 0.0], [3.0, 1.0]]
    np.testing.assert_array_equal(lines["Printed"].get_xdata(), [1.9, 3.1])
    assert set(ax.get_legend_handles_labels()[1]) == {"Equal", "Printed", "Recomputed", "Its 95 % interval"}


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
    assert [text.get_text() for text in legend.get_texts()] == [LARGE, DAVINCI, BLOOM, "Pareto frontier"]
