import numpy as np
import pytest
from scipy.signal import lfilter

from idealized_runtime.statistics.dependence import dependence_p_value, means_covariance


def draw_noise(rng, num_trials, fading):
    """An autoregressive process of standard deviation 1, that has run for a long time."""
    steps = rng.standard_normal(num_trials) * np.sqrt(1 - fading**2)
    steps[0] = rng.standard_normal()
    return lfilter([1], [1, -fading], steps)


def test_independent_trials_are_called_dependent_at_the_level_of_the_test():
    rng, group = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    p_values = [dependence_p_value(1 + rng.standard_t(3, 100), group) for _ in range(1000)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_trials_that_fade_into_each_other_are_found(in_blocks):
    rng = np.random.default_rng(1)
    group = np.concatenate([rng.permutation(20) for _ in range(12)]) if in_blocks else np.repeat(np.arange(20), 12)
    values = group + draw_noise(rng, len(group), 0.9)
    assert dependence_p_value(values, group) < 1e-4


def test_equal_trials_do_not_depend_on_each_other():
    group = np.repeat(np.arange(10), 4)
    assert dependence_p_value(0.1 * group, group) == 1


@pytest.mark.parametrize("fading", [0.8, 0.95])
def test_covariance_of_means_is_of_the_order_of_that_of_simulated_means(fading):
    rng, group = np.random.default_rng(2), np.repeat(np.arange(12), 10)
    draws = np.array([draw_noise(rng, 120, fading) for _ in range(4000)])
    truth = np.cov(draws.reshape(4000, 12, 10).mean(axis=2).T)
    found = np.mean([means_covariance(values, np.ones(120), group).mean_s2 for values in draws[:40]], axis=0)
    # Ten trials of a setting hardly tell how slow the noise is: faster and slower noise is weighed in.
    for offset in (0, 1):
        assert 0.6 < np.diag(found, offset).mean() / np.diag(truth, offset).mean() < (3, 6)[offset]


def test_slow_noise_meets_all_settings_of_a_block_alike():
    rng = np.random.default_rng(3)
    group = np.concatenate([rng.permutation(10) for _ in range(12)])
    covariance_s2 = means_covariance(draw_noise(rng, 120, 0.99), np.ones(120), group).mean_s2
    contrast = np.zeros(10)
    contrast[:2] = 1, -1
    assert contrast @ covariance_s2 @ contrast < 0.2 * covariance_s2.trace() / 10
