"""Whether a load measurement supports what is read from it: enough requests, no drift, one population, sent on time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from idealized_runtime.api.statistics import GROUP, percentile_interval, sent_requests, timed_requests
from idealized_runtime.api.unimodality import critical_dip, dip_statistic

_CHECKED = {"time_to_first_token_s": "TTFT", "runtime_s": "runtime"}
_SIGNIFICANCE = 0.01
# Medians of consecutive batches hang on each other less than requests do, which wait in the same queue.
_NUM_BATCHES = 10
# A drift of less says nothing about a server that a percentile would not.
_MIN_DRIFT = 0.02
_MIN_REQUESTS_FOR_DRIFT = 3 * _NUM_BATCHES
_MIN_REQUESTS_FOR_DIP = 30
# Share of the median runtime that requests may be sent after their time.
_MAX_LATENESS = 0.05


def check_requests(requests: pd.DataFrame, *, by: Sequence[str] = GROUP, percentile: float = 99) -> pd.DataFrame:
    """What speaks against the percentiles of a load measurement, one row a finding.

    Parameters
    ----------
    requests : DataFrame, one row a request
        As for :func:`~idealized_runtime.api.statistics.summarize_requests`. Requests of a group that differ in size are
        compared with the median of their size.
    by : sequence of str
        Columns whose values make a group.
    percentile : float
        The highest that is to be read from it.

    Returns
    -------
    DataFrame
        ``by``, ``check`` and ``message``; checks are ``failures``; ``few_requests`` to bound the percentile
        from above at 95 %; ``drift`` of TTFT or runtime over the run (Mann-Kendall on medians of 10 consecutive
        batches, 1 %, and more than 2 % from end to end), as where a queue grows; ``two_populations`` (Hartigan's dip,
        1 %), as of cached and uncached prompts; ``sent_late``, requests of an open loop that this client sent after
        their time, by more than 5 % of the median runtime.
    """
    findings = []
    requests = sent_requests(requests).reset_index(drop=True)
    for values, group in requests.groupby(list(by), dropna=False, sort=True):
        for check, message in _findings(group, percentile):
            findings.append({**dict(zip(by, values, strict=True)), "check": check, "message": message})
    return pd.DataFrame(findings, columns=[*by, "check", "message"])


def _findings(group, percentile):
    timed = timed_requests(group)
    if len(timed) < len(group):
        yield "failures", f"{len(group) - len(timed)} of {len(group)} requests failed or deviate and count in no time"
    if timed.empty:
        return
    if np.isnan(percentile_interval(timed["runtime_s"], percentile)[1]):
        needed = required_requests(percentile)
        yield "few_requests", f"p{percentile:g} of {len(timed)} requests has no upper bound: it takes {needed}"
    for column, name in _CHECKED.items():
        relative = _relative(timed, column)
        yield from _drift(timed.loc[relative.index], relative, name)
        yield from _populations(relative.to_numpy(), timed.loc[relative.index, column], name)
    yield from _lateness(timed)


def required_requests(percentile: float, *, level: float = 0.95) -> int:
    """Least number of requests whose largest bounds a percentile from above, two-sided level."""
    return int(np.ceil(np.log((1 - level) / 2) / np.log(percentile / 100)))


def _relative(timed, column) -> pd.Series:
    """Logarithm of a time over the median of its size."""
    measured = timed[timed[column].notna()]
    sizes = measured.groupby(["num_prompt_tokens", "num_output_tokens"], dropna=False)
    return np.log(measured[column].astype(float) / sizes[column].transform("median"))


def _drift(timed, relative, name):
    runs = [run.index for _, run in timed.sort_values("sent_at").groupby("repetition", dropna=False)]
    runs = [relative[index].to_numpy() for index in runs if len(index) >= _MIN_REQUESTS_FOR_DRIFT]
    if not runs or timed["sent_at"].isna().any():
        return
    batches = [np.array([np.median(batch) for batch in np.array_split(run, _NUM_BATCHES)]) for run in runs]
    p_value = _trend_p_value(batches)
    change = np.expm1(np.mean([_theil_slope(run) for run in batches]) * (_NUM_BATCHES - 1))
    if p_value < _SIGNIFICANCE and abs(change) > _MIN_DRIFT:
        verb = "rises" if change > 0 else "falls"
        yield "drift", f"{name} {verb} by {abs(change):.0%} from the first to the last tenth (p = {p_value:.2g})"


def _trend_p_value(runs) -> float:
    """Mann-Kendall's test over several runs, normal with continuity correction, two-sided."""
    from scipy.stats import norm

    pairs = np.triu_indices(_NUM_BATCHES, 1)
    score = sum(np.sign(run[pairs[1]] - run[pairs[0]]).sum() for run in runs)
    variance = len(runs) * _NUM_BATCHES * (_NUM_BATCHES - 1) * (2 * _NUM_BATCHES + 5) / 18
    return float(2 * norm.sf(max(abs(score) - 1, 0) / np.sqrt(variance)))


def _theil_slope(run) -> float:
    first, second = np.triu_indices(len(run), 1)
    return float(np.median((run[second] - run[first]) / (second - first)))


def _populations(relative, times_s, name):
    if len(relative) < _MIN_REQUESTS_FOR_DIP or dip_statistic(relative) <= critical_dip(len(relative)):
        return
    is_slow = relative > _best_split(relative)
    fast_s, slow_s = np.median(times_s[~is_slow]), np.median(times_s[is_slow])
    yield (
        "two_populations",
        f"{name} has two peaks: {1 - is_slow.mean():.0%} of requests take about {fast_s:.3g} s, "
        f"{is_slow.mean():.0%} about {slow_s:.3g} s; one percentile describes neither",
    )


def _best_split(values) -> float:
    """Value that splits a sample into the two groups with the least squares within."""
    ordered = np.sort(values)
    counts = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    between = sums**2 / counts + (ordered.sum() - sums) ** 2 / (len(ordered) - counts)
    place = int(np.argmax(between))
    return float(ordered[place])


def _lateness(timed):
    late_s = (timed["sent_at"] - timed["scheduled_at"]).dt.total_seconds().dropna()
    if len(late_s) and (share := np.percentile(late_s, 95) / timed["runtime_s"].median()) > _MAX_LATENESS:
        yield (
            "sent_late",
            f"one request in 20 was sent {np.percentile(late_s, 95):.3g} s or more after its time, {share:.0%} of the "
            "median runtime: this client, not the server, limits the load",
        )
