import numpy as np
import pandas as pd
import pytest
from makers import BATCH_SIZES, make_timings, prompt_pass_s, token_pass_s

from idealized_runtime.fits.batched.model import BatchRuntimeModel, error_table, leave_one_out, optimum_table
from idealized_runtime.fits.batched.pipeline import num_passes
from idealized_runtime.records.common import SETTING_COLUMNS
from idealized_runtime.reproductions.throughput_test.printed import GPT_J


@pytest.mark.parametrize(("num_stages", "shares"), [(1, (1.0, 1.0)), (2, (0.6, 0.5)), (4, (0.25, 0.3))])
def test_noiseless_timings_give_the_pipeline_back(num_stages, shares):
    timings = make_timings(num_stages=num_stages, token_share=shares[0], prompt_share=shares[1])
    model = BatchRuntimeModel.fit(timings)
    assert model.generation.bottleneck_share == pytest.approx(shares[0], abs=1e-6)
    assert model.prompt.bottleneck_share == pytest.approx(shares[1], abs=1e-6)
    assert model.generation.times_s == pytest.approx(token_pass_s(np.array(BATCH_SIZES)), rel=1e-6)
    assert model.settings["relative_error"].abs().max() < 1e-6


def test_setting_that_was_not_timed_is_predicted():
    model = BatchRuntimeModel.fit(make_timings())
    expected_s = prompt_pass_s(4 * 128) * num_passes(1, 6, 0.5) + token_pass_s(12) * num_passes(63, 2, 0.6)
    assert model.predict(128, 64, 24, 12, m=4) == pytest.approx(expected_s, rel=1e-6)


def test_prompts_are_one_micro_batch_unless_said_otherwise():
    model = BatchRuntimeModel.fit(make_timings())
    assert model.predict(128, 32, 8, 4) == model.predict(128, 32, 8, 4, m=8)


def test_batch_of_one_output_token_is_its_prompts():
    model = BatchRuntimeModel.fit(make_timings(output_sizes=(1, 32)))
    assert model.predict(128, 1, 8, 4) == pytest.approx(prompt_pass_s(8 * 128), rel=1e-6)


def test_longer_context_takes_longer_where_several_were_timed():
    options = {"prompt_sizes": (64, 128), "output_sizes": (8, 32), "per_context_token_s": 2e-6}
    model = BatchRuntimeModel.fit(make_timings(**options))
    generation_s = token_pass_s(8, 96 + 10, per_context_token_s=2e-6) * num_passes(19, 1, 0.6)
    assert model.predict(96, 20, 8, 8) == pytest.approx(prompt_pass_s(8 * 96) + generation_s, rel=1e-6)


def test_context_that_seems_to_save_time_is_taken_for_noise():
    timings = make_timings(prompt_sizes=(64, 128), per_context_token_s=-2e-6)
    model = BatchRuntimeModel.fit(timings)
    assert len(model.generation.parameters) == len(BATCH_SIZES)


def test_stages_are_taken_to_be_alike_where_timings_do_not_tell():
    timings = make_timings(num_stages=4).query("batch_size == 32 and micro_batch_size == 32")
    model = BatchRuntimeModel.fit(timings)
    assert model.generation.bottleneck_share == 0.25
    assert not model.generation.has_fitted_share


def test_queries_broadcast():
    model = BatchRuntimeModel.fit(make_timings(prompt_sizes=(64, 128)))
    k = np.array([1, 2, 4, 8])
    each = [model.predict(128, 32, 8, int(size)) for size in k]
    assert model.predict(128, 32, 8, k).tolist() == pytest.approx(each)
    assert model.predict([[128], [64]], 32, 8, k).shape == (2, 4)
    assert isinstance(each[0], float)


@pytest.mark.parametrize(("batch_size", "share", "expected"), [(32, 0.5, 16), (8, 0.5, 4), (32, 0.9, 32), (1, 0.5, 1)])
def test_best_k_fills_the_pipeline(batch_size, share, expected):
    # Every round reads the weights once for each micro-batch: 1 / u of them keep the slowest stage busy.
    model = BatchRuntimeModel.fit(make_timings(token_share=share))
    assert model.optimal_token_micro_batch_size(128, 32, batch_size) == expected


def test_best_k_is_the_fastest_predicted():
    model = BatchRuntimeModel.fit(make_timings(rng=np.random.default_rng(1)))
    best = model.optimal_token_micro_batch_size(128, 32, 32)
    assert best == BATCH_SIZES[int(np.argmin(model.predict(128, 32, 32, np.array(BATCH_SIZES))))]


def test_batch_without_a_divisor_that_was_profiled_has_no_best_k():
    model = BatchRuntimeModel.fit(make_timings().query("token_micro_batch_size >= 4"))
    with pytest.raises(ValueError, match=r"no divisor of batch_size 3 lies in \[4, 32\]"):
        model.optimal_token_micro_batch_size(128, 32, 3)


def test_prediction_intervals_hold_new_measurements():
    rng = np.random.default_rng(11)
    inside = []
    for _ in range(40):
        # Fitted to half of the settings; every k is in it.
        timings = make_timings(rng=rng)
        model = BatchRuntimeModel.fit(timings.iloc[::2])
        new = timings.iloc[1::2]
        p, o, batch, m, k = (new[name].to_numpy() for name in SETTING_COLUMNS)
        lower_s, upper_s = model.predict_interval(p, o, batch, k, m=m)
        inside.append(np.mean((lower_s < new["runtime_s"]) & (new["runtime_s"] < upper_s)))
    assert 0.92 < np.mean(inside) < 0.98


def test_interval_is_wider_between_profiled_sizes():
    timings = make_timings(rng=np.random.default_rng(2))
    model = BatchRuntimeModel.fit(timings)
    widths = [np.diff(model.predict_interval(128, 32, 12, k, m=1)).item() for k in (4, 12)]
    relative = np.array(widths) / model.predict(128, 32, 12, np.array([4, 12]), m=1)
    assert relative[1] > 1.5 * relative[0]


def test_interval_is_refused_where_nothing_is_known():
    timings = make_timings().query("batch_size == 4 and micro_batch_size == 4")
    model = BatchRuntimeModel.fit(timings)
    with pytest.raises(ValueError, match="no interval is known: every size was timed in one setting only"):
        model.predict_interval(128, 32, 4, 2)


def test_leave_one_out_predicts_what_it_has_not_seen():
    left_out = leave_one_out(make_timings(rng=np.random.default_rng(4)))
    assert sorted(left_out["token_micro_batch_size"].unique()) == [2, 4, 8, 16]
    # Noise, and the bend between reading weights and computing that a line between sizes cuts off.
    assert left_out["relative_error"].abs().median() < 0.05
    by_batch = leave_one_out(make_timings(), "batch_size")
    assert by_batch["relative_error"].abs().max() < 0.01
    # No other batch has 32 sequences that go together.
    assert len(by_batch) == len(make_timings().query("micro_batch_size < 32 and token_micro_batch_size < 32"))


def test_errors_of_settings_that_a_fit_has_not_seen_are_larger():
    errors = error_table(make_timings(rng=np.random.default_rng(4)))
    assert errors.index.tolist() == ["nothing", "its batch size", "its token micro-batch size"]
    assert errors["num_settings"].tolist() == [41, 34, 28]
    assert errors["median_percent"].is_monotonic_increasing
    assert (errors["median_percent"] < errors["p95_percent"]).all()


def test_optimum_table_says_what_following_the_model_would_cost():
    timings = make_timings(token_share=0.5).query("micro_batch_size == 1")
    model = BatchRuntimeModel.fit(timings)
    assert optimum_table(timings, model)["loss_percent"].tolist() == pytest.approx(6 * [0], abs=1e-6)
    # A machine on which this k is slow for a reason that no other batch size shows.
    slow = (timings["batch_size"] == 32) & (timings["token_micro_batch_size"] == 16)
    timings["generation_time_s"] *= np.where(slow, 2, 1)
    row = optimum_table(timings, model).loc[32]
    assert row["predicted_best_k"] == 16
    assert row["best_k"] == 8
    assert row["loss_percent"] > 0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((128, 32, 8, 3), r"token_micro_batch_size must divide batch_size; got \[3\] for \[8\]"),
        (
            (128, 32, 64, 64),
            r"token_micro_batch_size must lie in \[1, 32\], the profiled range; 1 of 1 lie outside.*64",
        ),
        ((0, 32, 8, 4), "num_prompt_tokens must be finite and at least 1"),
        ((128, 32, 8, 2.5), "token_micro_batch_size must be an integer of at least 1, or an array of them; got 2.5"),
    ],
)
def test_query_outside_of_the_model_is_refused(sizes, message):
    model = BatchRuntimeModel.fit(make_timings())
    options = {"m": 1} if sizes[2] == 64 else {}
    with pytest.raises(ValueError, match=message):
        model.predict(*sizes, **options)


def test_prompt_beyond_what_was_encoded_together_is_refused():
    model = BatchRuntimeModel.fit(make_timings())
    with pytest.raises(ValueError, match=r"micro_batch_size x num_prompt_tokens must lie in \[128, 4096\]"):
        model.predict(128, 32, 64, 32)


def test_prompt_size_beyond_those_timed_is_refused_unless_extrapolated():
    # As many tokens were encoded together, so that only the prompt size itself is new.
    options = {"prompt_sizes": (64, 128), "output_sizes": (8, 32), "per_context_token_s": 2e-6}
    model = BatchRuntimeModel.fit(make_timings(**options))
    message = r"num_prompt_tokens must lie in \[64, 128\], the profiled range; 1 of 2 lie outside, the first is 256"
    for method in (model.predict, model.predict_interval):
        with pytest.raises(ValueError, match=message + ".*extrapolate=True"):
            method([128, 256], 32, 8, 8)
    runtimes_s = model.predict([128, 256], 32, 8, 8, extrapolate=True)
    generation_s = token_pass_s(8, 256 + 16, per_context_token_s=2e-6) * num_passes(31, 1, 0.6)
    assert runtimes_s[1] == pytest.approx(prompt_pass_s(8 * 256) + generation_s, rel=1e-6)


def test_prompt_sizes_between_those_timed_are_no_extrapolation():
    model = BatchRuntimeModel.fit(make_timings(prompt_sizes=(64, 128)))
    model.predict([64, 100, 128], 32, 8, 8)


def test_passes_are_never_extrapolated():
    model = BatchRuntimeModel.fit(make_timings())
    with pytest.raises(ValueError, match=r"micro_batch_size x num_prompt_tokens must lie in \[128, 4096\]"):
        model.predict(8192, 32, 1, 1, extrapolate=True)


def test_best_k_of_a_prompt_size_beyond_those_timed_is_refused():
    model = BatchRuntimeModel.fit(make_timings(prompt_sizes=(64, 128)))
    with pytest.raises(ValueError, match=r"num_prompt_tokens must lie in \[64, 128\]"):
        model.optimal_token_micro_batch_size(2048, 32, 8)


def test_prompt_sizes_can_be_left_out_one_by_one():
    left_out = leave_one_out(make_timings(prompt_sizes=(32, 64, 128)), "num_prompt_tokens")
    assert left_out["num_prompt_tokens"].unique().tolist() == [64]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="generation_time_s"), "no column generation_time_s"),
        (lambda t: t.assign(generation_time_s=np.nan), "settings lack a batch size, or prompt encoding"),
        (lambda t: t.assign(model=[f"gpt{i % 2}" for i in range(len(t))]), "one fit takes one model.*gpt0, gpt1"),
        (lambda t: t.assign(num_output_tokens=1), "no setting has two output tokens or more"),
    ],
)
def test_timings_that_cannot_be_fitted_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BatchRuntimeModel.fit(change(make_timings()))


# Printed numbers


def test_printed_optimum_of_gpt_j_is_the_k_that_fills_its_four_stages():
    model = BatchRuntimeModel.fit(GPT_J.timings())
    assert model.optimal_token_micro_batch_size(512, 32, 48) == 12 == 48 // GPT_J.num_stages


def test_token_micro_batch_sizes_of_gpt_j_are_predicted_from_the_others():
    errors = leave_one_out(GPT_J.timings())["relative_error"].abs()
    assert len(errors) == 4
    assert errors.max() < 0.07


def test_timings_that_leave_nothing_to_fit_have_no_errors_of_what_was_left_out():
    timings = make_timings()
    errors = error_table(timings[timings["batch_size"] == 32])
    assert errors.loc["its batch size", "num_settings"] == 0
    assert np.isnan(errors.loc["its batch size", "max_percent"])
    assert errors.loc["its token micro-batch size", "num_settings"] == 8


def test_optimum_needs_no_other_times_than_the_fit_does():
    timings = make_timings()
    timings = timings[timings["micro_batch_size"] == 1]
    model = BatchRuntimeModel.fit(timings)
    pd.testing.assert_frame_equal(
        optimum_table(timings.drop(columns="runtime_s"), model), optimum_table(timings, model)
    )


def test_column_to_leave_out_and_columns_of_an_optimum_must_be_there():
    timings = make_timings()
    with pytest.raises(ValueError, match="timings: no column batch"):
        leave_one_out(timings, "batch")
    with pytest.raises(ValueError, match="timings: no column token_micro_batch_size"):
        optimum_table(timings.drop(columns="token_micro_batch_size"), BatchRuntimeModel.fit(timings))
