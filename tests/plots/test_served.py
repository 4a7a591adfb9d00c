import numpy as np
import pandas as pd
import pytest

from idealized_runtime.plots import served as plots


def test_each_server_has_its_markers_and_its_line():
    points = pd.DataFrame(
        {
            "server": ["one", "two", "one", "two"], "concurrency": [64.0, 64.0, 8.0, 8.0],
            "time_per_output_token_s": [0.02, 0.03, 0.01, 0.015], "predicted_s": [0.021, 0.031, 0.011, 0.016],
        }
    )  # fmt: skip
    points = points.assign(predicted_s_lower=points["predicted_s"] - 0.001, predicted_s_upper=0.04)
    ax = plots.plot_times_by_batch(points, "server")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    measured, fitted = ax.lines[:2]
    assert measured.get_xydata().tolist() == [[8.0, 10.0], [64.0, 20.0]]
    assert fitted.get_ydata() == pytest.approx([11.0, 21.0])
    assert len({line.get_marker() for line in ax.lines[::2]}) == 2
    assert "(ms)" in ax.get_ylabel()


def test_errors_of_each_group_are_their_median_and_middle():
    rows = pd.DataFrame({"hardware": ["b"] * 11 + ["a"], "relative_error": [*np.linspace(-0.5, 0.5, 11), 0.1]})
    ax = plots.plot_left_out_errors(rows, "hardware", half_width=np.log(2))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    most, half, median = ax.lines[-3:]
    assert most.get_xydata().tolist() == [pytest.approx([-40, 1]), pytest.approx([40, 1])]
    assert half.get_xdata() == pytest.approx([-25, 25])
    assert median.get_xdata() == pytest.approx([0], abs=1e-9)
    (shaded,) = ax.patches
    assert [shaded.get_x(), shaded.get_x() + shaded.get_width()] == pytest.approx([-50, 100])


def test_measured_joules_stand_beside_predicted_ones():
    rows = pd.DataFrame({"kind": ["dense", "mixture"], "predicted_joules": [2.0, 3.0], "relative_error": [1.0, -0.5]})
    _, dense, mixture = plots.plot_joules(rows, "kind").lines
    assert dense.get_xydata().tolist() == [[1.0, 2.0]]
    assert mixture.get_xydata().tolist() == [[6.0, 3.0]]
    assert dense.get_marker() != mixture.get_marker()


def test_nameplate_stands_at_its_batches():
    points = pd.DataFrame({"running_requests": [8, 16], "median": [1.5, 1.2], "p10": [1.2, 1.1], "p90": [2.0, 1.3]})
    ax = plots.plot_nameplate(points)
    (container,) = ax.containers
    assert container.lines[0].get_xydata().tolist() == [[8, 1.5], [16, 1.2]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "16"]
    (bars,) = container.lines[2]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([1.2, 2.0])


def test_table_without_what_is_drawn_is_refused():
    with pytest.raises(ValueError, match="relative_error"):
        plots.plot_left_out_errors(pd.DataFrame({"hardware": ["a"]}), "hardware")
