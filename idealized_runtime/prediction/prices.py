"""What a device costs and draws: as the caller says, as logs measured it, else as its row of ``hardware`` has it."""

from collections.abc import Iterable
from dataclasses import dataclass

from idealized_runtime.hardware import Accelerator
from idealized_runtime.timed_models import TimedModel


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


def device_price(given: float | None, accelerator: Accelerator | None) -> DeviceRate | None:
    """Dollars per hour; None where nobody says."""
    if given is not None:
        return DeviceRate(given, given, given, "as given")
    price = getattr(accelerator, "price_usd_per_hour", None)
    if price is None:
        return None
    return DeviceRate(price, price, price, f"list price of {accelerator.price_date}")


def device_power(
    given: float | None, models: Iterable[TimedModel], accelerator: Accelerator | None
) -> DeviceRate | None:
    """Watts while a query runs; None where nobody says.

    Counters that logs read come before a data sheet: the mean over the timed models, between the least and the most.
    """
    if given is not None:
        return DeviceRate(given, given, given, "as given")
    measured = [power for power in (model.mean_power_watts for model in models) if power is not None]
    if measured:
        mean = sum(measured) / len(measured)
        return DeviceRate(mean, min(measured), max(measured), f"measured with {len(measured)} timed models")
    power = getattr(accelerator, "power_watts", None)
    if power is None:
        return None
    return DeviceRate(power, power, power, "maximum of its data sheet, so energy is an upper bound")
