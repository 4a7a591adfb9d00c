import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from idealized_runtime.cli.main import main
from idealized_runtime.serving.requests import random_requests
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import simulate
from idealized_runtime.serving.steps import StepModel, read_steps

TRUTH, RULES = StepModel(0.012, 4e-5, 1e-4, 2e-7), Scheduler(max_num_seqs=32, max_num_batched_tokens=512)
FLAGS = ("--max-num-seqs", "32", "--max-num-batched-tokens", "512")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    rng = np.random.default_rng(0)
    sizes = pd.DataFrame(
        {"num_prompt_tokens": rng.integers(50, 900, 100), "num_output_tokens": rng.integers(2, 60, 100)}
    )
    path = tmp_path_factory.mktemp("served") / "gpt2-small.csv"
    simulate(random_requests(sizes, rate_per_s=4, num_requests=80, rng=1), TRUTH, RULES).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def parameters(served):
    path = served.with_name("steps.json")
    assert main(["serving", "fit", str(served), *FLAGS, "--out", str(path)]) == 0
    return path


def test_fit_writes_steps_with_the_scheduler_and_its_source(parameters, served):
    steps = read_steps(parameters)["gpt2-small"]
    assert steps.coefficients[:4] == pytest.approx(TRUTH.coefficients[:4], rel=0.02)
    assert (steps.scheduler, steps.sources[0]["file"]) == (RULES, served.as_posix())


def test_fit_prints_steps_and_llm_d_numbers_with_their_intervals(capsys, served):
    assert main(["serving", "fit", str(served), *FLAGS]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "gpt2-small, from 80 requests; continuous batching, up to 32 sequences and 512 tokens a step"
    )
    assert all(word in text for word in ("fixed_s", "ms a step", "alpha", "delta", "95 % interval"))


def test_runs_of_two_files_that_differ_are_named_with_the_size(capsys, served, tmp_path):
    slower, requests = StepModel(*(1.08 * TRUTH.coefficients).tolist()), pd.read_csv(served)
    other = tmp_path / "later.csv"
    simulate(requests[["arrival_s", "num_prompt_tokens", "num_output_tokens"]], slower, RULES).to_csv(
        other, index=False
    )
    assert main(["serving", "fit", str(served), str(other), *FLAGS]) == 0
    said = capsys.readouterr().err
    assert f"longer in source 2 ({other}) than in source 1 ({served})" in said
    assert " % longer" in said


def test_term_that_is_left_out_has_no_value_and_says_so(capsys, tmp_path):
    points = pd.DataFrame({"concurrency": [1, 8, 32, 128], "num_prompt_tokens": 500, "num_output_tokens": 500})
    path = tmp_path / "points.csv"
    points.assign(time_per_output_token_s=0.01 + 1e-4 * points["concurrency"]).to_csv(path, index=False)
    assert main(["serving", "fit", str(path), "--model", "llama-3.1-8b"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cache_token_s")]
    assert re.fullmatch(r"cache_token_s( +-){3} +left out: what was timed does not tell it from the others", row)


def test_json_of_a_fit_names_each_of_llm_d_s_numbers(capsys, served):
    assert main(["serving", "fit", str(served), *FLAGS, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["llm_d"]) == ["alpha", "beta", "gamma", "delta"]
    assert answer["llm_d"]["alpha"]["value_ms"] == pytest.approx(1e3 * TRUTH.fixed_s, rel=0.05)


def test_ending_of_the_file_says_what_is_written(tmp_path, served):
    table, profile = tmp_path / "steps.csv", tmp_path / "perf.yaml"
    for path in (table, profile):
        assert main(["serving", "fit", str(served), *FLAGS, "--out", str(path)]) == 0
    steps = pd.read_csv(table)
    assert list(steps) == [
        "num_sequences",
        "num_cached_tokens",
        "num_prompt_tokens",
        "seconds",
        "seconds_lower",
        "seconds_upper",
    ]
    assert (steps["num_sequences"].max(), steps["num_prompt_tokens"].max()) == (32, 512)
    parms = yaml.safe_load(profile.read_text())["perfParms"]
    assert float(parms["decodeParms"]["alpha"]) == pytest.approx(1e3 * TRUTH.fixed_s, rel=0.05)


def test_ending_that_names_no_form_of_steps_is_refused_before_the_fit(capsys, served):
    assert main(["serving", "fit", str(served), "--out", "steps.txt"]) == 2
    assert "steps.txt: written are .json, .csv, .yaml, by the ending; got '.txt'" in capsys.readouterr().err


def test_simulated_requests_keep_the_order_of_the_input(tmp_path, parameters, served):
    shuffled, out = tmp_path / "in.csv", tmp_path / "out.csv"
    requests = pd.read_csv(served).sample(frac=1, random_state=0)
    requests[["arrival_s", "num_prompt_tokens", "num_output_tokens"]].to_csv(shuffled, index=False)
    arguments = ["--parameters", str(parameters), "--requests", str(shuffled), "--out", str(out)]
    assert main(["serving", "simulate", *arguments]) == 0
    simulated = pd.read_csv(out)
    added = ["queue_s", "time_to_first_token_s", "runtime_s", "num_preemptions"]
    assert list(simulated) == ["arrival_s", "num_prompt_tokens", "num_output_tokens", *added]
    np.testing.assert_array_equal(simulated["num_prompt_tokens"], requests["num_prompt_tokens"])
    np.testing.assert_allclose(simulated["runtime_s"], requests["runtime_s"], rtol=0.03)


def test_json_has_every_statistic_of_the_contract(capsys, parameters, served):
    arguments = ["--parameters", str(parameters), "--queries", str(served), "--rate", "2", "--num-requests", "100"]
    assert main(["serving", "simulate", *arguments, "--num-days", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_requests"], answer["is_stable"]) == (100, True)
    assert answer["output_tokens_per_s"] > 0
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert all({"value", "lower", "upper"} <= set(answer[metric][name]) for name in ("mean", "p50", "p95", "p99"))


def test_closed_loop_is_stable_and_answers_as_many_as_its_clients_ask(capsys, parameters, served):
    arguments = [
        "--parameters",
        str(parameters),
        "--queries",
        str(served),
        "--num-parallel",
        "6",
        "--num-requests",
        "90",
    ]
    assert main(["serving", "simulate", *arguments, "--num-days", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["is_stable"], answer["queue_growth_per_s"]) == (True, 0)
    # Little's law: what is under way is what comes a second, times how long it stays.
    assert answer["arrival_rate_per_s"] * answer["e2e_s"]["mean"]["value"] == pytest.approx(6, rel=0.05)
    assert main(["serving", "simulate", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("6 clients, each with one request at a time: ")


def test_sizes_of_a_workload_are_simulated(capsys, parameters):
    arguments = ["--parameters", str(parameters), "--workload", "chat", "--rate", "0.2", "--num-requests", "40"]
    assert main(["serving", "simulate", *arguments, "--num-days", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    # Hardly anybody waits: a prompt of 512 tokens takes the budget of one step.
    alone_s = TRUTH.seconds(num_sequences=1, num_prompt_tokens=512)
    assert answer["ttft_s"]["p50"]["value"] == pytest.approx(alone_s, rel=0.1)


def test_rate_that_cannot_be_answered_is_said_first(capsys, parameters, served):
    arguments = ["--parameters", str(parameters), "--queries", str(served), "--rate", "500", "--num-requests", "100"]
    assert main(["serving", "simulate", *arguments]) == 0
    second = capsys.readouterr().out.splitlines()[1]
    assert second.startswith("NOT STABLE: ")
    assert "there is no steady state" in second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--queries", "{served}"], "--queries needs --rate, how many come a second, or --num-parallel"),
        (["--workload", "chat"], "--workload needs --rate, how many come a second, or --num-parallel"),
        (["--workload", "chatt", "--rate", "2"], "no workload 'chatt' (did you mean chat?)"),
        (["--workload", "mlperf-llama2-70b", "--rate", "2"], "its source states no sizes: give --queries"),
        (["--requests", "{served}", "--rate", "2"], "--rate is for --queries"),
        (["--requests", "{served}", "--num-parallel", "2"], "--num-parallel is for --queries"),
        (["--requests", "{served}", "--num-days", "2"], "--num-days is for --queries"),
        (["--queries", "{served}", "--num-parallel", "2", "--burstiness", "3"], "--burstiness is for --rate"),
        (["--requests", "{served}", "--model", "opt"], "--model must be one of gpt2-small"),
        (["--requests", "{served}", "--cache-tokens", "20"], "cache-tokens must be at least"),
        (["--requests", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_bad_input_of_simulate_ends_with_2_and_one_line(capsys, parameters, served, words, message):
    words = [word.format(served=served) for word in words]
    assert main(["serving", "simulate", "--parameters", str(parameters), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_fit_without_times_says_what_is_needed(capsys, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n0,5,8\n1,5,8\n")
    assert main(["serving", "fit", str(path)]) == 2
    assert (
        "no column time_to_first_token_s, runtime_s; steps are fitted to requests whose times"
        in capsys.readouterr().err
    )


def test_steps_of_a_model_that_nobody_served_are_predicted(capsys, tmp_path):
    out = tmp_path / "steps.json"
    assert main(["serving", "fit", "--logs", "cpu", "--model", "gpt2-medium", "--out", str(out)]) == 0
    assert "predicted from the logs of" in capsys.readouterr().out
    assert read_steps(out)["gpt2-medium"].origin == "predicted"


def test_steps_of_a_model_that_nobody_served_need_no_logs(capsys, tmp_path):
    path = tmp_path / "steps.json"
    words = ("--model", "qwen2.5-7b", "--hardware", "L40S", "--software", "vllm", "--out", str(path))
    assert main(["serving", "fit", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "qwen2.5-7b, 1 x L40S, weights in bfloat16, predicted from 16 architectures that others served"
    )
    steps = read_steps(path)["qwen2.5-7b"]
    assert (steps.origin, steps.hardware, steps.software) == ("predicted", "L40S", "vllm 0.11.1, as on H100")
    assert main(["serving", "simulate", "--parameters", str(path), "--workload", "chat", "--rate", "1"]) == 0
    assert "steps predicted on L40S" in capsys.readouterr().out


def test_steps_need_something_to_go_by(capsys):
    assert main(["serving", "fit", "--model", "qwen2.5-7b"]) == 2
    assert "give files to fit steps to, --logs, or --hardware and --software" in capsys.readouterr().err


def test_arrivals_of_the_input_are_those_of_the_output(tmp_path, parameters, served):
    moved, out = tmp_path / "moved.csv", tmp_path / "out.csv"
    requests = pd.read_csv(served)
    requests.assign(arrival_s=requests["arrival_s"] + 1000).to_csv(moved, index=False)
    arguments = ["--parameters", str(parameters), "--requests", str(moved), "--out", str(out)]
    assert main(["serving", "simulate", *arguments]) == 0
    np.testing.assert_allclose(pd.read_csv(out)["arrival_s"], requests["arrival_s"] + 1000)


def test_requests_that_come_at_once_have_an_answer_in_json(capsys, tmp_path, parameters):
    path = tmp_path / "burst.jsonl"
    path.write_text('{"arrival_s": 5, "num_prompt_tokens": 9, "num_output_tokens": 4}\n' * 3)
    assert main(["serving", "simulate", "--parameters", str(parameters), "--requests", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_requests"], answer["is_stable"], answer["arrival_rate_per_s"]) == (3, False, None)


def test_two_tables_of_one_server_count_together(capsys, tmp_path, served):
    both = [str(served), str(tmp_path / "second.csv")]
    pd.read_csv(served).to_csv(both[1], index=False)
    assert main(["serving", "fit", *both, *FLAGS, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "gpt2-small"
    assert len(answer["steps"]["sources"]) == 2
    assert set(answer["llm_d"]) == {"alpha", "beta", "gamma", "delta"}


def make_points(**columns):
    c, p = (grid.ravel() for grid in np.meshgrid([1, 4, 16, 64], [256, 1024]))
    o = np.where(p == 256, 1024, 128)
    tpot_s = TRUTH.seconds(num_sequences=c, num_cached_tokens=c * (p + o / 2)) + TRUTH.prompt_token_s * c * p / o
    return pd.DataFrame({"concurrency": c, "num_prompt_tokens": p, "num_output_tokens": o,
                         "time_per_output_token_s": tpot_s, **columns})  # fmt: skip


def test_points_that_are_flagged_or_of_other_models_do_not_count(capsys, tmp_path):
    path = tmp_path / "points.csv"
    wrong = make_points(model="a").assign(time_per_output_token_s=9.0)
    pd.concat([make_points(model="a"), wrong.assign(flags="host"), wrong.assign(model="b")]).to_csv(path, index=False)
    assert main(["serving", "fit", str(path), "--model", "a", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"]["fixed_s"] == pytest.approx(TRUTH.fixed_s, rel=0.01)
    assert "8 of 16 rows of" in captured.err


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"model": ["a", "b"] * 4}, "holds a, b; step times are of one model"),
        ({"hardware": ["H100", "A100"] * 4}, "holds points of hardware H100, A100; steps are of one server"),
        ({"flags": "host"}, "no point is left"),
    ],
)
def test_points_of_several_servers_are_refused(capsys, tmp_path, columns, message):
    path = tmp_path / "points.csv"
    make_points(**columns).to_csv(path, index=False)
    assert main(["serving", "fit", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_one_model_of_a_folder_of_batches_is_chosen_by_its_name(capsys):
    assert main(["serving", "fit", "logs/cpu_batch"]) == 2
    assert "these are of distilgpt2, gpt2-small: give the files of one, or name it" in capsys.readouterr().err
    assert main(["serving", "fit", "logs/cpu_batch", "--model", "gpt2-small", "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["steps"]["sources"]
    assert source["file"].endswith("gpt2-small.jsonl")


def test_step_times_alone_price_no_query(capsys, parameters, served):
    assert main(["price", str(served), "--parameters", str(parameters)]) == 2
    assert "holds the step times of a server alone (of gpt2-small), which" in capsys.readouterr().err


def test_of_requests_to_simulate_arrivals_and_sizes_alone_count(tmp_path, parameters, served):
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    requests = pd.read_csv(served)
    requests.assign(runtime_s=-1.0, num_cached_tokens=16, error="").to_csv(path, index=False)
    arguments = ["--parameters", str(parameters), "--requests", str(path), "--out", str(out)]
    assert main(["serving", "simulate", *arguments]) == 0
    np.testing.assert_allclose(pd.read_csv(out)["runtime_s"], requests["runtime_s"], rtol=0.03)
