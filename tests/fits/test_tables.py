import numpy as np
import pandas as pd
import pytest

from idealized_runtime.fits import fit_by_name
from idealized_runtime.fits.knee import fit_knees
from idealized_runtime.fits.tables import (
    error_table,
    knee_table,
    line_r_squared,
    line_r_squared_table,
    prompt_encoding_table,
    time_per_output_token_table,
)


def make_runtimes(*, prompt_sizes=(1, 64, 256, 512, 1024), slope_s=0.01, noise=0.002, seed=5):
    p, o = (values.ravel() for values in np.meshgrid(prompt_sizes, [1, 2, 8, 32], indexing="ij"))
    runtime_s = 0.02 + 1e-4 * np.maximum(p - 100, 0) + (o - 1) * slope_s
    runtime_s = runtime_s * np.random.default_rng(seed).normal(1, noise, len(p))
    return pd.DataFrame({"num_prompt_tokens": p, "num_output_tokens": o, "runtime_s": runtime_s})


@pytest.fixture(scope="module")
def logs():
    return {"fast": make_runtimes(), "slow": make_runtimes(slope_s=0.03, prompt_sizes=(1, 64, 256, 512))}


@pytest.fixture(scope="module", params=["weighted", "runtime_s ~ C(num_prompt_tokens) + I(num_output_tokens - 1)"])
def fits(logs, request):
    return {name: fit_by_name(request.param)(runtimes) for name, runtimes in logs.items()}


def test_time_per_output_token_is_in_milliseconds_within_its_interval(fits):
    table = time_per_output_token_table(fits)
    np.testing.assert_allclose(table["time_per_output_token_ms"], [10, 30], rtol=5e-3)
    assert (table["time_per_output_token_ms_lower"] < table["time_per_output_token_ms"]).all()
    assert (table["time_per_output_token_ms"] < table["time_per_output_token_ms_upper"]).all()
    assert table["at_prompt_size"].tolist() == [fit.reference_num_prompt_tokens for fit in fits.values()]


def test_a_higher_level_widens_the_interval(fits):
    narrow_ms, wide_ms = (
        table["time_per_output_token_ms_upper"] - table["time_per_output_token_ms_lower"]
        for table in (time_per_output_token_table(fits, level=level) for level in (0.5, 0.99))
    )
    assert (wide_ms > narrow_ms).all()


def test_prompt_times_stand_with_their_intervals_and_nothing_where_nothing_was_profiled(fits):
    table = prompt_encoding_table(fits, prompt_sizes=[64, 1024])
    assert table.index.tolist() == [64, 1024]
    assert table.loc[1024, "slow"] == ""
    time_ms, lower_ms, upper_ms = (
        float(part) for part in table.loc[1024, "fast"].replace("[", "").replace("]", "").replace(",", "").split()
    )
    assert lower_ms < time_ms < upper_ms
    assert time_ms == pytest.approx(20 + 0.1 * 924, rel=0.01)


def test_errors_are_absolute_per_cent_and_pooled_at_the_end(fits):
    table = error_table(fits)
    pooled = 100 * np.concatenate([fit.residuals["relative_error"].abs() for fit in fits.values()])
    assert table.index.tolist() == ["fast", "slow", "all"]
    assert table.loc["all", "num_settings"] == len(pooled) == 36
    assert table.loc["all", "median_percent"] == pytest.approx(np.median(pooled))
    assert table.loc["all", "max_percent"] == pytest.approx(pooled.max())


def test_line_r_squared_is_that_of_least_squares_with_a_constant():
    runtimes = make_runtimes(noise=0.1)
    for size, r_squared in line_r_squared(runtimes).items():
        group = runtimes[runtimes["num_prompt_tokens"] == size]
        o, t = group["num_output_tokens"], group["runtime_s"]
        residual = t - np.polyval(np.polyfit(o, t, 1), o)
        assert r_squared == pytest.approx(1 - (residual**2).sum() / ((t - t.mean()) ** 2).sum())


def test_line_through_two_points_has_no_r_squared():
    runtimes = make_runtimes()
    runtimes = runtimes[(runtimes["num_prompt_tokens"] != 64) | (runtimes["num_output_tokens"] < 8)]
    assert line_r_squared(runtimes).index.tolist() == [1, 256, 512, 1024]


def test_line_table_has_the_lowest_line_and_the_model(logs, fits):
    table = line_r_squared_table(logs, fits)
    assert table.loc["fast", "lowest_line_r_squared"] == line_r_squared(logs["fast"]).min()
    assert table.loc["slow", "model_r_squared"] == fits["slow"].r_squared


def test_knee_table_compares_the_floor_with_an_output_token(fits):
    knees = fit_knees(fits)
    table = knee_table(knees, fits)
    np.testing.assert_allclose(table["knee_tokens"], 100, rtol=0.15)
    np.testing.assert_allclose(table["floor_in_output_tokens"], [2, 2 / 3], rtol=0.02)
    np.testing.assert_allclose(table["prompt_tokens_per_s"], 1e4, rtol=0.03)


def test_knee_names_the_model_that_has_too_few_sizes(fits):
    with pytest.raises(ValueError, match="slow: a knee takes at least 4 prompt sizes"):
        fit_knees(fits, prompt_sizes=[1, 64, 512, 1024])


def test_published_knees_lie_where_the_paper_draws_them(published):
    from idealized_runtime.measurements.timed_models import fit_models, read_timed_models

    knees = fit_knees(fit_models(read_timed_models("a100", ["davinci", "gpt-j"])))
    for knee in knees.values():
        assert 64 < knee.interval[0] < knee.num_prompt_tokens < knee.interval[1] < 320
