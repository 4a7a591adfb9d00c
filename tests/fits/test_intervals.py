"""Coverage of the intervals, by simulation with a known truth.

Each case draws 100 truths, noise levels and data sets. The bounds are 93 and 97 % widened by three standard
errors of that simulation; with 3000 draws each of these cases lies between 94 and 97 % itself.
"""

import numpy as np
import pandas as pd
import pytest
from makers import make_runtimes

from idealized_runtime import RuntimeModel
from idealized_runtime.fits import NoIntervalError

NUM_DRAWS = 100
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


def make_sweep(rng, noise, *, in_blocks, num_trials=8):
    """Trials of a sweep with noise in the order of time, g = 20 ms, as a frame with one row a trial."""
    p, o = (axis.ravel() for axis in np.meshgrid([1, 128, 256, 512, 1024], [1, 4, 16, 64], indexing="ij"))
    setting = np.repeat(np.arange(len(p)), num_trials)
    if in_blocks:
        setting = np.concatenate([rng.permutation(len(p)) for _ in range(num_trials)])
    runtime_s = (0.02 + 1e-4 * p + 0.02 * (o - 1))[setting] * (1 + noise(rng, len(setting)))
    frame = pd.DataFrame({"num_prompt_tokens": p[setting], "num_output_tokens": o[setting], "runtime_s": runtime_s})
    trial = frame.groupby(["num_prompt_tokens", "num_output_tokens"]).cumcount()
    frame = frame.assign(trial=trial, trial_start_s=np.arange(len(setting), dtype=float))
    # As logs have them: sorted by setting, whatever the order in time.
    return frame.sort_values(["num_prompt_tokens", "num_output_tokens", "trial"], ignore_index=True)


def fading_noise(rng, num_trials):
    from scipy.signal import lfilter

    steps = 0.01 * np.sqrt(1 - 0.95**2) * rng.standard_normal(num_trials)
    steps[0] = 0.01 * rng.standard_normal()
    return lfilter([1], [1, -0.95], steps)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_intervals_hold_where_trials_depend_on_those_before_them(in_blocks):
    rng, hits = np.random.default_rng(11), []
    for _ in range(60):
        model = RuntimeModel.fit(make_sweep(rng, fading_noise, in_blocks=in_blocks))
        hits.append(holds(model.time_per_output_token_interval_s(), 0.02))
    assert np.mean(hits) > 0.88


def test_drift_over_blocks_is_in_the_interval_and_said():
    rng = np.random.default_rng(12)
    sweep = make_sweep(rng, lambda rng, n: np.linspace(-0.05, 0.05, n) + 0.01 * rng.standard_normal(n), in_blocks=True)
    model = RuntimeModel.fit(sweep)
    assert holds(model.time_per_output_token_interval_s(), 0.02)
    assert len(model.notes) == 1
    assert model.notes[0].startswith("trials depend on those before them")


def test_dependent_trials_change_no_estimate():
    sweep = make_sweep(np.random.default_rng(13), fading_noise, in_blocks=True)
    dependent, blind = RuntimeModel.fit(sweep), RuntimeModel.fit(sweep.groupby(
        ["num_prompt_tokens", "num_output_tokens"], as_index=False)["runtime_s"].agg(
        runtime_s="mean", runtime_std_s="std", num_trials="size"))  # fmt: skip
    assert dependent.time_per_output_token_s == blind.time_per_output_token_s
    assert (dependent.profiled_prompt_times_s == blind.profiled_prompt_times_s).all()
    errors_s = [model.intervals.time_per_output_token_standard_error_s() for model in (dependent, blind)]
    assert errors_s[0] > 1.5 * errors_s[1]
    assert blind.notes == ("intervals assume independent trials: these timings do not tell each of them in its order",)


def test_sweep_in_the_order_of_sizes_is_said_to_hide_a_drift():
    sweep = make_sweep(np.random.default_rng(14), lambda rng, n: 0.01 * rng.standard_normal(n), in_blocks=False)
    model = RuntimeModel.fit(sweep)
    assert [note for note in model.notes if "a drift of the machine" in note]
    assert RuntimeModel.from_json(model.to_json()).notes == model.notes


def test_trials_rounded_to_milliseconds_have_the_error_of_rounding():
    sweep = make_sweep(np.random.default_rng(15), lambda rng, n: 1e-5 * rng.standard_normal(n), in_blocks=True)
    sweep["runtime_s"] = (sweep["runtime_s"] + 0.0004).round(3)
    lower_s, upper_s = RuntimeModel.fit(sweep).predict_interval(1, 1)
    assert lower_s < 0.0204 < upper_s
    assert 0.0009 < upper_s - lower_s < 0.0015


def test_staircase_between_sizes_of_whole_tiles_is_within_the_interval():
    sizes = [1, 128, 256, 512, 768, 1024, 1536]
    frame = make_runtimes({size: 0.01 + 1e-4 * 128 * np.ceil(size / 128) for size in sizes})
    model = RuntimeModel.fit(frame.assign(runtime_std_s=1e-5, num_trials=10))
    p = np.array([130, 300, 520, 1100])
    lower_s, upper_s = model.predict_interval(p, 1)
    truth_s = 0.01 + 1e-4 * 128 * np.ceil(p / 128)
    assert ((lower_s <= truth_s) & (truth_s <= upper_s)).all()
