import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.serving.evidence import points_to_fit

POINTS = pd.DataFrame(
    {
        "concurrency": [1, 4, 16],
        "num_prompt_tokens": 512,
        "num_output_tokens": 128,
        "time_to_first_token_s": [0.03, np.nan, 0.08],
        "time_per_output_token_s": [0.012, 0.013, 0.016],
    }
)


def test_points_of_one_token_have_no_time_per_token_and_are_left_out():
    with pytest.warns(MissingValueWarning, match=r"1 of 3 rows of points.csv have .*, yet one output token"):
        usable = points_to_fit(POINTS.assign(num_output_tokens=[1, 128, 128]), "points.csv")
    assert usable["concurrency"].tolist() == [4, 16]


@pytest.mark.parametrize("first_s", [-0.03, 0.0, np.inf])
def test_first_token_that_took_no_time_or_for_ever_is_refused(first_s):
    assert len(points_to_fit(POINTS, "points.csv")) == 3
    with pytest.raises(ValueError, match="time_to_first_token_s must be a positive finite number"):
        points_to_fit(POINTS.assign(time_to_first_token_s=[first_s, 0.05, 0.08]), "points.csv")
