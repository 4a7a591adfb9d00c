import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from idealized_runtime.statistics.multiplicity import holm


def test_p_values_are_adjusted_as_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("num_tests", [1, 2, 50])
def test_adjusted_p_values_are_those_of_statsmodels(num_tests):
    p_values = np.random.default_rng(0).random(num_tests) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_missing_p_value_stays_missing_and_counts():
    np.testing.assert_allclose(holm([0.02, np.nan]), [0.04, np.nan])
