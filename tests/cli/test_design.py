"""``idealized-runtime design``: a plan from logs of other models, and what a log at hand is worth."""

import json
import shlex

import numpy as np
import pytest

from idealized_runtime.cli.main import BAD_INPUT, DONE, main
from idealized_runtime.records import BATCH_COLUMNS, read_log
from idealized_runtime.serving.steps import StepModel, write_steps
from megatron_lm.arguments import parse_arguments
from tests.makers import HEADER, make_setting, write_log


@pytest.fixture
def log(tmp_path):
    """A noisy log of 0.01 + 1e-4 p + 0.02 (o - 1) seconds."""
    settings = [
        make_setting(p, o, [(0.01 + 1e-4 * p + 0.02 * (o - 1)) * (1 + error) for error in (-0.004, 0.001, 0.003)])
        for p in (1, 64, 128, 256, 512)
        for o in (1, 4, 16)
    ]
    return str(write_log(tmp_path / "gpt2-small.jsonl", settings, HEADER))


def answer_of(capsys, *words):
    assert main(["design", *words, "--json"]) == DONE
    return json.loads(capsys.readouterr().out)


def test_plan_keeps_to_its_seconds_and_narrows_with_more_of_them(capsys):
    few, more = (
        answer_of(capsys, "--model", "gpt2-small", "--logs", "cpu", "--max-seconds", seconds) for seconds in ("2", "8")
    )
    assert few["expected_device_s"] <= 2 < more["expected_device_s"] <= 8
    assert more["expected_error"] < few["expected_error"]
    assert set(few["settings"][0]) == {"num_prompt_tokens", "num_output_tokens", "num_trials"}
    assert few["command"].startswith("idealized-runtime time --architecture gpt2-small --all-num-input-tokens")
    parse_arguments(few["command"].split()[2:])


def test_plan_reaches_its_target(capsys):
    answer = answer_of(capsys, "--model", "gpt2-small", "--logs", "cpu", "--target-error", "0.1")
    assert answer["is_reached"]
    assert answer["expected_error"] <= 0.1


@pytest.mark.parametrize("of", ["each", "total", "prompts", "tokens"])
@pytest.mark.parametrize("more", [("--max-seconds", "3"), ("--target-error", "0.2", "--level", "0.9")])
def test_command_of_a_plan_asks_the_driver_for_the_same(capsys, tmp_path, of, more):
    queries = tmp_path / "two queries.csv"
    queries.write_text("p,num_output_tokens\n100,10\n200,30\n")
    words = ("--queries", str(queries), "--columns", "num_prompt_tokens=p", "--target", of, *more)
    answer = answer_of(capsys, "--model", "gpt2-small", "--logs", "cpu", *words)
    arguments = parse_arguments(shlex.split(answer["command"])[2:])
    assert arguments.all_num_input_tokens == [100, 200]
    assert (arguments.goal.of, arguments.goal.max_seconds is None) == (of, "--max-seconds" not in more)
    assert arguments.goal.level == (0.9 if "--level" in more else 0.95)
    assert arguments.goal.queries["num_prompt_tokens"].tolist() == [100, 200]


def test_sizes_that_queries_ask_for_are_timed(capsys, tmp_path):
    queries = tmp_path / "one.csv"
    queries.write_text("num_prompt_tokens,num_output_tokens\n100,10\n")
    words = ("--queries", str(queries), "--target-error", "0.05")
    answer = answer_of(capsys, "--model", "gpt2-small", "--logs", "cpu", *words)
    assert answer["is_reached"]
    assert (100, 10) in {(row["num_prompt_tokens"], row["num_output_tokens"]) for row in answer["settings"]}


def test_rows_that_are_no_queries_are_left_out_and_said(capsys, tmp_path):
    queries = tmp_path / "queries.csv"
    queries.write_text("num_prompt_tokens,num_output_tokens\n100,10\n-5,3\n,3\n1020,10\n")
    command = ["design", "--model", "gpt2-small", "--logs", "cpu", "--max-seconds", "3", "--queries", str(queries)]
    assert main([*command, "--json"]) == DONE
    out, err = capsys.readouterr()
    assert "2 of 4 rows lack token counts or have fewer than one" in err
    assert "1 of 2 rows need more than the 1024 positions of the model" in err
    assert {row["num_prompt_tokens"] for row in json.loads(out)["settings"]} == {100}


def test_missed_target_is_said(capsys):
    command = ["design", "--model", "gpt2-small", "--logs", "cpu", "--target-error", "0.001", "--max-seconds", "2"]
    assert main(command) == DONE
    assert "That is not the target of 0.1 %, and no further trial that fits into 2 s" in capsys.readouterr().out


def log_of_batches(path, batchings):
    settings = [
        make_setting(
            p, o, [batching[0] ** 0.5 * (0.01 + 1e-4 * p + 0.02 * (o - 1)) * (1 + e) for e in (-0.02, 0.005, 0.015)],
            **dict(zip(BATCH_COLUMNS, batching, strict=True)),
        )
        for batching in batchings for p in (1, 512) for o in (1, 8)
    ]  # fmt: skip
    return str(write_log(path / "gpt2-small.jsonl", settings, HEADER))


def test_batches_of_a_log_are_designed_each_within_its_part_of_the_seconds(capsys, tmp_path):
    log = log_of_batches(tmp_path, [(1, 1, 1), (4, 4, 4)])
    words = ("--log", log, "--model", "gpt2-small", "--logs", "cpu", "--max-seconds", "4")
    answer = answer_of(capsys, *words)
    assert {row["batch_size"] for row in answer["settings"]} == {1, 4}
    assert len(answer["timed"]) == 8
    assert answer["expected_device_s"] <= 4
    assert answer["expected_error"] < answer["error"]
    assert parse_arguments(shlex.split(answer["command"])[2:]).batchings == [(1, 1, 1), (4, 4, 4)]


def test_micro_batches_of_one_batch_are_told_apart(capsys, tmp_path):
    answer = answer_of(capsys, "--log", log_of_batches(tmp_path, [(4, 4, 4), (4, 2, 2)]), "--max-seconds", "2")
    assert {row["micro_batch_size"] for row in answer["timed"]} == {2, 4}


def test_prompt_times_of_a_batch_stand_for_runs_of_one_token(capsys):
    answer = answer_of(capsys, "--log", "logs/cpu_batch/distilgpt2.jsonl", "--max-seconds", "0.5")
    assert {(row["num_output_tokens"], row["num_trials"]) for row in answer["timed"]} == {(1, 1.0), (9, 5.0)}


def test_log_at_hand_tells_what_each_of_its_settings_was_worth(capsys, log):
    answer = answer_of(capsys, "--log", log, "--target-error", "0.5")
    assert answer["settings"] == []
    assert len(answer["timed"]) == len(read_log(log))
    assert all(row["error_without"] >= answer["error"] for row in answer["timed"])


def test_next_trial_narrows_and_is_the_most_useful_for_its_seconds(capsys, log):
    answer = answer_of(capsys, "--log", log, "--target-error", "0.001")
    gains = [row["narrows_percent"] / row["seconds"] for row in answer["next"]]
    assert gains[0] == pytest.approx(max(gains), rel=0.05)
    assert answer["next"][0]["error_after"] < answer["error"]


@pytest.fixture
def steps(tmp_path):
    times = StepModel(0.013, 4e-5, 2e-4, 3e-7, covariance=np.diag([3e-3, 1e-5, 5e-5, 1e-7, 0]) ** 2)
    write_steps(path := tmp_path / "steps.json", "tiny", times)
    return str(path)


def test_loads_narrow_the_largest_rate_within_their_seconds(capsys, steps):
    words = ("--target", "rate", "--parameters", steps, "--workload", "chat", "--all-num-parallel", "1", "64")
    answer = answer_of(capsys, *words, "--max-seconds", "120")
    assert answer["expected_device_s"] <= 120
    assert answer["expected_error"] < answer["error"]
    assert {row["concurrency"] for row in answer["settings"]} <= {1, 64}
    assert {"num_prompt_tokens", "num_output_tokens", "num_trials"} <= set(answer["settings"][0])
    assert main(["design", *words, "--target-error", "0.9"]) == DONE
    assert "the target of 90 % is met" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs --parameters"),
        (["--parameters", "STEPS", "--objective", "ttft:p95=1"], "needs --queries, or --workload"),
        (["--parameters", "STEPS", "--workload", "chat", "--logs", "cpu"], "--logs: the rate comes from step times"),
        (["--parameters", "STEPS", "--workload", "chat", "--objective", "ttft:p95=1e-6"], "bears no rate"),
        (["--parameters", "processed_jsons/cpu.json", "--workload", "chat"], "no model in it has steps"),
    ],
)
def test_what_tells_no_rate_is_refused_in_a_line(capsys, steps, words, said):
    words = [steps if word == "STEPS" else word for word in words]
    assert main(["design", "--target", "rate", *words]) == BAD_INPUT
    assert said in (err := capsys.readouterr().err)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --model and --logs"),
        (["--log", "x.jsonl", "--workload", "chat"], "--workload: of --target rate; got --target each"),
        (["--log", "x.jsonl", "--model", "gpt2-small"], "--model and --logs go together"),
        (["--model", "gpt2-small", "--logs", "cpu", "--columns", "num_prompt_tokens=p"], "of --queries"),
        (["--model", "gpt2-small", "--logs", "cpu", "--all-num-output-tokens", "1"], "--all-num-output-tokens must be"),
        (["--model", "distilgpt2", "--logs", "cpu", "--log", "logs/cpu/gpt2-small.jsonl"], "is of gpt2-small, not of"),
        (["--model", "gpt2-small", "--logs", "cpu", "--all-num-input-tokens", "2048"], "takes 1024 tokens of context"),
    ],
)
def test_bad_input_is_refused_in_a_line(capsys, words, said):
    assert main(["design", *words]) == BAD_INPUT
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
