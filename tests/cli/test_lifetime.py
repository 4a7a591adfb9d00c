import json
import re
import shlex

import numpy as np
import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.lifetime import ScalingLaw, get_scaling_law
from idealized_runtime.lifetime.law_files import FittedLaw, write_law
from idealized_runtime.measurements.published import ROOT

COST_OPTIMAL = (
    "--loss 1.947 --inference_reqs 1e10 --input_tok 1000 --output_tok 250 --train_gpu_type A100_80 "
    "--train_gpu_cost 1.40 --inference_gpu_type 'A100_40' --inference_dtype int8 --inference_gpu_cost 0.60 "
    "--train_mfu 0.5 --prefill_mfu 0.4 --generation_mfu 0.2"
)
COST = (
    "--model 30e9 --chinchilla --train_gpu_cost 1.50 --inference_gpu_type 'A100_40' --inference_dtype int8 "
    "--inference_gpu_cost 0.60 --input_tok 500 --output_tok 100 --inference_reqs 1e9"
)


@pytest.fixture
def run(capsys):
    """Runs a command line that must succeed; its text, or its data with --json."""

    def run_command(line):
        assert main(["lifetime", *shlex.split(line)]) == 0
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in line else text

    return run_command


@pytest.fixture(scope="module")
def csv(published):
    return published / "beyond-chinchilla" / "trainingresults.csv"


@pytest.fixture(scope="module")
def law_file(csv, tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "law.json"
    assert main(["lifetime", "fit", "--data", str(csv), "--draws", "40", "--out", str(path)]) == 0
    return path


def value(text, label):
    """What stands behind a label; the last of them, the optimum's, where there are two."""
    return re.findall(rf"^{re.escape(label)}:\s+(\S+)", text, flags=re.MULTILINE)[-1]


def test_compute_optimal_prints_the_published_answer(run):
    text = run("compute-optimal --loss 1.947 --inference_tokens 2e12")
    assert (value(text, "Model Size (params)"), value(text, "Training Data (tok)")) == ("2.418e+10", "2.657e+12")
    for sentence in (
        "should have 70.96% of the parameters of an equal-quality Chinchilla-style model.",
        "should be trained on 146.77% of the tokens of an equal-quality Chinchilla-style model.",
        "should cost 95.22% of an equal-quality Chinchilla-style model.",
    ):
        assert f"The Compute-Optimal model {sentence}" in text


def test_cost_optimal_prints_the_published_answer(run):
    text = run(f"cost-optimal {COST_OPTIMAL}")
    assert (value(text, "Model Size (params)"), value(text, "Training Data (tok)")) == ("2.053e+10", "3.302e+12")
    assert all(f"{percent}%" in text for percent in ("60.23", "182.41", "88.76"))


def test_model_prints_the_published_answer(run):
    assert value(run("model --model 70e9 --data 1e12"), "Final Training loss")[:5] == "1.947"


def test_cost_prints_the_published_answer_with_the_prices_given(run):
    """The seed prints 3.146e+05 and 6.378e+05 here: its default prices, for it ignores these two flags."""
    text = run(f"cost {COST}")
    expected = {
        "Model Size (params)": "3.000e+10",
        "Training Data (tok)": "1.556e+12",
        "Final Training loss": "1.9583",
        "Train FLOPs": "2.801e+23",
        "Total (Train + Inference) FLOPs": "3.161e+23",
        "Train Cost ($)": "2.360e+05",
        "Total (Train + Inference) Cost ($)": "4.123e+05",
    }
    assert {label: value(text, label) for label in expected} == expected


def test_cost_prints_the_published_answer_at_default_prices(run):
    text = run("cost " + re.sub(r"--(train|inference)_gpu_cost \S+", "", COST))
    assert value(text, "Train Cost ($)") == "3.146e+05"
    assert value(text, "Total (Train + Inference) Cost ($)") == "6.378e+05"


@pytest.mark.parametrize(
    "line",
    [
        "model --chinchilla --compute 1e24",
        "model --chinchilla --model 70e9",
        "model --model 13e9 --data 1e12",
        "model --model 7e9 --compute 1e23",
        "cost --model 70e9 --data 10e12",
    ],
)
def test_the_other_questions_of_the_original_are_answered(run, line):
    model = run(f"{line} --json")["model"]
    assert model["training_flops"] == pytest.approx(6 * model["num_params"] * model["num_training_tokens"])
    for flag, name in (("--model", "num_params"), ("--data", "num_training_tokens"), ("--compute", "training_flops")):
        if flag in line:
            assert model[name] == pytest.approx(float(re.search(rf"{flag} (\S+)", line)[1]))


@pytest.mark.parametrize(
    "line",
    ["compute_optimal --loss 1.947", f"cost_optimal {COST_OPTIMAL}", f"cost {COST}"],
)
def test_dashes_and_underscores_mean_the_same(run, line):
    command, options = line.split(" ", 1)
    dashed = re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), options)
    assert run(f"{command.replace('_', '-')} {dashed} --json") == run(f"{line} --json")


def test_demand_may_be_spelled_as_in_the_usage_line_of_the_original(run):
    assert run("compute-optimal --loss 2 --tokens 1e12") == run("compute-optimal --loss 2 --inference_tokens 1e12")


def test_json_holds_what_the_text_shows(run):
    data = run(f"cost-optimal {COST_OPTIMAL} --json")
    assert f"{data['optimal']['num_params']:.3e}" == "2.053e+10"
    assert f"{100 * data['cost_ratio']:.2f}" == "88.76"
    assert data["chinchilla"]["loss"] == pytest.approx(1.947)
    assert (data["training"]["accelerator"], data["inference"]["dtype"]) == ("A100-80GB", "int8")


def test_coefficients_are_taken_by_name_or_one_by_one(run):
    named = run("compute-optimal --loss 2 --coefficients epoch --json")
    single = run("compute-optimal --loss 2 --A 482.01 --B 2085.43 --E 1.8172 --alpha 0.3478 --beta 0.3658 --json")
    assert named["optimal"] == single["optimal"]


def test_fit_prints_coefficients_with_intervals(run, csv, tmp_path):
    data = run(f"fit --data {csv} --draws 20 --json")
    assert data["objective"] <= 0.000619985
    assert data["num_starts"] == 4500
    assert data["intervals"]["alpha"]["lower"] < data["law"]["alpha"] < data["intervals"]["alpha"]["upper"]


def test_fit_reads_columns_of_other_names(run, csv, tmp_path):
    path = tmp_path / "renamed.csv"
    text = (
        csv.read_text().replace("Parameters", "N", 1).replace(",Tokens,", ",D,", 1).replace("Smoothed Loss", "val", 1)
    )
    path.write_text(text)
    options = "--params-column N --tokens-column D --loss-column val --cutoff 100 --draws 0"
    text = run(f"fit --data {path} {options}")
    assert value(text, "Training runs") == "34"
    assert "bootstrap" not in text


def test_intervals_of_a_fit_are_carried_to_the_optimum(run, law_file):
    text = run(f"compute-optimal --loss 2.5 --inference-tokens 1e12 --coefficients {law_file}")
    assert re.search(r"Model Size \(params\): +\S+ +\[\S+, \S+\]", text)
    data = run(f"cost-optimal --loss 2.5 --inference-reqs 1e9 --coefficients {law_file} --level 0.8 --json")
    for name in ("num_params", "num_training_tokens", "lifetime_usd", "cost_ratio"):
        bounds = data["intervals"][name]
        assert bounds["lower"] < data["optimal"].get(name, data.get(name)) < bounds["upper"]
    assert data["intervals"]["level"] == 0.8


def test_draws_that_do_not_reach_the_loss_are_counted(run, law_file):
    text = run(f"compute-optimal --loss 1.65 --coefficients {law_file}")
    assert re.search(r"over the \d+ of 40 bootstrap refits that reach the loss", text)


@pytest.mark.parametrize(
    "line",
    [
        "compute-optimal --loss 1.4",
        "cost-optimal --loss 1.4",
        f"cost-optimal --loss 1.4 --parameters {ROOT}/processed_jsons/a100.json",
        "model --chinchilla --loss 1.4",
        "model --loss 1.4 --model 1e13",
    ],
)
def test_loss_that_most_refits_do_not_reach_is_refused_by_every_command(capsys, tmp_path, line):
    """A law that reaches it stands beside draws of which four in ten do."""
    law, floors = get_scaling_law(E=1.0), np.array(4 * [1.0] + 6 * [1.45])
    draws = ScalingLaw(*(np.full(10, value) for value in (law.A, law.B)), floors, np.full(10, law.alpha),
                       np.full(10, law.beta))  # fmt: skip
    write_law(tmp_path / "law.json", FittedLaw(law, draws))
    assert main(["lifetime", *line.split(), "--coefficients", str(tmp_path / "law.json")]) == 2
    assert re.search(r"loss 1.4.* is reached by 40 % of the drawn scaling laws only", capsys.readouterr().err)


def test_intervals_of_a_fit_are_carried_to_the_loss(run, law_file):
    bounds = run(f"model --model 3e9 --data 1e11 --coefficients {law_file} --json")["intervals"]
    assert bounds["loss"]["lower"] < bounds["loss"]["upper"]
    assert not {"num_params", "num_training_tokens", "training_flops"} & bounds.keys()  # as given
    bounds = run(f"model --chinchilla --data 1e11 --coefficients {law_file} --json")["intervals"]
    assert "num_params" in bounds
    assert "num_training_tokens" not in bounds  # as given, though computed


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("--chinchilla --loss 2.5", "num_params"),
        ("--loss 2.5 --model 3e9", "num_training_tokens"),
        ("--loss 2.5 --data 1e12", "num_params"),
    ],
)
def test_intervals_of_a_fit_are_carried_to_the_size_that_reaches_a_loss(run, law_file, given, asked):
    data = run(f"model {given} --coefficients {law_file} --json")
    bounds = data["intervals"]
    assert bounds[asked]["lower"] < data["model"][asked] < bounds[asked]["upper"]
    assert "loss" not in bounds
    assert 0 < bounds["num_draws_used"] <= bounds["num_draws"]


def test_draws_that_cannot_reach_a_loss_with_the_size_given_are_left_out(run, law_file):
    bounds = run(f"model --loss 2.5 --model 1e9 --coefficients {law_file} --json")["intervals"]
    assert 0 < bounds["num_draws_used"] < bounds["num_draws"]


def test_folder_of_the_law_is_looked_for_before_the_fit(capsys, csv, tmp_path, monkeypatch):
    monkeypatch.setattr("idealized_runtime.lifetime.fitting.fit_scaling_law", lambda *_, **__: pytest.fail("fitted"))
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "new" / "law.json"
    assert main(["lifetime", "fit", "--data", str(csv), "--out", str(path)]) == 2
    assert f"--out: {path} cannot be written: {tmp_path / 'file'} is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model --loss 2", "exactly two of --model, --data, --compute, --loss, or from one with --chinchilla"),
        ("model", "got none"),
        ("model --model 1e9 --data 1e9 --compute 1e20", "exactly two of .*; got --model, --data, --compute"),
        ("model --chinchilla --loss 2 --model 1e9", "--chinchilla takes exactly one of .*; got --model, --loss"),
        ("model --chinchilla --loss 1.69", "loss must be above E = 1.69"),
        ("model --loss 1.5 --model 1e9", "loss must be above E = 1.69"),
        ("model --loss 1.9 --model 1e9", "no number of training tokens reaches loss 1.9 with 1e.09 parameters"),
        ("model --loss 1.9 --data 1e9", "no number of parameters reaches loss 1.9 with 1e.09 training tokens"),
        ("model --loss 2 --compute 1e23", "a loss and a compute budget do not fix a size"),
        ("model --model -1e9 --data 1e9", "--model: must be a positive number; got '-1e9'"),
        ("model --model 0 --data 1e9", "--model: must be a positive number; got '0'"),
        ("model --model nan --data 1e9", "--model: must be a positive number; got 'nan'"),
        ("model --chinchilla --model 1e30 --alpha 500 --beta 0.001", "numbers beyond 1e308"),
        ("model --model 1e200 --data 1e200", r"1e\+200 parameters; .* not asked beyond 7e\+05 to 1.6e\+15"),
        ("compute-optimal --loss 1.2", "loss must be above E = 1.69.*got 1.2"),
        ("compute-optimal --loss two", "--loss: must be a positive number; got 'two'"),
        ("compute-optimal --loss 2 --inference_tokens -5", "--inference-tokens.*: must be zero or a positive.*'-5'"),
        ("compute-optimal --loss 2 --alpha 0.001", "more than 1e100 parameters or training tokens"),
        ("compute-optimal --loss 2 --coefficients chincilla", "named 'chincilla' .did you mean chinchilla"),
        ("compute-optimal --loss 2 --coefficients absent.json", "no such file: absent.json"),
        ("cost-optimal --loss 2 --train_mfu 0", r"--train-mfu: must be in \(0, 1\], a share of the peak rate; got '0'"),
        ("cost-optimal --loss 2 --generation_mfu 1.2", r"--generation-mfu: must be in \(0, 1\].*got '1.2'"),
        ("cost-optimal --loss 2 --inference_gpu_type TPU", "no accelerator named 'TPU'; there are: V100"),
        ("cost-optimal --loss 2 --inference_gpu_type A100_80", "A100-80GB: no peak rate is known for 'fp8'; .*bf16"),
        ("cost-optimal --loss 2 --train_dtype int4", "H100: no peak rate is known for 'int4'; known:"),
        ("cost-optimal --loss 2 --train_gpu_cost 0", "--train-gpu-cost: must be a positive number of at most 100,000"),
        ("fit --data absent.csv", "absent.csv: No such file or directory"),
        ("fit", "arguments are required: --data"),
        ("cost-optimum --loss 2", "no subcommand 'cost-optimum' .did you mean cost-optimal"),
    ],
)  # fmt: skip
def test_bad_input_exits_with_2_and_says_what_is_allowed(capsys, monkeypatch, tmp_path, line, message):
    monkeypatch.chdir(tmp_path)
    status = main(["lifetime", *line.split()])
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert re.search(message, captured.err)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is no file of coefficients"),
        ('{"A": 1, "B": 2, "alpha": 0.3, "beta": 0.3}', "coefficient 'E' is missing"),
        ('{"A": 1, "B": 2, "E": 1, "alpha": -1, "beta": 0.3}', "alpha must be a positive finite number; got -1"),
        ("[1, 2]", "is no file of coefficients"),
        ('{"A": 1, "B": 2, "E": 1, "alpha": 0.3, "beta": 0.3, "draws": {"A": [1], "B": [2], "E": [1], "alpha": [1], '
         '"beta": [1, 2]}}', "draws must hold as many of each"),
    ],
)  # fmt: skip
def test_files_that_hold_no_law_are_refused(capsys, tmp_path, text, message):
    path = tmp_path / "law.json"
    path.write_text(text)
    assert main(["lifetime", "compute-optimal", "--loss", "2", "--coefficients", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_coefficients_of_a_file_cannot_be_replaced(capsys, law_file):
    assert main(["lifetime", "compute-optimal", "--loss", "2", "--coefficients", str(law_file), "--E", "1"]) == 2
    assert "--E cannot replace coefficients" in capsys.readouterr().err


def guide_examples():
    """Command and answer of each row of the guide's table, but for those that need a file."""
    guide = (ROOT / "docs" / "guides" / "train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]+\| `LIFETIME ([^`]+)` \| ([^|]+) \|$", guide, flags=re.MULTILINE)
    return [(line, answer) for line, answer in rows if "trainingresults.csv" not in line and "law.json" not in line]


@pytest.mark.parametrize(("line", "answer"), guide_examples())
def test_answers_of_the_guide_are_those_printed(run, monkeypatch, line, answer):
    monkeypatch.chdir(ROOT)
    text = run(line)
    numbers = re.findall(r"\d\.\d+e[+]\d+|\d+\.\d\d(?= %)|(?<=loss )[\d.]+|^[\d.]+$", answer)
    assert numbers
    assert [number for number in numbers if number not in text] == []


def test_guide_has_an_example_of_every_command():
    assert {line.split()[0] for line, _ in guide_examples()} == {"compute-optimal", "cost-optimal", "model", "cost"}
