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
    between_tokens : FittedGroups
        Of a percentile of the time between tokens.
    steps : FittedGroups
        Of the mean time of a step, those that encode prompts included: running requests over tokens a second.
    joules : FittedGroups
        Of the energy of a mean step, of all devices.
    """

    between_tokens: FittedGroups
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
        lines = (
            fit_groups(points, replace(BATCH_STEPS, target=target), by=_BY, leave_out=["max_num_seqs"])
            for target in (PERCENTILES[percentile], "step_s", "step_joules")
        )
        return cls(*lines, points)

    def left_out_table(self, *, level: float = 0.95) -> pd.DataFrame:
        """Errors of left-out batch sizes, in per cent, and what intervals of this level hold: a row a line."""
        fitted = {"between tokens": self.between_tokens, "mean step": self.steps, "joules of a step": self.joules}
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

        Batches lie within those that were measured: where the largest of them is within the limit, it is the answer,
        and larger ones may cost less. Errors of the three lines are drawn to the same side: a server that is slower
        than its line runs a smaller batch, and takes longer and more energy for it.

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
        """
        check_positive(limit_s=limit_s)
        draws = np.random.default_rng(rng).standard_normal(num_draws)
        # The first is the estimate.
        errors = np.concatenate([[0.0], draws]) / normal_half_width(level)
        fitted = (self.between_tokens, self.steps, self.joules)
        errors = [errors[:, None] * groups.half_width(level) for groups in fitted]
        rows = []
        for group, points in self.points.groupby(list(_BY), dropna=False, sort=False):
            if not all(group in groups.lines for groups in fitted):
                continue
            batches = points["concurrency"]
            at = pd.DataFrame({"concurrency": np.geomspace(batches.min(), batches.max(), _NUM_SIZES)})
            at = at.assign(num_prompt_tokens=np.nan, num_output_tokens=points["num_output_tokens"].mean())
            predicted = [groups.lines[group].predict(at) for groups in fitted]
            between_s, step_s, step_joules = (
                values * np.exp(error * spread) for (values, spread), error in zip(predicted, errors, strict=True)
            )
            is_within = between_s <= limit_s
            if not is_within[0].any():
                continue
            # Of draws in which none is, the smallest.
            place = np.where(is_within.any(axis=1), _NUM_SIZES - 1 - is_within[:, ::-1].argmax(axis=1), 0)
            named, every = dict(zip(_BY, group, strict=True)), np.arange(len(place))
            batch, device_s = at["concurrency"].to_numpy()[place], step_s[every, place] * named["num_accelerators"]
            price = device_price((prices_usd_per_hour or {}).get(named["hardware"]), get_accelerator(named["hardware"]))
            usd = np.nan if price is None else 1e6 * dollar_cost_usd(
                device_s / batch, num_accelerators=1, price_usd_per_hour=price.value
            )  # fmt: skip
            values = usd, step_joules[every, place] / batch, device_s / batch
            row = named | {"num_output_tokens": points["num_output_tokens"].mean(), "batch": batch[0]}
            row["is_largest_measured"] = bool(place[0] == _NUM_SIZES - 1)
            for name, value in zip(COSTS, values, strict=True):
                value = np.broadcast_to(value, len(place))
                row |= dict(zip((name, f"{name}_lower", f"{name}_upper"),
                                (value[0], *percentile_interval(value[1:], level)), strict=True))  # fmt: skip
            rows.append(row)
        return pd.DataFrame(rows)
