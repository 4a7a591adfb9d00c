"""What follows from a plan: an API instead, the hours of a day, a tighter objective, one more measurement."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_not_negative, check_positive
from idealized_runtime.hardware.prices import SECONDS_PER_HOUR
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Answer, Candidate, Simulations, plan, slopes_per_second
from idealized_runtime.serving.steps import TERMS

_HOURS_A_DAY = 24
# What tells a term's time: the requests to measure.
MEASURE = {
    "fixed_s": "requests one at a time, of many output tokens",
    "prompt_token_s": "long prompts of few output tokens, one at a time",
    "sequence_s": "many short requests at once",
    "cache_token_s": "many requests of long prompts and answers at once",
    "expert_s": "few requests at once against many",
    "request_s": "requests of one short prompt and one output token",
}


def break_even(answer: Answer, usd_per_million_prompt_tokens: float, usd_per_million_output_tokens: float) -> dict:
    """From how many requests an hour serving oneself costs less than an API that asks these prices.

    n replicas are paid by the hour whatever comes, an API by the request, so the cost of one's own is a staircase: just
    after a step the API may be cheaper again, until replicas are many.

    Returns
    -------
    dict
        ``usd_per_query_api``, ``usd_per_query_own`` at the rate of the demand, ``usd_per_query_full`` of a replica at
        its largest rate, ``requests_per_hour_from`` (None where never) and ``requests_per_hour_always`` (None where the
        API is cheaper at some larger rate), ``sentence``.

    Raises
    ------
    ValueError
        A price is negative, both are 0, or the candidate has no price.
    """
    check_not_negative(
        usd_per_million_prompt_tokens=usd_per_million_prompt_tokens,
        usd_per_million_output_tokens=usd_per_million_output_tokens,
    )
    if answer.usd_per_hour is None:
        raise ValueError(f"{answer.candidate.label} has no price: give --price-usd-per-hour")
    demand = answer.demand
    api_usd = 1e-6 * (
        demand.mean_prompt_tokens * usd_per_million_prompt_tokens
        + demand.mean_output_tokens * usd_per_million_output_tokens
    )
    if api_usd == 0:
        raise ValueError("an API that asks nothing is never dearer: give the price of its tokens")
    replica_usd = answer.usd_per_hour / answer.num_replicas
    most = SECONDS_PER_HOUR * answer.max_requests_per_s
    full_usd, from_rate, always = replica_usd / most, replica_usd / api_usd, None
    said = f"The API asks {1000 * api_usd:.3g} $ a thousand queries"
    if full_usd >= api_usd:
        from_rate = None
        said += f", less than a replica that is always full, {1000 * full_usd:.3g} $: it is cheaper at every rate."
    else:
        # The n-th replica pays even where it has just been added: n c <= u (n - 1) r. The one before pays later.
        steps = int(np.ceil(1 / (1 - full_usd / api_usd) - 1e-9))
        always = max(1, steps - 1) * from_rate
        said += f"; one's own is cheaper from {from_rate:.4g} requests an hour on"
        said += "." if always == from_rate else f", and at every rate from {always:.4g} on."
    return {
        "usd_per_query_api": api_usd,
        "usd_per_query_own": answer.usd_per_query,
        "usd_per_query_full": full_usd,
        "requests_per_hour_from": from_rate,
        "requests_per_hour_always": always,
        "sentence": said,
    }


def replicas_by_hour(
    answer: Answer, rates_per_s: Sequence[float], objectives: Sequence[Objective], simulations: Simulations
) -> dict:
    """Replicas for each hour of a day, and what it costs to keep those of the busiest against following the hours.

    Returns
    -------
    dict
        ``by_hour`` (DataFrame: ``hour, requests_per_s, num_replicas, usd_per_hour, usd_per_query``),
        ``usd_per_day_fixed, usd_per_day_following`` (None where no price is known), ``sentence``. Fewer hours than 24
        stand for equal parts of the day.

    Raises
    ------
    ValueError
        The demand of an hour cannot be served; the message has the reason.
    """
    candidate = replace(answer.candidate, steps=replace(answer.candidate.steps, covariance=None))
    # Rates that repeat are planned once.
    answers = {}
    for rate in dict.fromkeys(rates_per_s):
        found = plan([candidate], answer.demand.at_rate(rate), objectives, num_draws=1, simulations=simulations)
        if found.rejections:
            raise ValueError(f"{rate:g} requests/s cannot be served: {found.rejections[0].reason}")
        answers[rate] = found.answers[0]
    rows = [
        {"hour": hour, "requests_per_s": rate, "num_replicas": answers[rate].num_replicas,
         "usd_per_hour": answers[rate].usd_per_hour, "usd_per_query": answers[rate].usd_per_query}
        for hour, rate in enumerate(rates_per_s)
    ]  # fmt: skip
    by_hour, fixed, following = pd.DataFrame(rows), None, None
    said = f"Replicas from {by_hour['num_replicas'].min()} to {by_hour['num_replicas'].max()}"
    if answer.usd_per_hour is not None:
        following = float(by_hour["usd_per_hour"].mean() * _HOURS_A_DAY)
        fixed = float(by_hour["usd_per_hour"].max() * _HOURS_A_DAY)
        said += f"; kept at the most {fixed:.2f} $ a day, following the hours {following:.2f} $"
    return {"by_hour": by_hour, "usd_per_day_fixed": fixed, "usd_per_day_following": following, "sentence": f"{said}."}


def tighter_objective(
    candidates: Sequence[Candidate],
    demand: Demand,
    objective: Objective,
    seconds: Sequence[float],
    *,
    others: Sequence[Objective] = (),
    **options,
) -> pd.DataFrame:
    """What an objective costs at each of several limits, beside others that stay as they are.

    Returns
    -------
    DataFrame, one row a limit and candidate that meets it
        ``seconds, model, hardware, num_accelerators, num_replicas, num_replicas_lower, num_replicas_upper,
        probability_met, usd_per_hour, usd_per_query``. ``options`` as of
        :func:`~idealized_runtime.serving.planning.plan`.
    """
    check_positive(seconds=seconds)
    options.setdefault("simulations", Simulations())
    names = ("num_replicas", "num_replicas_lower", "num_replicas_upper", "probability_met", "usd_per_hour",
             "usd_per_query")  # fmt: skip
    keys, rows = ("seconds", "model", "hardware", "num_accelerators"), []
    for limit in seconds:
        found = plan(candidates, demand, [replace(objective, seconds=float(limit)), *others], **options)
        for answer in found.answers:
            candidate = answer.candidate
            said = limit, candidate.model, candidate.steps.hardware, candidate.num_accelerators
            rows.append((*said, *(getattr(answer, name) for name in names)))
    return pd.DataFrame(rows, columns=[*keys, *names])


def value_of_measuring(answer: Answer, *, level: float = 0.95, num_draws: int = 2000, rng=0) -> pd.DataFrame:
    """Which step time is to be measured next: what is left open of the replicas once it is known exactly.

    The largest rate follows the step times by their elasticities, and replicas follow the largest rate.

    Returns
    -------
    DataFrame, by term, the most decisive first
        ``share_of_variance`` of the largest rate, ``num_replicas_lower, num_replicas_upper`` were it known,
        ``measure``: what to measure. The first row, ``nothing``, is as it stands.

    Raises
    ------
    ValueError
        No error of the step times is known.
    """
    steps, demand = answer.candidate.steps, answer.demand
    if steps.covariance is None:
        raise ValueError(f"{answer.candidate.label}: no error of its step times is known")
    slopes = slopes_per_second(steps, answer.elasticities)
    # Largest rates of a replica that are asked for. Several share a queue, so that each may bear more than one alone:
    # these are as many as the replicas that were found.
    load = np.clip(demand.rate_per_s / answer.max_requests_per_s, answer.num_replicas - 1 + 1e-6, answer.num_replicas)
    normal = np.random.default_rng(rng).standard_normal((num_draws, len(TERMS)))
    rows = {}
    for term in (None, *answer.decisive.sort_values(ascending=False).index):
        covariance = steps.covariance.copy()
        if term is not None:
            place = TERMS.index(term)
            if covariance[place, place] == 0:
                continue
            # What is left of the others once this one is known.
            known = covariance[:, place]
            covariance = covariance - np.outer(known, known) / covariance[place, place]
        values, vectors = np.linalg.eigh(covariance)
        moved = normal * np.sqrt(np.maximum(values, 0)) @ vectors.T
        rates = answer.max_requests_per_s * np.exp(moved @ slopes)
        needed = np.maximum(1, np.ceil(load * answer.max_requests_per_s / rates - 1e-9))
        lower, upper = np.quantile(needed, [(1 - level) / 2, (1 + level) / 2])
        rows[term or "nothing"] = {
            "share_of_variance": np.nan if term is None else answer.decisive[term],
            "num_replicas_lower": int(lower),
            "num_replicas_upper": int(np.ceil(upper)),
            "measure": "" if term is None else MEASURE[term],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("known")
