"""``cost-optimal --parameters FILE``: the cheapest size with inference as measured."""

import json
import re
import shlex

import pytest
from makers import HEADER, make_setting, write_log

from idealized_runtime.architectures import get_architecture
from idealized_runtime.cli.main import main
from idealized_runtime.lifetime.measured import mean_accelerator_s
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.queries.mix import QueryMix

A100 = str(ROOT / "processed_jsons" / "a100.json")
CPU = str(ROOT / "processed_jsons" / "cpu.json")
ASKED = ["lifetime", "cost-optimal", "--loss", "2.1", "--inference_reqs", "1e9", "--input_tok", "128", "--output_tok",
         "64", "--train_gpu_type", "A100_80"]  # fmt: skip


def answer(capsys, *arguments):
    assert main([*ASKED, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_optimum_from_a_committed_parameter_file_has_an_interval(capsys):
    data = answer(capsys, "--parameters", A100)
    bounds = data["intervals"]["num_params"]
    assert bounds["lower"] < data["optimal"]["num_params"] < bounds["upper"]
    assert len(data["measured"]["models"]) == 13
    assert data["moves"]["num_params"] == pytest.approx(data["optimal"]["num_params"] / data["guessed"]["num_params"])


def test_accelerator_is_the_measured_one_unless_named(capsys):
    assert answer(capsys, "--parameters", A100)["inference"]["accelerator"] == "A100-80GB"
    named = answer(capsys, "--parameters", A100, "--inference_gpu_type", "A100_40")["inference"]
    assert (named["accelerator"], named["dtype"]) == ("A100-40GB", "float16")


def test_guess_is_the_answer_without_the_parameters(capsys):
    measured = answer(capsys, "--parameters", A100)
    assert main([*ASKED, "--inference_gpu_type", "A100_80", "--inference_dtype", "fp16", "--json"]) == 0
    guessed = json.loads(capsys.readouterr().out)["optimal"]
    assert measured["guessed"]["num_params"] == pytest.approx(guessed["num_params"])
    assert measured["guessed"]["cost_usd"] == pytest.approx(guessed["lifetime_usd"])


def helm_file(path):
    """Parameters as HELM has them: no hardware, no numbers of accelerators, no log."""
    entries = json.loads((ROOT / "processed_jsons" / "a100.json").read_text())
    names = ("openai/ada", "together/gpt-j-6b", "together/bloom", "openai/davinci", "together/yalm")
    entries = {name: {key: value for key, value in entries[name].items() if key != "fit"} for name in names}
    path.write_text(json.dumps(entries))
    return str(path)


HARDWARE = ["--inference-gpu-type", "A100_80", "--inference-dtype", "fp16"]


def test_numbers_of_accelerators_of_helms_parameters_are_given(capsys, tmp_path):
    path = helm_file(tmp_path / "helm.json")
    few = answer(capsys, "--parameters", path, *HARDWARE, "--num-accelerators", "1", "bloom=8", "openai/davinci=8")
    many = answer(capsys, "--parameters", path, *HARDWARE, "--num_accelerators", "16")
    assert len(few["measured"]["models"]) == 5
    assert few["optimal"]["cost_usd"] < many["optimal"]["cost_usd"]


def test_models_of_the_parameters_can_be_chosen(capsys):
    chosen = ["gpt-j", "bloom", "davinci", "ada"]
    assert set(answer(capsys, "--parameters", A100, "--model", *chosen)["measured"]["models"]) == set(chosen)


def test_batched_logs_lead_from_their_fit_to_a_cheaper_answer(capsys, tmp_path, monkeypatch):
    # Four models, 8 queries at a time in 1.5 times the time that one takes.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "box").mkdir(parents=True)
    for name, scale in (("distilgpt2", 1.0), ("gpt2-small", 2.0), ("gpt2-medium", 4.0), ("gpt2-large", 9.0)):
        settings = [
            make_setting(p, o, [(1.5 if batch > 1 else 1) * scale * (1e-3 * p + 0.01 * (o - 1))], batch_size=batch)
            for batch in (1, 8)
            for p in (64, 256)
            for o in (1, 33)
        ]
        architecture = get_architecture(name)
        shape = {"architecture": architecture.to_dict(), "num_layers_profiled": architecture.num_layers}
        write_log(f"logs/box/{name}.jsonl", settings, {**HEADER, "model": name, **shape})
    answers = {}
    for batch in (1, 8):
        assert main(["fit", "box", "--batch-size", str(batch), "--out", f"b{batch}.json"]) == 0
        capsys.readouterr()
        options = ["--inference-gpu-type", "cpu", "--inference-gpu-cost", "0.1", "--inference-reqs", "1e6"]
        answers[batch] = answer(capsys, "--parameters", f"b{batch}.json", *options)
        assert answers[batch]["measured"]["batch_sizes"] == [batch]
    assert answers[8]["utilization"]["output_tokens"] > answers[1]["utilization"]["output_tokens"]
    assert answers[8]["optimal"]["cost_usd"] < answers[1]["optimal"]["cost_usd"]


def test_two_committed_models_in_batches_are_too_few_and_said_to_be(capsys, tmp_path):
    path = str(tmp_path / "batched.json")
    assert main(["fit", "cpu_batch", "--batch-size", "32", "--out", path]) == 0
    capsys.readouterr()
    assert main([*ASKED, "--parameters", path, "--inference-gpu-type", "cpu", "--inference-gpu-cost", "1"]) == 2
    error = capsys.readouterr().err
    assert "needs at least 4 models; got 2" in error
    assert "warning: " in error
    assert "profiles.py" not in error


@pytest.mark.filterwarnings("ignore::idealized_runtime.records.IncompleteLogWarning")
def test_committed_batch_costs_less_a_query_than_its_queries_one_by_one(tmp_path):
    mix, costs = QueryMix.from_means(128, 64), {}
    for batch in (1, 32):
        path = str(tmp_path / f"b{batch}.json")
        assert main(["fit", "cpu_batch", "--batch-size", str(batch), "--out", path]) == 0
        profiles = read_profiles(path)
        assert [profile.batch_size for profile in profiles] == [batch, batch]
        costs[batch] = [mean_accelerator_s(profile, mix)[0] for profile in profiles]
    assert all(many < one / 2 for one, many in zip(costs[1], costs[32], strict=True))


def test_sizes_of_the_requests_come_from_a_file(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,weight\n100,10,3\n500,50,1\n")
    demand = answer(capsys, "--parameters", A100, "--queries", str(path))["demand"]
    assert (demand["num_prompt_tokens"], demand["num_output_tokens"], demand["num_query_sizes"]) == (200, 20, 2)


def test_answer_reads_as_text(capsys):
    assert main([*ASKED, "--parameters", A100]) == 0
    text = capsys.readouterr().out
    for part in ("13 models of 3.56e+08 to 5.3e+11 parameters", "with the guessed utilisations",
                 "with inference as measured", "% of the parameters of the guessed one"):  # fmt: skip
        assert part in text


def test_optimum_outside_the_measured_sizes_is_said_to_be_an_extrapolation(capsys):
    assert main([*ASKED, "--parameters", CPU, "--inference-gpu-cost", "0.1"]) == 0
    assert "outside the sizes that were measured: an extrapolation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parameters", "absent.json"], "absent.json"),
        (["--parameters", CPU], "cpu has no price: give one"),
        (["--parameters", A100, "--inference_dtype", "fp8"], "A100-80GB: no peak rate is known for 'fp8'"),
        (["--parameters", A100, "--input_tok", "5000"], "extrapolate"),
        (["--parameters", A100, "--input_tok", "0"], "--input-tok must be"),
        (["--parameters", A100, "--queries", "absent.csv"], "absent.csv"),
        (["--queries", "absent.csv"], "--queries goes with --parameters: guessed costs depend on means alone"),
        (["--num-accelerators", "8"], "--num-accelerators goes with --parameters"),
        (["--extrapolate", "--model", "ada"], "--extrapolate, --model go with --parameters"),
        (
            ["--parameters", A100, "--num-accelerators", "divinci=8"],
            "no model divinci (did you mean davinci?); there are:",
        ),
        (["--parameters", A100, "--num-accelerators", "8", "9"], "one number a model, and one for all others; got 2"),
        (["--parameters", A100, "--model", "divinci"], "no model divinci (did you mean davinci?); there are:"),
    ],
)
def test_bad_input_ends_with_status_2_and_what_is_wrong(capsys, arguments, message):
    assert main([*ASKED, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "x", "ada=0", "=3", "1.5"])
def test_number_of_accelerators_is_a_whole_number(capsys, value):
    assert main([*ASKED, "--parameters", A100, "--num-accelerators", value]) == 2
    assert f"must be N or NAME=N, N an integer of at least 1; got {value!r}" in capsys.readouterr().err


def test_example_of_the_guide_gives_the_numbers_printed_there(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    guide = (
        (ROOT / "docs" / "guides" / "train.md")
        .read_text(encoding="utf-8")
        .split("## With timed inference instead of guesses")[1]
    )
    command, answer = guide.split("```bash\nLIFETIME")[1].split("```", 1)
    assert main(["lifetime", *shlex.split(command.replace("\\\n", " "), comments=True)]) == 0
    text = capsys.readouterr().out
    printed = re.findall(r"\d\.\d+e[+]\d+", answer.split("[lifetime_optimal]")[0])
    assert len(printed) == 3
    assert [number for number in printed if number not in text] == []
