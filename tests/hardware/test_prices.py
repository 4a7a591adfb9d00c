import numpy as np
import pytest

from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.hardware.prices import device_power, device_price, dollar_cost_usd, energy_joules


def test_cost_and_energy_follow_from_runtime():
    assert dollar_cost_usd(1800.0, num_accelerators=8, price_usd_per_hour=2.0) == 8.0
    assert energy_joules(10.0, num_accelerators=8, power_watts=400.0) == 32_000.0


def test_idle_hours_are_shared_among_queries():
    assert dollar_cost_usd(3600.0, num_accelerators=1, price_usd_per_hour=3.0, utilization=0.25) == 12.0
    # Each busy second comes with three idle ones.
    idle = energy_joules(2.0, num_accelerators=2, power_watts=400.0, utilization=0.25, idle_power_watts=50.0)
    assert idle == 2 * 2 * (400 + 3 * 50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=None), r"price_usd_per_hour is not known"),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=0, price_usd_per_hour=1),
            "num_accelerators must be a positive finite number; got 0",
        ),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=1, utilization=0),
            r"utilization must be in \(0, 1\]; got 0",
        ),
        (lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=np.inf), "price_usd_per_hour must be a"),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=1, utilization=None),
            "utilization is not",
        ),
        (
            lambda: energy_joules(1.0, num_accelerators=1, power_watts=-5),
            "power_watts must be a positive finite number; got -5",
        ),
        (
            lambda: energy_joules(1.0, num_accelerators=1, power_watts=5, idle_power_watts=-1),
            "idle_power_watts must be zero or a positive finite number; got -1",
        ),
    ],
)
def test_unknown_or_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_price_that_is_given_comes_before_the_list_price_and_its_date():
    accelerator = get_accelerator("H100")
    assert device_price(2.5, accelerator).source == "as given"
    listed = device_price(None, accelerator)
    assert (listed.value, listed.source) == (accelerator.price_usd_per_hour, "list price of 2026-09-25")
    assert device_price(None, get_accelerator("cpu")) is None


def test_power_that_logs_measured_comes_before_the_data_sheet():
    accelerator = get_accelerator("H100")
    measured = device_power(None, [None, 300.0, 400.0], accelerator)
    assert (measured.value, measured.lower, measured.upper) == (350, 300, 400)
    assert measured.source == "measured with 2 timed models"
    assert "upper bound" in device_power(None, [None], accelerator).source
    assert device_power(None, [], None) is None
