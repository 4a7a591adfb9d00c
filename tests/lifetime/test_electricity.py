import pytest

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.lifetime.electricity import Electricity

WATTS = DeviceRate.exactly(500)


def test_kilowatt_hours_are_hours_times_watts_times_what_the_data_centre_adds():
    assert Electricity(WATTS, WATTS, pue=1.2).kwh(1000, WATTS) == pytest.approx(600)


def test_emissions_are_those_of_the_grid():
    assert Electricity(WATTS, WATTS, kg_co2e_per_kwh=0.05).kg_co2e(600) == pytest.approx(30)


def test_factors_without_an_argument_have_a_dated_source():
    factors = Electricity(WATTS, WATTS)
    assert "2024" in factors.pue_source
    assert "2024" in factors.grid_source


@pytest.mark.parametrize(
    ("factors", "message"),
    [({"pue": 0.9}, "pue must be at least 1"), ({"kg_co2e_per_kwh": -1}, "kg_co2e_per_kwh must be")],
)
def test_impossible_factors_are_refused(factors, message):
    with pytest.raises(ValueError, match=message):
        Electricity(WATTS, WATTS, **factors)
