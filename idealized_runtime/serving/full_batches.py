"""What a token costs of published servers at the largest batch that keeps the time between tokens within a limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, check_positive
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.hardware.prices import device_price, dollar_cost_usd
from idealized_runtime.serving.groups import BATCH_STEPS, SERVER, FittedGroups, describe_points, fit_groups
from idealized_runtime.serving.power import mean_step_s
from idealized_runtime.statistics.intervals import normal_half_width, percentile_interval

# Columns of times between tokens, by percentile of all tokens.
PERCENTILES = {50: "time_per_output_token_s", 90: "inter_token_p90_s", 95: "inter_token_p95_s"}
COSTS = ("usd_per_million_output_tokens", "joules_per_output_token", "accelerator_s_per_output_token")
_BY = (*SERVER, "num_accelerators", "task")
_NUM_SIZES = 200


@dataclass(frozen=True, eq=False)
class FullBatches:
    """Published servers that always run a full batch, as lines in its size. Made by :meth:`fit`.

    Parameters
    ----------
    between_tokens : dict of FittedGroups, by percentile
        Of the time between tokens: the median, and the percentile that was asked for, whose lines are worse.
    steps : FittedGroups
        Of the mean time of a step, those that encode prompts included: running requests over tokens a second.
    joules : FittedGroups
        Of the energy of a mean step, of all devices.
    """

    between_tokens: dict[int, FittedGroups]
    steps: FittedGroups
    joules: FittedGroups
    points: pd.DataFrame = field(repr=False)

    @classmethod
    def fit(cls, points: pd.DataFrame, *, percentile: int = 50) -> "FullBatches":
        """Lines through points of full batches, a server and task each.

        Parameters
        ----------
        points : DataFrame
            As from ``read_ml_energy``, without what must not be used (``usable_points``). Errors are pooled over all
            servers given: give those of one machine.
        percentile : {50, 90, 95}
            Of the time between tokens, over all tokens.

        Raises
        ------
        ValueError
            The percentile is none of those published, or a column is absent.
        TooFewPointsError
            No server has more batch sizes than its line has terms.
        """
        if percentile not in PERCENTILES:
            raise ValueError(f"percentile must be one of {', '.join(map(str, PERCENTILES))}; got {percentile!r}")
        check_columns(points, [PERCENTILES[percentile], "energy_per_output_token_joules", "max_num_seqs", "task"],
                      name="points")  # fmt: skip
        points = describe_points(points).assign(
            step_s=mean_step_s(points), step_joules=points["energy_per_output_token_joules"] * points["concurrency"]
        )
        targets = {each: PERCENTILES[each] for each in (50, percentile)} | {"steps": "step_s", "joules": "step_joules"}
        lines = {
            name: fit_groups(points, replace(BATCH_STEPS, target=target), by=_BY, leave_out=["max_num_seqs"])
            for name, target in targets.items()
        }
        steps, joules = lines.pop("steps"), lines.pop("joules")
        return cls(lines, steps, joules, points)

    def left_out_table(self, *, level: float = 0.95) -> pd.DataFrame:
        """Errors of left-out batch sizes, in per cent, and what intervals of this level hold: a row a line."""
        fitted = {f"between tokens, p{percentile}": groups for percentile, groups in self.between_tokens.items()}
        fitted |= {"mean step": self.steps, "joules of a step": self.joules}
        return pd.concat(
            {name: groups.left_out_table(level=level).iloc[0] for name, groups in fitted.items()}, axis=1
        ).T.astype({"num_points": int})

    def within(
        self,
        limit_s: float,
        *,
        prices_usd_per_hour: Mapping[str, float] | None = None,
        level: float = 0.95,
        num_draws: int = 1000,
        rng=0,
    ) -> pd.DataFrame:
        """What each server's tokens cost at the largest batch whose time between tokens is within a limit.

        The median has to be within it, too: no percentile above it is less, whatever its own line says. Batches lie
        within those that were measured: where the largest of them is within the limit, it is the answer, and larger
        ones may cost less. At a batch that was measured a line is corrected to what was measured, between two of them
        by what both are off it. Errors of all lines are drawn to the same side, as wide as lines alone miss batches
        left out: a server that is slower runs a smaller batch, and takes longer and more energy for it.

        Parameters
        ----------
        limit_s : float
        prices_usd_per_hour : mapping by machine, optional
            Of one device; the list price of the registry for others.
        level : float
            Of the intervals.
        num_draws : int
        rng : Generator or seed

        Returns
        -------
        DataFrame, a row a server and task
            What tells servers apart, among it ``architecture, hardware, num_accelerators, dtype, task``;
            ``num_output_tokens``, mean of a request; ``batch``, running requests; ``is_largest_measured``; and, each
            with ``_lower`` and ``_upper``, ``usd_per_million_output_tokens`` (missing without a price),
            ``joules_per_output_token``, ``accelerator_s_per_output_token``: prompts are in all three. Left out are
            servers whose smallest batch measured takes longer.

        Raises
        ------
        ValueError
            Every server is left out.
        """
        check_positive(limit_s=limit_s)
        draws = np.random.default_rng(rng).standard_normal(num_draws)
        # The first is the estimate.
        errors = np.concatenate([[0.0], draws]) / normal_half_width(level)
        fitted = (*self.between_tokens.values(), self.steps, self.joules)
        errors, rows = [errors[:, None] * groups.half_width(level) for groups in fitted], []
        for group, points in self.points.groupby(list(_BY), dropna=False, sort=False):
            batches = np.geomspace(points["concurrency"].min(), points["concurrency"].max(), _NUM_SIZES)
            lines = [groups.lines.get(group) for groups in fitted]
            if None in lines:
                continue
            # The lines are of batches alone: steps that encode prompts are in what was fitted.
            at = pd.DataFrame({"concurrency": batches, "num_prompt_tokens": 0.0, "num_output_tokens": 1.0})
            *between_s, step_s, step_joules = (
                values * np.exp(error * spread + _beyond(line, points, batches))
                for line, error in zip(lines, errors, strict=True)
                for values, spread in [line.predict(at)]
            )
            found = _largest_batch(between_s, step_s, step_joules, limit_s)
            if found is None:
                continue
            place, step_s, step_joules = found
            named, batch = dict(zip(_BY, group, strict=True)), batches[place]
            price = device_price((prices_usd_per_hour or {}).get(named["hardware"]), get_accelerator(named["hardware"]))
            device_s = step_s * named["num_accelerators"] / batch
            usd = np.full_like(device_s, np.nan) if price is None else 1e6 * dollar_cost_usd(
                device_s, num_accelerators=1, price_usd_per_hour=price.value
            )  # fmt: skip
            row = named | {"num_output_tokens": points["num_output_tokens"].mean(), "batch": batch[0]}
            row["is_largest_measured"] = bool(place[0] == _NUM_SIZES - 1)
            for name, values in zip(COSTS, (usd, step_joules / batch, device_s), strict=True):
                bounds = percentile_interval(values[1:], level)
                row |= dict(zip((name, f"{name}_lower", f"{name}_upper"), (values[0], *bounds), strict=True))
            rows.append(row)
        if not rows:
            quickest_s = self.points[PERCENTILES[max(self.between_tokens)]].min()
            raise ValueError(
                f"no server keeps the time between tokens within {limit_s:g} s at its smallest batch; the quickest "
                f"row measured takes {quickest_s:.3g} s"
            )
        return pd.DataFrame(rows)


def _beyond(line, points, batches) -> np.ndarray:
    """Log of how much more than their line says batches take, by the measured ones around each."""
    predicted, _ = line.predict(points)
    measured = pd.DataFrame({
        "size": np.log(points["concurrency"]), "beyond": np.log(points[line.kind.target] / predicted)
    })  # fmt: skip
    by_size = measured.dropna().groupby(points["max_num_seqs"]).mean().sort_values("size")
    return np.interp(np.log(batches), by_size["size"], by_size["beyond"])


def _largest_batch(between_s, step_s, step_joules, limit_s) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Place of the largest batch within the limit, seconds and joules of its step, for each draw of the errors.

    None where no batch of the first draw is within the limit.
    """
    is_within = np.max(between_s, axis=0) <= limit_s
    if not is_within[0].any():
        return None
    # Of draws in which none is, the smallest.
    place = np.where(is_within.any(axis=1), is_within.shape[1] - 1 - is_within[:, ::-1].argmax(axis=1), 0)
    every = np.arange(len(place))
    return place, step_s[every, place], step_joules[every, place]
