"""Numbers in sentences: three digits, a unit, and the interval behind them."""

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """A number with the bounds of its interval, NaN where they are not known."""

    value: float
    lower: float = math.nan
    upper: float = math.nan

    def times(self, factor: float) -> "Estimate":
        """In another unit."""
        return Estimate(*(factor * one for one in self))

    @property
    def is_bounded(self) -> bool:
        """Whether an interval is known that is more than the number itself."""
        return not math.isnan(self.lower) and self.lower < self.upper


def number(value: float) -> str:
    """Three significant digits, thousands separated; without an exponent but where it would be all zeros."""
    if not 1e-9 <= abs(value) < 1e15:
        return f"{value:.3g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.{digits}f}"


def plain(value: float) -> str:
    """A number as a command or a box takes it: as short as says this very number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def bounds(estimate: Estimate) -> str:
    """The interval in brackets, in per cent where it is narrower than three digits tell; empty where none is known."""
    if not estimate.is_bounded:
        return ""
    lower, upper = number(estimate.lower), number(estimate.upper)
    if lower != upper:
        return f"[{lower}, {upper}]"
    most = max(estimate.upper - estimate.value, estimate.value - estimate.lower) / abs(estimate.value)
    return f"[± {100 * most:.1g} %]"


def bounded(estimate: Estimate | None, unit: str = "") -> str:
    """A number with its unit and its interval; a dash where it is not known."""
    if estimate is None:
        return "–"
    said = f"{number(estimate.value)} {unit}".strip()
    return f"{said} {bounds(estimate)}".strip()


def count(how_many: int, thing: str, things: str = "") -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{how_many:,} {thing if how_many == 1 else things or thing + 's'}"


def chance(probability: float) -> str:
    """A probability in per cent, as far as draws tell it."""
    if probability > 0.999:
        return "more than 99.9 %"
    if probability < 0.001:
        return "less than 0.1 %"
    return f"{100 * probability:.{0 if 0.01 <= probability <= 0.99 else 1}f} %"
