import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from makers import lines_by_label

from idealized_runtime.plots.api import (
    plot_estimators,
    plot_load,
    plot_runtime_pairs,
    plot_runtimes_over_time,
    plot_trial_runtimes,
    share_legend,
)


def test_every_trial_stands_in_the_row_of_its_output_tokens():
    trials = pd.DataFrame({"num_output_tokens": [64, 1, 1, 8], "runtime_s": [3.0, 0.5, 0.4, 1.0]})
    ax = plot_trial_runtimes(trials)
    lines = lines_by_label(ax)
    assert lines["one trial"].get_ydata().tolist() == [2, 0, 0, 1]
    assert lines["minimum"].get_xdata().tolist() == [0.4, 1.0, 3.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "8", "64"]
    # One output token is on top.
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert ax.get_xlabel() == "Runtime (s)"


def make_load():
    return pd.DataFrame(
        {
            "num_output_tokens": [1, 1, 1, 64, 64, 64],
            "num_parallel_queries": [2, 1, 32, 1, 2, 32],
            "runtime_s": [0.2, 0.1, 0.3, 1.0, 2.0, 3.0],
            "slowdown": [2.0, 1.0, 3.0, 1.0, 2.0, 3.0],
        }
    )


def test_load_is_drawn_in_order_a_line_a_number_of_output_tokens():
    ax = plot_load(make_load())
    lines = lines_by_label(ax)
    assert lines["1"].get_xdata().tolist() == [1, 2, 32]
    assert lines["1"].get_ydata().tolist() == [0.1, 0.2, 0.3]
    assert set(lines) == {"1", "64"}
    assert ax.get_ylim()[0] == 0
    assert ax.get_xscale() == "log"


def test_predicted_loads_are_the_lines_and_measured_ones_the_points():
    predicted = make_load().assign(runtime_s=lambda load: 2 * load["runtime_s"])
    ax = plot_load(make_load(), predicted=predicted)
    assert lines_by_label(ax)["64"].get_linestyle() == "None"
    (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_ydata()[0] == 2.0]
    assert dashed.get_xdata().tolist() == [1, 2, 32]
    assert dashed.get_marker() in ("", "None")


def test_load_can_be_drawn_as_a_slowdown_of_some_sizes():
    ax = plot_load(make_load().query("num_output_tokens == 64"), value="slowdown")
    assert list(lines_by_label(ax)) == ["64"]
    assert ax.get_ylabel() == "Slowdown"


def test_dates_are_labelled_by_month_and_day():
    dates = pd.to_datetime(["2022-09-05", "2022-08-29"])
    ax = plot_runtimes_over_time(pd.DataFrame({"num_output_tokens": 1, "date": dates, "runtime_s": [0.2, 0.1]}))
    assert lines_by_label(ax)["1"].get_ydata().tolist() == [0.1, 0.2]
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["08-29", "09-05"]
    assert ax.get_xlabel() == "Date in 2022"


def test_pairs_have_the_colours_of_the_paper_and_the_line_of_equality():
    points = pd.DataFrame(
        {
            "provider": ["OpenAI", "AI21 Labs", "other", "other"],
            "x_runtime_s": [1.0, 2.0, 3.0, 10.0],
            "y_runtime_s": [0.5, 2.5, 1.0, 4.0],
        }
    )
    ax = plot_runtime_pairs(points, xlabel="Raw runtime (s)", ylabel="Denoised runtime (s)")
    lines = lines_by_label(ax)
    assert {name: lines[name].get_color() for name in ("OpenAI", "AI21 Labs", "other")} == {
        "OpenAI": "green", "AI21 Labs": "red", "other": "black",
    }  # fmt: skip
    assert lines["other"].get_xdata().tolist() == [3.0, 10.0]
    assert (lines["y = x"].get_xy1(), lines["y = x"].get_xy2()) == ((1.0, 1.0), (4.0, 4.0))
    # The dotted line does not stretch the panel: points fill it.
    assert 0.3 < ax.get_ylim()[0] < ax.get_ylim()[1] < 6
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_estimators_are_drawn_with_their_target():
    comparison = pd.DataFrame(
        {
            "estimator": ["minimum", "frontier"] * 2,
            "num_trials": [3, 3, 10, 10],
            "coverage": [0.8, 0.94, 0.2, 0.96],
        }
    )
    ax = plot_estimators(comparison, value="coverage", target=0.95)
    lines = lines_by_label(ax)
    assert lines["minimum"].get_ydata().tolist() == [0.8, 0.2]
    assert lines["spike-and-slab frontier"].get_xdata().tolist() == [3, 10]
    assert np.allclose(ax.lines[0].get_ydata(), 0.95)
    assert ax.get_ylabel() == "Coverage"


def test_panels_share_one_legend_and_keep_their_labels():
    points = pd.DataFrame({"provider": ["OpenAI", "other"], "x_runtime_s": [1.0, 2.0], "y_runtime_s": [1.0, 3.0]})
    figure, axes = plt.subplots(1, 2, layout="constrained")
    for name, ax in zip("ab", axes, strict=True):
        plot_runtime_pairs(points, xlabel="x", ylabel=name, ax=ax)
    share_legend(figure, axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["OpenAI", "other", "y = x"]
    assert [ax.get_ylabel() for ax in axes] == ["a", "b"]
    assert all(ax.get_legend() is None for ax in axes)
