import numpy as np
import pandas as pd
import pytest

from idealized_runtime.measurements.inferencex import read_inferencex
from idealized_runtime.measurements.ml_energy import read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.groups import (
    BATCH_STEPS,
    FIRST_TOKENS,
    SERVER,
    SIZE_STEPS,
    TooFewPointsError,
    fit_groups,
    token_times,
)
from idealized_runtime.serving.steps import share_visited

BY = ("architecture", "hardware")
BATCHES = np.array([1.0, 4, 16, 64, 256])


def make_points(*, model="Qwen/Qwen3-8B", hardware="H100", batches=BATCHES, seconds=lambda b: 0.01 + 1e-4 * b, **more):
    table = {
        "model": model, "hardware": hardware, "concurrency": batches, "num_prompt_tokens": np.nan,
        "num_output_tokens": 500.0, "num_context_tokens": 600.0, "time_per_output_token_s": seconds(batches),
    }  # fmt: skip
    return pd.DataFrame(table | more)


def test_line_of_a_dense_model_is_recovered():
    fitted = fit_groups(make_points(), BATCH_STEPS, by=BY)
    line = fitted.lines["qwen3-8b", "H100"]
    assert line.coefficients == pytest.approx({"fixed_s": 0.01, "sequence_s": 1e-4})
    assert fitted.left_out["relative_error"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_time_of_the_experts_that_a_batch_visits_is_recovered():
    points = make_points(
        model="Qwen/Qwen3-30B-A3B-Instruct-2507",
        seconds=lambda b: 0.005 + 5e-5 * b + 0.02 * share_visited(b, 8 / 128),
    )
    steps = fit_groups(points, BATCH_STEPS, by=BY).steps(("qwen3-30b-a3b", "H100"))
    assert (steps.fixed_s, steps.sequence_s, steps.expert_s) == pytest.approx((0.005, 5e-5, 0.02))
    assert steps.seconds(num_sequences=32) == pytest.approx(0.005 + 5e-5 * 32 + 0.02 * share_visited(32, 8 / 128))


def test_cache_and_prompts_are_told_apart_by_sizes():
    c, p, o = (grid.ravel() for grid in np.meshgrid([1.0, 8, 64], [1024.0, 8192], [1024.0, 8192]))
    points = pd.DataFrame(
        {
            "model": "Qwen/Qwen3-8B", "hardware": "H100", "concurrency": c, "num_prompt_tokens": p,
            "num_output_tokens": o, "time_to_first_token_s": 0.05 + 2e-5 * p + 1e-3 * c + 1e-5 * c * p,
            "time_per_output_token_s": 0.008 + 1e-4 * c + 5e-8 * c * (p + o / 2) + 3e-5 * c * p / o,
        }
    )  # fmt: skip
    steps = fit_groups(points, SIZE_STEPS, by=BY).lines["qwen3-8b", "H100"].coefficients
    expected = {"fixed_s": 0.008, "sequence_s": 1e-4, "prompt_token_s": 3e-5, "cache_token_s": 5e-8}
    assert steps == pytest.approx(expected)
    first = fit_groups(points, FIRST_TOKENS, by=BY).lines["qwen3-8b", "H100"].coefficients
    assert list(first.values()) == pytest.approx([0.05, 2e-5, 1e-3, 1e-5])


def test_no_coefficient_is_negative():
    line = fit_groups(make_points(seconds=lambda b: 0.01 - 1e-5 * b), BATCH_STEPS, by=BY).lines["qwen3-8b", "H100"]
    assert line.coefficients["sequence_s"] == 0


def test_term_that_a_group_does_not_tell_from_others_is_left_out():
    kind = token_times("fixed_s", "sequence_s", "cache_token_s")
    assert list(fit_groups(make_points(), kind, by=BY).lines["qwen3-8b", "H100"].coefficients) == [
        "fixed_s",
        "sequence_s",
    ]


def test_setting_measured_twice_is_left_out_whole():
    points = make_points(batches=np.array([1.0, 4, 16, 64, 64]), seconds=lambda b: 0.01 + 1e-4 * b)
    points.loc[3:, "time_per_output_token_s"] = 0.1
    left_out = fit_groups(points, BATCH_STEPS, by=BY).left_out
    assert left_out["predicted_s"].to_numpy()[-2:] == pytest.approx(0.01 + 1e-4 * 64)


def test_all_ids_of_an_architecture_are_one_group():
    points = pd.concat([make_points(model=f"meta-llama/Llama-3.{minor}-70B-Instruct") for minor in (1, 3)])
    fitted = fit_groups(points.reset_index(drop=True), BATCH_STEPS, by=BY)
    assert [line.num_points for line in fitted.lines.values()] == [10]


def test_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(5)
    points = pd.concat(
        [
            make_points(
                hardware=f"machine-{number}", seconds=lambda b: (0.01 + 1e-4 * b) * np.exp(rng.normal(0, 0.03, 5))
            )
            for number in range(60)
        ],
        ignore_index=True,
    )
    fitted = fit_groups(points, BATCH_STEPS, by=BY)
    assert fitted.left_out_table()["covered_percent"].item() == pytest.approx(95, abs=2.5)
    bounds = fitted.predict(points, level=0.9)
    truth = 0.01 + 1e-4 * points["concurrency"]
    assert (bounds["predicted_s_lower"] <= truth).mean() > 0.9
    table = fitted.table()
    held = (table["lower"] <= table["value"].groupby("term").transform("median")) & (table["upper"] >= 0)
    assert held.mean() > 0.9


def test_coverage_of_a_group_is_by_intervals_of_the_others():
    calm = [make_points(hardware=f"machine-{number}") for number in range(3)]
    wild = make_points(hardware="wild", seconds=lambda b: (0.01 + 1e-4 * b) * np.array([1, 2, 1, 2, 1]))
    fitted = fit_groups(pd.concat([*calm, wild], ignore_index=True), BATCH_STEPS, by=BY)
    assert (fitted.coverage()[(fitted.left_out["hardware"] == "wild").to_numpy()] == 0).all()


def test_nothing_tells_the_width_of_the_only_group():
    assert np.isnan(fit_groups(make_points(), BATCH_STEPS, by=BY).left_out_table()["covered_percent"].item())


def test_missing_values_are_one_group_and_found_again():
    fitted = fit_groups(make_points(dtype=None), BATCH_STEPS, by=(*BY, "dtype"))
    assert fitted.predict(make_points(dtype=np.nan))["predicted_s"].tolist() == pytest.approx(
        (0.01 + 1e-4 * BATCHES).tolist()
    )


def test_group_of_one_setting_tells_a_constant_and_nothing_of_its_errors():
    one = make_points(hardware="one", batches=np.array([8.0, 8.0]))
    fitted = fit_groups(pd.concat([make_points(), one], ignore_index=True), BATCH_STEPS, by=BY)
    assert fitted.lines["qwen3-8b", "one"].coefficients == pytest.approx({"fixed_s": 0.0108})
    assert set(fitted.left_out["hardware"]) == {"H100"}


def test_points_of_one_size_each_are_refused():
    with pytest.raises(TooFewPointsError, match="take fewer terms, or group by less"):
        fit_groups(make_points(batches=np.array([8.0])), BATCH_STEPS, by=BY)


def test_unknown_term_lists_those_there_are():
    with pytest.raises(ValueError, match=r"terms must be among fixed_s, .*got pages_s"):
        token_times("fixed_s", "pages_s")


def test_unknown_group_says_what_groups_are_told_apart_by():
    with pytest.raises(ValueError, match="by architecture, hardware"):
        fit_groups(make_points(), BATCH_STEPS, by=BY).steps(("qwen3-8b", "A100"))


@pytest.fixture(scope="module")
def h100():
    points = usable_points(read_ml_energy())
    by = (*SERVER, "num_accelerators", "task")
    return fit_groups(points[points["hardware"] == "H100"], BATCH_STEPS, by=by, leave_out=["max_num_seqs"])


def test_published_inter_token_times_by_left_out_batch(h100):
    table = h100.left_out_table(h100.left_out["expert_share"] > 0)
    assert h100.left_out_table()["median_percent"].item() <= 1.7
    assert table["median_percent"].to_dict() == pytest.approx({False: 1.27, True: 2.58}, abs=0.05)
    assert max(len(line.coefficients) for line in h100.lines.values()) == 3


def test_intervals_of_published_inter_token_times_hold(h100):
    assert 90 <= h100.left_out_table()["covered_percent"].item() <= 98


def test_published_serving_points_left_out():
    points = usable_points(read_inferencex())
    points = points[points["hardware"] == "H100"]
    by = (*SERVER, "expert_tensor_parallel_size")
    tokens = fit_groups(points, SIZE_STEPS, by=by).left_out_table().loc["all"]
    assert tokens["median_percent"] <= 3
    assert 90 <= tokens["covered_percent"] <= 98
    first = fit_groups(points, FIRST_TOKENS, by=by).left_out_table().loc["all"]
    assert first["median_percent"] <= 10
    assert 90 <= first["covered_percent"] <= 98


def test_intervals_of_serving_points_hold_on_every_machine():
    points = usable_points(read_inferencex())
    by = (*SERVER, "expert_tensor_parallel_size")
    covered = fit_groups(points, SIZE_STEPS, by=by).left_out_table("hardware")["covered_percent"]
    assert set(covered.index) == {"H100", "H200", "B200", "B300"}
    assert covered.between(90, 98.5).all()
