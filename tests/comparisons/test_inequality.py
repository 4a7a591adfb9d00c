import numpy as np
import pandas as pd
import pytest

from idealized_runtime.comparisons.inequality import compare_runtimes
from idealized_runtime.fits.denoised import fit_denoised

SETTINGS = [(p, o) for p in (1, 64, 512) for o in (1, 8, 32)]


def make_trials(seed, *, g_s=0.01, overhead_s=0.0, delay_s=0.0, num_trials=10):
    rng = np.random.default_rng(seed)
    rows = [
        (p, o, 0.02 + p * 1e-4 + (o - 1) * g_s + overhead_s + rng.normal(0, 5e-4) + delay_s * rng.exponential())
        for p, o in SETTINGS
        for _ in range(num_trials)
    ]
    return pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "runtime_s"])


def fit(trials):
    return fit_denoised(trials, estimator="frontier")


IDEALIZED = fit(make_trials(0))


def test_order_holds_for_an_api_that_adds_overhead_and_delays():
    raw = make_trials(1, overhead_s=0.005, delay_s=0.02)
    table = compare_runtimes(raw, fit(raw), IDEALIZED)
    assert len(table) == 9
    assert not table[["is_raw_violated", "is_denoised_violated"]].any(axis=None)
    assert (table["denoised_over_idealized"] > 1).all()


def test_faster_api_violates_the_second_half():
    raw = make_trials(1, g_s=0.005)
    table = compare_runtimes(raw, fit(raw), IDEALIZED)
    # Faster tokens show where there are several.
    assert table.loc[table["is_denoised_violated"], "num_output_tokens"].unique().tolist() == [8, 32]


def test_denoised_parameters_of_a_slower_time_violate_the_first_half():
    table = compare_runtimes(make_trials(1), fit(make_trials(2, overhead_s=0.05)), IDEALIZED)
    assert table["is_raw_violated"].all()
    assert (table["share_raw_at_least_denoised"] == 0).all()


def test_equal_runtimes_are_called_violated_as_rarely_as_the_level_says():
    tables = [compare_runtimes(raw, fit(raw), IDEALIZED) for raw in map(make_trials, range(1, 13))]
    # One idealized fit, with errors of its own, is shared by all.
    assert sum(table["is_denoised_violated"].any() for table in tables) <= 3


def test_models_without_intervals_are_refused():
    raw = make_trials(1)
    with pytest.raises(ValueError, match="interval"):
        compare_runtimes(raw, fit_denoised(raw), IDEALIZED)
