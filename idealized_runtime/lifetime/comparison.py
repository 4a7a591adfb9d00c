"""How far the cheapest size moves when inference costs what was measured or planned instead of what was guessed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.lifetime.bootstrap import draws_that_reach
from idealized_runtime.lifetime.costs import LifetimeCosts, Rental, dollar_costs
from idealized_runtime.lifetime.electricity import Electricity
from idealized_runtime.lifetime.measured import QueryCost
from idealized_runtime.lifetime.optimum import minimize_lifetime_cost
from idealized_runtime.lifetime.scaling_law import COEFFICIENTS, ScalingLaw
from idealized_runtime.lifetime.size_curve import FloorPowerLaw
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.statistics.intervals import percentile_interval

SIZING = ("num_params", "num_training_tokens", "cost_usd")


@dataclass(frozen=True)
class Assumptions:
    """What is not measured: prices, how training uses its hardware, and the guess that a measurement replaces.

    Parameters
    ----------
    training, inference : Rental
        ``inference`` is the measured hardware, in the type it was measured in.
    training_mfu : float
        Utilisation in (0, 1].
    prompt_mfu, output_mfu : float
        The guess; the defaults are those of arXiv:2401.00448.
    """

    training: Rental
    inference: Rental
    training_mfu: float = 0.5
    prompt_mfu: float = 0.5
    output_mfu: float = 0.01

    def guessed_costs(self, mix: QueryMix, num_requests: float) -> LifetimeCosts:
        """Lifetime costs with inference at the guessed utilisations."""
        return dollar_costs(
            training=self.training,
            inference=self.inference,
            num_requests=num_requests,
            num_prompt_tokens=mix.mean_prompt_tokens,
            num_output_tokens=mix.mean_output_tokens,
            training_mfu=self.training_mfu,
            prompt_mfu=self.prompt_mfu,
            output_mfu=self.output_mfu,
        )

    def measured_costs(
        self, query_cost: QueryCost, num_requests: float, law: FloorPowerLaw | None = None
    ) -> LifetimeCosts:
        """Lifetime costs with inference as measured; with ``law`` in place of the best one where it is given."""
        return query_cost.dollar_costs(
            training=self.training,
            price_usd_per_hour=self.inference.price_usd_per_hour,
            num_requests=num_requests,
            training_mfu=self.training_mfu,
            law=law,
        )


def compare_with_guess(
    law: ScalingLaw,
    loss: float,
    num_requests: float,
    query_cost: QueryCost,
    assumptions: Assumptions,
    *,
    law_draws: ScalingLaw | None = None,
    num_draws: int = 1000,
    level: float = 0.95,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Cheapest sizes with guessed utilisations and with measured inference, and what the guess costs.

    Intervals hold what the measured models leave open for one further family of models
    (:meth:`~idealized_runtime.lifetime.size_curve.SizeCurve.draw`) and, with ``law_draws``, the error of the scaling
    law. Prices and the utilisation of training count as known.

    Parameters
    ----------
    law : ScalingLaw
    loss, num_requests : float or 1-d array
        Each pair is a row; they broadcast.
    query_cost : QueryCost
        Its mix is what both sides serve.
    assumptions : Assumptions
    law_draws : ScalingLaw, optional
        Coefficients of shape (draws,), such as a bootstrap's. Draws that do not reach the loss
        (:func:`~idealized_runtime.lifetime.bootstrap.draws_that_reach`) are left out.
    num_draws : int
        Where there are no ``law_draws``.
    level : float
    rng : numpy Generator, or a seed

    Returns
    -------
    DataFrame, one row a pair
        ``loss, num_requests, is_extrapolated`` (the measured optimum lies outside the measured sizes),
        ``share_of_law_draws`` that reach the lowest loss and are behind the intervals, and each with
        ``_lower`` and ``_upper``: ``num_params, num_training_tokens, cost_usd`` of the measured optimum;
        ``guessed_num_params, guessed_num_training_tokens, guessed_cost_usd`` of what the guess takes for the optimum;
        ``cost_of_guess_usd``, what that size costs as measured; ``excess_cost``, that over ``cost_usd`` minus 1; the
        ratios measured over guessed, ``num_params_moves, num_training_tokens_moves, cost_usd_moves``; and
        ``chinchilla_ratio``, parameters of the measured optimum over those of the Chinchilla size.

    Raises
    ------
    UnreachableLossError
        Less than half of ``law_draws`` reach a loss.
    """
    loss, num_requests = (np.asarray(array, float) for array in np.broadcast_arrays(np.atleast_1d(loss), num_requests))
    guessed_costs = assumptions.guessed_costs(query_cost.mix, num_requests)

    def quantities(law, query_law):
        return _quantities(law, loss, guessed_costs, assumptions.measured_costs(query_cost, num_requests, query_law))

    best = quantities(law, query_cost.per_query.law)
    laws, share = _usable(law, law_draws, loss.min(), num_draws)
    drawn = quantities(laws, query_cost.per_query.draw((laws.E.size, 1), rng=rng))
    columns = {"loss": loss, "num_requests": num_requests, "share_of_law_draws": share}
    columns["is_extrapolated"] = query_cost.is_extrapolated(best["num_params"])
    for name, value in best.items():
        lower, upper = percentile_interval(drawn[name], level)
        columns |= {name: value, f"{name}_lower": lower, f"{name}_upper": upper}
    return pd.DataFrame(columns)


def compare_servings(
    law: ScalingLaw,
    loss: float,
    num_requests: float,
    query_costs: Mapping[str, QueryCost],
    assumptions: Assumptions,
    *,
    electricity: Electricity | None = None,
    law_draws: ScalingLaw | None = None,
    num_draws: int = 1000,
    level: float = 0.95,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Cheapest size by each way of serving the same queries, the guess first, and what each size costs by the last way.

    Parameters
    ----------
    law : ScalingLaw
    loss, num_requests : float
    query_costs : mapping of QueryCost, by the way of serving
        Of one mix on the accelerators of ``assumptions``; the last is how queries will be served.
    assumptions : Assumptions
    electricity : Electricity, optional
    law_draws, num_draws, level, rng
        As of :func:`compare_with_guess`; every way's errors are drawn with the same ``rng``.

    Returns
    -------
    DataFrame, by way of serving, ``guessed`` first
        ``is_extrapolated`` (missing for the guess), ``share_of_law_draws``, and each with ``_lower`` and ``_upper``
        (missing for the guess without ``law_draws``): ``num_params, num_training_tokens, training_usd, inference_usd,
        cost_usd``; ``excess_cost`` of training this size and serving it by the last way, over the least cost minus 1;
        with ``electricity`` ``energy_kwh, co2e_kg``.

    Raises
    ------
    UnreachableLossError
        Less than half of ``law_draws`` reach the loss.
    """
    names, (*_, last) = ["guessed", *query_costs], query_costs.values()
    guessed_costs = assumptions.guessed_costs(last.mix, num_requests)

    def quantities(law, query_laws):
        served = (
            assumptions.measured_costs(cost, num_requests, query_law)
            for cost, query_law in zip(query_costs.values(), query_laws, strict=True)
        )
        costs = [guessed_costs, *served]
        optima = [minimize_lifetime_cost(law, np.array([loss]), cost) for cost in costs]
        least_usd = optima[-1].optimal_cost
        return [
            _served_quantities(optimum, assumptions, electricity)
            | {"excess_cost": costs[-1].total(optimum.optimal) / least_usd - 1}
            for optimum in optima
        ]

    best = quantities(law, [cost.per_query.law for cost in query_costs.values()])
    laws, share = _usable(law, law_draws, loss, num_draws)
    drawn = quantities(laws, [cost.per_query.draw((laws.E.size, 1), rng=rng) for cost in query_costs.values()])
    rows = []
    for name, values, draws in zip(names, best, drawn, strict=True):
        row = {"is_extrapolated": None, "share_of_law_draws": share}
        if name in query_costs:
            row["is_extrapolated"] = bool(query_costs[name].is_extrapolated(values["num_params"].item()))
        for quantity, (value,) in values.items():
            bounds = np.nan, np.nan
            # Of what is guessed nothing is known to err but the scaling law.
            if name in query_costs or law_draws is not None or quantity == "excess_cost":
                bounds = percentile_interval(draws[quantity][:, 0], level)
            row |= dict(zip((quantity, f"{quantity}_lower", f"{quantity}_upper"), (value, *bounds), strict=True))
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(names, name="serving"))


def chinchilla_ratio_maps(
    law: ScalingLaw, losses: ArrayLike, demands: ArrayLike, costs: LifetimeCosts
) -> dict[str, pd.DataFrame]:
    """Cheapest over Chinchilla size of equal loss, for each pair of a loss and a demand.

    Parameters
    ----------
    law : ScalingLaw
    losses, demands : 1-d array
    costs : LifetimeCosts
        Of the ``demands``: their inference cost has an element each.

    Returns
    -------
    dict of DataFrame, losses by demands
        Ratios of ``num_params``, ``num_training_tokens`` and ``cost``.
    """
    optima = minimize_lifetime_cost(law, np.asarray(losses, dtype=float)[:, None], costs)
    ratios = {
        "num_params": optima.params_ratio,
        "num_training_tokens": optima.training_tokens_ratio,
        "cost": optima.cost_ratio,
    }
    return {name: pd.DataFrame(ratio, index=losses, columns=demands) for name, ratio in ratios.items()}


def sizing_table(row: pd.Series) -> pd.DataFrame:
    """One row of a comparison as a table to read.

    Returns
    -------
    DataFrame, by quantity: ``num_params, num_training_tokens, cost_usd``
        ``guessed``; ``measured, lower, upper``; and measured over guessed, ``moves, moves_lower, moves_upper``.
    """
    columns = {"guessed": "guessed_{}", "measured": "{}", "lower": "{}_lower", "upper": "{}_upper", "moves": "{}_moves"}
    columns |= {f"moves_{side}": f"{{}}_moves_{side}" for side in ("lower", "upper")}
    table = {name: [row[pattern.format(quantity)] for quantity in SIZING] for name, pattern in columns.items()}
    return pd.DataFrame(table, index=pd.Index(SIZING, name="quantity"), dtype=float)


def _quantities(law, loss, guessed_costs, measured_costs) -> dict:
    guessed, measured = (minimize_lifetime_cost(law, loss, costs) for costs in (guessed_costs, measured_costs))
    cost_of_guess_usd = measured_costs.total(guessed.optimal)
    both = {name: (_sizing(measured)[name], _sizing(guessed)[name]) for name in SIZING}
    return {
        **{name: value for name, (value, _) in both.items()},
        **{f"guessed_{name}": guess for name, (_, guess) in both.items()},
        **{f"{name}_moves": value / guess for name, (value, guess) in both.items()},
        "cost_of_guess_usd": cost_of_guess_usd,
        "excess_cost": cost_of_guess_usd / measured.optimal_cost - 1,
        "chinchilla_ratio": measured.params_ratio,
    }


def _served_quantities(optimum, assumptions, electricity) -> dict:
    size, costs = optimum.optimal, optimum.costs
    usd = {"training_usd": costs.training(size), "inference_usd": costs.inference.cost(size.num_params)}
    found = {
        "num_params": size.num_params,
        "num_training_tokens": size.num_training_tokens,
        **usd,
        "cost_usd": usd["training_usd"] + usd["inference_usd"],
    }
    if electricity is not None:
        kwh = sum(
            electricity.kwh(usd[f"{side}_usd"] / getattr(assumptions, side).price_usd_per_hour, power_watts)
            for side, power_watts in (
                ("training", electricity.training_power_watts), ("inference", electricity.inference_power_watts),
            )
        )  # fmt: skip
        found |= {"energy_kwh": kwh, "co2e_kg": electricity.kg_co2e(kwh)}
    return found


def _sizing(optimum) -> dict:
    values = optimum.optimal.num_params, optimum.optimal.num_training_tokens, optimum.optimal_cost
    return dict(zip(SIZING, values, strict=True))


def _usable(law, law_draws, least_loss, num_draws) -> tuple[ScalingLaw, float]:
    """Coefficients of shape (draws, 1), of the draws that reach the loss, and the share of these."""
    if law_draws is None:
        return replace(law, **{name: np.full((num_draws, 1), getattr(law, name)) for name in COEFFICIENTS}), 1.0
    usable = draws_that_reach(law_draws, least_loss)
    share = usable.E.size / law_draws.E.size
    return replace(usable, **{name: getattr(usable, name)[:, None] for name in COEFFICIENTS}), share
