import math

import pytest

from idealized_runtime.page.words import Estimate, bounded, chance, number, plain


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0490199, "0.0490"), (6.219, "6.22"), (99.96, "100.0"), (2487.7, "2,490"), (176_543.0, "177,000"),
     (1e-7, "0.000000100"), (1e-300, "1e-300"), (1.234e300, "1.23e+300"), (math.inf, "inf")],
)  # fmt: skip
def test_numbers_have_three_digits_and_no_exponent_but_where_it_would_be_all_zeros(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2"), (0.1, "0.1"), (2.123456789, "2.123456789"), (12345.67, "12345.67")]
)
def test_what_a_command_takes_is_this_very_number(value, text):
    assert plain(value) == text


def test_interval_stands_behind_its_number():
    assert bounded(Estimate(6.219, 5.83, 6.63), "s") == "6.22 s [5.83, 6.63]"


def test_interval_that_three_digits_do_not_tell_is_in_per_cent():
    assert bounded(Estimate(6.144, 6.1435, 6.1449)) == "6.14 [± 0.01 %]"


def test_number_without_an_interval_stands_alone():
    assert bounded(Estimate(2.0), "J") == bounded(Estimate(2.0, 2.0, 2.0), "J") == "2.00 J"
    assert bounded(None, "J") == "–"


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "more than 99.9 %"), (0.996, "99.6 %"), (0.783, "78 %"), (0.004, "0.4 %"), (0.0, "less than 0.1 %")],
)
def test_probability_is_said_as_far_as_draws_tell_it(probability, text):
    assert chance(probability) == text
