import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from makers import PROMPT_TIMES_S, make_runtimes, make_trials

from idealized_runtime import RuntimeModel, read_log, read_trials
from idealized_runtime.fits import fit_by_name
from idealized_runtime.fits.interpolation import TILE_SHARE, choose_tile_share, locate


@pytest.mark.parametrize("slope", [0.0, 2e-6])
def test_noiseless_runtimes_give_their_parameters_back(slope):
    model = RuntimeModel.fit(make_runtimes(slope=slope))
    assert model.time_per_output_token_at([1, 512]) == pytest.approx([0.02 + slope, 0.02 + 512 * slope], rel=1e-9)
    assert model.prompt_encoding_time_s(list(PROMPT_TIMES_S)) == pytest.approx(list(PROMPT_TIMES_S.values()), rel=1e-9)
    assert model.predict(128, 100) == pytest.approx(0.03 + 99 * (0.02 + 128 * slope), rel=1e-9)
    assert model.r_squared == pytest.approx(1)


def test_time_per_token_that_would_turn_negative_is_taken_for_constant():
    # A machine that was busy at short prompts: the long ones seem to get faster with every token.
    model = RuntimeModel.fit(make_runtimes(output_sizes=(1, 2, 4, 8), slope=-5e-5))
    assert model.time_per_output_token_slope_s == 0
    assert model.time_per_output_token_s > 0


def test_prompt_time_is_found_without_a_run_of_one_token():
    model = RuntimeModel.fit(make_runtimes(output_sizes=(4, 16)))
    assert model.prompt_encoding_time_s(64) == pytest.approx(0.025, rel=1e-9)


def test_weighted_fit_is_that_of_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    runtimes = make_runtimes({1: 0.02, 64: 0.025})
    runtimes["runtime_s"] *= 1 + 0.01 * rng.standard_normal(len(runtimes))
    model = RuntimeModel.fit(runtimes)
    assert model.time_per_output_token_slope_s == 0
    design = np.column_stack(
        [runtimes["num_prompt_tokens"] == 1, runtimes["num_prompt_tokens"] == 64, runtimes["num_output_tokens"] - 1]
    ).astype(float)
    weights = 1 / runtimes["runtime_s"] ** 2
    for _ in range(3):
        peer = statsmodels.WLS(runtimes["runtime_s"], design, weights=weights).fit()
        weights = 1 / peer.fittedvalues**2
    ours = [*model.profiled_prompt_times_s, model.time_per_output_token_s]
    assert ours == pytest.approx(peer.params.to_numpy(), rel=1e-5)


def test_g_depends_on_p_only_where_the_test_says_so():
    rng = np.random.default_rng(1)
    constant = RuntimeModel.fit(make_trials(rng))
    rising = RuntimeModel.fit(make_trials(rng, slope=1e-5))
    assert constant.time_per_output_token_slope_s == 0
    assert rising.time_per_output_token_slope_s == pytest.approx(1e-5, rel=0.2)
    reference = rising.reference_num_prompt_tokens
    assert rising.time_per_output_token_at(reference) == rising.time_per_output_token_s


def test_trials_and_their_means_give_one_model():
    trials = make_trials(np.random.default_rng(2))
    settings = trials.groupby(["num_prompt_tokens", "num_output_tokens"], as_index=False).agg(
        runtime_s=("runtime_s", "mean"), runtime_std_s=("runtime_s", "std"), num_trials=("runtime_s", "size")
    )
    by_trial, by_mean = RuntimeModel.fit(trials), RuntimeModel.fit(settings)
    assert by_trial.predict_interval(100, 10) == pytest.approx(by_mean.predict_interval(100, 10), rel=1e-9)


def test_trials_that_were_held_up_count_no_more_by_trial_than_by_setting():
    log = Path(__file__).parents[2] / "logs" / "cpu" / "distilgpt2.jsonl"
    trials = read_trials(log)
    assert trials["is_disturbed"].any()
    by_trial, by_setting = RuntimeModel.fit(trials), RuntimeModel.fit(read_log(log))
    assert by_trial.predict_interval(100, 10) == pytest.approx(by_setting.predict_interval(100, 10), rel=1e-9)


def test_runtime_stays_positive_however_far_a_falling_time_per_token_is_extrapolated():
    model = RuntimeModel.fit(make_runtimes(slope=-2e-5))
    assert model.time_per_output_token_slope_s == pytest.approx(-2e-5)
    assert model.time_per_output_token_at(16384, extrapolate=True) == model.time_per_output_token_at(512)
    assert (model.predict(16384, [2, 128], extrapolate=True) > model.predict(512, [2, 128])).all()
    prompt_times_s = {**PROMPT_TIMES_S, 256: 0.05}
    noisy = RuntimeModel.fit(make_trials(np.random.default_rng(4), slope=-2e-5, prompt_times_s=prompt_times_s))
    lower, upper = noisy.predict_interval(16384, 128, extrapolate=True)
    assert 0 < lower <= noisy.predict(16384, 128, extrapolate=True) <= upper


def test_insignificant_decrease_is_pooled_and_a_significant_one_is_kept():
    rng = np.random.default_rng(3)
    flat = RuntimeModel.fit(make_trials(rng, prompt_times_s={1: 0.02, 16: 0.02, 32: 0.02, 64: 0.02}))
    assert (np.diff(flat.profiled_prompt_times_s) >= 0).all()
    falling = RuntimeModel.fit(make_trials(rng, prompt_times_s={1: 0.02, 16: 0.025, 32: 0.02, 64: 0.03}))
    assert falling.profiled_prompt_times_s == pytest.approx([0.02, 0.025, 0.02, 0.03], rel=0.02)


@pytest.mark.parametrize("tile_share", [0.0, TILE_SHARE])
def test_prompt_time_is_exact_at_profiled_sizes_and_monotone_between(tile_share):
    sizes, times_s = np.array([1, 100, 300, 512]), np.array([0.02, 0.02, 0.05, 0.09])
    anchors = locate(np.arange(1, 513), sizes, times_s, tile_share)
    interpolated_s = anchors.blend(times_s)
    assert (interpolated_s[sizes - 1] == times_s).all()
    assert (np.diff(interpolated_s) >= 0).all()


def test_tiles_are_chosen_where_prompt_times_step_with_them():
    sizes = np.array([1, 64, 128, 192, 256, 320, 384, 448, 512])
    assert choose_tile_share(sizes, 0.02 + 1e-4 * np.ceil(sizes / 128) * 128) == TILE_SHARE
    assert choose_tile_share(sizes, 0.02 + 1e-4 * sizes) == 0
    assert choose_tile_share(sizes[:4], 0.02 + 1e-4 * np.ceil(sizes[:4] / 128) * 128) == 0


def test_interpolation_is_linear_on_a_log_without_tiles():
    model = RuntimeModel.fit(make_runtimes())
    assert model.tile_share == 0
    assert model.prompt_encoding_time_s(320) == pytest.approx(0.06, rel=1e-9)
    assert model.prompt_encoding_time_s(320.5) == pytest.approx(0.06 + 0.5 * 0.06 / 384, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, float])
def test_table_blocks_and_scalars_give_the_same_runtimes(dtype):
    model = RuntimeModel.fit(make_runtimes(slope=2e-6))
    rng = np.random.default_rng(4)
    p, o = rng.integers(1, 513, 100_000).astype(dtype), rng.integers(1, 100, 100_000).astype(dtype)
    runtime_s = model.predict(p, o)
    assert runtime_s.shape == p.shape
    np.testing.assert_allclose(
        runtime_s[:200], [model.predict(float(a), float(b)) for a, b in zip(p[:200], o[:200], strict=True)]
    )
    np.testing.assert_allclose(runtime_s[-3:], model.predict(p[-3:], o[-3:]))


def test_queries_broadcast():
    model = RuntimeModel.fit(make_runtimes())
    grid_s = model.predict(np.array([[1], [64]]), np.array([1, 2, 3]))
    assert grid_s == pytest.approx(np.array([[0.02, 0.04, 0.06], [0.025, 0.045, 0.065]]))
    assert isinstance(model.predict(1, 1), float)
    assert model.predict(np.array([], dtype=int), np.array([], dtype=int)).shape == (0,)


@pytest.mark.parametrize("p", [513, 1000, [4, 600]])
def test_extrapolation_is_refused_unless_asked_for_and_marked(p):
    model = RuntimeModel.fit(make_runtimes())
    with pytest.raises(ValueError, match=r"\[1, 512\].*extrapolate=True"):
        model.predict(p, 1)
    runtime_s = model.predict(p, 1, extrapolate=True)
    assert np.all(np.isfinite(runtime_s))
    assert np.asarray(model.is_extrapolated(p)).ravel()[-1]


def test_extrapolated_prompt_time_goes_on_rising_above_and_stays_below():
    runtimes = make_runtimes({16: 0.02, 128: 0.03, 256: 0.05, 512: 0.09})
    model = RuntimeModel.fit(runtimes)
    times_s = model.prompt_encoding_time_s([1, 16, 512, 1024], extrapolate=True)
    assert times_s == pytest.approx([0.02, 0.02, 0.09, 0.17])


@pytest.mark.parametrize(("p", "o"), [(0, 1), (1, 0), (np.nan, 1), (1, np.inf)])
def test_impossible_queries_are_refused(p, o):
    with pytest.raises(ValueError, match="finite and at least 1"):
        RuntimeModel.fit(make_runtimes()).predict(p, o)


def test_queries_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="num_prompt_tokens must hold numbers"):
        RuntimeModel.fit(make_runtimes()).predict("512", 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_bad_runtime_is_named(bad):
    runtimes = make_runtimes()
    runtimes.loc[5, "runtime_s"] = bad
    with pytest.raises(ValueError, match=r"runtime_s must be positive and finite; 1 row.* row 5 \(p=64, o=2\)"):
        RuntimeModel.fit(runtimes)


@pytest.mark.parametrize("bad", [0, -3, 1.5, np.nan])
def test_bad_number_of_tokens_is_named(bad):
    runtimes = make_runtimes().astype({"num_output_tokens": float})
    runtimes.loc[5, "num_output_tokens"] = bad
    with pytest.raises(ValueError, match=r"num_output_tokens must be an integer of at least 1.*row 5"):
        RuntimeModel.fit(runtimes)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("hardware", ("a100", "v100")),
        ("batch_size", (1, 8)),
        ("micro_batch_size", (4, 8)),
        ("token_micro_batch_size", (2, 8)),
    ],
)
def test_mixed_identity_is_refused_and_its_values_named(column, values):
    runtimes = make_runtimes()
    runtimes[column] = [values[index % 2] for index in runtimes.index]
    with pytest.raises(ValueError, match=f"one {column}; the timings hold 2: {values[0]}, {values[1]}"):
        RuntimeModel.fit(runtimes)


def test_missing_identity_of_every_row_is_one_value():
    runtimes = make_runtimes().assign(batch_size=pd.array([pd.NA] * 16, dtype="Int64"))
    assert RuntimeModel.fit(runtimes).time_per_output_token_s == pytest.approx(0.02)


def test_repeated_setting_without_trials_is_refused():
    runtimes = make_runtimes()
    with pytest.raises(ValueError, match="p=64 o=2"):
        RuntimeModel.fit(pd.concat([runtimes, runtimes.iloc[[5]]]))


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [
        (make_runtimes(output_sizes=(1,)), "num_output_tokens given: 1$"),
        (make_runtimes(output_sizes=(16,)), "num_output_tokens given: 16$"),
        (make_runtimes({512: 0.1}), "at least 2 prompt sizes.*512"),
        (make_runtimes().iloc[:0], "no rows"),
        (make_runtimes().drop(columns="runtime_s"), "no column runtime_s"),
        (make_runtimes(g=-1e-4), "fitted time per output token at p = .* must be positive"),
    ],
)
def test_runtimes_that_do_not_determine_a_model_are_refused(runtimes, message):
    with pytest.raises(ValueError, match=message):
        RuntimeModel.fit(runtimes)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"weighted, published, or a formula .*; got 'ols'"):
        fit_by_name("ols")


def test_residuals_are_those_of_the_model_that_predicts():
    model = RuntimeModel.fit(make_trials(np.random.default_rng(5)))
    residuals = model.residuals
    predicted_s = model.predict(residuals["num_prompt_tokens"], residuals["num_output_tokens"])
    assert (residuals["predicted_s"] == predicted_s).all()
    centred = residuals["runtime_s"] - residuals["runtime_s"].mean()
    unexplained = ((residuals["runtime_s"] - predicted_s) ** 2).sum()
    assert model.r_squared == pytest.approx(1 - unexplained / (centred**2).sum())
    assert model.residual_summary["max_relative_error"] == residuals["relative_error"].abs().max()


def test_predicting_from_a_parameter_file_imports_neither_statsmodels_nor_torch():
    parameters = json.dumps(RuntimeModel.fit(make_trials(np.random.default_rng(6))).to_json())
    code = (
        "import sys, json; from idealized_runtime.fits import model_from_json; "
        f"m = model_from_json(json.loads({parameters!r})); m.predict(5, 5); m.predict_interval(5, 5); "
        "print(sorted({'statsmodels', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
