import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from idealized_runtime.comparisons.capability import frontier_table
from idealized_runtime.plots.stacks import (
    add_proportional_axis,
    capability_legend,
    plot_capability_frontier,
    plot_speed_ups,
)


def make_speed_ups(speed_up):
    columns = {"baseline_s": [1.0, 2.0], "speed_up": speed_up, "speed_up_lower": 0.9, "speed_up_upper": 60.0}
    return pd.DataFrame({"model": ["a", "b"], **columns})


def make_points():
    rows = {"llama-x": (1.0, 0.9, 1.1, 60.0, True), "qwen-y": (2.0, 1.8, 2.2, 70.0, False)}
    rows |= {"bloom": (3.0, 2.9, 3.1, 40.0, True)}
    columns = ["cost", "cost_lower", "cost_upper", "mmlu_percent", "is_measured"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


@pytest.fixture
def drawn():
    points = make_points()
    return plot_capability_frontier(points, frontier_table(points, "cost"), value="cost")


def test_speed_ups_are_drawn_a_colour_a_model_with_intervals_and_a_line_at_one():
    ax = plot_speed_ups(make_speed_ups([2.0, 3.0]))
    assert set(ax.get_legend_handles_labels()[1]) == {"a", "b", "as the baseline"}
    (segment,) = ax.collections[0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.9, 60.0])
    assert [1, 1] in [list(line.get_ydata()) for line in ax.lines]


@pytest.mark.parametrize("endless", [60.0, float("inf")])
def test_axis_of_speed_ups_holds_points_and_baseline_but_no_endless_bar(endless):
    ax = plot_speed_ups(make_speed_ups([2.0, 3.0]).assign(speed_up_upper=endless))
    low, high = ax.get_ylim()
    assert low < 1
    assert 3 < high < 10


def test_model_has_its_colour_in_every_panel():
    table = make_speed_ups([2.0, 3.0])
    colors = [
        dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))["b"].lines[0].get_color()
        for ax in (plot_speed_ups(part, models=["a", "b"]) for part in (table, table.iloc[1:]))
    ]
    assert colors[0] == colors[1]


def test_measured_models_are_filled_and_predicted_ones_hollow(drawn):
    markers = [line for line in drawn.lines if line.get_linestyle() == "None"]
    assert [line.get_markerfacecolor() == "white" for line in markers] == [False, True, False]


def test_frontier_is_joined_and_named_and_so_is_what_was_timed(drawn):
    (frontier,) = [line for line in drawn.lines if line.get_linestyle() == "--"]
    assert frontier.get_ydata().tolist() == [60.0, 70.0]
    assert {text.get_text() for text in drawn.texts} == {"llama-x", "qwen-y", "bloom"}


@pytest.mark.parametrize("is_measured", [False, True])
def test_names_of_models_that_score_alike_stand_below_each_other(is_measured):
    scores = {1: 30, 2: 70, 3: 71, 4: 72}
    costs = {f"llama-{cost}": (cost, 0.99 * cost, 1.01 * cost, score, is_measured) for cost, score in scores.items()}
    points = pd.DataFrame.from_dict(costs, orient="index", columns=make_points().columns)
    ax = plot_capability_frontier(points, frontier_table(points, "cost"), value="cost")
    heights = [text.get_position()[1] for text in ax.texts]
    # As far from each other as the text needs, about the middle of their scores.
    assert np.diff(heights).min() > 0.03 * 42
    assert np.mean(heights[1:]) == pytest.approx(71)


def test_timed_models_that_are_beaten_are_named_to_their_right_apart():
    scores = {"llama-a": 80, "qwen-b": 70, "qwen-c": 70.1, "gemma-d": 60}
    costs = {name: (cost, 0.9 * cost, 1.1 * cost, score, True) for cost, (name, score) in enumerate(scores.items(), 1)}
    points = pd.DataFrame.from_dict(costs, orient="index", columns=make_points().columns)
    ax = plot_capability_frontier(points, frontier_table(points, "cost"), value="cost")
    names = {text.get_text(): text.get_position() for text in ax.texts}
    assert names["llama-a"][0] < 1
    assert all(names[name][0] > points.loc[name, "cost_upper"] for name in ("qwen-b", "qwen-c", "gemma-d"))
    assert names["qwen-c"][1] - names["qwen-b"][1] > 0.03 * 20


def test_intervals_are_drawn_as_bars(drawn):
    ends = [collection.get_segments()[0][:, 0].tolist() for collection in drawn.collections]
    assert ends == [[0.9, 1.1], [1.8, 2.2], [2.9, 3.1]]


def test_legend_names_the_series_that_are_drawn():
    labels = [handle.get_label() for handle in capability_legend(make_points())]
    assert labels[:5] == ["Llama", "Qwen", "others", "timed", "predicted"]
    assert labels[5:] == ["likely on the frontier", "95 % interval", "Pareto frontier"]


def test_proportional_axis_shows_multiples_of_the_first():
    figure, ax = plt.subplots()
    ax.set(xscale="log", xlim=(1, 10))
    add_proportional_axis(ax, 5.0, "five times")
    figure.canvas.draw()
    (top,) = ax.child_axes
    assert top.get_xlim() == pytest.approx((5, 50))
    assert top.get_xlabel() == "five times"
