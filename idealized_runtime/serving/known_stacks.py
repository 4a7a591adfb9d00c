"""Machines with an engine that others measured with many models: their coefficients, which come with the package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime import measurements
from idealized_runtime.checks import parse_json
from idealized_runtime.fits.entries import SCHEMA_VERSION, to_json
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.measurements.ml_energy import ASSUMED_PROMPT_TOKENS, FOLDER, read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.measurements.served_models import served_architecture
from idealized_runtime.records.files import replacing
from idealized_runtime.serving.power import DevicePower, fit_power, leave_out_joules, mean_step_s
from idealized_runtime.serving.served_work import work_of_points
from idealized_runtime.serving.stacks import ServedStack, fit_stack
from idealized_runtime.statistics.intervals import exchangeable_quantile

# What is known with an interval of its own: steps that generate, what prompts add to them, watts of a device.
QUANTITIES = ("steps", "prompts", "watts")
SEEN = ("concurrency", "num_context_tokens", "num_prompt_tokens", "num_params", "tensor_parallel_size")
# What mean steps take beyond the median is that of prompts where it is not less than this, and nothing else is in it:
# ramps, or sequences whose cache gives way and is computed again.
_LEAST_PROMPT_SHARE, _SOMETHING_ELSE = 0.05, "few-rounds|batch-not-filled"
_DECIMALS = 4
_PLACE = Path(measurements.__file__).parent / "stacks"
# Machines by the names of their files: that with most architectures tells of others better than they do themselves.
_HARDWARE = {"vllm_h100": "H100"}


@dataclass(frozen=True, eq=False)
class KnownStack:
    """What an engine on a machine takes and draws, as many architectures tell it, and how surely it does of others.

    Parameters
    ----------
    hardware, software : str
        Row of the accelerators; the engine with its version.
    stack : ServedStack
    power : DevicePower
    errors : mapping
        By quantity (``QUANTITIES``) and architecture: log(predicted / measured) of its points, predicted from the
        others.
    moved_errors : mapping
        The same of other machines with the engine, by ``(from, to)``: coefficients of one taken to the other by the
        data sheets, without the architecture.
    seen : mapping of str to pair
        Least and most of what was measured, by ``SEEN``.
    served : mapping of str to tuple of str
        Data types by architecture, of those on other machines, too.
    """

    hardware: str
    software: str
    stack: ServedStack
    power: DevicePower
    errors: Mapping[str, Mapping[str, tuple]]
    moved_errors: Mapping[tuple[str, str], Mapping[str, Mapping[str, tuple]]]
    seen: Mapping[str, tuple]
    served: Mapping[str, tuple[str, ...]]

    @property
    def path(self) -> Path:
        """The file that it comes in."""
        return _PLACE / f"{next(name for name, hardware in _HARDWARE.items() if hardware == self.hardware)}.json"

    def errors_on(self, accelerator: Accelerator, quantity: str) -> dict[str, np.ndarray]:
        """log(predicted / measured) by architecture, of this stack on its machine; on others, that of all moves."""
        parts = [self.errors] if accelerator.name == self.hardware else self.moved_errors.values()
        names = dict.fromkeys(name for part in parts for name in part[quantity])
        return {name: np.concatenate([part[quantity].get(name, ()) for part in parts]) for name in names}

    def half_width(
        self, accelerator: Accelerator, quantity: str, level: float = 0.95, *, without: str | None = None
    ) -> float:
        """Of log(predicted / true), as many of the left-out points have less as ``level``.

        ``without``: an architecture whose own points shall not tell.

        Raises
        ------
        ValueError
            The level is more than so many points tell.
        """
        errors = self.errors_on(accelerator, quantity)
        scores = np.abs(np.concatenate([values for name, values in errors.items() if name != without]))
        # The largest of n scores bounds one more with n of n + 1, and nothing bounds it more surely.
        number = len(scores)
        if level > number / (number + 1):
            raise ValueError(
                f"level must be at most {np.floor(1000 * number / (number + 1)) / 1000:g}, since {number} left-out "
                f"points tell how far predicted {quantity} are off; got {level:g}"
            )
        return exchangeable_quantile(scores, level)

    def left_out_percent(self, accelerator: Accelerator) -> dict:
        """Relative errors of the left-out points in per cent, by quantity: ``median`` and ``p90``."""
        table = {}
        for quantity in QUANTITIES:
            errors = np.expm1(np.concatenate([*self.errors_on(accelerator, quantity).values()]))
            median, p90 = (100 * np.quantile(np.abs(errors), [0.5, 0.9])).tolist()
            table[quantity] = {"median": median, "p90": p90}
        return table

    def to_json(self) -> dict:
        """What the package ships; :meth:`from_json` reads it."""
        moved = [{"from": origin, "to": to, "errors": errors} for (origin, to), errors in self.moved_errors.items()]
        return to_json({
            "schema_version": SCHEMA_VERSION, "hardware": self.hardware, "software": self.software, "source": FOLDER,
            "times": self.stack.times, "prompt_times": self.stack.prompt_times,
            "watts": self.power.watts, "watts_standard_errors": self.power.standard_errors,
            "seen": self.seen, "served": self.served, "errors": self.errors, "moved_errors": moved,
        })  # fmt: skip

    @classmethod
    def from_json(cls, entry: Mapping) -> "KnownStack":
        """Inverse of :meth:`to_json`."""
        return cls(
            entry["hardware"],
            entry["software"],
            ServedStack(entry["times"], entry["prompt_times"]),
            DevicePower(get_accelerator(entry["hardware"]), entry["watts"], entry["watts_standard_errors"]),
            entry["errors"],
            {(move["from"], move["to"]): move["errors"] for move in entry["moved_errors"]},
            {name: tuple(ends) for name, ends in entry["seen"].items()},
            {name: tuple(dtypes) for name, dtypes in entry["served"].items()},
        )


@cache
def known_stacks() -> tuple[KnownStack, ...]:
    """Every stack that comes with the package."""
    return tuple(
        KnownStack.from_json(parse_json((_PLACE / f"{name}.json").read_text(encoding="utf-8"))) for name in _HARDWARE
    )


def get_known_stack(software: str) -> KnownStack:
    """The stack of an engine, by its name or the beginning of one: ``vllm``, ``vllm 0.11``.

    Raises
    ------
    ValueError
        None is of this engine; the message lists those that there are.
    """
    stacks = known_stacks()
    for stack in stacks:
        if software and stack.software.startswith(software.casefold()):
            return stack
    raise ValueError(
        f"no engine {software!r:.60} was measured with many models; there are: "
        f"{', '.join(f'{stack.software} on {stack.hardware}' for stack in stacks)}. For another, give logs (--logs)"
    )


def fit_known_stack(points: pd.DataFrame, hardware: str) -> KnownStack:
    """Coefficients of a machine, and how well they predict architectures left out, there and on other machines.

    Parameters
    ----------
    points : DataFrame
        As from ``read_ml_energy``, of one engine, without what must not be used.
    hardware : str
        The machine; the others are those that its coefficients are taken to, and theirs to it.
    """
    work = work_of_points(points, num_prompt_tokens=ASSUMED_PROMPT_TOKENS)
    is_counted = work["layers"].notna()
    points, work = points[is_counted], work[is_counted]
    tables = {name: (points[is_it], work[is_it]) for name, is_it in _by_hardware(points)}
    here, here_work = tables[hardware]
    moves = [move for other in tables if other != hardware for move in ((hardware, other), (other, hardware))]
    architectures = {model: served_architecture(model) for model in here["model"].unique()}
    sizes = here.assign(
        num_prompt_tokens=here["task"].map(ASSUMED_PROMPT_TOKENS),
        num_params=[architectures[model].num_params for model in here["model"]],
    )
    return KnownStack(
        hardware,
        *here["software"].unique(),
        fit_stack(
            here_work, here["time_per_output_token_s"], mean_times_s=mean_step_s(here),
            accelerator=get_accelerator(hardware),
        ),
        fit_power(here, here_work),
        _errors(leave_out_joules(here, here_work).rows, here["flags"]),
        {
            (origin, to): _errors(leave_out_joules(*tables[origin], moved=tables[to]).rows, points["flags"])
            for origin, to in moves
        },
        {name: (float(sizes[name].min()), float(sizes[name].max())) for name in SEEN},
        {
            name: tuple(sorted(dtypes))
            for name, dtypes in points["dtype"].groupby(work["architecture"]).unique().items()
        },
    )  # fmt: skip


def _by_hardware(points):
    return [(name, (points["hardware"] == name).to_numpy()) for name in points["hardware"].unique()]


def _errors(rows, flags) -> dict:
    """log(predicted / measured) by quantity and architecture."""
    is_told = rows["prompt_s"] > _LEAST_PROMPT_SHARE * (rows["step_s"] + rows["prompt_s"])
    is_told &= ~flags[rows.index].str.contains(_SOMETHING_ELSE)
    ratios = {
        "steps": rows["predicted_step_s"] / rows["step_s"],
        "prompts": (rows["predicted_prompt_s"] / rows["prompt_s"])[is_told],
        "watts": rows["predicted_watts"] / rows["watts"],
    }
    return {
        quantity: {
            name: tuple(np.log(values).round(_DECIMALS).tolist())
            for name, values in of_points.groupby(rows["architecture"])
        }
        for quantity, of_points in ratios.items()
    }


def ship_known_stacks() -> None:
    """Fit the published points anew, and write the stacks that are shipped."""
    points = usable_points(read_ml_energy())
    for name, hardware in _HARDWARE.items():
        with replacing(_PLACE / f"{name}.json") as part:
            entry = fit_known_stack(points, hardware).to_json()
            part.write_text(json.dumps(entry, allow_nan=False) + "\n", encoding="utf-8")
