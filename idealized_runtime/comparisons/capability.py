"""What capability costs to run: open models' published scores against runtime, dollars and energy on timed hardware.

Section 5.4 of arXiv:2305.02440 for models of today. A model that was timed on the hardware stands there with the fit
of its log; one that was not, with a prediction from the logs of others.
"""

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from idealized_runtime.architectures import get_architecture
from idealized_runtime.architectures.devices import device_bytes
from idealized_runtime.comparisons.capability_scores import (
    CAPABILITY_SCORES,
    NUM_QUESTIONS,
    CapabilityScore,
)
from idealized_runtime.comparisons.frontier import frontier_probability, pareto_frontier
from idealized_runtime.hardware.prices import SECONDS_PER_HOUR
from idealized_runtime.prediction import MessagesNotTimedError, RuntimePredictor, predict_priced
from idealized_runtime.queries.terms import on_terms, price_models, priced_by_log
from idealized_runtime.serving.planning import Answer
from idealized_runtime.statistics.intervals import draw_log_normal, percentile_interval, standard_error_of_interval

_NUM_DRAWS = 10_000
_USD = "usd_per_million_output_tokens"


def capability_points(
    predictor: RuntimePredictor,
    *,
    num_prompt_tokens: int,
    num_output_tokens: int,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
    parallelisms: Mapping[str, tuple[int, int]] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """One query to every model with a published score.

    Parameters
    ----------
    predictor : RuntimePredictor
        Of the hardware and its software stack.
    num_prompt_tokens, num_output_tokens : int
    price_usd_per_hour, power_watts : float
        Of one device; as :func:`~idealized_runtime.queries.terms.on_terms` has them where they are not given.
    parallelisms : mapping by model of (tensor, pipeline parallel size), optional
        Of models that were not timed, or by slices of their layers; as few devices as hold a model where it is not
        given.
    level : float
        Of the intervals.

    Returns
    -------
    DataFrame, by model
        ``mmlu_percent, mmlu_pro_percent, params_billion``; ``num_accelerators`` that hold it; ``is_measured``, whether
        its own log was fitted; and ``runtime_s``, ``cost_usd_per_1000_queries`` and ``energy_joules``, each with
        ``_lower`` and ``_upper``; ``caveats``, what the interval does not know of, empty for models that were timed in
        full.
        Left out are models whose context is shorter than the query, and those that need several devices where no
        message between devices was timed.

    Raises
    ------
    ValueError
        No price or power is known, or no interval; the prompt lies beyond the timed sizes; a model does not fit the
        devices given for it or has no score; or every model is left out.
    """
    num_tokens, parallelisms = num_prompt_tokens + num_output_tokens, parallelisms or {}
    if unknown := parallelisms.keys() - CAPABILITY_SCORES.keys():
        raise ValueError(f"parallelisms are of models with a score; there is none of {', '.join(sorted(unknown))}")
    terms = {"price_usd_per_hour": price_usd_per_hour, "power_watts": power_watts}
    timed, models = {model.name: model for model in predictor.models}, {}
    for name in CAPABILITY_SCORES:
        if get_architecture(name).max_position_embeddings >= num_tokens:
            with contextlib.suppress(MessagesNotTimedError):
                model = _model(predictor, timed.get(name), name, num_tokens, parallelisms.get(name))
                models[name] = on_terms(model, **terms)
    if not models:
        raise ValueError(f"no model with a score can answer {num_tokens} tokens on the devices that were timed")
    if unknown := [name for name in terms if any(getattr(model, name) is None for model in models.values())]:
        raise ValueError(f"what was timed is no accelerator of the registry: give {' and '.join(unknown)}")
    rows = {
        name: {
            **_scores(CAPABILITY_SCORES[name]),
            "params_billion": get_architecture(name).num_params / 1e9,
            "num_accelerators": model.num_accelerators,
            "is_measured": name in timed,
            "caveats": "; ".join(model.caveats),
        }
        for name, model in models.items()
    }
    points = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    sizes = {"num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens}
    queries = pd.DataFrame({"model": points.index, **sizes}, index=points.index)
    priced = price_models(queries, models, level=level).table.drop(columns="is_extrapolated")
    if (is_unknown := priced["runtime_s_lower"].isna()).any():
        raise ValueError(
            f"no runtime with an interval is known of {', '.join(points.index[is_unknown])} for this query"
        )
    for bound in ("", "_lower", "_upper"):
        priced[f"cost_usd_per_1000_queries{bound}"] = 1000 * priced.pop(f"cost_usd{bound}")
    return points.join(priced)


def points_of_servers(
    servers: pd.DataFrame, value: str, *, scores: Mapping[str, CapabilityScore] = CAPABILITY_SCORES
) -> pd.DataFrame:
    """Each model with a published score on that of its measured servers where it costs least.

    Parameters
    ----------
    servers : DataFrame
        A row a server, as from :meth:`~idealized_runtime.serving.full_batches.FullBatches.within`.
    value : str
        Column of the cost.
    scores : mapping by architecture

    Returns
    -------
    DataFrame, by model, in the order of ``scores``
        ``mmlu_percent, mmlu_pro_percent, params_billion, is_measured``, and the columns of ``servers``. Models without
        a score, or without a cost, are not in it.

    Examples
    --------
    >>> from idealized_runtime.measurements.ml_energy import read_ml_energy
    >>> from idealized_runtime.measurements.points import usable_points
    >>> from idealized_runtime.serving.full_batches import FullBatches
    >>> servers = FullBatches.fit(usable_points(read_ml_energy())).within(0.05)
    >>> points = points_of_servers(servers[servers["task"] == "lm-arena-chat"], "joules_per_output_token")
    >>> points["joules_per_output_token"].round(2).min()
    np.float64(0.08)
    """
    known = servers[servers["architecture"].isin(scores.keys()) & servers[value].notna()]
    best = known.sort_values(value, kind="stable").drop_duplicates("architecture").set_index("architecture", drop=False)
    best = best.loc[[name for name in scores if name in best.index]].rename_axis("model")
    rows = {
        name: {**_scores(scores[name]), "params_billion": get_architecture(name).num_params / 1e9, "is_measured": True}
        for name in best.index
    }
    columns = ["mmlu_percent", "mmlu_pro_percent", "params_billion", "is_measured"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model").join(best)


def frontier_table(
    points: pd.DataFrame, value: str, *, score: str = "mmlu_percent", level: float = 0.95
) -> pd.DataFrame:
    """Pareto frontier of score against a cost, with the probability of each model to be on it.

    Costs vary as their intervals say, scores as a test of so many questions does (``NUM_QUESTIONS``). Errors of
    different shapes are drawn independently; models of one shape, whose estimates are the same, share theirs, and so do
    scores of one ``architecture``, where the points have this column: a model on two machines knows the same on both.

    Parameters
    ----------
    points : DataFrame, by model
        As from :func:`capability_points` or :func:`points_of_servers`; those without the score are left out.
    value : str
        Column of the cost; bounds are in ``<value>_lower`` and ``<value>_upper``.
    score : {"mmlu_percent", "mmlu_pro_percent"}
    level : float
        Of those bounds.

    Returns
    -------
    DataFrame, by model, the cheapest first
        ``<score>, is_measured, <value>, on_frontier, frontier_probability``.
    """
    points = points[points[score].notna()]
    rng = np.random.default_rng(0)
    shapes, shape_of = np.unique(points[[value, f"{value}_lower", f"{value}_upper"]], axis=0, return_inverse=True)
    estimates, lower, upper = shapes[shape_of.ravel()].T
    errors = estimates * standard_error_of_interval(np.log(lower), np.log(upper), level)
    costs = draw_log_normal(estimates, errors, num_draws=_NUM_DRAWS, rng=rng, groups=shape_of.ravel())
    names = points.get("architecture", points.index)
    return _with_frontier(points[[score, "is_measured", value]], value, costs, rng, score, names)


def served_frontier(
    answers: Iterable[Answer],
    *,
    scores: Mapping[str, CapabilityScore] = CAPABILITY_SCORES,
    level: float = 0.95,
    num_draws: int = 1000,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Pareto frontier of score against what a million output tokens cost within the objectives of a plan.

    Each model is served by the cheapest of its candidates, at the largest rate that a replica bears within the
    objectives: a full replica, whatever rate was planned for. Rates vary as the errors of the step times let them,
    scores as a test of so many questions does. Errors of different step times are drawn independently; models with
    the same ones share theirs.

    Parameters
    ----------
    answers : iterable of Answer
        Of :func:`~idealized_runtime.serving.planning.plan`, all of the same objectives and queries.
    scores : mapping by model
    level : float
        Of the intervals.
    num_draws : int
    rng : Generator or seed

    Returns
    -------
    DataFrame, by model, the cheapest first
        ``mmlu_percent``; ``is_measured``, whether its step times are not predicted; ``hardware``; ``num_accelerators``
        of a replica; ``max_requests_per_s``; ``usd_per_million_output_tokens`` with ``_lower`` and ``_upper``;
        ``on_frontier``; ``frontier_probability``.

    Raises
    ------
    ValueError
        No candidate is a model with a score, or one of them has no price.
    """
    rng, drawn, rows, draws = np.random.default_rng(rng), {}, {}, {}
    for answer in answers:
        name, candidate, steps = answer.candidate.model, answer.candidate, answer.candidate.steps
        if name not in scores:
            continue
        if answer.usd_per_hour is None:
            raise ValueError(f"{candidate.label} has no price: give price_usd_per_hour")
        # Dollars of a million output tokens, but for the rate.
        usd = 1e6 * answer.usd_per_hour / answer.num_replicas / SECONDS_PER_HOUR / answer.demand.mean_output_tokens
        value = usd / answer.max_requests_per_s
        if name in rows and rows[name][_USD] <= value:
            continue
        shape = (candidate.devices, steps.coefficients.tobytes(), answer.max_requests_per_s)
        if shape not in drawn:
            drawn[shape] = answer.draw_max_requests_per_s(num_draws, rng)
        draws[name] = usd / drawn[shape]
        lower, upper = percentile_interval(draws[name], level)
        rows[name] = {
            "mmlu_percent": scores[name].mmlu_percent,
            "is_measured": steps.origin != "predicted",
            "hardware": steps.hardware,
            "num_accelerators": candidate.num_accelerators,
            "max_requests_per_s": answer.max_requests_per_s,
            _USD: value,
            f"{_USD}_lower": lower,
            f"{_USD}_upper": upper,
        }
    if not rows:
        raise ValueError("none of the candidates that serve is a model with a score")
    points = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return _with_frontier(points, _USD, np.column_stack([draws[name] for name in rows]), rng)


def _scores(row) -> dict:
    return {"mmlu_percent": row.mmlu_percent, "mmlu_pro_percent": row.mmlu_pro_percent}


def _with_frontier(points, value, costs, rng, score="mmlu_percent", names=None) -> pd.DataFrame:
    """Points, the cheapest first, with whether they are on the frontier and how surely, as costs and scores vary."""
    share = points[score].to_numpy(float) / 100
    score_errors = 100 * np.sqrt(share * (1 - share) / NUM_QUESTIONS[score])
    model_of = np.unique(points.index if names is None else names, return_inverse=True)[1]
    scores = 100 * share + score_errors * rng.standard_normal((len(costs), model_of.max() + 1))[:, model_of]
    table = points.assign(
        on_frontier=pareto_frontier(points, value, score),
        frontier_probability=frontier_probability(points, costs, quality=score, quality_draws=scores),
    )
    return table.sort_values(value, kind="stable")


def _model(predictor, timed, name, num_tokens, parallelism):
    """A model with a score on the devices that hold it, as timed or else predicted."""
    architecture, sizes = get_architecture(name), {"tensor_parallel_size": None, "pipeline_parallel_size": None}
    if parallelism is not None:
        sizes = dict(zip(sizes, parallelism, strict=True))
        memory_bytes, dtype = getattr(predictor.accelerator, "memory_bytes", None), predictor.models[0].dtype
        num_bytes = device_bytes(architecture, num_context_tokens=num_tokens, dtype=dtype, **sizes)
        if memory_bytes is not None and num_bytes > memory_bytes:
            raise ValueError(
                f"{name} on {' x '.join(map(str, parallelism))} devices: {num_bytes:.3g} bytes a device do not fit its "
                f"memory of {memory_bytes:.3g} bytes; give other parallelisms for it"
            )
    if timed is None:
        return predict_priced(architecture, predictor, num_context_tokens=num_tokens, **sizes)
    model = priced_by_log(name, timed.fit, timed, num_context_tokens=num_tokens)
    if timed.is_sliced and parallelism is not None:
        model = replace(model, num_accelerators=max(model.num_accelerators, math.prod(parallelism)))
    return model
