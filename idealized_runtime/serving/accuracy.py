"""How well simulated requests match those that a server answered, on those that no fit has seen."""

import numpy as np
import pandas as pd

from idealized_runtime.serving.requests import TIMES
from idealized_runtime.serving.simulation import METRICS, times_of_requests
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
