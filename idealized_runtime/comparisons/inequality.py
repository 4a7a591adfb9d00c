"""Raw >= denoised >= idealized (Section 4 of arXiv:2305.02440), tested for each setting on known hardware."""

import numpy as np
import pandas as pd

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.statistics.intervals import standard_error_of_interval
from idealized_runtime.statistics.multiplicity import holm


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
    from scipy.stats import binom, norm

    sizes = TOKEN_COLUMNS
    settings = raw.groupby(sizes)["runtime_s"].agg(num_trials="size", raw_median_s="median", raw_minimum_s="min")
    table, errors_s = settings.reset_index(), []
    query = [table[name].to_numpy() for name in sizes]
    for name, model in (("denoised_s", denoised), ("idealized_s", idealized)):
        lower_s, upper_s = model.predict_interval(*query, level=level)
        table = table.assign(**{name: model.predict(*query), f"{name}_lower": lower_s, f"{name}_upper": upper_s})
        errors_s.append(standard_error_of_interval(lower_s, upper_s, level))
    num_trials, margin_s = table["num_trials"].to_numpy(), table["denoised_s"] - table["idealized_s"]
    # One-sided: more than half of the trials lie below; the denoised runtime is the smaller, errors taken as normal.
    sign_p_values = binom.sf(_num_below(raw, table, "denoised_s_lower") - 1, num_trials, 0.5)
    order_p_values = norm.cdf((margin_s / np.hypot(*errors_s)).to_numpy())
    return table.assign(
        share_raw_at_least_denoised=1 - _num_below(raw, table, "denoised_s") / num_trials,
        is_raw_violated=holm(sign_p_values) < 1 - level,
        denoised_over_idealized=table["denoised_s"] / table["idealized_s"],
        is_denoised_violated=holm(order_p_values) < 1 - level,
    )


def _num_below(raw, table, column) -> np.ndarray:
    """Trials of each setting that lie below a column of the table."""
    sizes = TOKEN_COLUMNS
    merged = raw.merge(table[[*sizes, column]], on=sizes)
    return (merged["runtime_s"] < merged[column]).groupby([merged[name] for name in sizes]).sum().to_numpy()
