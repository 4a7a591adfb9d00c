import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel, llm_d_profile, read_steps, write_steps

STEPS = StepModel(0.013, 4e-5, 1e-4, 7e-8, covariance=np.diag([1e-3, 1e-6, 2e-4, 5e-8, 0]) ** 2)


def test_time_of_a_step_is_the_sum_of_its_terms():
    seconds = STEPS.seconds(num_sequences=10, num_cached_tokens=5000, num_prompt_tokens=100)
    assert seconds == pytest.approx(0.013 + 100 * 4e-5 + 10 * 1e-4 + 5000 * 7e-8)


def test_experts_count_by_the_share_that_is_visited():
    steps = StepModel(0.01, 0.0, 0.0, 0.0, 0.02, expert_share=0.25)
    assert steps.seconds(num_sequences=np.array([1, 2])) == pytest.approx([0.015, 0.01 + 0.02 * (1 - 0.75**2)])


def test_draws_have_its_mean_and_errors_and_no_negative_time():
    drawn = np.array([steps.coefficients for steps in STEPS.draws(4000, 0)])
    assert drawn.min() >= 0
    assert drawn[:, :2].mean(0) == pytest.approx(STEPS.coefficients[:2], rel=0.01)
    assert drawn[:, :2].std(0) == pytest.approx([1e-3, 1e-6], rel=0.05)


def test_negative_draw_moves_to_the_nearest_line_and_not_only_its_own_time_to_0():
    # A time that is high where the other is low: the sum is known, neither of them.
    covariance = np.zeros((5, 5))
    covariance[np.ix_([0, 2], [0, 2])] = [[1e-6, -0.99e-6], [-0.99e-6, 1e-6]]
    steps = StepModel(0.01, 0.0, 5e-4, 0.0, covariance=covariance)
    drawn = np.array([draw.coefficients for draw in steps.draws(2000, 0)])
    assert (drawn[:, 0] + drawn[:, 2]).mean() == pytest.approx(0.0105, rel=2e-3)


def test_llm_d_numbers_are_milliseconds_with_the_cache_in_beta():
    table = STEPS.llm_d_numbers(1000)
    assert table["value_ms"].to_dict() == pytest.approx({"alpha": 13, "beta": 0.17, "gamma": 13.1, "delta": 0.04})
    assert table.loc["alpha", "value_ms_upper"] == pytest.approx(13 + 1.95996)


def test_table_of_steps_has_the_time_and_the_error_of_each():
    steps = replace(STEPS, scheduler=Scheduler(max_num_seqs=24, max_num_batched_tokens=100))
    table = steps.step_table()
    n, cached, p = (table[name] for name in ("num_sequences", "num_cached_tokens", "num_prompt_tokens"))
    assert table["seconds"].to_numpy() == pytest.approx(
        steps.seconds(num_sequences=n, num_cached_tokens=cached, num_prompt_tokens=p)
    )
    (row,) = table[(n == 1) & (p == 64)].to_dict("records")
    error_s = np.sqrt(1e-3**2 + (64 * 1e-6) ** 2 + 2e-4**2)
    assert row["seconds_upper"] - row["seconds"] == pytest.approx(1.95996 * error_s, rel=1e-5)
    assert (n.max(), p.max()) == (24, 100)


@pytest.mark.parametrize("policy", ["continuous", "prompts-first", "static"])
def test_table_of_steps_has_only_those_that_the_scheduler_allows(policy):
    rules = Scheduler(policy, max_num_seqs=16, max_num_batched_tokens=64, cache_tokens=4000)
    table = replace(STEPS, scheduler=rules).step_table()
    num_generating = table["num_sequences"]
    if policy == "continuous":
        num_generating = num_generating - (table["num_prompt_tokens"] > 0)
    else:
        is_encoding = table["num_prompt_tokens"] > 0
        assert (table["num_prompt_tokens"] >= table["num_sequences"])[is_encoding].all()
        num_generating = num_generating.where(~is_encoding, 0)
    assert (num_generating + table["num_prompt_tokens"] <= 64).all()
    assert (num_generating + table["num_prompt_tokens"] + table["num_cached_tokens"] <= 4000).all()
    assert (table["num_cached_tokens"] == 0)[num_generating == 0].all()
    assert not table.duplicated().any()


def test_table_of_steps_of_a_mixture_counts_the_experts_that_its_tokens_visit():
    steps = StepModel(0.01, 0.0, 0.0, 0.0, 0.02, expert_share=0.25)
    table = steps.step_table().set_index(["num_sequences", "num_prompt_tokens", "num_cached_tokens"])
    # Of two sequences one generates a token, the other encodes a prompt of 4.
    assert table.loc[(2, 4, 128), "seconds"] == pytest.approx(0.01 + 0.02 * (1 - 0.75**5))
    assert table["seconds_lower"].isna().all()


def test_llm_d_profile_is_yaml_of_strings_in_milliseconds():
    text = llm_d_profile("of\ntwo lines", replace(STEPS, hardware="H100", num_accelerators=2), 1000)
    parms = yaml.safe_load(text)["perfParms"]
    assert {name: list(numbers) for name, numbers in parms.items()} == {
        "decodeParms": ["alpha", "beta"],
        "prefillParms": ["gamma", "delta"],
    }
    numbers = parms["decodeParms"] | parms["prefillParms"]
    assert all(isinstance(value, str) for value in numbers.values())
    assert [float(value) for value in numbers.values()] == pytest.approx([13, 0.17, 13.1, 0.04])
    assert "# of two lines on 2 x H100, steps fitted; maxBatchSize 256, 1000 tokens in the cache of a sequence" in text


def test_parameter_file_keeps_what_stands_beside_the_steps(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"gpt2": {"runtime_per_output_token": 0.04}, "other": {}}))
    write_steps(path, "gpt2", STEPS)
    entries = json.loads(path.read_text())
    assert entries["gpt2"]["runtime_per_output_token"] == 0.04
    assert list(entries) == ["gpt2", "other"]
    read = read_steps(path)["gpt2"]
    np.testing.assert_array_equal(read.covariance, STEPS.covariance)
    assert read.coefficients.tolist() == STEPS.coefficients.tolist()
    assert read.scheduler == Scheduler()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"fixed_s": 0.01}, "gpt2: steps lacks prompt_token_s, sequence_s, cache_token_s"),
        ({"fixed_s": -0.01}, "fixed_s must be a number of seconds, not negative; got -0.01"),
        ({"fixed_s": "0.01"}, "fixed_s must be a number of seconds, not negative; got '0.01'"),
        ({"expert_share": 2}, r"expert_share must lie in \[0, 1\)"),
        ({"covariance": [[1]]}, "covariance must be 6 x 6 finite numbers"),
        ({"scheduler": {"max_seqs": 3}}, "steps: .*max_seqs"),
        (3, "steps must be an object; got int"),
    ],
)
def test_damaged_steps_are_refused_by_file_and_model(tmp_path, steps, message):
    whole = STEPS.to_json()
    if isinstance(steps, dict):
        steps = steps if list(steps) == ["fixed_s"] and steps["fixed_s"] == 0.01 else {**whole, **steps}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"gpt2": {"steps": steps}}))
    with pytest.raises(ValueError, match=f"p.json: .*{message}"):
        read_steps(path)


def test_parameter_file_without_steps_says_what_writes_them(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"gpt2": {"runtime_per_output_token": 0.04}}')
    with pytest.raises(ValueError, match=r"no model in it has steps \(there are: gpt2\); `serving fit` writes them"):
        read_steps(path)


def test_no_draw_is_a_step_without_time():
    # One error for all of them, as of predicted steps: far below, the nearest line is none.
    times = np.array([0.01, 4e-5, 1e-4, 7e-8, 0, 0])
    steps = StepModel(*times.tolist(), covariance=np.outer(times, times) * 0.8**2)
    drawn = np.array([draw.coefficients for draw in steps.draws(200, 0)])
    assert drawn.shape == (200, 6)
    assert drawn.sum(axis=1).min() > 0


def test_term_that_a_fit_left_out_is_said_to_be_so_and_one_at_0_keeps_its_bounds():
    covariance = np.diag([1e-8, 0.0, 1e-12, 1e-18, 0.0, 0.0])
    table = StepModel(0.01, 0.0, 0.0, 1e-8, covariance=covariance).table()
    assert table.loc["prompt_token_s", ["value", "lower", "upper"]].isna().all()
    assert table.loc["prompt_token_s", "unit"].startswith("left out: what was timed does not tell it")
    assert table.loc["sequence_s", ["value", "lower"]].tolist() == [0, 0]
    assert table.loc["sequence_s", "upper"] > 0
    # Nothing is known of errors: 0 may be what somebody says.
    assert StepModel(0.01, 0.0, 0.0, 1e-8).table().loc["prompt_token_s", "value"] == 0
