import pandas as pd
import pytest

from idealized_runtime.plots.design import plot_designs, plot_point_errors, plot_stated_errors

SEQUENTIAL = pd.DataFrame({"times_cheaper": [1000, 500], "p95": [2.0, 1.5], "least_p95": [1, 1], "most_p95": [5, 4]})
BY_HAND = pd.DataFrame(
    {"kind": ["whole grid", "random", "random"], "times_cheaper": [30, 200, 100], "p95": [1.2, 5.0, 4.0]}
)


def test_designs_are_lines_and_those_by_hand_are_markers():
    ax = plot_designs({"ours": SEQUENTIAL}, BY_HAND)
    ours, whole, at_random = ax.lines
    assert ours.get_ydata() == pytest.approx([2.0, 1.5])
    assert (whole.get_marker(), at_random.get_marker()) == ("s", "x")
    assert len(at_random.get_xdata()) == 2
    assert "%" in ax.get_ylabel()


def test_stated_errors_and_deviations_are_lines_in_per_cent_and_the_default_sweep_is_marked():
    table = {"device_s": [5.0, 60.0], "stated_error": [0.1, 0.02], "deviation": [0.05, 0.01], "default_s": [420, 432]}
    stated, deviation, default = plot_stated_errors(pd.DataFrame(table)).lines
    assert stated.get_ydata() == pytest.approx([10, 2])
    assert deviation.get_ydata() == pytest.approx([5, 1])
    assert stated.get_xdata() == pytest.approx([5, 60])
    assert default.get_xdata() == pytest.approx([432, 432])
    assert default.get_label() == "default sweep: 432 s"


def test_servers_are_counted_up_to_all_of_them():
    errors = pd.DataFrame({"architecture": "a", "designed_4": [0.02, 0.01], "random_8": [0.04, None]})
    designed, at_random = plot_point_errors(errors).lines
    assert designed.get_xdata() == pytest.approx([1, 2])
    assert designed.get_ydata() == pytest.approx([0.5, 1])
    assert at_random.get_ydata() == pytest.approx([1])
    assert (designed.get_label(), at_random.get_label()) == ("4 designed points", "8 random points")
