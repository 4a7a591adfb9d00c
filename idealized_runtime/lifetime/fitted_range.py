"""How far from what it was fitted to a law is asked: a little beyond with a warning, far beyond not at all."""

import warnings
from dataclasses import dataclass

# Scaling laws are made to be extrapolated upwards, by decades. The smallest models that they were fitted to have
# losses near those of a guess, so that downwards soon nothing is left to predict.
_MOST_TIMES_BELOW, _MOST_TIMES_ABOVE = 1e2, 1e5
_UNITS = {"num_params": "parameters", "num_training_tokens": "training tokens"}


class LawRangeWarning(UserWarning):
    """A size lies beyond the training runs that a scaling law was fitted to."""


@dataclass(frozen=True)
class FittedRange:
    """Sizes and durations of the training runs that a scaling law was fitted to: least and most of each."""

    num_params: tuple[float, float]
    num_training_tokens: tuple[float, float]

    @classmethod
    def of_runs(cls, runs) -> "FittedRange":
        """From a frame with columns ``num_params, num_training_tokens``."""
        return cls(*((float(runs[name].min()), float(runs[name].max())) for name in _UNITS))

    @classmethod
    def from_json(cls, data) -> "FittedRange":
        """From the pairs of a file, by name."""
        return cls(*((float(least), float(most)) for least, most in (data[name] for name in _UNITS)))

    def check(self, **sizes) -> bool:
        """Refuse sizes far beyond the runs, warn of those a little beyond.

        Parameters
        ----------
        **sizes : ModelSize
            By what they are: ``optimal_size``, ``model``, ...

        Returns
        -------
        bool
            Whether a size lies beyond.

        Raises
        ------
        ValueError
            A size lies more than a hundred times below the least or 1e5 times above the most.

        Warns
        -----
        LawRangeWarning
            A size lies beyond, but less far; once for each size and direction.
        """
        is_beyond = False
        for what, size in sizes.items():
            for name, unit in _UNITS.items():
                value, ends = getattr(size, name), getattr(self, name)
                found = describe_range(what, value, unit, "the law was fitted to", ends)
                refuse_far(found, value, ends, times_below=_MOST_TIMES_BELOW, times_above=_MOST_TIMES_ABOVE)
                if not ends[0] <= value <= ends[1]:
                    warnings.warn(f"{found}: an extrapolation", LawRangeWarning, stacklevel=2)
                    is_beyond = True
        return is_beyond


def is_beyond(law, **sizes) -> bool | None:
    """As :meth:`FittedRange.check`; None for a law that does not know its training runs."""
    return None if law.fitted_range is None else law.fitted_range.check(**sizes)


def describe_range(what: str, value: float, unit: str, known: str, ends: tuple[float, float]) -> str:
    """What a size has, beside what is known."""
    return f"the {what.replace('_', ' ')} has {value:.3g} {unit}; {known} {ends[0]:.3g} to {ends[1]:.3g}"


def refuse_far(found: str, value: float, ends: tuple[float, float], *, times_below: float, times_above: float):
    """Refuse a value so many times beyond the ends, with what was found."""
    least, most = ends[0] / times_below, ends[1] * times_above
    if not least <= value <= most:
        raise ValueError(f"{found}, and is not asked beyond {least:.3g} to {most:.3g}: ask for a size nearer to these")
