import json

import pandas as pd
import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT

A100, V100 = (str(ROOT / "processed_jsons" / f"{name}.json") for name in ("a100", "v100"))


def compare(*arguments):
    return main(["compare", *map(str, arguments)])


def answer(capsys, *arguments):
    assert compare(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_stacks_of_one_machine_are_compared_by_their_logs(capsys):
    found = answer(capsys, "cpu_eager", "cpu_sdpa")
    assert {row["model"] for row in found["models"]} == {"distilgpt2", "gpt2-small"}
    for row in (*found["models"], found["workload"]):
        assert row["runtime_ratio_lower"] < row["runtime_ratio"] < row["runtime_ratio_upper"]
    # Nobody knows what an hour of that machine costs.
    assert "cost_ratio" not in found["workload"]


def test_machines_are_compared_in_dollars_too(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,weight\n100,20,3\n500,64,1\n")
    found = answer(capsys, A100, V100, "--queries", path, "--model", "gpt-j", "--model", "davinci")
    by_model = {row["model"]: row for row in found["models"]}
    assert (found["a"]["hardware"], found["b"]["hardware"]) == ("A100-80GB", "V100-32GB")
    assert by_model["gpt-j"]["num_queries"] == 4
    # One device each; twice the devices.
    for name, devices in (("gpt-j", 1), ("davinci", 2)):
        row = by_model[name]
        assert row["cost_ratio"] == pytest.approx(row["runtime_ratio"] * devices * 3.06 / 4.096)
        assert row["cost_ratio_upper"] / row["cost_ratio"] == pytest.approx(
            row["runtime_ratio_upper"] / row["runtime_ratio"]
        )
    assert by_model["gpt-j"]["cost_ratio"] < found["workload"]["cost_ratio"] < by_model["davinci"]["cost_ratio"]


def test_queries_that_are_not_compared_are_counted(capsys, tmp_path):
    path, out = tmp_path / "queries.csv", tmp_path / "compared.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n100,20\n5000,1\n,1\n")
    assert compare(A100, V100, "--queries", path, "--model", "gpt-j", "--out", out) == 0
    captured = capsys.readouterr()
    assert "2 of 3 queries are not compared for gpt-j" in captured.err
    assert captured.out.splitlines()[0].startswith(f"A: {A100}, A100-80GB, Megatron-LM 2022")
    assert pd.read_csv(out)["num_prompt_tokens"].tolist() == [100]


def test_what_cannot_be_compared_is_refused(capsys):
    assert compare(A100, A100) == 2
    assert "name two stacks or machines" in capsys.readouterr().err
    assert compare(A100, "cpu") == 2
    assert "no model was timed with" in capsys.readouterr().err


def test_servers_are_compared_by_their_engine_and_machine(capsys):
    found = answer(capsys, "vllm@H100", "vllm@L40S", "--model", "qwen2.5-7b", "--concurrency", "8")
    (row,) = found["models"]
    # 3350 GB/s against 864.
    assert 2 < row["runtime_ratio"] < 4
    assert row["runtime_ratio_lower"] < row["runtime_ratio"] < row["runtime_ratio_upper"]
    assert "taken to L40S by the data sheets" in found["b"]["origin"]
    assert found["a"]["queries"] == "8 at a time"


def test_server_is_compared_with_a_log_of_the_same_model(capsys):
    found = answer(capsys, A100, "vllm@H100", "--model", "gpt-j")
    assert found["models"][0]["runtime_ratio"] < 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vllm@H100", "vllm@B200"), "vllm@H100: give --model"),
        (("tgi@H100", "vllm@B200", "--model", "gpt-j"), "no engine 'tgi' was measured"),
        (("vllm@H101", "vllm@B200", "--model", "gpt-j"), "no accelerator named 'H101'"),
        (("cpu_eager", "cpu_sdpa", "--concurrency", "2"), "neither A nor B is one"),
    ],
)
def test_what_cannot_be_compared_of_servers_is_refused(capsys, words, message):
    assert compare(*words) == 2
    assert message in capsys.readouterr().err
