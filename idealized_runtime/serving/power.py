"""Watts of a device that serves, by how much of its bandwidth and rate it uses; joules of a token and of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_columns
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.serving.stacks import LeftOutArchitectures, leave_architectures_out, robust_coefficients
from idealized_runtime.statistics.intervals import normal_half_width

# Of a device that serves: alone, or waiting for others; of its whole bandwidth, by what is read; of its peak rate.
WATTS = ("base_watts", "alone_watts", "weights_watts", "experts_watts", "cache_watts", "flops_watts")
_PEAK_OF = "bfloat16"
_BATCHES = (0, 8, 16, 32, 64, 128, 256, np.inf)


@dataclass(frozen=True)
class DevicePower:
    """Watts of one device while it serves, a line none of whose coefficients is negative.

    ``base_watts`` + ``alone_watts`` / devices of the server + ``weights_watts``, ``experts_watts``, ``cache_watts`` x
    share of the peak bandwidth that each is read with + ``flops_watts`` x share of the peak rate in bfloat16. The base
    is drawn between kernels and while messages are awaited. It is not what a device draws that has nothing to do: no
    published row shows that.

    Parameters
    ----------
    accelerator : Accelerator
    watts : mapping of str to float
        By ``WATTS``.
    standard_errors : mapping of str to float
        By the jackknife over architectures.
    """

    accelerator: Accelerator
    watts: Mapping[str, float]
    standard_errors: Mapping[str, float] = field(repr=False)

    def predict(self, work: pd.DataFrame, step_s: ArrayLike, num_accelerators: int) -> np.ndarray:
        """Watts of one device, for counts as from ``work_of_points`` or ``served_work``, and mean times of a step."""
        return _shares(work, step_s, num_accelerators, self.accelerator) @ np.array(
            [self.watts[name] for name in WATTS]
        )

    def moved_to(self, accelerator: Accelerator) -> "DevicePower":
        """A machine whose watts nobody published: those of this one by the maxima of their data sheets.

        Raises
        ------
        ValueError
            The maximum of one of the two is not known.
        """
        if None in (self.accelerator.power_watts, accelerator.power_watts):
            raise ValueError(f"the maximum power of {self.accelerator.name} or {accelerator.name} is not known")
        ratio = accelerator.power_watts / self.accelerator.power_watts
        scaled = ({name: ratio * value for name, value in of.items()} for of in (self.watts, self.standard_errors))
        return DevicePower(accelerator, *scaled)

    def table(self, *, level: float = 0.95) -> pd.DataFrame:
        """``value, lower, upper`` in watts, by coefficient; lower bounds end at 0."""
        reach = normal_half_width(level)
        rows = {
            name: {"value": value, "lower": max(value - reach * error, 0.0), "upper": value + reach * error}
            for (name, value), error in zip(self.watts.items(), self.standard_errors.values(), strict=True)
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("watts")


def mean_step_s(points: pd.DataFrame) -> pd.Series:
    """Mean seconds of a step, those that encode prompts included: running requests over tokens a second."""
    check_columns(points, ["concurrency", "output_tokens_per_s"], name="points")
    return points["concurrency"] / points["output_tokens_per_s"]


def fit_power(points: pd.DataFrame, work: pd.DataFrame) -> DevicePower:
    """Watts of a device of one machine by shares of its rates, large errors counted less than their square.

    Parameters
    ----------
    points : DataFrame
        Of one machine, with ``power_watts`` of all devices.
    work : DataFrame
        As from ``work_of_points`` of these points; rows without counts are left out.

    Raises
    ------
    ValueError
        Points are of several machines, or none has watts and counts.
    """
    accelerator, points, work = _measured(points, work)
    shares = _shares(work, mean_step_s(points), points["num_accelerators"], accelerator)
    watts = (points["power_watts"] / points["num_accelerators"]).to_numpy(float)
    names = work["architecture"].to_numpy()
    coefficients = robust_coefficients(shares, watts)
    left_out = np.array([robust_coefficients(shares[names != name], watts[names != name]) for name in np.unique(names)])
    number = len(left_out)
    errors = np.sqrt((number - 1) / number * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))
    return DevicePower(
        accelerator, *(dict(zip(WATTS, values.tolist(), strict=True)) for values in (coefficients, errors))
    )


def leave_out_joules(points: pd.DataFrame, work: pd.DataFrame, *, moved: tuple | None = None) -> LeftOutArchitectures:
    """Joules of an output token, time and watts both predicted from other architectures.

    Parameters
    ----------
    points, work
        As of :func:`fit_power`.
    moved : tuple of (points, work), optional
        Predict these instead, of another machine, by times and watts that are moved there by the data sheets.

    Returns
    -------
    LeftOutArchitectures
        Rows are those of ``leave_architectures_out`` for mean steps, with ``predicted_watts`` and ``watts`` of a
        device, ``predicted_joules`` of an output token; ``relative_error`` is that of the joules.
    """
    accelerator, points, work = _measured(points, work)
    target, points_there, work_there = (accelerator, points, work) if moved is None else _measured(*moved)
    left_out = leave_architectures_out(
        work, points["time_per_output_token_s"], mean_times_s=mean_step_s(points), accelerator=accelerator,
        moved=None if moved is None
        else (work_there, points_there["time_per_output_token_s"], mean_step_s(points_there), target),
    )  # fmt: skip
    rows, devices = left_out.rows, points_there["num_accelerators"].to_numpy(float)
    shares = _shares(work, mean_step_s(points), points["num_accelerators"], accelerator)
    watts = (points["power_watts"] / points["num_accelerators"]).to_numpy(float)
    predicted_watts = np.empty(len(rows))
    for name in rows["architecture"].unique():
        is_other, is_own = (work["architecture"] != name).to_numpy(), (rows["architecture"] == name).to_numpy()
        values = robust_coefficients(shares[is_other], watts[is_other]).tolist()
        power = DevicePower(accelerator, dict(zip(WATTS, values, strict=True)), {}).moved_to(target)
        predicted_watts[is_own] = power.predict(rows[is_own], rows.loc[is_own, "predicted_s"], devices[is_own])
    joules = points_there["energy_per_output_token_joules"]
    predicted = predicted_watts * devices * rows["predicted_s"] / points_there["concurrency"]
    return LeftOutArchitectures(
        rows.assign(
            concurrency=points_there["concurrency"], watts=points_there["power_watts"] / devices,
            predicted_watts=predicted_watts, predicted_joules=predicted, relative_error=predicted / joules - 1,
        )
    )  # fmt: skip


def joules_per_query(
    left_out: LeftOutArchitectures, num_output_tokens: ArrayLike, *, level: float = 0.95
) -> pd.DataFrame:
    """Joules of a query of so many output tokens on each of the left-out servers, its prompt included.

    Returns
    -------
    DataFrame
        ``joules, joules_lower, joules_upper``: intervals are as wide as the errors of other architectures.
    """
    rows = left_out.rows
    factor = np.exp(rows["architecture"].map({n: left_out.half_width(level, without=n) for n in rows["architecture"]}))
    joules = rows["predicted_joules"] * np.asarray(num_output_tokens, dtype=float)
    return pd.DataFrame({"joules": joules, "joules_lower": joules / factor, "joules_upper": joules * factor})


def nameplate_table(points: pd.DataFrame, *, batches: Sequence[float] = _BATCHES) -> pd.DataFrame:
    """How much the power of the data sheets overstates joules, by running requests.

    Returns
    -------
    DataFrame, by interval of running requests, all of them last
        ``num_points``; ``median, p10, p90`` of the nameplate's joules over those measured.
    """
    check_columns(points, ["hardware", "num_accelerators", "power_watts", "concurrency"], name="points")
    nameplate = points["hardware"].map(
        {name: get_accelerator(name).power_watts for name in points["hardware"].unique()}
    )
    ratio = nameplate * points["num_accelerators"] / points["power_watts"]
    # A batch of 8 is 7.99 in the mean.
    of_batch = pd.cut(points["concurrency"].round(), list(batches))
    parts = [*ratio.groupby(of_batch, observed=True), ("all", ratio)]
    rows = {
        str(name): {"num_points": len(part), "median": part.median()}
        | dict(zip(("p10", "p90"), part.quantile([0.1, 0.9]), strict=True))
        for name, part in parts
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("running_requests").astype({"num_points": int})


def _measured(points, work):
    check_columns(
        points, ["hardware", "num_accelerators", "power_watts", "energy_per_output_token_joules"], name="points"
    )
    if len(machines := points["hardware"].unique()) != 1:
        raise ValueError(f"watts are of one machine; points are of {', '.join(machines) or 'none'}")
    is_counted = work["layers"].notna() & (points["power_watts"] > 0) & (points["output_tokens_per_s"] > 0)
    if not is_counted.any():
        raise ValueError("no point has both watts and a model that is counted")
    return get_accelerator(machines[0]), points[is_counted], work[is_counted]


def _shares(work, step_s, num_accelerators, accelerator) -> np.ndarray:
    step_s, devices = np.atleast_1d(np.asarray(step_s, dtype=float)), np.asarray(num_accelerators, dtype=float)
    read = [np.asarray(work[name], float) for name in ("weight_bytes", "mean_expert_bytes", "cache_bytes")]
    bandwidths = [of_one / step_s / accelerator.memory_bandwidth_bytes_per_s for of_one in read]
    flops = np.asarray(work["flops"], float) / step_s / accelerator.peak_flops(_PEAK_OF)
    return np.column_stack([np.ones_like(step_s), np.ones_like(step_s) / devices, *bandwidths, flops])
