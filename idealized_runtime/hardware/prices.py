"""Dollars and joules of device time, and where a price or a power comes from: the one place for both."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative, check_positive_or_missing, check_share
from idealized_runtime.hardware.accelerators import Accelerator

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class DeviceRate:
    """Dollars per hour, or watts, of one device.

    Parameters
    ----------
    value, lower, upper : float
    source : str
        Where they come from, in words.
    """

    value: float
    lower: float
    upper: float
    source: str

    @classmethod
    def exactly(cls, value: float, source: str = "as given") -> "DeviceRate":
        """A rate that counts as known."""
        return cls(value, value, value, source)


def device_price(given: float | None, accelerator: Accelerator | None) -> DeviceRate | None:
    """Dollars per hour: as given, else the accelerator's list price with its date; None where nobody says."""
    if given is not None:
        return DeviceRate.exactly(given)
    price = getattr(accelerator, "price_usd_per_hour", None)
    return None if price is None else DeviceRate.exactly(price, f"list price of {accelerator.price_date}")


def device_power(
    given: float | None, measured: Iterable[float | None], accelerator: Accelerator | None
) -> DeviceRate | None:
    """Watts while a query runs; None where nobody says.

    Counters that logs read come before a data sheet: the mean over the timed models that have one, between the least
    and the most.
    """
    if given is not None:
        return DeviceRate.exactly(given)
    measured = [power for power in measured if power is not None]
    if measured:
        mean, models = sum(measured) / len(measured), f"{len(measured)} timed model{'s' * (len(measured) > 1)}"
        return DeviceRate(mean, min(measured), max(measured), f"measured with {models}")
    power = getattr(accelerator, "power_watts", None)
    source = "maximum of its data sheet, so energy is an upper bound"
    return None if power is None else DeviceRate.exactly(power, source)


def dollar_cost_usd(
    runtime_s: ArrayLike, *, num_accelerators: ArrayLike, price_usd_per_hour: ArrayLike, utilization: float = 1.0
) -> float | np.ndarray:
    """Dollars of a query: runtime x accelerators x price, with its share of the hours they stand idle.

    Parameters
    ----------
    runtime_s : float, array or Series
        Seconds; all arguments broadcast. NaN stays NaN.
    num_accelerators : number, array or Series
        Accelerators that serve one query at a time; a share of one where several queries run together.
    price_usd_per_hour : number, array or Series
        Of one accelerator.
    utilization : float
        Share of the hours paid for in which queries run, above 0 and at most 1.

    Returns
    -------
    float, array or Series
        US dollars. Source: arXiv:2305.02440, section 4.2, at utilization 1.

    Raises
    ------
    ValueError
        A number is unknown (None), not positive, or a utilization above 1.
    """
    check_positive_or_missing(num_accelerators=num_accelerators, price_usd_per_hour=price_usd_per_hour)
    check_share(utilization=utilization)
    return runtime_s * num_accelerators * (price_usd_per_hour / SECONDS_PER_HOUR) / utilization


def energy_joules(
    runtime_s: ArrayLike,
    *,
    num_accelerators: ArrayLike,
    power_watts: ArrayLike,
    utilization: float = 1.0,
    idle_power_watts: float = 0.0,
) -> float | np.ndarray:
    """Energy of a query: runtime x accelerators x power draw, with its share of what idle hours draw.

    Parameters
    ----------
    runtime_s, num_accelerators
        As in :func:`dollar_cost_usd`.
    power_watts : float
        Draw of one accelerator while a query runs. Its maximum power gives an upper bound. Cooling and the
        rest of the machine are not in it: multiply by a measured overhead.
    utilization : float
        Share of the time in which queries run.
    idle_power_watts : float
        Draw of one accelerator between queries; counts where ``utilization`` is below 1.

    Returns
    -------
    float, array or Series
        Joules. Source: arXiv:2305.02440, section 4.2, at utilization 1.

    Raises
    ------
    ValueError
        As in :func:`dollar_cost_usd`, or a negative idle power.
    """
    check_positive_or_missing(num_accelerators=num_accelerators, power_watts=power_watts)
    check_not_negative(idle_power_watts=idle_power_watts)
    check_share(utilization=utilization)
    idle_per_busy_second = 1 / utilization - 1
    return runtime_s * num_accelerators * (power_watts + idle_power_watts * idle_per_busy_second)
