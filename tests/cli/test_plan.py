import json

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.serving.steps import StepModel, write_steps

CANDIDATE_KEYS = {
    "model", "hardware", "software", "num_accelerators", "max_requests_per_s", "num_replicas", "num_replicas_lower",
    "num_replicas_upper", "probability_met", "usd_per_hour", "usd_per_query", "usd_per_million_output_tokens",
    "joules_per_query", "ttft_s", "tpot_s", "e2e_s", "origin",
}  # fmt: skip


@pytest.fixture
def steps(tmp_path):
    path = tmp_path / "steps.json"
    errors = np.array([3e-4, 1e-6, 2e-6, 3e-9, 0, 0])
    model = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1, covariance=np.diag(errors**2))
    write_steps(path, "llama", model)
    return str(path)


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.csv"
    pd.DataFrame({"num_prompt_tokens": [500, 100, 900], "num_output_tokens": [100, 20, 300]}).to_csv(path, index=False)
    return str(path)


def run(capsys, *words):
    code = main(["plan", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_has_the_keys_of_the_contract(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "60", "--objective", "ttft:p95=0.5", "--json")
    code, out, _ = run(capsys, *words)
    answer = json.loads(out)
    assert code == 0
    assert {"demand", "objectives", "candidates"} <= set(answer)
    (candidate,) = answer["candidates"]
    assert set(candidate) >= CANDIDATE_KEYS
    assert candidate["num_replicas_lower"] <= candidate["num_replicas"] <= candidate["num_replicas_upper"]
    assert candidate["origin"] == "fitted"
    assert set(candidate["ttft_s"]["p95"]) == {"value", "lower", "upper"}
    assert candidate["usd_per_hour"] == pytest.approx(6.88 * candidate["num_replicas"])


def test_sentence_comes_on_top_and_the_table_is_written(capsys, steps, queries, tmp_path):
    for ending in ("csv", "md", "tex", "json"):
        out_file = tmp_path / "made" / f"plan.{ending}"
        words = ("--parameters", steps, "--queries", queries, "--rate", "60", "--objective", "ttft:p95=0.5")
        code, out, _ = run(capsys, *words, "--out", str(out_file), "--num-draws", "4")
        assert code == 0
        assert "requests/s of" in out.splitlines()[2]
        assert "llama" in out_file.read_text()


def test_markdown_has_the_sentence_on_top_and_below_the_table_what_it_rests_on(capsys, steps, tmp_path):
    model = StepModel(0.1, 0.0, 0.0, 0.0, hardware="H100", num_accelerators=1)
    write_steps(steps, "slow|one", model)
    path = tmp_path / "plan.md"
    words = ("--parameters", steps, "--workload", "chat", "--rate", "9", "--num-draws", "4", "--out", str(path))
    code, out, _ = run(capsys, *words)
    assert code == 0
    sentence, table, notes = path.read_text().split("\n\n")
    assert sentence == f"**{out.splitlines()[3]}**"
    assert [line.split(" | ")[0] for line in table.splitlines()] == ["| model", "| ---", "| llama"]
    assert len({line.count(" | ") for line in table.splitlines()}) == 1
    assert "- objectives: TTFT p95 <= 0.5 s, TPOT p95 <= 0.05 s, E2E p95 <= 13.3 s (chat: llm-d Planner" in notes
    assert "- 1 x H100: 6.88 $/h an accelerator, list price of" in notes
    assert "- left out: slow|one on 1 x H100: TPOT p95 <= 0.05 s is below what an idle replica takes" in notes


def test_markdown_says_that_nothing_serves_and_why(capsys, steps, tmp_path):
    path = tmp_path / "plan.md"
    words = ("--parameters", steps, "--workload", "chat", "--rate", "9", "--objective", "ttft:p95=0.001")
    code, _, _ = run(capsys, *words, "--out", str(path))
    assert code == 1
    sentence, notes = path.read_text().split("\n\n")
    assert sentence == "**Nothing serves this demand within these objectives.**"
    assert "- left out: llama on 1 x H100: TTFT p95 <= 0.001 s is below what an idle replica takes" in notes


def test_trace_is_planned_for_as_it_came(capsys, steps, tmp_path):
    arrival_s = np.cumsum(np.random.default_rng(0).exponential(1 / 60, 3000))
    trace = pd.DataFrame({"TIME": arrival_s, "num_prompt_tokens": 500, "num_output_tokens": 100})
    trace.to_csv(tmp_path / "trace.csv", index=False)
    words = ("--parameters", steps, "--requests", str(tmp_path / "trace.csv"), "--columns", "arrival_s=TIME")
    code, out, _ = run(capsys, *words, "--objective", "ttft:p95=0.5", "--num-draws", "4", "--json")
    assert code == 0
    assert json.loads(out)["demand"]["requests_per_s"] == pytest.approx(60, rel=0.05)


def test_workloads_are_listed_with_their_sources_and_objectives_to_edit(capsys):
    code, out, _ = run(capsys, "--workload", "list")
    assert code == 0
    assert "MLPerf Inference 5.1" in out
    (line,) = (" ".join(line.split()) for line in out.splitlines() if line.split()[0] == "chat")
    assert line == "chat 512 + 256 tokens --objective ttft:p95=0.5 tpot:p95=0.05 e2e:p95=13.3"
    code, out, _ = run(capsys, "--workload", "list", "--json")
    listed = {workload["name"]: workload for workload in json.loads(out)["workloads"]}
    assert listed["mlperf-llama2-70b"]["objectives"] == ["ttft:p99=2", "tpot:p99=0.2"]
    assert listed["mlperf-llama2-70b"]["num_prompt_tokens"] is None
    assert listed["retrieval"]["num_prompt_tokens"] == 4096


def test_objectives_that_are_given_go_before_those_of_a_workload(capsys, steps):
    words = ("--parameters", steps, "--workload", "chat", "--rate", "9", "--num-draws", "4", "--json")
    _, out, _ = run(capsys, *words, "--objective", "e2e:mean=20")
    answer = json.loads(out)
    assert answer["objectives"] == ["e2e:mean=20"]
    assert answer["demand"]["mean_prompt_tokens"] == 512


def test_workload_brings_objectives_sizes_and_their_source(capsys, steps):
    code, out, _ = run(capsys, "--parameters", steps, "--workload", "chat", "--rate", "9", "--num-draws", "4")
    assert code == 0
    assert out.startswith("chat: llm-d Planner")
    assert "TTFT p95 <= 0.5 s, TPOT p95 <= 0.05 s, E2E p95 <= 13.3 s" in out


def test_hours_and_break_even_are_answered(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "5", "60", "--objective", "ttft:p95=0.5")
    prices = ("--usd-per-million-prompt-tokens", "0.1", "--usd-per-million-output-tokens", "0.4")
    code, out, _ = run(capsys, *words, *prices, "--num-draws", "4", "--json")
    answer = json.loads(out)
    assert code == 0
    assert [row["requests_per_s"] for row in answer["hours"]["by_hour"]] == [5, 60]
    assert answer["demand"]["requests_per_s"] == 60
    assert answer["break_even"]["requests_per_hour_from"] > 0


def test_batch_limits_and_devices_are_compared(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "10", "--objective", "e2e:p95=30", "--json")
    _, out, _ = run(capsys, *words, "--max-num-seqs", "8", "64", "--num-draws", "2")
    assert sorted(it["max_num_seqs"] for it in json.loads(out)["candidates"]) == [8, 64]


def test_devices_that_steps_were_not_timed_on_are_left_out_with_the_reason(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "10", "--objective", "e2e:p95=30", "--json")
    _, out, _ = run(capsys, *words, "--num-accelerators", "1", "4", "--num-draws", "2")
    answer = json.loads(out)
    assert [it["num_accelerators"] for it in answer["candidates"]] == [1]
    (left_out,) = answer["left_out"]
    assert (left_out["num_accelerators"], left_out["reason"][:27]) == (4, "its steps were timed on 1: ")


def test_copies_of_the_model_are_paid_each(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "10", "--objective", "e2e:p95=30", "--json")
    _, out, _ = run(capsys, *words, "--num-engines", "3", "--num-draws", "2")
    (candidate,) = json.loads(out)["candidates"]
    assert candidate["num_accelerators"] == 3
    assert candidate["usd_per_hour"] == pytest.approx(3 * 6.88)


def test_model_that_nobody_timed_is_planned_with_its_origin(capsys):
    words = ("--logs", "a100", "v100", "--model", "opt-6.7b", "--workload", "chat", "--rate", "2")
    code, out, err = run(capsys, *words, "--num-draws", "4", "--json", "--objective", "tpot:p95=0.1")
    answer = json.loads(out)
    assert code == 0, err
    assert {it["hardware"] for it in answer["candidates"]} == {"A100-80GB", "V100-32GB"}
    assert {it["origin"] for it in answer["candidates"]} == {"predicted"}
    dollars = [it["usd_per_hour"] for it in answer["candidates"]]
    assert dollars == sorted(dollars)


def test_nothing_that_serves_exits_with_1_and_says_the_fastest(capsys, steps, queries):
    words = ("--parameters", steps, "--queries", queries, "--rate", "5", "--objective", "ttft:p95=0.001")
    code, out, err = run(capsys, *words)
    assert code == 1
    assert "Nothing serves this demand" in out
    assert "is below what an idle replica takes" in err


def test_many_replicas_are_planned_without_simulating_all_of_them(capsys, steps):
    code, out, _ = run(
        capsys, "--parameters", steps, "--workload", "chat", "--rate", "20000", "--num-draws", "2", "--json"
    )
    (candidate,) = json.loads(out)["candidates"]
    assert code == 0
    assert candidate["num_replicas"] == pytest.approx(20000 / candidate["max_requests_per_s"], rel=0.02)
    assert candidate["e2e_s"]["p95"]["value"] <= 13.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--rate", "5", "--objective", "ttft:p95=0.5", "--workload", "chat", "--software", "vllm"],
            "give --hardware and --model, too",
        ),
        (["--rate", "5", "--objective", "ttft:p95=0.5"], "nothing is asked for"),
        (["--rate", "5"], "--objective must be given"),
        (["--rate", "0", "--objective", "ttft:p95=0.5"], "argument --rate"),
        (["--rate", "5", "--objective", "ttft:p999=0.5", "--workload", "chat"], "mean or a percentile"),
        (["--objective", "ttft:p95=0.5", "--workload", "chat"], "--rate must be given"),
        (["--rate", "5", "--workload", "chatt"], "no workload 'chatt' (did you mean chat?)"),
        (["--rate", "5", "--workload", "mlperf-llama2-70b"], "its source states no sizes: give --queries"),
        (["--rate", "5", "--workload", "chat", "--price-usd-per-hour", "0"], "argument --price-usd-per-hour"),
        (["--rate", "5", "--workload", "chat", "--usd-per-million-output-tokens", "1"], "give both"),
        (["--rate", "5", "--workload", "chat", "--out", "plan.xls"], "written are .csv"),
        (["--rate", "5", "--workload", "chat", "--model", "other"], "no steps of other"),
    ],
)
def test_bad_input_is_refused_in_words(capsys, steps, words, message):
    code, _, err = run(capsys, "--parameters", steps, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_flags_of_drawn_queries_are_refused_for_a_trace(capsys, steps, tmp_path):
    pd.DataFrame({"arrival_s": [0, 1.0], "num_prompt_tokens": 5, "num_output_tokens": 2}).to_csv(tmp_path / "t.csv")
    words = ("--parameters", steps, "--requests", str(tmp_path / "t.csv"), "--objective", "ttft:p95=0.5")
    code, _, err = run(capsys, *words, "--burstiness", "2")
    assert code == 2
    assert "--burstiness is for queries that are drawn" in err


def test_candidates_are_asked_for(capsys):
    code, _, err = run(capsys, "--workload", "chat", "--rate", "5")
    assert code == 2
    assert (
        "no candidate: give --parameters, --points, --logs with --model, or --hardware, --software and --model" in err
    )


SERVED = ("--software", "vllm", "--workload", "chat", "--num-draws", "4")


def test_model_that_nobody_served_is_planned_without_logs(capsys):
    words = ("--model", "qwen2.5-7b", "qwen3-0.6b", "--hardware", "H100", "L40S", *SERVED, "--rate", "9", "--json")
    code, out, _ = run(capsys, *words, "--price-usd-per-hour", "2")
    candidates = json.loads(out)["candidates"]
    assert code == 0
    assert {(it["model"], it["hardware"]) for it in candidates} == {
        (model, hardware) for model in ("qwen2.5-7b", "qwen3-0.6b") for hardware in ("H100", "L40S")
    }
    assert {it["origin"] for it in candidates} == {"predicted"}
    by_hardware = {it["hardware"]: it for it in candidates if it["model"] == "qwen2.5-7b"}
    assert by_hardware["H100"]["software"] == "vllm 0.11.1"
    assert by_hardware["L40S"]["software"] == "vllm 0.11.1, as on H100"
    times = {name: it["e2e_s"]["p95"] for name, it in by_hardware.items()}
    # Its errors are drawn from the covariance: of a machine without measurements wider ones.
    assert 1 < times["H100"]["upper"] / times["H100"]["lower"] < times["L40S"]["upper"] / times["L40S"]["lower"]
    assert by_hardware["H100"]["joules_per_query"]


def test_devices_that_do_not_hold_a_model_are_left_out_with_the_reason(capsys):
    words = ("--model", "llama-3.1-70b", "--hardware", "H100", *SERVED, "--rate", "1")
    code, out, err = run(capsys, *words, "--num-accelerators", "1", "4")
    assert code == 0
    assert "1 replica of 4 x H100" in out
    assert "left out: llama-3.1-70b on 1 x H100: llama-3.1-70b does not fit 1 x H100 of 80 GB" in err
    assert "what a server does beside its steps" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hardware", "H100"), "give --hardware and --model, too"),
        (("--hardware", "H100", "--model", "nobody-7b"), "no architecture named 'nobody-7b'"),
        (
            ("--hardware", "H100", "L40S", "--model", "gpt-j", "--logs", "a100"),
            "--hardware takes several machines only",
        ),
        (("--hardware", "H100", "--model", "gpt-j", "--logs", "a100", "--dtype", "float8"), "--dtype is of servers"),
    ],
)
def test_what_cannot_be_planned_of_servers_is_refused(capsys, words, message):
    code, _, err = run(capsys, *words, *SERVED, "--rate", "1")
    assert code == 2
    assert message in err
