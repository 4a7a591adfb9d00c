import numpy as np
import pandas as pd

from idealized_runtime.plots.serving import (
    plot_latency_against_rate,
    plot_measured_against_simulated,
    plot_requests_over_time,
)

SERVED = pd.DataFrame({"arrival_s": [0.0, 1.0], "queue_s": [0.0, 1.0], "runtime_s": [2.0, 3.0]})


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_requests_not_seen_are_told_from_those_that_were_fitted():
    ax = plot_measured_against_simulated(SERVED, SERVED * 1.1, "runtime_s", is_later=np.array([True, False]))
    assert labels(ax) == ["equal", "fitted", "not seen by the fit"]
    assert [line.get_xdata().tolist() for line in ax.lines[1:]] == [[3.0], [2.0]]


def test_running_and_waiting_are_counted_at_every_time():
    running, waiting = plot_requests_over_time(SERVED).lines
    assert dict(zip(running.get_xdata(), running.get_ydata(), strict=True)) == {0.0: 1, 2.0: 1, 4.0: 0}
    assert waiting.get_ydata().max() == 1


def test_curve_names_its_band_its_points_and_the_limit():
    curve = pd.DataFrame({"rate_per_s": [2.0, 1.0], "value": [0.3, 0.2], "lower": [0.2, 0.1], "upper": [0.4, 0.3]})
    points = pd.DataFrame({"rate_per_s": [1.0, 2.0], "value": [0.2, 0.3], "is_fitted": [True, False]})
    ax = plot_latency_against_rate(curve, points, limit_per_s=3.0)
    assert labels(ax) == [
        "simulated", "95 % interval", "measured, fitted", "measured, not seen", "most that can be answered",
    ]  # fmt: skip
    assert ax.lines[0].get_xdata().tolist() == [1.0, 2.0]
