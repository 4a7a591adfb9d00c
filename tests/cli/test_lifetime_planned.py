"""``cost-optimal --plan``: the cheapest size with inference as it is served."""

import json
import re
import shlex

import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel, write_steps

ASKED = [
    "lifetime",
    "cost-optimal",
    "--plan",
    "--loss",
    "2.6",
    "--inference-reqs",
    "1e8",
    "--train-gpu-type",
    "A100_80",
]
OBJECTIVE = ["--objective", "tpot:p95=0.5"]
CPU = ["--logs", "cpu", "--inference-gpu-cost", "0.1", "--loss", "3.1", "--inference-reqs", "1e6"]
SIZES = ["--input-tok", "64", "--output-tok", "16"]


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    """Steps of four models whose time is proportional to their size."""
    path = tmp_path_factory.mktemp("steps") / "steps.json"
    for name in ("opt-125m", "opt-1.3b", "opt-6.7b", "opt-13b"):
        step_s = 1e-12 * get_architecture(name).num_params
        rules = {"scheduler": Scheduler(max_num_seqs=16), "hardware": "H100", "num_accelerators": 1}
        write_steps(path, name, StepModel(step_s, 0.01 * step_s, 0.01 * step_s, 0.0, **rules))
    return ["--parameters", str(path), "--inference-dtype", "bf16"]


def answer(capsys, *arguments):
    assert main([*ASKED, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_answer_has_three_ways_of_serving_with_intervals(capsys, parameters):
    data = answer(capsys, *parameters, *OBJECTIVE, *SIZES)
    assert list(data["servings"]) == ["guessed", "batch_1", "planned"]
    planned = data["servings"]["planned"]
    for name in ("num_params", "num_training_tokens", "cost_usd", "energy_kwh", "co2e_kg"):
        assert planned[f"{name}_lower"] <= planned[name] <= planned[f"{name}_upper"], name
    assert planned["cost_usd"] < data["servings"]["batch_1"]["cost_usd"]
    assert "num_params_lower" not in data["servings"]["guessed"]
    assert data["objectives"] == ["tpot:p95=0.5"]


def test_guess_is_the_answer_without_a_plan(capsys, parameters):
    guessed = answer(capsys, *parameters, *OBJECTIVE, *SIZES)["servings"]["guessed"]
    words = [word for word in ASKED if word != "--plan"]
    assert main([*words, *SIZES, "--inference-gpu-type", "H100", "--inference-dtype", "bf16", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["optimal"]
    assert guessed["num_params"] == pytest.approx(alone["num_params"])
    assert guessed["cost_usd"] == pytest.approx(alone["lifetime_usd"])


def test_dollars_are_those_of_the_largest_rate(capsys, parameters):
    data = answer(capsys, *parameters, *OBJECTIVE, *SIZES)
    for row in data["planned"]["models"]:
        assert row["planned_s"] == pytest.approx(row["num_accelerators"] / row["max_requests_per_s"])
        assert row["planned_fitted_s"] == pytest.approx(row["planned_s"], rel=0.03)
    planned = data["servings"]["planned"]
    seconds = planned["inference_usd"] / data["inference"]["price_usd_per_hour"] * 3600 / 1e8
    # Proportional to size, as the steps are.
    row = data["planned"]["models"][1]
    assert seconds / planned["num_params"] == pytest.approx(row["planned_s"] / row["num_params"], rel=0.03)


def test_factors_of_electricity_are_shown_and_can_be_given(capsys, parameters):
    asked = [*parameters, *OBJECTIVE, *SIZES]
    factors = answer(capsys, *asked)["electricity"]
    assert (factors["pue"], factors["kg_co2e_per_kwh"]) == (1.56, 0.473)
    assert "Ember" in factors["grid_source"]
    given = ["--pue", "1.1", "--grid-kg-co2e-per-kwh", "0", "--power-watts", "300", "--train-power-watts", "350"]
    data = answer(capsys, *asked, *given)
    assert data["electricity"] == {
        "training_power_watts": 350, "inference_power_watts": 300, "training_power_source": "as given",
        "inference_power_source": "as given", "pue": 1.1, "pue_source": "as given", "kg_co2e_per_kwh": 0,
        "grid_source": "as given",
    }  # fmt: skip
    assert data["servings"]["planned"]["co2e_kg"] == 0


def test_models_of_logs_are_predicted(capsys):
    data = answer(capsys, *CPU, *OBJECTIVE, *SIZES)
    assert {row["origin"] for row in data["planned"]["models"]} == {"predicted"}
    assert len(data["planned"]["models"]) == 4
    # Nobody says what a CPU draws.
    assert data["electricity"] is None
    assert "energy_kwh" not in data["servings"]["planned"]


def test_models_that_nobody_timed_are_predicted_from_the_logs(capsys):
    chosen = ["gpt2-small", "gpt2-large", "pythia-1.4b", "opt-125m"]
    data = answer(capsys, *CPU, "--model", *chosen, "--objective", "ttft:p95=20", *SIZES)
    assert {row["model"] for row in data["planned"]["models"]} == set(chosen)


def test_hardware_that_is_named_is_priced_and_said_to_be_another(capsys):
    asked = ["--logs", "a100", "--model", "ada", "gpt-j", "j1-large", "gpt2-9.9b", "--hardware", "H100", *OBJECTIVE]
    assert main([*ASKED, *asked, *SIZES, "--json"]) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert (data["inference"]["accelerator"], data["electricity"]["inference_power_watts"]) == ("H100", 700)
    assert "runtimes were timed on 1 x A100-80GB; priced as 1 x H100" in err


def test_workload_brings_objectives_and_sizes_and_flags_go_before(capsys, parameters):
    data = answer(capsys, *parameters, "--workload", "chat")
    assert data["objectives"] == ["ttft:p95=0.5", "tpot:p95=0.05", "e2e:p95=13.3"]
    assert (data["demand"]["num_prompt_tokens"], data["demand"]["num_output_tokens"]) == (512, 256)
    data = answer(capsys, *parameters, "--workload", "chat", *OBJECTIVE, "--input-tok", "100")
    assert data["objectives"] == ["tpot:p95=0.5"]
    assert (data["demand"]["num_prompt_tokens"], data["demand"]["num_output_tokens"]) == (100, 215)


def test_sizes_of_the_requests_come_from_a_file(capsys, tmp_path, parameters):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,weight\n100,10,3\n500,50,1\n")
    demand = answer(capsys, *parameters, *OBJECTIVE, "--queries", str(path))["demand"]
    assert (demand["num_prompt_tokens"], demand["num_output_tokens"], demand["num_query_sizes"]) == (200, 20, 2)


def test_number_of_accelerators_is_taken_for_a_replica(capsys, parameters):
    one = answer(capsys, *parameters, *OBJECTIVE, *SIZES)
    four = answer(capsys, *parameters, *OBJECTIVE, *SIZES, "--num-accelerators", "4", "opt-13b=1")
    ratios = [many["planned_s"] / few["planned_s"]
              for few, many in zip(*(data["planned"]["models"] for data in (one, four)), strict=True)]  # fmt: skip
    assert ratios == pytest.approx([4, 4, 4, 1])


def test_answer_reads_as_text_and_says_who_is_left_out(capsys, parameters):
    models = ["gpt2-small", "distilgpt2", "gpt2-medium", "gpt2-large", "pythia-2.8b"]
    given = ["--model", *models, "--objective", "tpot:p95=0.3", "--power-watts", "100"]
    assert main([*ASKED, *CPU, *SIZES, *given]) == 0
    out, err = capsys.readouterr()
    for part in ("Planned:", "4 models of 8.19e+07 to 7.74e+08 parameters, predicted", "guessed", "batch 1",
                 "Energy (kWh)", "Emissions (kg CO2e)", "Uptime Institute", "% of the parameters of the guessed one",
                 "accelerator-s a query"):  # fmt: skip
        assert part in out
    assert "left out: pythia-2.8b on 1 x" in err
    assert "is below what an idle replica takes" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logs", "cpu"], "--objective must be given, such as ttft:p95=0.5, or --workload"),
        ([*OBJECTIVE], "--plan needs one of --logs, from which models are predicted, and --parameters, with steps"),
        ([*OBJECTIVE, "--logs", "cpu", "--parameters", "steps.json"], "--plan needs one of --logs"),
        ([*OBJECTIVE, "--parameters", "absent.json"], "absent.json"),
        ([*OBJECTIVE, "--parameters", str(ROOT / "processed_jsons" / "a100.json")], "no model in it has steps"),
        (["--logs", "cpu", "--objective", "ttft:p95"], "an objective is METRIC:STATISTIC=SECONDS"),
        (["--logs", "cpu", "--workload", "chta"], "no workload 'chta' (did you mean chat?)"),
        ([*OBJECTIVE, *CPU, "--num-accelerators", "gpt2-smal=2"], "no model gpt2-smal (did you mean gpt2-small?)"),
        ([*OBJECTIVE, *CPU, "--model", "gpt2-smal"], "gpt2-smal"),
        ([*OBJECTIVE, *CPU, "--model", "gpt2-small", "gpt2-medium"], "at least 4 models must serve"),
        ([*OBJECTIVE, "--logs", "cpu"], "cpu has no price: give one"),
        ([*CPU, "--objective", "tpot:p95=1e-4"], "is below what an idle replica takes"),
        ([*OBJECTIVE, *CPU, "--power-watts", "100", "--pue", "0.9"], "--pue must be at least 1"),
        ([*OBJECTIVE, *CPU, "--num-accelerators", "2"], "0 do; distilgpt2 on 2 x"),
        ([*OBJECTIVE, *CPU, "--extrapolate"], "--extrapolate goes without --plan"),
        ([*OBJECTIVE, *CPU, "--inference-gpu-type", "cpu"], "--hardware names what serves"),
        ([*OBJECTIVE, *CPU, "--hardware", "H1000"], "H1000"),
        (
            [*OBJECTIVE, "--parameters", "steps.json", "--software", "x"],
            "--software chooses among the logs of a folder",
        ),
    ],
)
def test_bad_input_ends_with_status_2_and_what_is_wrong(capsys, arguments, message):
    assert main([*ASKED, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_data_type_that_no_file_says_is_asked_for(capsys, parameters):
    assert main([*ASKED, *parameters[:2], *OBJECTIVE]) == 2
    assert "give --inference-dtype" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--logs", "cpu"], ["--pue", "1.2"], [*OBJECTIVE], ["--workload", "chat"]])
def test_flags_of_a_plan_are_refused_without_one(capsys, given):
    words = [word for word in ASKED if word != "--plan"]
    assert main([*words, *given]) == 2
    assert f"{given[0]} goes with --plan" in capsys.readouterr().err


def test_example_of_the_guide_gives_the_numbers_printed_there(capsys):
    guide = (
        (ROOT / "docs" / "guides" / "train.md")
        .read_text(encoding="utf-8")
        .split("## With a server instead of single queries")[1]
    )
    command, said = guide.split("```bash\nLIFETIME")[1].split("```", 1)
    assert main(["lifetime", *shlex.split(command.replace("\\\n", " "), comments=True)]) == 0
    text = capsys.readouterr().out
    printed = re.findall(r"\d\.\d+e[+]\d+", said.strip().split("\n\n")[0])
    assert len(printed) == 4
    assert [number for number in printed if number not in text] == []
