"""What many requests took together: percentiles with intervals, throughput and goodput, one row a load.

Requests are the rows of :func:`idealized_runtime.records.read_requests` or of an importer. Warm-ups count nowhere;
failed and deviating requests count in no time, and meet no objective.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest, quantile_test

from idealized_runtime.api.trials import INTERRUPTED_ERROR
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.records.definitions import IMPORTED

LOAD = ["load", "num_parallel", "rate_per_s"]
GROUP = ["model", *LOAD, *TOKEN_COLUMNS]
QUANTITIES = ("time_to_first_token_s", "time_per_output_token_s", "inter_chunk_time_s", "runtime_s")
PERCENTILES = (50, 90, 95, 99)
# Answers of fewer tokens say no least time of one: two that happen to arrive together would be taken for it.
_LEAST_TOKENS = {"time_per_output_token_s": 9, "inter_chunk_time_s": np.inf}
# What an objective may limit, and its short name.
OBJECTIVES = {"ttft": "time_to_first_token_s", "tpot": "time_per_output_token_s", "e2e": "runtime_s"}


def summarize_requests(
    requests: pd.DataFrame,
    *,
    by: Sequence[str] = GROUP,
    percentiles: Sequence[float] = PERCENTILES,
    level: float = 0.95,
) -> pd.DataFrame:
    """Distribution of each time of a request, by load and setting.

    Parameters
    ----------
    requests : DataFrame, one row a request
    by : sequence of str
        Columns whose values make a group.
    percentiles : sequence of float
        Between 0 and 100, exclusive.
    level : float
        Of the intervals.

    Returns
    -------
    DataFrame, one row a group and quantity
        ``by``, ``quantity`` (of :data:`QUANTITIES`, where it was measured), ``num_values``, ``mean``, ``std``
        (ddof = 1), ``minimum``, ``maximum`` and, for each percentile such as 99, ``p99, p99_lower, p99_upper``, all in
        seconds. The minimum of the time per output token is that of answers of 9 tokens or more, and missing without
        one; events arrive together by chance, so there is none between events. Intervals are those of order statistics,
        for independent requests: NaN where too few requests bound the percentile, and for inter-chunk times, which hang
        on each other within a request.
    """
    if bad := [q for q in percentiles if not 0 < q < 100]:
        raise ValueError(f"percentiles must lie between 0 and 100, exclusive; got {bad}")

    def describe(group):
        for quantity in QUANTITIES:
            is_independent = quantity != "inter_chunk_time_s"
            times_s = group[quantity] if is_independent else group["inter_chunk_times_s"].explode()
            values_s = times_s.dropna().to_numpy(dtype=float)
            if len(values_s):
                row = _describe(values_s, percentiles, level if is_independent else None)
                if quantity in _LEAST_TOKENS and not group["definitions"].isin(IMPORTED).any():
                    is_long = (group["num_output_tokens"] >= _LEAST_TOKENS[quantity]).fillna(False)
                    row["minimum"] = group.loc[is_long, quantity].min() if is_long.any() else np.nan
                yield {"quantity": quantity, **row}

    # Of a million requests only what is read is copied.
    needed = [*by, *QUANTITIES[:2], "inter_chunk_times_s", "runtime_s", "num_output_tokens", "definitions"]
    timed = requests.loc[requests["is_fit"], list(dict.fromkeys(needed))]
    return group_table(timed, by, describe, columns=summary_columns(by, percentiles))


def totals_table(totals: list[dict]) -> pd.DataFrame:
    """Totals of another tool, those of :class:`~idealized_runtime.records.importers.Imported`, as a table.

    Returns
    -------
    DataFrame, one row a quantity
        The columns of :func:`summarize_requests`, over all sizes of a load: NaN where the tool wrote nothing, as of
        intervals; then percentiles that only it wrote. ``std`` is that of all values (ddof = 0).
    """
    frame, columns = pd.DataFrame(totals), summary_columns()
    return frame.reindex(columns=[*columns, *(name for name in frame if name not in columns)])


def summary_columns(by: Sequence[str] = GROUP, percentiles: Sequence[float] = PERCENTILES) -> list[str]:
    """Columns of :func:`summarize_requests`."""
    return [*by, "quantity", *_describe(np.ones(1), percentiles, None)]


def mixes_sizes(requests: pd.DataFrame) -> bool:
    """Whether requests of several sizes were under way together, at one load: by other tools, or of a mixed load."""
    if requests["definitions"].isin(IMPORTED).any():
        return True
    loaded = requests[requests["load"].notna() & ~requests["is_warmup"]].sort_values("sent_at")
    sizes = loaded[TOKEN_COLUMNS].apply(tuple, axis=1) if len(loaded) else pd.Series(dtype=object)
    runs = sizes.groupby([loaded[name] for name in (*LOAD, "repetition")], dropna=False)
    # Where one size follows the other, there are as many changes as sizes, less one.
    return bool(runs.agg(lambda run: (run != run.shift()).sum() > run.nunique()).any())


def percentile_bounds(values: ArrayLike, percentile: float, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a percentile from order statistics, without assuming a distribution.

    Each side misses with probability of at most (1 - level) / 2. A side that the sample is too small to bound is NaN:
    the 99th percentile has an upper bound at 95 % from 368 values on.
    """
    test = quantile_test(np.asarray(values, dtype=float), p=percentile / 100)
    return tuple(map(float, test.confidence_interval(level)))


def measure_throughput(requests: pd.DataFrame, *, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Requests and output tokens a second, by load and setting.

    Returns
    -------
    DataFrame, one row a group
        ``by``; ``num_requests``, of them ``num_failed`` and ``num_deviating``; ``duration_s`` from the first sending to
        the last end (of each repetition, summed), NaN where the requests were sent under no
        load, or do not say when;
        ``requests_per_s`` and ``output_tokens_per_s`` of those that count; ``mean_in_flight``, by Little's law.
    """

    def measure(group):
        timed, duration_s = group[group["is_fit"]], _duration_s(group)
        num_failed = int(group["error_type"].notna().sum())
        yield {
            "num_requests": len(group),
            "num_failed": num_failed,
            "num_deviating": len(group) - num_failed - len(timed),
            "duration_s": duration_s,
            "requests_per_s": len(timed) / duration_s,
            "output_tokens_per_s": float(timed["num_output_tokens"].sum()) / duration_s,
            "mean_in_flight": float(timed["runtime_s"].sum()) / duration_s,
        }

    needed = [
        *by,
        *LOAD[:1],
        "repetition",
        "sent_at",
        "runtime_s",
        "num_output_tokens",
        "is_fit",
        "is_warmup",
        "error_type",
    ]
    return group_table(sent_requests(requests[list(dict.fromkeys(needed))]), by, measure)


def measure_goodput(
    requests: pd.DataFrame, objectives: Mapping[str, float], *, by: Sequence[str] = GROUP, level: float = 0.95
) -> pd.DataFrame:
    """Requests a second that meet every latency objective.

    Parameters
    ----------
    objectives : mapping
        Seconds that a request may take, by name: ``ttft``, ``tpot``, ``e2e`` (the columns of :data:`OBJECTIVES`). An
        answer of one token has no time per output token, and meets that objective. One whose time is not known, such
        as of a stream that was held back, does not.
    level : float
        Of the interval of the share (Wilson).

    Returns
    -------
    DataFrame, one row a group
        ``by, num_requests, num_met, share_met, share_met_lower, share_met_upper, goodput_per_s``.

    Raises
    ------
    ValueError
        An objective is unknown, or not a positive number of seconds, or limits a time that no request can have, since
        none was streamed.
    """
    check_objectives(objectives)
    for name in objectives:
        can_be = requests[OBJECTIVES[name]].notna() | requests["is_held_back"] | (requests["num_output_tokens"] == 1)
        if requests["is_fit"].any() and not can_be[requests["is_fit"]].any():
            raise ValueError(f"objective {name!r}: no request has a {OBJECTIVES[name]}; they were not streamed")

    def measure(group):
        is_met = group["is_fit"].astype(bool)
        for name, limit_s in objectives.items():
            time_s = group[OBJECTIVES[name]]
            # An answer of one token has no time per output token.
            is_exempt = (group["num_output_tokens"] == 1).fillna(False) & (name == "tpot")
            is_met = is_met & ((time_s <= limit_s) | is_exempt).astype(bool)
        interval = binomtest(int(is_met.sum()), len(group)).proportion_ci(level, method="wilson")
        yield {
            "num_requests": len(group),
            "num_met": int(is_met.sum()),
            "share_met": is_met.mean(),
            "share_met_lower": float(interval.low),
            "share_met_upper": float(interval.high),
            "goodput_per_s": is_met.sum() / _duration_s(group),
        }

    return group_table(sent_requests(requests), by, measure)


def group_table(
    requests: pd.DataFrame, by: Sequence[str], rows_of: Callable, *, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows that a function gives for each group of requests, behind its key; a missing load is a key of its own."""
    groups = requests.groupby(list(by), dropna=False, sort=True)
    table = pd.DataFrame(
        [{**dict(zip(by, key, strict=True)), **row} for key, group in groups for row in rows_of(group)], columns=columns
    )
    # Integers of a key stay integers, missing or not.
    return table.astype({name: "Int64" for name in ("num_parallel", *TOKEN_COLUMNS) if name in table})


def sent_requests(requests: pd.DataFrame) -> pd.DataFrame:
    """The rows that a server was to answer: no warm-up, and none that this client broke off."""
    return requests[~requests["is_warmup"] & (requests["error_type"] != INTERRUPTED_ERROR)]


def _describe(values_s, percentiles, level) -> dict:
    row = {
        "num_values": len(values_s),
        "mean": values_s.mean(),
        "std": values_s.std(ddof=1) if len(values_s) > 1 else np.nan,
        "minimum": values_s.min(),
        "maximum": values_s.max(),
    }
    for percentile, value_s in zip(percentiles, np.percentile(values_s, percentiles), strict=True):
        low_s, high_s = (np.nan, np.nan) if level is None else percentile_bounds(values_s, percentile, level=level)
        name = f"p{percentile:g}"
        row |= {name: value_s, f"{name}_lower": low_s, f"{name}_upper": high_s}
    return row


def _duration_s(group) -> float:
    """Seconds from first sending to last end, over repetitions; an answer that failed ends when it was sent.

    NaN without a load: a sweep of single requests goes to and fro between its settings, and waits in between.
    """
    if group["load"].isna().any():
        return np.nan
    ends = group["sent_at"] + pd.to_timedelta(group["runtime_s"].fillna(0), unit="s")
    windows = pd.DataFrame({"start": group["sent_at"], "end": ends}).groupby(group["repetition"], dropna=False)
    durations = windows["end"].max() - windows["start"].min()
    return float(durations.dt.total_seconds().sum(min_count=1))


def check_objectives(objectives: Mapping[str, float]) -> None:
    """Refuse what :func:`measure_goodput` refuses of objectives alone."""
    if not objectives:
        raise ValueError(f"goodput needs an objective: {', '.join(OBJECTIVES)}")
    for name, limit_s in objectives.items():
        if name not in OBJECTIVES:
            raise ValueError(f"an objective limits one of {', '.join(OBJECTIVES)}; got {name!r}")
        if not 0 < limit_s < np.inf:
            raise ValueError(f"objective {name!r} must be a positive number of seconds; got {limit_s!r}")
