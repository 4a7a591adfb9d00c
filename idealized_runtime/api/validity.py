"""Whether a load measurement supports what is read from it: enough requests, no drift, one population, sent on time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from idealized_runtime.api.statistics import GROUP, group_table, percentile_bounds, sent_requests
from idealized_runtime.records.requests import HELD_BACK, describe_deviations
from idealized_runtime.statistics.trends import NUM_BATCHES, drift
from idealized_runtime.statistics.unimodality import has_two_peaks, upper_group

_CHECKED = {"time_to_first_token_s": "TTFT", "runtime_s": "runtime"}
_SIGNIFICANCE = 0.01
# A drift of less says nothing about a server that a percentile would not.
_MIN_DRIFT = 0.02
_MIN_REQUESTS_FOR_DRIFT = 3 * NUM_BATCHES
# Share of the median runtime that requests may be sent after their time.
_MAX_LATENESS = 0.05


def check_load(requests: pd.DataFrame, *, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """What speaks against the percentiles of a load measurement, one row a finding.

    Parameters
    ----------
    requests : DataFrame, one row a request
        As for :func:`~idealized_runtime.api.statistics.summarize_requests`. Requests of a group that differ in size are
        compared with the median of their size.
    by : sequence of str
        Columns whose values make a group.

    Returns
    -------
    DataFrame
        ``by``, ``check`` and ``message``; checks are ``failures``; ``few_requests`` to bound the 99th percentile from
        above at 95 %; ``held_back``, streams whose events do not tell when a token was; ``drift`` of TTFT or runtime
        over the run (Kendall's tau of medians of 10 consecutive batches, 1 %, and more than 2 % from end to end), as
        where a queue grows; ``two_populations`` (Hartigan's dip, 1 %), as of cached and uncached prompts;
        ``sent_late``, requests of an open loop that this client sent after their time, by more than 5 % of the median
        runtime.
    """

    def findings(group):
        return [{"check": check, "message": message} for check, message in _findings(group)]

    requests = sent_requests(requests).reset_index(drop=True)
    return group_table(requests, by, findings, columns=[*by, "check", "message"])


def check_sweep(requests: pd.DataFrame) -> list[str]:
    """What speaks against a sweep of single requests, in sentences: drift, two populations, streams held back.

    Settings are looked at together, each trial in relation to the median of its setting.
    """
    requests = sent_requests(requests).reset_index(drop=True)
    timed = requests[requests["is_fit"] & requests["load"].isna()]
    findings = _findings(timed) if len(timed) else ()
    return [f"{check}: {message}" for check, message in findings if check != "few_requests"]


def _findings(group):
    timed = group[group["is_fit"]]
    if len(timed) < len(group):
        said = describe_deviations(group.to_dict("records"))
        yield (
            "failures",
            f"{len(group) - len(timed)} of {len(group)} requests failed or deviate and count in no time"
            + (f"; {said}" if said else ""),
        )
    if timed.empty:
        return
    if num_held := int(timed["is_held_back"].sum()):
        example = timed.loc[timed["is_held_back"], "notes"].str.extract(rf"({HELD_BACK}[^,]*)")[0].mode().iloc[0]
        yield (
            "held_back",
            f"{num_held} of {len(timed)} answers were held back on their way, by a proxy or a compression ({example}): "
            "they have no TTFT and TPOT, and meet no objective for them; ask the server itself",
        )
    if np.isnan(percentile_bounds(timed["runtime_s"], 99)[1]):
        yield "few_requests", f"p99 of {len(timed)} requests has no upper bound: it takes {required_requests(99)}"
    for column, name in _CHECKED.items():
        measured = timed[timed[column].notna()]
        sizes = measured.groupby(["num_prompt_tokens", "num_output_tokens"], dropna=False)
        relative = np.log(measured[column].astype(float) / sizes[column].transform("median"))
        yield from _drift(timed.loc[relative.index], relative, name)
        yield from _populations(relative.to_numpy(), timed.loc[relative.index, column], name)
    yield from _lateness(timed)


def required_requests(percentile: float) -> int:
    """Least number of requests whose largest bounds a percentile from above, two-sided at 95 %."""
    return int(np.ceil(np.log(0.025) / np.log(percentile / 100)))


def _drift(timed, relative, name):
    runs = [run.index for _, run in timed.sort_values("sent_at").groupby("repetition", dropna=False)]
    runs = [relative[index].to_numpy() for index in runs if len(index) >= _MIN_REQUESTS_FOR_DRIFT]
    if not runs or timed["sent_at"].isna().any():
        return
    change, p_value = drift(runs)
    if p_value < _SIGNIFICANCE and abs(change) > _MIN_DRIFT:
        verb = "rises" if change > 0 else "falls"
        yield "drift", f"{name} {verb} by {abs(change):.0%} from the first to the last tenth (p = {p_value:.2g})"


def _populations(relative, times_s, name):
    if not has_two_peaks(relative):
        return
    is_slow = upper_group(relative)
    fast_s, slow_s = np.median(times_s[~is_slow]), np.median(times_s[is_slow])
    yield (
        "two_populations",
        f"{name} has two peaks: {1 - is_slow.mean():.0%} of requests take about {fast_s:.3g} s, "
        f"{is_slow.mean():.0%} about {slow_s:.3g} s; one percentile describes neither",
    )


def _lateness(timed):
    late_s = (timed["sent_at"] - timed["scheduled_at"]).dt.total_seconds().dropna()
    if len(late_s) and (share := np.percentile(late_s, 95) / timed["runtime_s"].median()) > _MAX_LATENESS:
        yield (
            "sent_late",
            f"one request in 20 was sent {np.percentile(late_s, 95):.3g} s or more after its time, {share:.0%} of the "
            "median runtime: this client, not the server, limits the load",
        )
