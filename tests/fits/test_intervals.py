"""Coverage of the intervals, by simulation with a known truth.

Each case draws 200 truths, noise levels and data sets. The bounds are 93 and 97 % widened by three standard
errors of that simulation; with 3000 draws each of these cases lies between 94 and 97 % itself.
"""

import numpy as np
import pandas as pd
import pytest
from makers import make_runtimes

from idealized_runtime import RuntimeModel
from idealized_runtime.fits import NoIntervalError

NUM_DRAWS = 200
LARGE = ((1, 64, 128, 256, 512, 1024, 1920), (1, 2, 4, 8, 16, 32, 64))
SMALL = ((1, 128, 512), (1, 2, 8, 32))
CASES = [
    # grid, data, trials, noise, whether g depends on p
    (LARGE, "mean and std", 5, "proportional", False),
    (LARGE, "mean and std", 10, "constant", True),
    (LARGE, "mean and std", 50, "proportional", True),
    (LARGE, "mean and std", 10, "constant", False),
    (LARGE, "means", 10, "proportional", True),
    (LARGE, "means", 10, "constant", False),
    (LARGE, "printed", 50, "proportional", False),
    (LARGE, "printed", 50, "constant", True),
    (SMALL, "trials", 5, "constant", False),
    (SMALL, "mean and std", 10, "proportional", True),
    (SMALL, "mean and std", 10, "proportional", False),
    (SMALL, "printed", 50, "proportional", True),
]


def draw_truth(rng, sizes, is_linear_in_p):
    """Prompt times (s), g at p = 0 (s) and its slope (s a token), of models between 10 and 80 ms a token."""
    g = rng.uniform(0.01, 0.08)
    prompt_times_s = rng.uniform(0.8, 1.5) * g + rng.uniform(0.5, 4) * g / 1000 * np.array(sizes)
    return prompt_times_s, g, rng.uniform(-0.1, 0.3) * g / 1000 if is_linear_in_p else 0.0


def draw_trials(rng, runtime_s, num_trials, noise):
    level = rng.uniform(0.003, 0.03)
    deviation_s = level * (runtime_s if noise == "proportional" else np.full_like(runtime_s, runtime_s.min()))
    return runtime_s[:, None] + deviation_s[:, None] * rng.standard_normal((len(runtime_s), num_trials))


def make_frame(p, o, trials_s, data):
    frame = pd.DataFrame({"num_prompt_tokens": p, "num_output_tokens": o, "runtime_s": trials_s.mean(axis=1)})
    if data == "trials":
        num_trials = trials_s.shape[1]
        repeated = frame.loc[frame.index.repeat(num_trials)].reset_index(drop=True)
        return repeated.assign(trial=np.tile(np.arange(num_trials), len(p)), runtime_s=trials_s.ravel())
    if data == "means":
        return frame
    frame = frame.assign(runtime_std_s=trials_s.std(axis=1, ddof=1), num_trials=trials_s.shape[1])
    return frame if data == "mean and std" else frame.round(3).assign(runtime_resolution_s=1e-3)


def measure_coverage(rng, grid, data, num_trials, noise, is_linear_in_p):
    """Share of intervals that hold the truth: of runtimes, prompt times and g."""
    p, o = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    hits = []
    for _ in range(NUM_DRAWS):
        prompt_times_s, g, slope = draw_truth(rng, grid[0], is_linear_in_p)
        runtime_s = np.repeat(prompt_times_s, len(grid[1])) + (o - 1) * (g + slope * p)
        model = RuntimeModel.fit(make_frame(p, o, draw_trials(rng, runtime_s, num_trials, noise), data))
        true_g = g + slope * model.reference_num_prompt_tokens
        hits.append(
            (
                holds(model.predict_interval(p, o), runtime_s),
                holds(model.prompt_encoding_interval_s(grid[0]), prompt_times_s),
                holds(model.time_per_output_token_interval_s(), true_g),
            )
        )
    return np.mean(hits, axis=0), np.std(hits, axis=0, ddof=1) / np.sqrt(NUM_DRAWS)


def holds(interval, truth):
    lower, upper = interval
    return np.mean((lower <= truth) & (truth <= upper))


@pytest.mark.parametrize(("grid", "data", "num_trials", "noise", "is_linear_in_p"), CASES)
def test_95_percent_intervals_hold_the_truth_95_times_in_100(grid, data, num_trials, noise, is_linear_in_p):
    rng = np.random.default_rng(7)
    coverage, standard_error = measure_coverage(rng, grid, data, num_trials, noise, is_linear_in_p)
    assert (coverage >= 0.93 - 3 * standard_error).all(), coverage
    assert (coverage <= 0.97 + 3 * standard_error).all(), coverage


def test_misfit_of_the_model_widens_intervals():
    runtimes = make_runtimes(output_sizes=(1, 2, 4, 8, 16, 32)).assign(runtime_std_s=1e-4, num_trials=10)
    straight = RuntimeModel.fit(runtimes)
    bent = runtimes.assign(runtime_s=runtimes["runtime_s"] * (1 + 0.02 * np.tile([1, -1], 12)))
    widths = [np.diff(model.predict_interval(64, 16))[0] for model in (straight, RuntimeModel.fit(bent))]
    assert straight.intervals.covariance.lack_of_fit == 0
    assert widths[1] > 10 * widths[0]


def test_interval_between_sizes_is_wider_than_at_them():
    sizes = {1: 0.02, 64: 0.024, 128: 0.031, 256: 0.048, 512: 0.09}
    model = RuntimeModel.fit(make_runtimes(sizes).assign(runtime_std_s=1e-4, num_trials=10))
    at, between = (np.diff(model.prompt_encoding_interval_s(p))[0] for p in (128, 192))
    assert between > 3 * at


def test_interval_between_few_sizes_is_that_of_monotony():
    model = RuntimeModel.fit(make_runtimes().assign(runtime_std_s=1e-6, num_trials=10))
    assert model.prompt_encoding_interval_s(300) == pytest.approx((0.03, 0.09), rel=1e-3)
    with pytest.raises(NoIntervalError, match="needs at least 5 profiled prompt sizes"):
        model.predict_interval(600, 1, extrapolate=True)


def test_extrapolated_interval_widens_with_distance():
    sizes = {1: 0.02, 64: 0.024, 128: 0.031, 256: 0.048, 512: 0.09}
    model = RuntimeModel.fit(make_runtimes(sizes).assign(runtime_std_s=1e-4, num_trials=10))
    lower, upper = model.predict_interval([600, 2000], 1, extrapolate=True)
    assert upper[1] - lower[1] > 2 * (upper[0] - lower[0])


def test_prediction_lies_in_its_interval_at_any_level():
    rng = np.random.default_rng(8)
    runtimes = make_runtimes()
    runtimes["runtime_s"] *= 1 + 0.01 * rng.standard_normal(len(runtimes))
    model = RuntimeModel.fit(runtimes)
    p, o = np.arange(1, 513), 5
    for level in (0.01, 0.5, 0.99):
        lower, upper = model.predict_interval(p, o, level=level)
        assert ((lower <= model.predict(p, o)) & (model.predict(p, o) <= upper)).all()


@pytest.mark.parametrize("level", [0, 1, 95])
def test_impossible_level_is_refused(level):
    model = RuntimeModel.fit(make_runtimes().assign(runtime_std_s=1e-4, num_trials=10))
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        model.predict_interval(1, 1, level=level)


def test_no_interval_where_settings_leave_nothing_to_judge_by():
    model = RuntimeModel.fit(make_runtimes({1: 0.02, 64: 0.03}, (1,)).iloc[:2].pipe(add_setting, 64, 8, 0.17))
    assert model.time_per_output_token_s == pytest.approx(0.02)
    with pytest.raises(NoIntervalError, match="no interval is known"):
        model.predict_interval(1, 1)


def add_setting(runtimes, p, o, runtime_s):
    return pd.concat([runtimes, pd.DataFrame([[p, o, runtime_s]], columns=runtimes.columns)], ignore_index=True)


def test_time_per_output_token_is_not_below_zero_at_its_lower_bound():
    # Two sizes at two numbers of output tokens leave one degree of freedom: a wide interval.
    settings = [(1, 1, 0.1), (1, 8, 0.17), (64, 1, 0.1), (64, 8, 0.15)]
    frame = pd.DataFrame(settings, columns=["num_prompt_tokens", "num_output_tokens", "runtime_s"])
    lower, upper = RuntimeModel.fit(frame).time_per_output_token_interval_s()
    assert lower == 0
    assert upper > 0.01
