"""Requests through a simulated server: when each has its first and its last token, and whether the server keeps up."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_positive
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.engine import Served, serve
from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel

PERCENTILES = (50, 95, 99)
# Times of a request, and what they are called.
METRICS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
# In place of an infinite number, which cannot be interpolated.
_NEVER = 1e100
# From the first arrival to the last; beyond it a clock in doubles rounds by microseconds, of steps of milliseconds.
_LONGEST_S = 1e10


def run_engines(
    requests: pd.DataFrame, steps: StepModel, scheduler: Scheduler, *, num_parallel: int | None = None
) -> Served:
    """What becomes of requests at a server; its clock begins with the first arrival.

    Raises
    ------
    ValueError
        A size is below 1 or an arrival is not known; requests come over more than 1e10 seconds; or one does not fit the
        cache, however empty: the message counts them.
    """
    arrival_s = seconds_from_first(requests)
    # One column after the other: of a table of two, pandas takes longer than a run of few requests.
    sizes = np.column_stack([requests[name].to_numpy(float, na_value=np.nan) for name in TOKEN_COLUMNS])
    if (is_bad := ~((sizes >= 1) & np.isfinite(arrival_s)[:, None]).all(axis=1)).any():
        raise ValueError(
            f"requests need an arrival and sizes of at least 1 token; {is_bad.sum()} of {len(requests)} do not have "
            f"them, the first is in row {np.flatnonzero(is_bad)[0] + 1}"
        )
    if (span_s := arrival_s.max(initial=0.0)) > _LONGEST_S:
        raise ValueError(
            f"arrivals must lie within {_LONGEST_S:g} s, 300 years, for steps not to be lost in rounding; they span "
            f"{span_s:.3g} s: check the rate or the unit of arrival_s"
        )
    needed = sizes.sum(axis=1) - 1
    if scheduler.cache_tokens is not None and (is_larger := needed > scheduler.cache_tokens).any():
        raise ValueError(
            f"cache_tokens must be at least {needed.max():.0f}, the longest request; got {scheduler.cache_tokens}, and "
            f"{is_larger.sum()} of {len(needed)} requests do not fit"
        )
    return serve(arrival_s, *sizes.astype(int).T, steps, scheduler, num_parallel=num_parallel)


def seconds_from_first(requests: pd.DataFrame) -> np.ndarray:
    """Arrivals in seconds from the first one: clocks of servers may count from 1970, and steps are short."""
    arrival_s = requests["arrival_s"].to_numpy(float)
    return arrival_s - np.nanmin(arrival_s, initial=np.inf)


def simulate(
    requests: pd.DataFrame, steps: StepModel, scheduler: Scheduler | None = None, *, num_parallel: int | None = None
) -> pd.DataFrame:
    """What a server would do with these requests.

    Parameters
    ----------
    requests : DataFrame, one row a request
        ``arrival_s, num_prompt_tokens, num_output_tokens``, in any order.
    steps : StepModel
    scheduler : Scheduler, optional
        The one that the steps were measured with where it is not given.
    num_parallel : int, optional
        So many clients, each of whom sends the next request in their order when its last one is answered, instead of
        the arrivals.

    Returns
    -------
    DataFrame, a request table in the order of the requests
        Their columns (``arrival_s`` of a closed loop as it came); ``queue_s`` (from arrival to the first step that
        encodes it), ``time_to_first_token_s``, ``runtime_s``, ``num_preemptions``; ``time_per_output_token_s`` where
        the requests have one.

    Examples
    --------
    >>> requests = random_requests(pd.DataFrame({"num_prompt_tokens": [500], "num_output_tokens": [100]}),
    ...                            rate_per_s=2, num_requests=1000, rng=0)
    >>> float(simulate(requests, StepModel(0.013, 4e-5, 4e-5, 7e-8))["runtime_s"].mean().round(3))
    1.416
    """
    if num_parallel is not None:
        check_positive(num_parallel=num_parallel)
        requests = requests.assign(arrival_s=0.0)
    served = run_engines(requests, steps, scheduler or steps.scheduler, num_parallel=num_parallel)
    if num_parallel is not None:
        requests = requests.assign(arrival_s=served.arrival_s)
    arrival_s = served.arrival_s
    simulated = requests.assign(
        queue_s=served.scheduled_s - arrival_s,
        time_to_first_token_s=served.first_token_s - arrival_s + steps.request_s,
        runtime_s=served.finish_s - arrival_s + steps.request_s,
        num_preemptions=served.num_preemptions,
    )
    if "time_per_output_token_s" in requests:
        simulated["time_per_output_token_s"] = time_per_output_token_s(simulated)
    return simulated


def time_per_output_token_s(requests: pd.DataFrame) -> np.ndarray:
    """TPOT of each request, seconds; NaN for an answer of one token."""
    further = requests["num_output_tokens"].to_numpy(float) - 1
    decode_s = (requests["runtime_s"] - requests["time_to_first_token_s"]).to_numpy(float)
    return np.divide(decode_s, further, out=np.full(len(requests), np.nan), where=further > 0)


def times_of_requests(requests: pd.DataFrame) -> dict[str, np.ndarray]:
    """``ttft_s``, ``tpot_s`` and ``e2e_s`` of each request, seconds; NaN where there is none."""
    columns = requests["time_to_first_token_s"], time_per_output_token_s(requests), requests["runtime_s"]
    return {name: np.asarray(values, dtype=float) for name, values in zip(METRICS, columns, strict=True)}


def summarize(requests: pd.DataFrame) -> dict:
    """``ttft_s``, ``tpot_s``, ``e2e_s`` of answered requests: ``mean``, ``p50``, ``p95``, ``p99`` each, in seconds."""
    summary = {}
    for name, values in times_of_requests(requests).items():
        values = values[~np.isnan(values)]
        numbers = [values.mean(), *np.percentile(values, PERCENTILES)] if values.size else [np.nan] * 4
        summary[name] = dict(zip(("mean", *(f"p{p}" for p in PERCENTILES)), map(float, numbers), strict=True))
    return summary


def interval_of_draws(value: float, drawn: Sequence[float], level: float) -> tuple[float, float]:
    """What a number of simulated requests is between by the errors of the step times; the number is within."""
    # Of few draws the outermost stand for the tails: interpolation between them would fall short.
    finite = np.minimum(drawn, _NEVER)
    bounds = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2], method="weibull")
    lower, upper = np.where(bounds > np.sqrt(_NEVER), np.inf, bounds).tolist()
    return min(lower, value), max(upper, value)


def output_tokens_per_s(requests: pd.DataFrame) -> float:
    """Output tokens of all requests over the time from the first arrival to the last token."""
    finish_s = requests["arrival_s"] + requests["runtime_s"]
    return float(requests["num_output_tokens"].sum() / (finish_s.max() - requests["arrival_s"].min()))


def saturated_rate_per_s(
    requests: pd.DataFrame,
    steps: StepModel,
    scheduler: Scheduler,
    *,
    num_requests: int = 2000,
    rng: int | np.random.Generator = 0,
) -> float:
    """Requests a second that leave a server with never an empty queue, sizes drawn from these requests.

    Counted while others still wait, and after the first two batches are through. All begin at once, so batches go
    through one after the other, the more so the more alike the sizes are: counted are whole ones. A larger rate of
    arrivals makes the queue grow without end, a smaller one does not (as in any queue that works whenever there is
    work).
    """
    number = max(num_requests, 12 * min(scheduler.max_num_seqs, 2000) * scheduler.num_engines)
    rng = np.random.default_rng(rng)
    # Each size as often as any other.
    rows = np.concatenate([rng.permutation(len(requests)) for _ in range(-(-number // len(requests)))])
    sizes = requests[["num_prompt_tokens", "num_output_tokens"]].iloc[rows]
    served = run_engines(sizes.assign(arrival_s=0.0), steps, scheduler)
    finish_s, scheduled_s = served.finish_s, served.scheduled_s
    order = np.argsort(scheduled_s, kind="stable")
    batch = scheduler.max_num_seqs * scheduler.num_engines
    begin = batch * max(2, len(rows) // 6 // batch)
    end = begin + max(0, (len(rows) - 1 - begin) // batch) * batch
    if end == begin or scheduled_s[order[end]] <= np.quantile(finish_s, 1 / 6):
        # Nearly all run at once: what is through when the last one is.
        return len(rows) / finish_s.max()
    # Tokens, not requests: which of them happen to begin in the stretch matters less.
    tokens = sizes["num_output_tokens"].to_numpy()
    seconds = scheduled_s[order[end]] - scheduled_s[order[begin]]
    return float(tokens[order[begin:end]].sum() / tokens.mean() / seconds)


def arrival_rate_per_s(requests: pd.DataFrame) -> float:
    """Requests a second, from the first to the last arrival; 0 of a single one, infinite where all come at once."""
    arrival_s = requests["arrival_s"]
    if len(requests) < 2:
        return 0.0
    span_s = arrival_s.max() - arrival_s.min()
    return np.inf if span_s == 0 else float((len(requests) - 1) / span_s)


def simulate_days(
    days: Sequence[pd.DataFrame],
    steps: StepModel,
    scheduler: Scheduler | None = None,
    *,
    num_draws: int = 40,
    level: float = 0.95,
    rng: int | np.random.Generator = 0,
    rate_per_s: float | None = None,
    num_parallel: int | None = None,
) -> dict:
    """Answers of a server, with what the errors of its step model leave open, and apart from it what days differ by.

    Parameters
    ----------
    days : sequence of DataFrame
        Requests of one demand as they may come, a table a day; the first one is answered. One, of a trace that
        is given.
    steps : StepModel
    scheduler : Scheduler, optional
    num_draws : int
        Step models drawn for the intervals.
    level : float
    rng : Generator or seed
    rate_per_s : float, optional
        At which the requests were drawn to come; where it is not given, that at which the first day's came.
    num_parallel : int, optional
        Of a closed loop, as for :func:`simulate`: the rate is what comes of it, and always stable.

    Returns
    -------
    dict
        ``num_requests``; ``is_stable`` (the rate of arrivals is below :func:`saturated_rate_per_s`),
        ``probability_stable`` (share of the draws), ``arrival_rate_per_s`` (NaN where all come at once, which is not
        stable), ``saturated_rate_per_s, queue_growth_per_s`` (requests by which the queue grows each second, 0 of a
        stable server: its times then are those of these requests alone, and grow with their number);
        ``output_tokens_per_s``; both rates that are simulated with ``_lower`` and ``_upper``; ``ttft_s``, ``tpot_s``
        and ``e2e_s``, each by ``mean, p50, p95, p99``: ``value``, ``lower``, ``upper``, and with several days
        ``day_lower``, ``day_upper``. Bounds are None where no error is known.
        ``requests``: the first day's, as :func:`simulate` gives them.
    """
    scheduler = scheduler or steps.scheduler

    def run(day, model):
        return simulate(day, model, scheduler, num_parallel=num_parallel)

    def bounded(name, value, of_draws):
        lower, upper = interval_of_draws(value, of_draws, level) if of_draws else (None, None)
        return {name: value, f"{name}_lower": lower, f"{name}_upper": upper}

    answered = run(days[0], steps)
    if num_parallel is not None:
        rate_per_s = float(len(answered) / (answered["arrival_s"] + answered["runtime_s"]).max())
    rate = arrival_rate_per_s(days[0]) if rate_per_s is None else rate_per_s
    drawn = steps.draws(num_draws, rng) if steps.covariance is not None else []
    limits = [saturated_rate_per_s(days[0], model, scheduler) for model in (steps, *drawn)]
    metrics, tokens_per_s = summarize(answered), output_tokens_per_s(answered)
    runs = [run(days[0], model) for model in drawn]
    of_draws = [summarize(table) for table in runs]
    of_days = [metrics, *(summarize(run(day, steps)) for day in days[1:])]
    is_stable = [num_parallel is not None or rate < limit for limit in limits]
    answer = {
        "num_requests": len(answered),
        "is_stable": bool(is_stable[0]),
        "probability_stable": float(np.mean(is_stable[1:] or is_stable)),
        "arrival_rate_per_s": rate if rate < np.inf else np.nan,
        **bounded("saturated_rate_per_s", limits[0], limits[1:]),
        "queue_growth_per_s": 0.0 if is_stable[0] else rate - limits[0] if rate < np.inf else np.nan,
        **bounded("output_tokens_per_s", tokens_per_s, [output_tokens_per_s(table) for table in runs]),
    }
    for metric, statistics in metrics.items():
        answer[metric] = {}
        for statistic, value in statistics.items():
            lower = upper = None
            if of_draws:
                lower, upper = interval_of_draws(value, [draw[metric][statistic] for draw in of_draws], level)
            answer[metric][statistic] = {"value": value, "lower": lower, "upper": upper}
            if len(days) > 1:
                bounds = interval_of_draws(value, [day[metric][statistic] for day in of_days], level)
                answer[metric][statistic] |= dict(zip(("day_lower", "day_upper"), bounds, strict=True))
    return {**answer, "requests": answered}


def rate_curve(
    queries: pd.DataFrame, rates_per_s: Sequence[float], steps: StepModel, scheduler: Scheduler | None = None, *,
    num_requests: int = 1000, num_draws: int = 20, level: float = 0.95, rng: int | np.random.Generator = 0,
) -> pd.DataFrame:  # fmt: skip
    """What is waited for at each of several rates, the sizes drawn from these queries; the same draws at every rate.

    Returns
    -------
    DataFrame, one row a rate, measure and statistic
        ``rate_per_s, is_stable, measure`` (``ttft_s, tpot_s, e2e_s``), ``statistic`` (``mean, p50, p95, p99``),
        ``value, lower, upper`` (s).
    """
    rows = []
    for rate in rates_per_s:
        day = random_requests(queries, rate_per_s=rate, num_requests=num_requests, rng=rng)
        answer = simulate_days(
            [day], steps, scheduler, num_draws=num_draws, level=level, rng=rng, rate_per_s=rate
        )  # fmt: skip
        for measure in METRICS:
            for statistic, known in answer[measure].items():
                named = {"measure": measure, "statistic": statistic, **known}
                rows.append({"rate_per_s": rate, "is_stable": answer["is_stable"], **named})
    return pd.DataFrame(rows)
