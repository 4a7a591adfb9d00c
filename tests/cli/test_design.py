"""``idealized-runtime design``: a plan from logs of other models, and what a log at hand is worth."""

import json

import pytest

from idealized_runtime.cli.main import BAD_INPUT, DONE, main
from idealized_runtime.records import read_log
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --model and --logs"),
        (["--log", "x.jsonl", "--model", "gpt2-small"], "--model and --logs go together"),
        (["--model", "gpt2-small", "--logs", "cpu", "--columns", "num_prompt_tokens=p"], "of --queries"),
        (["--model", "gpt2-small", "--logs", "cpu", "--all-num-output-tokens", "1"], "at least two"),
        (["--model", "gpt2-small", "--logs", "cpu", "--all-num-input-tokens", "2048"], "takes 1024 tokens of context"),
    ],
)
def test_bad_input_is_refused_in_a_line(capsys, words, said):
    assert main(["design", *words]) == BAD_INPUT
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
