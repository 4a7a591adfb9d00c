import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from idealized_runtime.statistics.errors import left_out_error_table, summarize_errors
from idealized_runtime.statistics.intervals import (
    draw_log_normal,
    exchangeable_quantile,
    half_width,
    standard_error_of_interval,
    uniform_plus_normal_quantiles,
)


def test_quantile_goes_from_normal_to_uniform():
    quantiles = uniform_plus_normal_quantiles(0.95, np.array([0.0, 1.0]))
    assert quantiles == pytest.approx([1.95996, 0.95 * np.sqrt(3)], rel=1e-4)
    assert half_width(0.95, 4.0, 0.0) == pytest.approx(2.77645, rel=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99, 0.999999, 0.99999999])
def test_quantiles_of_long_arrays_are_those_of_each_of_their_numbers(level):
    dof = np.concatenate([np.geomspace(0.6, 1e12, 20_000), np.linspace(2.5, 40, 20_000), [np.inf]])
    one_by_one = np.concatenate([half_width(level, part, 0.0) for part in np.array_split(dof, 50)])
    np.testing.assert_allclose(half_width(level, dof, 0.0), one_by_one, rtol=1e-9)


def test_standard_error_is_that_of_a_normal_interval():
    assert standard_error_of_interval(*norm.interval(0.9, loc=3.0, scale=0.2), 0.9) == pytest.approx(0.2)


def test_draws_have_the_mean_and_the_standard_error_given():
    draws = draw_log_normal([0.1, 5.0, 2.0], [0.05, 0.5, 0.0], num_draws=200_000, rng=1)
    assert draws.min() > 0
    np.testing.assert_allclose(draws.mean(axis=0), [0.1, 5.0, 2.0], rtol=0.005)
    np.testing.assert_allclose(draws.std(axis=0), [0.05, 0.5, 0.0], rtol=0.02)


def test_draws_of_one_group_move_together():
    draws = draw_log_normal([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], num_draws=20_000, rng=0, groups=[0, 0, 1])
    np.testing.assert_allclose(draws[:, 1], 2 * draws[:, 0])
    assert abs(np.corrcoef(draws[:, 0], draws[:, 2])[0, 1]) < 0.03


def test_draws_of_what_is_missing_are_missing():
    assert np.isnan(draw_log_normal([1.0, np.nan], [np.nan, 0.1], num_draws=3, rng=0)).all()


@pytest.mark.parametrize(("mean", "standard_error"), [(0.0, 0.1), (1.0, -0.1)])
def test_draws_of_what_no_log_normal_has_are_refused(mean, standard_error):
    with pytest.raises(ValueError, match="means must be positive and their standard errors not negative"):
        draw_log_normal([mean], [standard_error], rng=0)


def test_errors_are_summarized_by_their_magnitudes():
    assert summarize_errors([-0.3, 0.1, 0.2]) == pytest.approx({"median": 0.2, "p95": 0.29, "max": 0.3})
    assert all(np.isnan(value) for value in summarize_errors([]).values())


@pytest.mark.parametrize(("num_scores", "level"), [(19, 0.9), (39, 0.95), (200, 0.5)])
def test_further_score_stays_below_the_quantile_as_often_as_the_level_says(num_scores, level):
    scores = np.random.default_rng(1).exponential(size=(4000, num_scores + 1))
    is_below = [own[-1] <= exchangeable_quantile(own[:-1], level) for own in scores]
    assert np.mean(is_below) == pytest.approx(level, abs=0.02)


def test_quantile_of_few_scores_is_their_largest_and_of_none_unknown():
    assert exchangeable_quantile([3.0, 1.0], 0.95) == 3.0
    assert np.isnan(exchangeable_quantile([], 0.95))
    with pytest.raises(ValueError, match="level must lie between 0 and 1; got 95"):
        exchangeable_quantile([1.0], 95)


def test_errors_of_what_was_left_out_are_told_by_part_and_with_what_is_covered():
    rows = pd.DataFrame({"relative_error": [0.1, -0.3, 0.2, 0.0], "machine": ["a", "a", "b", "b"]})
    table = left_out_error_table(rows, [1.0, 0.0, np.nan, np.nan], "machine")
    assert table.loc["a"].to_dict() == pytest.approx(
        {"median_percent": 20, "p90_percent": 28, "max_percent": 30, "num_points": 2, "covered_percent": 50}
    )
    assert np.isnan(table.loc["b", "covered_percent"])
    assert left_out_error_table(rows, np.ones(4)).loc["all", "num_points"] == 4
