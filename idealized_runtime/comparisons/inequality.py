"""Raw >= denoised >= idealized (Section 4 of arXiv:2305.02440), tested for each setting on known hardware."""

import numpy as np
import pandas as pd

from idealized_runtime.api.statistics import SETTING, adjust_p_values
from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.statistics import standard_error_of_interval


def compare_runtimes(
    raw: pd.DataFrame, denoised: RuntimeModel, idealized: RuntimeModel, *, level: float = 0.95
) -> pd.DataFrame:
    """Raw, denoised and idealized runtime of each setting, and whether the data contradict their order.

    Parameters
    ----------
    raw : DataFrame, one row a trial
        ``num_prompt_tokens, num_output_tokens, runtime_s``.
    denoised, idealized : RuntimeModel
        Of the API, and of the same model on the same hardware without it; with intervals, and of one estimator, since
        estimators differ in what they call undisturbed.
    level : float
        Of the intervals; an order is violated where one-sided tests say so at 1 - level, after Holm.

    Returns
    -------
    DataFrame, one row a setting
        ``num_prompt_tokens, num_output_tokens, num_trials, raw_median_s, raw_minimum_s``; ``denoised_s`` and
        ``idealized_s``, each with ``_lower`` and ``_upper``; ``share_raw_at_least_denoised``;
        ``is_raw_violated``: more than half of the raw trials lie below the denoised runtime's interval (sign test);
        ``denoised_over_idealized``; ``is_denoised_violated``: the denoised runtime lies below the idealized one by more
        than the errors of both.

    Raises
    ------
    ValueError
        A model has no intervals.
    """
    settings = raw.groupby(SETTING)["runtime_s"].agg(num_trials="size", raw_median_s="median", raw_minimum_s="min")
    table = settings.reset_index()
    sizes = [table[name].to_numpy() for name in SETTING]
    for name, model in (("denoised_s", denoised), ("idealized_s", idealized)):
        low_s, high_s = model.predict_interval(*sizes, level=level)
        table = table.assign(**{name: model.predict(*sizes), f"{name}_lower": low_s, f"{name}_upper": high_s})
    below = _num_below(raw, table, "denoised_s_lower")
    return table.assign(
        share_raw_at_least_denoised=1 - _num_below(raw, table, "denoised_s") / table["num_trials"],
        is_raw_violated=adjust_p_values(_sign_p_values(below, table["num_trials"])) < 1 - level,
        denoised_over_idealized=table["denoised_s"] / table["idealized_s"],
        is_denoised_violated=adjust_p_values(_order_p_values(table, level)) < 1 - level,
    )


def _num_below(raw, table, column) -> np.ndarray:
    """Trials of each setting that lie below a column of the table."""
    merged = raw.merge(table[[*SETTING, column]], on=SETTING)
    is_below = merged["runtime_s"] < merged[column]
    return is_below.groupby([merged[name] for name in SETTING]).sum().to_numpy()


def _sign_p_values(num_below, num_trials) -> np.ndarray:
    from scipy.stats import binom

    return binom.sf(num_below - 1, num_trials, 0.5)


def _order_p_values(table, level) -> np.ndarray:
    """One-sided, that denoised is the smaller; errors from the intervals, taken as normal."""
    from scipy.stats import norm

    errors_s = [
        standard_error_of_interval(table[f"{name}_lower"], table[f"{name}_upper"], level)
        for name in ("denoised_s", "idealized_s")
    ]
    return norm.cdf((table["denoised_s"] - table["idealized_s"]) / np.hypot(*errors_s))
