"""What is known of a model: timings are interpolated, sizes between them are less certain, priors are learned."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.design.belief import Belief, Prior, floor_and_line, settings_of, visit_share_of, visits_of
from idealized_runtime.design.deviations import UNKNOWN, learn_deviations
from idealized_runtime.design.targets import Target
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.prediction import fit_predictor


def line_s(p, o):
    return 0.02 + 1e-4 * np.asarray(p) + 0.02 * (np.asarray(o) - 1)


def trials(settings, runtime_s=line_s, *, number=2):
    rows = [(p, o, trial, runtime_s(p, o)) for p, o in settings for trial in range(number)]
    return pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "trial", "runtime_s"])


GRID = [(p, o) for p in (1, 256, 1024) for o in (1, 16)]
SIZES = np.array([1, 128, 256, 640, 1024])


def test_expectation_stands_until_something_is_timed():
    belief = Belief.before_timing(SIZES, Prior(line_s))
    assert belief.predict(SIZES, np.full(5, 8)) == pytest.approx(line_s(SIZES, 8))


def test_timings_pull_estimates_from_a_wrong_expectation():
    belief = Belief.after(SIZES, Prior(lambda p, o: 0.6 * line_s(p, o)), trials(GRID))
    assert belief.predict(SIZES, np.full(5, 8)) == pytest.approx(line_s(SIZES, 8), rel=0.02)


def test_sizes_between_timed_ones_are_less_certain():
    belief = Belief.after(SIZES, Prior(line_s), trials(GRID))
    lower_s, upper_s = belief.predict_interval(SIZES, np.ones(5))
    widths = (upper_s - lower_s) / line_s(SIZES, 1)
    assert widths[1] > 1.2 * widths[[0, 2]].max()
    assert widths[3] > 1.2 * widths[[2, 4]].max()


def test_noisy_trials_widen_intervals():
    noise = np.random.default_rng(0)
    quiet, noisy = (
        Belief.after(SIZES, Prior(line_s), trials(GRID, lambda p, o, s=s: line_s(p, o) * (1 + s * noise.normal())))
        for s in (0.002, 0.1)
    )
    widths = [np.subtract(*belief.predict_interval(SIZES, np.ones(5))[::-1]).mean() for belief in (quiet, noisy)]
    assert widths[1] > 3 * widths[0]


def test_floor_and_line_recovers_one():
    expected = floor_and_line(trials(GRID))
    assert expected(SIZES, np.full(5, 4)) == pytest.approx(line_s(SIZES, 4), rel=0.01)


def test_settings_of_trials_and_of_means_are_the_same():
    frame = settings_of(trials(GRID))
    assert settings_of(frame)[["runtime_s", "num_trials"]].equals(frame[["runtime_s", "num_trials"]].astype(float))
    without = settings_of(frame.drop(columns=["num_trials", "runtime_std_s"]))
    assert (without["num_trials"] == 1).all()


def test_what_a_timed_setting_lies_off_its_curve_by_is_learned():
    sizes, noise = [1, 16, 64, 128, 256, 512], np.random.default_rng(0)
    grid, odd = [(p, o) for p in sizes for o in (1, 2, 8, 16)], (128, 8)

    def runtime_s(p, o):
        return line_s(p, o) * (1 + 0.005 * noise.standard_normal()) * (1.06 if (p, o) == odd else 1)

    timings = trials(grid, runtime_s, number=4)
    p, o = np.array(grid).T
    belief = Belief.after(sizes, Prior(line_s), timings)
    off = dict(zip(grid, belief.predict(p, o) / line_s(p, o) - 1, strict=True))
    assert off.pop(odd) == pytest.approx(0.06, abs=0.01)
    assert max(map(abs, off.values())) < 0.015, "others are not taken for odd"
    without = timings.drop(timings.query("num_prompt_tokens == 128 and num_output_tokens == 8").index)
    unseen = Belief.after(sizes, Prior(line_s), without)
    assert unseen.predict(*np.array([odd]).T)[0] == pytest.approx(line_s(*odd), rel=0.015)


def test_answers_longer_than_any_timed_are_less_certain_where_tokens_slow_down():
    def slower_s(p, o):
        return line_s(p, 1) + 0.02 * (o - 1) * (1 + 0.01 * np.log2(np.maximum(np.asarray(o) - 1, 1)))

    p = np.array([256])
    short, long = (
        Belief.after(
            SIZES, Prior(line_s), trials([(p, o) for p in (1, 256, 1024) for o in outputs], slower_s, number=4)
        )
        for outputs in ((1, 2, 4, 8), (1, 2, 8, 64))
    )
    (lower_s, upper_s), truth_s = short.predict_interval(p, np.array([256])), slower_s(p, 256)
    assert lower_s < truth_s < upper_s
    assert long.predict(p, np.array([256])) == pytest.approx(truth_s, rel=0.01)
    assert upper_s - lower_s > 1.5 * np.subtract(*long.predict_interval(p, np.array([256]))[::-1])


def visited(settings, *, num_visits, num_trials, visit_std=0.0, trial_std=0.0, seed=0):
    """Trials in visits, each after a warm-up; those of a visit have a deviation in common."""
    rng, rows, now_s = np.random.default_rng(seed), [], 0.0
    for number in range(num_visits * len(settings)):
        p, o = settings[number % len(settings)]
        visit_s = line_s(p, o) * (1 + visit_std * rng.standard_normal())
        now_s += visit_s
        for runtime_s in visit_s * (1 + trial_std * rng.standard_normal(num_trials)):
            rows.append((p, o, len(rows), now_s, runtime_s))
            now_s += runtime_s
    return pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "trial", "trial_start_s", "runtime_s"])


def test_trials_that_follow_each_other_are_one_visit():
    timings = visited(GRID, num_visits=3, num_trials=4)
    assert (visits_of(timings)["num_trials"] == 4).all()
    assert len(visits_of(timings)) == 3 * len(GRID)
    assert (settings_of(timings)["num_together"] == 4).all()
    once = settings_of(timings.drop(columns="trial_start_s"))
    assert (once["num_together"] == 1).all(), "nobody knows when they started"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_what_trials_of_a_visit_have_in_common_is_learned(share):
    stds = {"visit_std": 0.03 * share**0.5, "trial_std": 0.03 * (1 - share) ** 0.5}
    found = [visit_share_of(visited(GRID, num_visits=20, num_trials=3, **stds, seed=seed)) for seed in range(8)]
    assert np.mean(found) == pytest.approx(share, abs=0.06)


def test_a_log_of_means_is_taken_for_one_visit_a_setting():
    means = settings_of(trials(GRID, number=8)).drop(columns="num_together")
    assert (settings_of(means)["num_together"] == 8).all()
    assert 0 < visit_share_of(means) < 1
    assert visit_share_of(trials(GRID)) == 0, "nothing says that they follow each other"


def test_trials_of_one_visit_tell_less_than_those_of_several():
    apart = visited(GRID, num_visits=8, num_trials=1, visit_std=0.03, trial_std=0.01)
    together = visited(GRID, num_visits=8, num_trials=8, visit_std=0.03, trial_std=0.01)
    apart, eight, unknown = (
        Target.of_grid([1, 256, 1024], [1, 16]).seen_by(Belief.after(SIZES, Prior(line_s), timings)).error(0.95)
        for timings in (apart, together, together.drop(columns="trial_start_s"))
    )
    assert eight > 0.7 * apart, "eight times as many trials, as many visits"
    assert unknown < 0.6 * eight


@pytest.mark.parametrize("of", ["each", "total", "prompts", "tokens"])
def test_every_target_is_known_better_after_timings(of):
    target = Target.of_grid([1, 256, 1024], [1, 16], of)
    before = Belief.before_timing(SIZES, Prior(line_s))
    after = Belief.after(SIZES, Prior(line_s), trials(GRID))
    assert target.seen_by(after).error(0.95) < 0.5 * target.seen_by(before).error(0.95)


def test_a_total_is_known_better_than_each_of_it():
    belief = Belief.after(SIZES, Prior(line_s), trials(GRID))
    each, total = (Target.of_grid([1, 256, 1024], [1, 16], of).seen_by(belief).error(0.95) for of in ("each", "total"))
    assert total < each


def test_many_sizes_of_queries_are_taken_together():
    rng = np.random.default_rng(0)
    columns = {"num_prompt_tokens": rng.integers(1, 5000, 3000), "num_output_tokens": rng.integers(1, 900, 3000)}
    target = Target.of_queries(pd.DataFrame(columns))
    assert len(np.unique(target.mix.num_prompt_tokens)) <= 64
    assert len(np.unique(target.mix.num_output_tokens)) <= 32
    mean = target.mix.weights @ target.mix.num_prompt_tokens
    assert mean == pytest.approx(columns["num_prompt_tokens"].mean(), rel=0.02)


@cache
def pattern():
    try:
        timed = read_timed_models("a100", ["ada", "bloom", "gpt2-9.9b", "j1-large", "opt-66b"])
    except PublishedDataMissingError as error:
        pytest.skip(str(error))
    return learn_deviations(fit_predictor(timed.values()).left_out)


def test_deviations_of_published_models_are_those_of_their_left_out_errors():
    learned = pattern().deviations
    assert 0.01 < learned.token < 0.1  # left-out g is off by some per cent
    assert 0.001 < learned.trial < 0.05
    assert 1 <= learned.trial_dof <= 64
    assert sum(learned.trial_exponents) == pytest.approx(1)
    assert learned.setting_s == pytest.approx(0.001 / np.sqrt(12))


def test_what_models_share_is_known_at_their_sizes_and_not_far_from_them():
    mean, covariance = pattern().at(np.array([512, 100_000]))
    assert covariance[0, 0] < 0.8 * covariance[1, 1]
    assert abs(mean[1]) < 0.2 * UNKNOWN.level
