import numpy as np
import pandas as pd
import pytest
from makers import lines_by_label

from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.plots.prediction import (
    plot_floor_distances,
    plot_predictions,
    plot_prompt_errors,
    plot_token_errors,
)
from idealized_runtime.prediction import leave_one_model_out, left_out_table


@pytest.fixture(scope="module")
def left_out():
    return leave_one_model_out(read_timed_models("cpu").values())


def row_names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_floor_distances_are_drawn_a_row_a_model_with_the_first_on_top():
    table = pd.DataFrame({"token_over_floor": [1.2, 1.4], "prompt_over_floor": [1.5, 2.0]}, index=["a", "b"])
    ax = plot_floor_distances(table)
    assert [line.get_xdata().tolist() for line in ax.lines[:2]] == [[1.2, 1.4], [1.5, 2.0]]
    assert row_names(ax) == ["a", "b"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert (ax.get_xscale(), plot_floor_distances(20 * table).get_xscale()) == ("linear", "log")


def test_token_errors_are_those_of_the_table_within_the_axis(left_out):
    ax = plot_token_errors(left_out, target_percent=15)
    drawn = ax.lines[-1].get_xdata()
    assert drawn == pytest.approx(left_out_table(left_out)["time_per_output_token"])
    assert np.abs(drawn).max() < ax.get_xlim()[1] == -ax.get_xlim()[0]
    assert row_names(ax) == list(left_out)


def test_prompt_errors_reach_over_all_sizes_of_a_model(left_out):
    ax = plot_prompt_errors(left_out)
    every_size = lines_by_label(ax)["all prompt sizes"].get_xdata()
    percent = 100 * np.expm1(next(iter(left_out.values())).log_errors()[0])
    assert list(every_size) == pytest.approx([percent.min(), percent.max()])


def test_predictions_are_drawn_with_their_intervals():
    table = pd.DataFrame({"runtime_s": [2.0], "runtime_s_lower": [1.5], "runtime_s_upper": [3.0]}, index=["a"])
    ax = plot_predictions(table)
    (segment,) = ax.collections[0].get_segments()
    assert segment[:, 0].tolist() == [1.5, 3.0]
    assert ax.get_xlabel() == "Predicted runtime (s), 95 % interval"
