"""Every query priced: seconds, dollars and joules with their intervals, a row a query, and in total.

Runtime is what a model of runtimes says. Dollars and joules are runtime x accelerators x rate (arXiv:2305.02440,
section 4.2); of a model that was timed in batches, a query has its share of the batch's. What cannot be priced stays in
its row, missing, and is counted by cause.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Number

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_columns, check_not_negative, check_positive, numeric_columns
from idealized_runtime.fits.protocol import ModelOfRuntimes, NoIntervalError, options_beyond
from idealized_runtime.hardware.prices import DeviceRate, dollar_cost_usd, energy_joules
from idealized_runtime.queries.tables import WEIGHT_COLUMN
from idealized_runtime.records import TOKEN_COLUMNS

METRICS = ("runtime_s", "cost_usd", "energy_joules")
# Why a query has no runtime; one that lacks several things counts under the first.
NO_MODEL = "no model of runtimes"
NO_COUNTS = "no token counts"
TOO_SHORT = "fewer than one prompt or output token"
TOO_LONG = "longer than the model's context"
BEYOND = "beyond the profiled prompt sizes"
# It has a runtime, but no cost and no energy.
NO_ACCELERATORS = "no number of accelerators"
_CAUSES = ("", NO_MODEL, NO_COUNTS, TOO_SHORT, TOO_LONG, BEYOND)
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# Queries are worked through in blocks that stay in the cache.
_BLOCK_QUERIES = 2**14
# Beyond, floats are not every integer.
_MOST_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class PricedQueries:
    """What queries take, cost and draw. Made by :func:`price`.

    Parameters
    ----------
    table : DataFrame, with the index of the queries
        ``runtime_s`` and, for the rates that were given, ``cost_usd`` and ``energy_joules``, each with ``_lower`` and
        ``_upper``; ``is_extrapolated``, the prompt lies beyond the profiled sizes. NaN where missing.
    missing : dict of int
        How many queries have no price, by cause.
    accelerator_s : array
        Seconds of one accelerator that each query takes. NaN where their number is not known.
    model_of : array of int
        Number of each query's model of runtimes, -1 without one. One under several names has one number.
    weights : array
        How often, or with what share, each query is asked.
    num_tokens : array, two rows with a column a query
        Output tokens of each; prompt and output tokens.
    """

    table: pd.DataFrame
    missing: dict[str, int]
    accelerator_s: np.ndarray
    model_of: np.ndarray
    weights: np.ndarray
    num_tokens: np.ndarray

    def totals(self, rows: np.ndarray | None = None) -> dict:
        """Sums, means and percentiles over the queries that have a price, each as often as its weight says.

        Interval of a sum: the estimates of one model's queries share its fit, so their errors count as one and the
        bounds add up; the fits of different models are independent, so the distances of their bounds from the
        estimates add in squares (Zou and Donner 2008, Statistics in Medicine 27:1693). It holds what the intervals of
        queries hold: the error of the fits, not what another day or machine would change, nor how single runs scatter.

        Parameters
        ----------
        rows : array of bool, optional
            Only these queries.

        Returns
        -------
        dict
            ``num_queries``, rows; ``num_missing`` of them without a runtime; ``runtime_s``, ``cost_usd`` and
            ``energy_joules``: each a dict of ``total, total_lower, total_upper`` (NaN where a query has no interval),
            ``mean`` and ``p50, p95, p99``, the least value that so many per cent of the queries do not exceed; or
            None where it is not known for every query that has a runtime; ``per_million_tokens``: of ``cost_usd`` and
            ``energy_joules``, what a million ``output`` tokens take, and a million prompt and output tokens, ``all``.
        """
        rows = np.ones(len(self.table), dtype=bool) if rows is None else rows
        has_runtime = rows & self.table["runtime_s"].notna().to_numpy()
        num_queries, num_priced = int(np.count_nonzero(rows)), int(np.count_nonzero(has_runtime))
        counts = {"num_queries": num_queries, "num_missing": num_queries - num_priced}
        is_counted = has_runtime & (self.weights > 0)
        totals = {name: self._totals_of(name, is_counted) for name in METRICS}
        millions = dict(
            zip(("output", "all"), self.num_tokens[:, is_counted] @ self.weights[is_counted] / 1e6, strict=True)
        )
        rates = {
            name: totals[name] and {tokens: totals[name]["total"] / number for tokens, number in millions.items()}
            for name in METRICS[1:]
        }
        return counts | totals | {"per_million_tokens": rates}

    def _totals_of(self, name, is_counted) -> dict | None:
        if name not in self.table or not is_counted.any():
            return None
        rows = _all_or(np.flatnonzero(is_counted), len(is_counted))
        weights, model_of = self.weights[rows], self.model_of[rows]
        bounds = [self.table[f"{name}{side}"].to_numpy()[rows] for side in ("", "_lower", "_upper")]
        if np.isnan(bounds[0]).any():
            return None
        total, lower, upper = add_independent(*(np.bincount(model_of, weights * bound) for bound in bounds))
        options = {"weights": weights} if np.any(weights != weights[0]) else {}
        percentiles = np.quantile(bounds[0], list(_SHARES.values()), method="inverted_cdf", **options)
        return {
            "total": total,
            "total_lower": lower,
            "total_upper": upper,
            "mean": total / float(weights.sum()),
            **dict(zip(_SHARES, percentiles.tolist(), strict=True)),
        }


def add_independent(estimates: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[float, float, float]:
    """Sum of independent estimates with its interval: distances of bounds from estimates add in squares."""
    total = float(np.sum(estimates))
    return total, total - float(np.linalg.norm(estimates - lower)), total + float(np.linalg.norm(upper - estimates))


def price(
    queries: pd.DataFrame,
    model: ModelOfRuntimes | Mapping[str, ModelOfRuntimes],
    *,
    num_accelerators: int | Mapping[str, int] | None = None,
    price_usd_per_hour: float | DeviceRate | Mapping | None = None,
    power_watts: float | DeviceRate | Mapping | None = None,
    level: float = 0.95,
    extrapolate: bool = False,
) -> PricedQueries:
    """Seconds, dollars and joules of every query.

    Parameters
    ----------
    queries : DataFrame, one row a query
        ``num_prompt_tokens, num_output_tokens``, which may be means; optional ``weight``; ``model``, where models go by
        it. See :func:`~idealized_runtime.queries.tables.read_queries`.
    model : ModelOfRuntimes, or a mapping of them by the queries' ``model``
    num_accelerators : int, or a mapping by model, optional
        Accelerators that serve one query, or one batch, at a time. Without it there is no cost and no energy.
    price_usd_per_hour : float or DeviceRate, or a mapping of them by model, optional
        Of one accelerator. Bounds of a DeviceRate widen the intervals.
    power_watts : float or DeviceRate, or a mapping of them by model, optional
        Draw of one accelerator while it answers. The maximum of a data sheet gives an upper bound of the energy.
    level : float
        Of the intervals, which are those of the model; NaN where it knows nothing of its errors.
    extrapolate : bool
        Price queries beyond the profiled prompt sizes, too.

    Raises
    ------
    TypeError
        The queries are no table, a model is None, or a rate is no number.
    ValueError
        ``level`` is not between 0 and 1, a column is absent or not numeric, a weight is missing or negative, a rate is
        not positive, or it comes without ``num_accelerators``.

    Examples
    --------
    >>> from idealized_runtime import read_parameters, read_queries
    >>> model = read_parameters("processed_jsons/a100.json")["openai/davinci"]
    >>> priced = price(read_queries("docs/queries.csv"), model, num_accelerators=8, price_usd_per_hour=4.096)
    >>> priced.table[["runtime_s", "cost_usd"]].sum().round(2).to_dict()
    {'runtime_s': 80.35, 'cost_usd': 0.73}
    """
    if not isinstance(queries, pd.DataFrame):
        raise TypeError(f"queries must be a DataFrame, such as read_queries returns; got {queries!r:.60}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")
    if num_accelerators is None and (price_usd_per_hour is not None or power_watts is not None):
        raise ValueError("cost and energy need num_accelerators, an integer or one for each model")
    p, o = numeric_columns(queries, TOKEN_COLUMNS, name="queries")
    weights = np.ones(len(p))
    if WEIGHT_COLUMN in queries:
        (weights,) = numeric_columns(queries, [WEIGHT_COLUMN], name="queries")
    check_not_negative(weight=weights)
    models, model_of = _models_of(queries, model)
    runtimes_s, is_extrapolated, cause = _runtimes(p, o, list(models.values()), model_of, level, extrapolate)
    missing = {text: int(count) for text, count in zip(_CAUSES, np.bincount(cause), strict=False) if text and count}

    columns = _with_bounds("runtime_s", runtimes_s)
    # One model's terms are those of all queries.
    terms_of = model_of if len(models) > 1 else np.array([len(models) - 1])
    accelerators = _accelerators_of_a_query(models, num_accelerators)[terms_of]
    if num_accelerators is not None and (number := np.count_nonzero(np.isnan(accelerators) & (cause == 0))):
        missing[NO_ACCELERATORS] = int(number)
    if price_usd_per_hour is not None:
        rates = _rates(models, price_usd_per_hour=price_usd_per_hour)[:, terms_of]
        cost_usd = dollar_cost_usd(runtimes_s, num_accelerators=accelerators, price_usd_per_hour=rates)
        columns |= _with_bounds("cost_usd", cost_usd)
    if power_watts is not None:
        rates = _rates(models, power_watts=power_watts)[:, terms_of]
        joules = energy_joules(runtimes_s, num_accelerators=accelerators, power_watts=rates)
        columns |= _with_bounds("energy_joules", joules)
    table = pd.DataFrame(columns | {"is_extrapolated": is_extrapolated}, index=queries.index, copy=False)
    # Queries of one model share its error, under whatever names they ask for it.
    numbers = {id(one): number for number, one in enumerate(models.values())}
    same = np.array([*(numbers[id(one)] for one in models.values()), -1])
    tokens = np.array([o, p + o])
    return PricedQueries(table, missing, runtimes_s[0] * accelerators, same[model_of], weights, tokens)


def _models_of(queries, model) -> tuple[dict[str, ModelOfRuntimes], np.ndarray]:
    """Models by name, and the number of each query's, -1 where there is none."""
    for name, one in model.items() if isinstance(model, Mapping) else [("", model)]:
        if one is None:
            raise TypeError(f"model {name}".strip() + " must be a ModelOfRuntimes, or a mapping of them; got None")
    if not isinstance(model, Mapping):
        return {"": model}, np.zeros(len(queries), dtype=int)
    check_columns(queries, ["model"], name="queries")
    codes, names = pd.factorize(queries["model"])
    number_of = {name: number for number, name in enumerate(model)}
    # One more for rows that name no model, whose code is -1.
    return dict(model), np.array([*(number_of.get(name, -1) for name in names), -1])[codes]


def _runtimes(p, o, models, model_of, level, extrapolate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runtimes with bounds, which queries lie beyond the profiled sizes, and the cause of each gap, 0 where is none."""
    conditions = [model_of < 0, ~(np.isfinite(p) & np.isfinite(o)), (p < 1) | (o < 1)]
    cause = np.select(conditions, [1, 2, 3], 0)
    is_extrapolated, runtimes_s = np.zeros(len(p), dtype=bool), np.full((3, len(p)), np.nan)
    for number, one in enumerate(models):
        rows = np.flatnonzero((model_of == number) & (cause == 0))
        is_extrapolated[rows] = one.is_extrapolated(p[rows])
        context = getattr(getattr(one, "architecture", None), "max_position_embeddings", np.inf)
        is_beyond = is_extrapolated[rows] & (not extrapolate)
        cause[rows] = np.select([p[rows] + o[rows] > context, is_beyond], [4, 5], 0)
        # Queries beyond the profiled sizes may have no interval where the others have one.
        for lies_beyond in (False, True):
            part = _all_or(rows[(cause[rows] == 0) & (is_extrapolated[rows] == lies_beyond)], len(p))
            runtimes_s[:, part] = _estimate(one, p[part], o[part], level, lies_beyond)
    return runtimes_s, is_extrapolated, cause


def _estimate(model, p, o, level, lies_beyond) -> np.ndarray:
    """Runtimes with their lower and upper bounds, NaN where the model knows nothing of its errors."""
    estimates = np.full((3, len(p)), np.nan)
    p, o = _as_integers(p), _as_integers(o)
    predict, interval = (
        partial(method, **(options_beyond(method) if lies_beyond else {}))
        for method in (model.predict, model.predict_interval)
    )
    knows_errors = True
    for start in range(0, len(p), _BLOCK_QUERIES):
        block = slice(start, start + _BLOCK_QUERIES)
        estimates[0, block] = predict(p[block], o[block])
        if knows_errors:
            try:
                estimates[1:, block] = interval(p[block], o[block], level=level)
            except NoIntervalError:
                knows_errors = False
    return estimates


def _all_or(rows, num_rows):
    """Positions of rows, or where they are all of them a slice, which copies nothing."""
    return slice(None) if len(rows) == num_rows else rows


def _as_integers(counts) -> np.ndarray:
    """Integers where all are, for which models look prompt sizes up instead of computing."""
    if counts.max(initial=0) > _MOST_EXACT:
        return counts
    integers = counts.astype(np.int64)
    return integers if np.array_equal(integers, counts) else counts


def _accelerators_of_a_query(models, given) -> np.ndarray:
    """Accelerators over the queries of a batch, by number of the model; the last one is of queries without a model."""
    shares = []
    for name, model in models.items():
        number = given.get(name) if isinstance(given, Mapping) else given
        if number is not None:
            check_positive(**{f"num_accelerators of {name}" if name else "num_accelerators": number})
        shares.append(np.nan if number is None else number / (getattr(model, "batch_size", None) or 1))
    return np.array([*shares, np.nan])


def _rates(models, **argument) -> np.ndarray:
    """Value and bounds of a rate, by number of the model; the last ones are of queries without a model."""
    ((label, given),) = argument.items()
    bounds = []
    for name in models:
        rate = given.get(name, np.nan) if isinstance(given, Mapping) else given
        if not isinstance(rate, DeviceRate | Number):
            whose = f" of {name}" if name else ""
            raise TypeError(f"{label}{whose} must be a number or a DeviceRate; got {rate!r:.60}")
        bounds.append((rate.value, rate.lower, rate.upper) if isinstance(rate, DeviceRate) else [rate] * 3)
    return np.array([*bounds, [np.nan] * 3], dtype=float).T


def _with_bounds(name, values) -> dict[str, np.ndarray]:
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), values, strict=True))
