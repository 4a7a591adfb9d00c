"""How well simulated requests match those that a server answered, on those that no fit has seen."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from idealized_runtime.serving.fitting import runs_of
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.requests import TIMES
from idealized_runtime.serving.simulation import (
    METRICS,
    arrival_rate_per_s,
    interval_of_draws,
    simulate,
    times_of_requests,
)
from idealized_runtime.serving.steps import StepModel
from idealized_runtime.statistics.errors import summarize_errors


def forget_later(requests: pd.DataFrame, *, share: float = 0.5) -> tuple[pd.DataFrame, np.ndarray]:
    """Requests as they were known when the first share of them had ended.

    Parameters
    ----------
    requests : DataFrame
        With their times.
    share : float
        Of the requests, in the order of their ends, that keep their times.

    Returns
    -------
    requests : DataFrame
        The later ones without times.
    is_later : bool array
    """
    ends_s = requests["arrival_s"] + requests["runtime_s"]
    is_later = (ends_s > np.quantile(ends_s, share)).to_numpy()
    return requests.assign(**{time: requests[time].mask(is_later) for time in TIMES}), is_later


def accuracy_table(measured: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """Errors of simulated against measured requests, row by row the same.

    Returns
    -------
    DataFrame, by ``TTFT``, ``TPOT``, ``E2E``
        ``measured_mean_s, simulated_mean_s``; ``mean_error_percent`` of the mean; ``median_percent``, ``p95_percent``
        of the magnitudes of the requests' own errors; ``p95_error_percent`` of the 95th percentile.
    """
    times_s, simulated_s, rows = times_of_requests(measured), times_of_requests(simulated), {}
    for metric, name in METRICS.items():
        there, ours = times_s[metric], simulated_s[metric]
        is_known = ~np.isnan(there) & ~np.isnan(ours)
        there, ours = there[is_known], ours[is_known]
        errors = summarize_errors(ours / there - 1)
        rows[name] = {
            "measured_mean_s": there.mean(),
            "simulated_mean_s": ours.mean(),
            "mean_error_percent": 100 * (ours.mean() / there.mean() - 1),
            "median_percent": 100 * errors["median"],
            "p95_percent": 100 * errors["p95"],
            "p95_error_percent": 100 * (np.quantile(ours, 0.95) / np.quantile(there, 0.95) - 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")


def percentile_table(
    runs: Mapping[float, pd.DataFrame], steps: StepModel, *, percentiles: Sequence[float] = (50, 95), num_draws=20,
    level=0.95, rng=0,
) -> pd.DataFrame:  # fmt: skip
    """Percentiles of the requests of each run, as measured, and as the steps have them of the same requests.

    Parameters
    ----------
    runs : mapping of a rate to its requests
        Those without times keep up the load, and count in neither.
    steps : StepModel
    num_draws, level, rng
        Of the interval by the errors of the steps.

    Returns
    -------
    DataFrame, one row a rate, measure and percentile
        ``rate_per_s, measure`` (``ttft_s, tpot_s, e2e_s``), ``percentile, measured, value, lower, upper`` (s).
    """
    rows, drawn = [], steps.draws(num_draws, rng)
    for rate, run in runs.items():
        simulated = [times_of_requests(simulate(run, model)) for model in (steps, *drawn)]
        for measure, measured_s in times_of_requests(run).items():
            is_known = ~np.isnan(measured_s)
            for percentile in percentiles:
                value, *of_draws = (float(np.percentile(one[measure][is_known], percentile)) for one in simulated)
                lower, upper = interval_of_draws(value, of_draws, level)
                named = {"rate_per_s": rate, "measure": measure, "percentile": percentile}
                measured = float(np.percentile(measured_s[is_known], percentile))
                rows.append({**named, "measured": measured, "value": value, "lower": lower, "upper": upper})
    return pd.DataFrame(rows)


def largest_measured_rate(requests: pd.DataFrame, objective: Objective) -> float:
    """Largest rate at which runs at several rates met an objective, between them by the logarithms of both.

    Parameters
    ----------
    requests : DataFrame
        With their times; each ``run`` at one rate.
    objective : Objective

    Returns
    -------
    float
        Requests a second, by when they came; NaN where every run met it, or none.
    """
    from scipy.optimize import isotonic_regression

    points = []
    for _, run in runs_of(requests):
        known = run[run["runtime_s"].notna()]
        values_s = times_of_requests(known)[objective.metric]
        values_s = values_s[~np.isnan(values_s)]
        statistic = objective.statistic
        value_s = values_s.mean() if statistic == "mean" else np.percentile(values_s, float(statistic[1:]))
        points.append((arrival_rate_per_s(known), value_s))
    rates, values_s = np.log(np.array(sorted(points))).T
    # A larger rate never waits less, but for chance.
    values_s = isotonic_regression(values_s).x
    limit = np.log(objective.seconds)
    if not values_s[0] < limit < values_s[-1]:
        return np.nan
    last = np.flatnonzero(values_s <= limit)[-1]
    share = (limit - values_s[last]) / (values_s[last + 1] - values_s[last])
    return float(np.exp(rates[last] + share * (rates[last + 1] - rates[last])))
