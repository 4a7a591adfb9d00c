"""A fitted scaling law and its bootstrap draws as a JSON file, so that other commands carry its intervals on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from idealized_runtime.checks import parse_json
from idealized_runtime.lifetime.fitted_range import FittedRange
from idealized_runtime.lifetime.scaling_law import COEFFICIENTS, ScalingLaw
from idealized_runtime.records.files import replacing

# Of so many draws of a fit, some lie on either side of it.
_MANY_DRAWS = 20


@dataclass(frozen=True)
class FittedLaw:
    """A scaling law, and its draws where it was fitted to known runs.

    Parameters
    ----------
    law : ScalingLaw
    draws : ScalingLaw, optional
        Coefficients of shape (draws,).
    """

    law: ScalingLaw
    draws: ScalingLaw | None = None


def write_law(path, fitted: FittedLaw):
    """Write a law, unrounded, with its draws."""
    data = {name: float(getattr(fitted.law, name)) for name in COEFFICIENTS} | {"source": fitted.law.source}
    if fitted.law.fitted_range is not None:
        data["fitted_range"] = asdict(fitted.law.fitted_range)
    if fitted.draws is not None:
        data["draws"] = {name: getattr(fitted.draws, name).tolist() for name in COEFFICIENTS}
    with replacing(path) as part:
        part.write_text(json.dumps(data) + "\n", encoding="utf-8")


def read_law(path) -> FittedLaw:
    """Read what :func:`write_law` wrote; ``draws`` and ``fitted_range`` may be absent.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not JSON, or not of that form; the message begins with the path.
    """
    try:
        data = parse_json(Path(path).read_bytes())
        law = ScalingLaw(
            **{name: float(data[name]) for name in COEFFICIENTS},
            source=data.get("source", str(path)),
            fitted_range=data.get("fitted_range") and FittedRange.from_json(data["fitted_range"]),
        )
        if not data.get("draws"):
            return FittedLaw(law)
        draws = {name: np.asarray(data["draws"][name], dtype=float) for name in COEFFICIENTS}
        if len({array.shape for array in draws.values()}) > 1:
            raise ValueError("draws must hold as many of each coefficient")
        for name, array in draws.items():
            if array.size >= _MANY_DRAWS and not array.min() <= data[name] <= array.max():
                raise ValueError(
                    f"{name} = {data[name]:g} lies beyond all of its draws, {array.min():g} to {array.max():g}: one "
                    "of the two was changed"
                )
        return FittedLaw(law, ScalingLaw(**draws, source=f"bootstrap: {law.source}"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}; `fit --out {path}` writes one") from None
    except KeyError as error:
        raise ValueError(f"{path}: coefficient {error} is missing; `fit --out` writes files of this form") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of coefficients: {error}") from error
