import numpy as np
import pytest
from makers import HEADER, make_setting, write_log

from idealized_runtime import RuntimeModel
from idealized_runtime.records import (
    IncompleteLogWarning,
    LogFormatError,
    SliceWarning,
    load_log,
    read_log,
    read_trials,
)
from idealized_runtime.records.slices import line_weights

SLICES = [2, 4]
SLICED_HEADER = {**HEADER, "num_layers_profiled": SLICES}


def slice_runtimes_s(num_layers, p=1, *, rng=None, num_trials=5, constant_s=0.1):
    """Trials of a model with a known time a layer, and a known one for embedding, logits and sampling."""
    noise = 0 if rng is None else 0.01 * rng.standard_normal(num_trials)
    return ((constant_s + 0.02 * p * num_layers) * (1 + noise) * np.ones(num_trials)).tolist()


def write_slices(path, runtimes_s=slice_runtimes_s, *, slices=SLICES, prompt_sizes=(1,), **kwargs):
    settings = [
        make_setting(p, o, runtimes_s(size, p * o, **kwargs), num_layers_profiled=size)
        for size in slices
        for p in prompt_sizes
        for o in (1, 2)
    ]
    return write_log(path, settings, {**HEADER, "num_layers_profiled": slices})


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "gpt2-small.jsonl"


@pytest.mark.parametrize("slices", [[2, 4], [1, 2, 5], [8, 2]])
def test_line_through_the_slices_counts_what_is_no_layer_once(log_path, slices):
    frame = read_log(write_slices(log_path, slices=slices))
    assert frame["runtime_s"].tolist() == pytest.approx([0.1 + 12 * 0.02, 0.1 + 12 * 0.04])
    assert frame["runtime_min_s"].tolist() == pytest.approx(frame["runtime_s"].tolist())
    assert frame["runtime_std_s"].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert frame["num_layers_profiled"].tolist() == 2 * [min(slices)]
    assert frame["is_extrapolated"].all()


def test_slice_of_the_whole_model_is_no_extrapolation(log_path):
    frame = read_log(write_slices(log_path, slices=[6, 12]))
    assert frame["runtime_s"].tolist() == pytest.approx([0.34, 0.58])
    assert not frame["is_extrapolated"].any()


def test_slices_named_in_a_list_of_one_scale_with_depth(log_path):
    frame = read_log(write_slices(log_path, slices=[4]))
    assert frame["runtime_s"].tolist() == pytest.approx([3 * 0.18, 3 * 0.26])


def test_parts_of_a_runtime_are_extrapolated_too(log_path):
    settings = [
        make_setting(1, 2, [t + 0.1], prompt_encoding_times_s=[t], generation_times_s=[0.1], num_layers_profiled=size)
        for size, t in [(2, 0.5), (4, 0.75)]
    ]
    frame = read_log(write_log(log_path, settings, SLICED_HEADER))
    assert frame["prompt_encoding_time_s"].tolist() == pytest.approx([1.75])
    assert frame["generation_time_s"].tolist() == pytest.approx([0.1])


def test_standard_error_of_the_extrapolated_value_covers_it(log_path):
    rng = np.random.default_rng(3)
    settings = [
        make_setting(p, 1, slice_runtimes_s(size, rng=rng), num_layers_profiled=size)
        for size in SLICES
        for p in range(1, 401)
    ]
    frame = read_log(write_log(log_path, settings, SLICED_HEADER))
    standard_error_s = frame["runtime_std_s"] / np.sqrt(frame["num_trials"].astype(float))
    # The true one: five trials of 1 % noise, the line's value at 12 layers being 5 y(4) - 4 y(2).
    expected_s = np.hypot(5 * 0.18, 4 * 0.14) * 0.01 / np.sqrt(5)
    assert standard_error_s.mean() == pytest.approx(expected_s, rel=0.05)
    assert np.mean(np.abs(frame["runtime_s"] - 0.34) < 2 * standard_error_s) == pytest.approx(0.92, abs=0.05)


def test_slices_off_their_line_widen_its_error(log_path):
    off_line_s = {2: 0.14, 4: 0.20, 6: 0.22}
    frame = read_log(write_slices(log_path, lambda size, _: 5 * [off_line_s[size]], slices=[2, 4, 6]))
    # Three points, equal weights: residuals -d, 2 d, -d with d = 0.02 / 3; 12 layers lie 4 spacings off the middle.
    std_s = np.sqrt(6) * 0.02 / 3
    standard_error_s = frame["runtime_std_s"] / np.sqrt(frame["num_trials"].astype(float))
    assert standard_error_s.tolist() == pytest.approx(2 * [std_s * np.sqrt(1 / 3 + 4**2 / 2)])
    assert frame["num_trials"].tolist() == [2, 2]


def test_interval_of_a_runtime_model_holds_the_extrapolation(log_path):
    rng = np.random.default_rng(5)
    write_slices(log_path, prompt_sizes=(1, 2, 4), rng=rng)
    lower, upper = RuntimeModel.fit(read_log(log_path)).predict_interval(2, 2)
    # Twelve layers from slices of two and four: far wider than 1 % of noise over five trials.
    assert lower < 0.1 + 12 * 0.08 < upper
    assert 0.02 < (upper - lower) / (0.1 + 12 * 0.08) < 0.4


def test_setting_that_one_slice_lacks_is_left_out_and_named(log_path):
    settings = [make_setting(1, 1, num_layers_profiled=2), make_setting(1, 1, num_layers_profiled=4)]
    settings.append(make_setting(16, 1, num_layers_profiled=2))
    write_log(log_path, settings, SLICED_HEADER)
    with pytest.warns(IncompleteLogWarning, match="1 timings lack .* left out: p=16 o=1 on 2 layers") as caught:
        frame = read_log(log_path)
    assert caught[0].filename == __file__
    assert frame["num_prompt_tokens"].tolist() == [1]


def test_log_without_a_setting_on_every_slice_holds_no_timing(log_path):
    settings = [make_setting(1, 1, num_layers_profiled=2), make_setting(2, 1, num_layers_profiled=4)]
    write_log(log_path, settings, SLICED_HEADER)
    with pytest.raises(LogFormatError, match=r"no setting was timed on every slice.*p=1 o=1 on 2 layers; p=2 o=1 on 4"):
        read_log(log_path)


def test_line_below_zero_at_no_layers_is_named(log_path):
    write_slices(log_path, lambda size, p: slice_runtimes_s(size, p, constant_s=-0.02))
    with pytest.warns(SliceWarning, match=r"negative at no layers: p=1 o=1, p=1 o=2; time more trials") as caught:
        read_log(log_path)
    assert caught[0].filename == __file__


def test_line_below_zero_within_its_error_is_noise(log_path, recwarn):
    trials_s = {2: [0.03, 0.05], 4: [0.081, 0.083]}
    read_log(write_slices(log_path, lambda size, _: trials_s[size]))
    assert not recwarn.list


def test_trials_of_slices_are_no_trials_of_the_model(log_path):
    write_slices(log_path)
    with pytest.raises(ValueError, match=r"timed slices of 2, 4 layers.*read_log draws the line"):
        read_trials(log_path)


def test_same_setting_on_another_slice_is_no_repetition(log_path):
    assert len(load_log(write_slices(log_path)).completed) == 4


def test_line_weights_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    sizes, values = np.array([1.0, 3.0, 4.0, 8.0]), rng.random(4)
    line = np.polynomial.Polynomial.fit(sizes, values, 1, w=np.sqrt([5, 2, 4, 3]))
    assert line_weights(sizes, [5, 2, 4, 3], 12) @ values == pytest.approx(line(12))


def test_slice_that_was_never_timed_is_not_made_up_for_by_scaling_the_other(log_path):
    failed = {**make_setting(1, 1, [1.0], num_layers_profiled=4), "error": {"type": "OutOfMemoryError"}}
    settings = [make_setting(1, 1, slice_runtimes_s(2), num_layers_profiled=2), failed]
    write_log(log_path, settings, SLICED_HEADER)
    with (
        pytest.warns(IncompleteLogWarning),
        pytest.raises(LogFormatError, match="of 2 slices only that of 2 layers was timed"),
    ):
        read_log(log_path)
