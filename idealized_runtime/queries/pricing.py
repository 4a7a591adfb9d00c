"""Runtime, dollar cost and energy of every query, from fitted runtime models.

Raw runtime is what an API took, and comes with the queries (``helm.read_runs``). Denoised runtime is what its
fitted minimum would take. Idealized runtime is what the model takes on stated hardware and software; dollar cost
and energy follow from it (arXiv:2305.02440, section 4). Queries that cannot be estimated stay missing, named and
counted by cause.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, check_positive_or_missing, numeric_columns, warn_missing
from idealized_runtime.hardware.prices import dollar_cost_usd, energy_joules


class RuntimeEstimator(Protocol):
    """What an estimate needs of a fitted model; ``idealized_runtime.fits.RuntimeModel`` is one."""

    def predict(self, num_prompt_tokens, num_output_tokens, *, extrapolate: bool = False):
        """Seconds for arrays of queries."""

    def is_extrapolated(self, num_prompt_tokens):
        """Whether each prompt size lies outside those that were profiled."""


def query_metrics(
    queries: pd.DataFrame,
    *,
    idealized: Mapping[str, RuntimeEstimator],
    denoised: Mapping[str, RuntimeEstimator] | None = None,
    num_accelerators: Mapping[str, int] | int | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
    extrapolate: bool = False,
) -> pd.DataFrame:
    """Estimates for every query: idealized and denoised runtime, idealized dollar cost and energy.

    Parameters
    ----------
    queries : DataFrame, one row a query
        Columns ``model, num_prompt_tokens, num_output_tokens``.
    idealized, denoised : mapping of model to RuntimeEstimator
        Models of a stated hardware; of the API itself.
    num_accelerators : int, or mapping of model to int, optional
        Accelerators that serve one query at a time.
    price_usd_per_hour, power_watts : float, optional
        Of one accelerator; each needs ``num_accelerators``.
    extrapolate : bool
        Estimate queries beyond the profiled prompt sizes, too.

    Returns
    -------
    DataFrame
        With the index of ``queries``: ``idealized_runtime_s`` and, for what was given,
        ``denoised_runtime_s``, ``idealized_cost_usd``, ``idealized_energy_joules``. NaN where missing.

    Raises
    ------
    ValueError
        A column is absent or not numeric, a price or power without ``num_accelerators``, or with it a model
        that was timed in batches.

    Warns
    -----
    MissingValueWarning
        Once for each cause and estimate, with the models and how many queries of each.
    """
    if num_accelerators is None and (price_usd_per_hour is not None or power_watts is not None):
        raise ValueError("cost and energy need num_accelerators, an integer or one for each model")
    if num_accelerators is not None:
        _refuse_batches(idealized)
    columns = {"idealized_runtime_s": estimate_runtimes(queries, idealized, extrapolate=extrapolate)}
    if denoised is not None:
        columns["denoised_runtime_s"] = estimate_runtimes(
            queries, denoised, extrapolate=extrapolate, name="denoised_runtime_s"
        )
    if num_accelerators is not None:
        numbers = accelerators_of(queries, num_accelerators)
        if price_usd_per_hour is not None:
            columns["idealized_cost_usd"] = dollar_cost_usd(
                columns["idealized_runtime_s"], num_accelerators=numbers, price_usd_per_hour=price_usd_per_hour
            )
        if power_watts is not None:
            columns["idealized_energy_joules"] = energy_joules(
                columns["idealized_runtime_s"], num_accelerators=numbers, power_watts=power_watts
            )
    return pd.DataFrame(columns, index=queries.index)


def estimate_runtimes(
    queries: pd.DataFrame,
    models: Mapping[str, RuntimeEstimator],
    *,
    extrapolate: bool = False,
    name: str = "idealized_runtime_s",
) -> pd.Series:
    """Estimated runtime of every query, by the fitted model of its model.

    Parameters
    ----------
    queries : DataFrame, one row a query
        Columns ``model, num_prompt_tokens, num_output_tokens``; token counts may be means.
    models : mapping of model to RuntimeEstimator
    extrapolate : bool
        Estimate queries beyond the profiled prompt sizes instead of leaving them missing.
    name : str
        Of the result, as warnings call it.

    Returns
    -------
    Series of float, seconds
        With the index of ``queries``; NaN where a query has no estimate.

    Raises
    ------
    ValueError
        A column is absent, or a token count is not numeric.

    Warns
    -----
    MissingValueWarning
        Once for each cause: no fitted model; no token counts; fewer than one prompt or output token;
        beyond the profiled prompt sizes. The models are named, with how many queries of each.
    """
    p, o = _token_counts(queries)
    codes, names = pd.factorize(queries["model"])
    has_model = np.isin(codes, [code for code, model in enumerate(names) if model in models])
    has_counts = np.isfinite(p) & np.isfinite(o)
    is_too_short = (p < 1) | (o < 1)
    runtimes_s, is_beyond = _predict(
        [(models[names[code]], rows) for code, rows in _rows_by_code(codes, has_model & has_counts & ~is_too_short)],
        p, o, extrapolate,
    )  # fmt: skip
    causes = {
        "have no fitted model": ~has_model,
        "lack token counts": has_model & ~has_counts,
        "have fewer than one prompt or output token": has_model & has_counts & is_too_short,
        "lie beyond the profiled prompt sizes (extrapolate=True estimates them)": is_beyond,
    }
    for cause, is_missing in causes.items():
        warn_missing(is_missing, f"{cause}, so no {name}", labels=queries["model"])
    return pd.Series(runtimes_s, index=queries.index, name=name)


def accelerators_of(queries: pd.DataFrame, num_accelerators: Mapping[str, int] | int) -> pd.Series:
    """Number of accelerators that serve each query.

    Parameters
    ----------
    queries : DataFrame with a column ``model``
    num_accelerators : int, or mapping of model to int

    Returns
    -------
    Series of float
        With the index of ``queries``; NaN, with a warning, where the mapping lacks the model.
    """
    if not isinstance(num_accelerators, Mapping):
        check_positive_or_missing(num_accelerators=num_accelerators)
        return pd.Series(float(num_accelerators), index=queries.index)
    check_positive_or_missing(**{f"num_accelerators of {model}": number for model, number in num_accelerators.items()})
    codes, names = pd.factorize(queries["model"])
    # One more for rows without a model, whose code is -1.
    by_code = np.array([num_accelerators.get(name, np.nan) for name in names] + [np.nan], dtype=float)
    numbers = by_code[codes]
    warn_missing(np.isnan(numbers), "have no number of accelerators, so no cost and no energy", labels=queries["model"])
    return pd.Series(numbers, index=queries.index, name="num_accelerators")


def _refuse_batches(models):
    """The queries of a batch share its cost, which the runtime of a query does not tell."""
    sizes = {name: getattr(model, "batch_size", None) or 1 for name, model in models.items()}
    if batched := [f"{name} of {size}" for name, size in sizes.items() if size > 1]:
        raise ValueError(
            "cost and energy of a query need models timed with one query at a time; timed in batches: "
            f"{', '.join(batched[:5])}"
        )


def _token_counts(queries):
    check_columns(queries, ["model"], name="queries")
    return numeric_columns(queries, ["num_prompt_tokens", "num_output_tokens"], name="queries")


def _predict(rows_by_model, p, o, extrapolate):
    """Seconds of every row, NaN where there is no estimate; and which rows lie beyond what was profiled."""
    runtimes_s, is_beyond = np.full(len(p), np.nan), np.zeros(len(p), dtype=bool)
    for model, rows in rows_by_model:
        if not extrapolate:
            is_beyond[rows] = model.is_extrapolated(_as_integers(p[rows]))
            rows = rows[~is_beyond[rows]]
        if len(rows):
            runtimes_s[rows] = model.predict(_as_integers(p[rows]), _as_integers(o[rows]), extrapolate=extrapolate)
    return runtimes_s, is_beyond


def _rows_by_code(codes, usable):
    """Pairs of a code and the positions of its usable rows."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(codes[rows], prepend=-1))
    return [(codes[group[0]], group) for group in np.split(rows, starts[1:]) if len(group)]


def _as_integers(counts):
    """Integers where all are, for which models look prompt sizes up instead of computing."""
    integers = counts.astype(np.int64)
    return integers if np.array_equal(integers, counts) else counts
