import numpy as np
import pytest
from scipy.stats import norm

from idealized_runtime.statistics.ratios import log_normal_interval, probabilities_to_be_least, ratio_interval


def test_interval_of_a_ratio_is_that_of_the_top_where_the_bottom_is_certain():
    assert ratio_interval((4.0, 3.0, 6.0), (2.0, 2.0, 2.0)) == pytest.approx((2.0, 1.5, 3.0))


def test_interval_of_a_ratio_covers_it_as_often_as_its_parts_are_covered():
    rng = np.random.default_rng(0)
    tops, bottoms = np.exp(0.1 * rng.standard_normal((2, 20_000)))
    factor = np.exp(1.96 * 0.1)
    _, lower, upper = ratio_interval(*((value, value / factor, value * factor) for value in (tops, bottoms)))
    assert np.mean((lower < 1) & (upper > 1)) == pytest.approx(0.95, abs=0.005)


def test_runtime_that_may_be_zero_leaves_the_speed_up_without_an_upper_bound():
    _, lower, upper = ratio_interval((1.0, 0.9, 1.1), (1.0, -0.1, 1.5))
    assert upper == np.inf
    assert 0 < lower < 1


def test_interval_of_a_log_normal_estimate_is_as_far_in_ratio_on_both_sides():
    estimate, lower, upper = log_normal_interval(np.array([2.0]), np.array([0.1]), 0.95)
    assert upper / estimate == pytest.approx(np.exp(1.959964 * 0.1))
    assert upper / estimate == pytest.approx(estimate / lower)


def test_probability_to_be_least_is_that_of_the_difference_in_logarithms():
    spread = np.log(1.1) / norm.ppf(0.975)
    found = probabilities_to_be_least([(1.0, 1 / 1.1, 1.1), (1.05, 1.05 / 1.1, 1.05 * 1.1)])
    assert found[0] == pytest.approx(norm.cdf(np.log(1.05) / (spread * np.sqrt(2))), abs=0.01)
    assert found.sum() == pytest.approx(1)


def test_estimates_without_bounds_are_taken_as_they_are():
    assert probabilities_to_be_least([(2.0, np.nan, np.nan), (1.0, np.nan, np.nan)]).tolist() == [0, 1]
