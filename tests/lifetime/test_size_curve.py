import numpy as np
import pytest

from idealized_runtime.lifetime.size_curve import FloorPowerLaw, SizeCurve

SIZES = np.geomspace(3e8, 5e11, 12)


def make_costs(law, *, scatter=0.0, rng=0):
    return law(SIZES) * np.exp(scatter * np.random.default_rng(rng).standard_normal(SIZES.size))


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.35])
def test_floor_and_power_are_recovered_from_costs_without_scatter(exponent):
    law = FloorPowerLaw(0.02, 1e10, exponent)
    curve = SizeCurve.fit(SIZES, law(SIZES))
    between = np.geomspace(3e8, 5e11, 50)
    np.testing.assert_allclose(curve(between), law(between), rtol=0.005)
    assert curve.law.exponent == pytest.approx(exponent, abs=0.013)


def test_cost_without_a_floor_is_a_power_of_the_size():
    curve = SizeCurve.fit(SIZES, 1e-12 * SIZES)
    np.testing.assert_allclose(curve(SIZES), 1e-12 * SIZES, rtol=0.06)


def test_law_rises_with_size_and_its_slope_is_the_derivative():
    law, sizes, step = FloorPowerLaw(0.02, 1e10, 1.35), np.geomspace(1e7, 1e13, 30), 1e-5
    numeric = (law(sizes * np.exp(step)) - law(sizes * np.exp(-step))) / (2 * step)
    np.testing.assert_allclose(law.slope(sizes), numeric, rtol=1e-6)
    assert np.all(law.slope(sizes) > 0)


def test_line_of_many_tables_lies_in_its_interval_as_often_as_stated():
    law, size, num_tables = FloorPowerLaw(0.02, 1e10, 1.3), 3e10, 120
    held = 0
    for rng in range(num_tables):
        lower, upper = SizeCurve.fit(SIZES, make_costs(law, scatter=0.25, rng=rng)).interval(
            size, level=0.8, of_new_model=False
        )
        held += lower <= law(size) <= upper
    assert 0.7 <= held / num_tables <= 0.9


def test_new_model_lies_in_its_interval_as_often_as_stated():
    law, size, num_tables = FloorPowerLaw(0.02, 1e10, 1.3), 3e10, 120
    held = 0
    for rng in range(num_tables):
        new = law(size) * np.exp(0.25 * np.random.default_rng(rng + 10_000).standard_normal())
        lower, upper = SizeCurve.fit(SIZES, make_costs(law, scatter=0.25, rng=rng)).interval(size, level=0.8)
        held += lower <= new <= upper
    assert 0.7 <= held / num_tables <= 0.9


def test_draws_scatter_more_for_a_new_model_than_the_line_does():
    curve = SizeCurve.fit(SIZES, make_costs(FloorPowerLaw(0.02, 1e10, 1.3), scatter=0.25))
    lines, models = (curve.draw((4000, 1), rng=0, of_new_model=new)(SIZES) for new in (False, True))
    assert np.all(np.log(models).std(axis=0) > 1.5 * np.log(lines).std(axis=0))


def test_draws_repeat_with_their_seed():
    curve = SizeCurve.fit(SIZES, make_costs(FloorPowerLaw(0.02, 1e10, 1.3), scatter=0.25))
    np.testing.assert_array_equal(curve.draw(5, rng=1).floor, curve.draw(5, rng=1).floor)
    assert curve.draw((7, 1), rng=1)(SIZES).shape == (7, 12)


def test_interval_widens_outside_the_measured_sizes_and_these_are_marked():
    curve = SizeCurve.fit(SIZES, make_costs(FloorPowerLaw(0.02, 1e10, 1.3), scatter=0.25))
    sizes = np.array([3e10, 5e13])
    lower, upper = curve.interval(sizes)
    assert upper[1] / lower[1] > 1.3 * upper[0] / lower[0]
    np.testing.assert_array_equal(curve.is_extrapolated([1e8, *SIZES[[0, -1]], 1e12]), [True, False, False, True])


@pytest.mark.parametrize(
    ("sizes", "costs", "message"),
    [
        ([1e9, 2e9, 3e9], [1, 2, 3], "at least 4 models; got 3"),
        ([1e9] * 4, [1, 2, 3, 4], "must differ in size; all have 1e[+]09"),
        ([1e9, 2e9, 3e9, 4e9], [1, 2, 3, 0], "costs must be a positive finite number; got 0"),
    ],
)
def test_what_no_curve_goes_through_is_refused(sizes, costs, message):
    with pytest.raises(ValueError, match=message):
        SizeCurve.fit(sizes, costs)


def test_error_that_all_costs_share_widens_the_interval_and_not_the_law():
    law = FloorPowerLaw(0.02, 1e10, 1.3)
    bare, shared = (SizeCurve.fit(SIZES, law(SIZES), log_error=error) for error in (0.0, 0.2))
    assert bare(3e10) == shared(3e10)
    lower, upper = shared.interval(3e10)
    assert np.log(upper / lower) == pytest.approx(2 * 1.96 * 0.2, rel=0.05)


def test_shared_error_that_is_none_is_refused():
    with pytest.raises(ValueError, match="log_error must be zero or a positive"):
        SizeCurve.fit(SIZES, 1e-12 * SIZES, log_error=-0.1)
