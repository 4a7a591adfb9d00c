"""Kilowatt hours of training and serving, and what generating them emits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative
from idealized_runtime.hardware.prices import SECONDS_PER_HOUR, DeviceRate, energy_joules

_JOULES_PER_KWH = 1000 * SECONDS_PER_HOUR


@dataclass(frozen=True)
class Electricity:
    """Watts of the accelerators, and what a data centre and its grid make of them.

    Parameters
    ----------
    training_power_watts, inference_power_watts : DeviceRate
        Of one accelerator; see :func:`~idealized_runtime.hardware.prices.device_power`. The rest of its machine is not
        in it.
    pue : float
        Power usage effectiveness, at least 1: what the data centre draws over what its machines do.
    kg_co2e_per_kwh : float
        Of the grid.
    pue_source, grid_source : str
        Where the two come from.

    Examples
    --------
    >>> watts = DeviceRate.exactly(400)
    >>> electricity = Electricity(watts, watts)
    >>> electricity.kg_co2e(electricity.kwh(1000, watts))
    295.152
    """

    training_power_watts: DeviceRate
    inference_power_watts: DeviceRate
    pue: float = 1.56
    kg_co2e_per_kwh: float = 0.473
    pue_source: str = "mean of Uptime Institute's Global Data Center Survey 2024"
    grid_source: str = "world average of 2024, upstream emissions included: Ember, Global Electricity Review 2025"

    def __post_init__(self):
        check_not_negative(pue=self.pue, kg_co2e_per_kwh=self.kg_co2e_per_kwh)
        if self.pue < 1:
            raise ValueError(f"pue must be at least 1, a data centre that draws what its machines do; got {self.pue!r}")

    def kwh(self, accelerator_hours: ArrayLike, power_watts: DeviceRate) -> float | np.ndarray:
        """Kilowatt hours that the data centre draws while accelerators work for so many hours together."""
        joules = energy_joules(SECONDS_PER_HOUR * accelerator_hours, num_accelerators=1, power_watts=power_watts.value)
        return self.pue * joules / _JOULES_PER_KWH

    def kg_co2e(self, kwh: ArrayLike) -> float | np.ndarray:
        """Kilograms of CO2 equivalent that generating them emits."""
        return self.kg_co2e_per_kwh * kwh
