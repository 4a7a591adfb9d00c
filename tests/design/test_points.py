"""Loads of a server to measure: the ends of its line, and as good as twice as many at random."""

import pandas as pd
import pytest

from idealized_runtime.design.points import ExpectedLine, point_design_errors
from idealized_runtime.measurements.inferencex import read_inferencex
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.serving.groups import Line, token_times

KIND = token_times("fixed_s", "sequence_s")


def test_points_far_apart_are_chosen_first():
    lines = [
        Line(KIND, {"fixed_s": 0.01 * scale, "sequence_s": 1e-4 * scale * tilt}, 0.0, 9, None)
        for scale in (1, 2, 5)
        for tilt in (0.3, 1, 3)
    ]
    concurrency = [1, 8, 32, 64, 256]
    points = pd.DataFrame(
        {"model": "llama-3.1-8b", "concurrency": concurrency, "num_prompt_tokens": 512, "num_output_tokens": 512}
    )
    chosen = ExpectedLine.of_lines(lines).choose(points, 2)
    few, many = sorted(concurrency[place] for place in chosen)
    assert many == 256
    assert few <= 32


def test_four_designed_points_of_published_servers_do_what_eight_random_ones_do():
    try:
        points = usable_points(read_inferencex())
    except PublishedDataMissingError as error:
        pytest.skip(str(error))
    some = points[points["hardware"].isin(["H100", "H200"])]
    errors = point_design_errors(some, num_draws=2)
    medians = 100 * errors.median(numeric_only=True)
    assert medians["designed_4"] < 6.5
    assert medians["designed_4"] < 1.25 * medians["random_8"]
    assert medians["designed_4"] < 0.75 * medians["random_4"]
