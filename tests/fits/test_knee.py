import numpy as np
import pytest

from idealized_runtime.fits.knee import fit_knee

SIZES = np.array([1, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536])


def floor_and_line(sizes, *, knee=100.0, floor_s=0.02, slope_s=1e-4):
    return floor_s + slope_s * np.maximum(np.asarray(sizes, dtype=float) - knee, 0)


@pytest.mark.parametrize("knee", [20.0, 100.0, 640.0])
def test_knee_floor_and_slope_are_recovered_from_noiseless_times(knee):
    fitted = fit_knee(SIZES, floor_and_line(SIZES, knee=knee))
    assert fitted.num_prompt_tokens == pytest.approx(knee, rel=5e-3)
    assert fitted.floor_s == pytest.approx(0.02, rel=1e-3)
    assert fitted.time_per_prompt_token_s == pytest.approx(1e-4, rel=5e-3)
    assert fitted.prompt_tokens_per_s == pytest.approx(1e4, rel=5e-3)


def test_knee_at_a_profiled_size_is_found_exactly():
    fitted = fit_knee(SIZES, floor_and_line(SIZES, knee=256))
    assert fitted.num_prompt_tokens == 256
    assert fitted.interval == (256, 256)


def test_line_passes_through_the_times_above_the_knee():
    times_s = floor_and_line(SIZES, knee=128)
    np.testing.assert_allclose(fit_knee(SIZES, times_s).line_s(SIZES[SIZES >= 128]), times_s[SIZES >= 128])


def test_linear_times_have_their_knee_at_the_smallest_size():
    assert fit_knee([8, 16, 32, 64, 128], np.array([8, 16, 32, 64, 128]) * 1e-3).num_prompt_tokens == 8


def test_order_and_unit_of_the_data_do_not_matter():
    times_s = floor_and_line(SIZES) * np.random.default_rng(1).normal(1, 0.02, len(SIZES))
    order = np.random.default_rng(2).permutation(len(SIZES))
    fitted, shuffled = fit_knee(SIZES, times_s), fit_knee(SIZES[order], 1e3 * times_s[order])
    assert shuffled.num_prompt_tokens == pytest.approx(fitted.num_prompt_tokens)
    assert shuffled.interval == pytest.approx(fitted.interval)


def test_interval_covers_the_true_knee_as_often_as_it_says():
    rng = np.random.default_rng(20231)
    times_s = floor_and_line(SIZES, knee=150)
    num_simulated = 400
    covered = 0
    for _ in range(num_simulated):
        lower, upper = fit_knee(SIZES, times_s * rng.normal(1, 0.03, len(SIZES))).interval
        covered += lower <= 150 <= upper
    # Three standard errors of a count at 95 %, and half a per cent for the grid of knees.
    slack = 3 * np.sqrt(0.95 * 0.05 / num_simulated) + 0.005
    assert abs(covered / num_simulated - 0.95) < slack


def test_a_higher_level_gives_a_wider_interval():
    times_s = floor_and_line(SIZES) * np.random.default_rng(3).normal(1, 0.03, len(SIZES))
    narrow, wide = (fit_knee(SIZES, times_s, level=level).interval for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("sizes", "times_s", "message"),
    [
        ([1, 64, 512], [1, 2, 3], "at least 4 prompt sizes"),
        ([1, 64, 64, 512], [1, 2, 2, 3], "at least 4 prompt sizes"),
        ([1, 2, 3, 4], [1, 2, 3], "one length"),
        ([1, 2, 3, 4], [1, 2, 3, np.nan], "prompt_encoding_time_s must be a positive finite number"),
        ([0, 2, 3, 4], [1, 2, 3, 4], "num_prompt_tokens must be a positive finite number"),
        ([1, 2, 3, 4], [4, 3, 2, 1], "does not grow"),
    ],
)
def test_data_without_a_knee_to_find_are_refused(sizes, times_s, message):
    with pytest.raises(ValueError, match=message):
        fit_knee(sizes, times_s)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_outside_0_and_1_is_refused(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        fit_knee(SIZES, floor_and_line(SIZES), level=level)
