"""What a file of another tool says of itself: failures, samples, totals, time; and files that look like another's."""

import json
import shutil

import pytest

from idealized_runtime.api.statistics import LOAD, measure_throughput
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import IncompleteLogWarning, read_trials
from idealized_runtime.records.importers import (
    ImportedDataWarning,
    ImportFormatError,
    UnknownFormatError,
    import_file,
    import_requests,
)

DATA = ROOT / "tests" / "records" / "importers" / "data"
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "latencies", "generated_texts", "errors")


def load(name, **changed):
    return json.loads((DATA / name).read_text()) | changed


def write(path, record):
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return path


def totals_of(result):
    return {name: value for name, value in result.items() if name not in DETAILS}


def messages(imported, check):
    return [finding["message"] for finding in imported.findings if finding["check"] == check]


def sampled(name, num_kept, num_sent):
    """A report of GuideLLM that keeps a sample of what it sent."""
    report = load(name)
    (benchmark,) = report["benchmarks"]
    benchmark["requests"]["successful"] = benchmark["requests"]["successful"][:num_kept]
    totals = benchmark.get("request_totals") or benchmark["scheduler_metrics"]["requests_made"]
    totals |= {"successful": num_sent, "total": num_sent}
    return report


# ---- placeholders


def test_zeros_of_a_run_that_failed_as_a_whole_are_no_times(tmp_path, capsys):
    result = {
        name: 0.0 if name.endswith("_ms") else value for name, value in totals_of(load("vllm_closed.json")).items()
    }
    path = write(tmp_path / "r.json", result | {"completed": 0, "failed": 6})
    assert import_file(path).totals == []
    assert main(["api", "summary", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "failures: 6 of 6 requests failed" in err
    assert "time_to_first_token_s" not in out


def test_zeros_of_one_quantity_are_no_times(tmp_path):
    # Of answers of one token vLLM writes a time per output token of 0.
    result = totals_of(load("vllm_closed.json", mean_tpot_ms=0.0, median_tpot_ms=0.0, p99_tpot_ms=0.0))
    quantities = {row["quantity"] for row in import_file(write(tmp_path / "r.json", result)).totals}
    assert quantities == {"time_to_first_token_s", "inter_chunk_time_s"}


@pytest.mark.parametrize("counts", [{"completed": 5, "failed": 1}, {"completed": 5}])
def test_failures_that_totals_count_are_said(tmp_path, counts):
    result = totals_of(load("vllm_closed.json"))
    del result["failed"]
    imported = import_file(write(tmp_path / "r.json", result | counts))
    assert messages(imported, "failures") == ["1 of 6 requests failed"]
    assert imported.throughput[0]["num_failed"] == 1


def test_failures_that_aiperf_counts_are_said():
    imported = import_file(DATA / "aiperf_poisson" / "profile_export_aiperf.json")
    assert messages(imported, "failures") == ["3 of 5 requests failed"]


# ---- odd requests


def with_request(index, **values):
    result = load("vllm_closed.json")
    for name, value in values.items():
        result[name][index] = value
    return result


def test_time_per_token_that_is_not_what_the_other_times_give_deviates_and_is_dropped(tmp_path):
    report = load("guidellm_concurrent.json")
    request = report["benchmarks"][0]["requests"]["successful"][0]
    request["inter_token_latency_ms"] /= 1000
    imported = import_file(write(tmp_path / "r.json", report))
    said = "its time per output token is not what its other times give"
    assert messages(imported, "odd_requests") == [f"1 of {len(imported.requests)} requests: {said}"]
    is_odd = imported.requests["time_per_output_token_s"].isna()
    assert is_odd.tolist() == [True, *[False] * (len(is_odd) - 1)]


def test_answer_of_no_token_deviates_and_the_others_are_kept(tmp_path, capsys):
    result = with_request(1, output_lens=0, itls=[], latencies=0.155)
    log = tmp_path / "log.jsonl"
    assert main(["api", "import", str(write(tmp_path / "r.json", result)), "--log", str(log)]) == 0
    assert "odd_requests: 1 of 6 requests: no output token counted" in capsys.readouterr().err
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record.get("deviations") for record in records[1:-1]] == [None, ["no output token counted"], *[None] * 4]


def test_answer_without_counted_tokens_deviates(tmp_path):
    report = load("guidellm_concurrent.json")
    report["benchmarks"][0]["requests"]["successful"][2]["output_tokens"] = None
    assert import_file(write(tmp_path / "r.json", report)).requests["is_fit"].sum() == 5


def vllm_in_one_piece():
    # 64 tokens in one event: a proxy or a compression held the stream back.
    return with_request(0, output_lens=64, itls=[], latencies=load("vllm_closed.json")["ttfts"][0])


def guidellm_in_one_piece():
    report = load("guidellm_concurrent.json")
    first = report["benchmarks"][0]["requests"]["successful"][0]
    first |= {"time_to_first_token_ms": 1e3 * first["request_latency"], "inter_token_latency_ms": 0.0}
    return report


@pytest.mark.parametrize("make", [vllm_in_one_piece, guidellm_in_one_piece])
def test_answer_in_one_piece_has_no_times_of_tokens(tmp_path, make):
    requests = import_file(write(tmp_path / "r.json", make())).requests
    assert requests["is_held_back"].tolist() == [True] + [False] * 5
    first = requests.iloc[0]
    assert first[["time_to_first_token_s", "time_per_output_token_s"]].isna().all()
    assert first["runtime_s"] > 0.1


def test_time_of_zero_to_the_first_token_is_none(tmp_path):
    # As vLLM writes of answers that are not streamed.
    result = with_request(0, ttfts=0.0, itls=[])
    assert import_file(write(tmp_path / "r.json", result)).requests["time_to_first_token_s"].isna().tolist()[0]


# ---- times


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ttfts", -0.1, r"field 'ttfts' must be a duration, not negative; got -0.1"),
        ("itls", [0.01, -0.01], r"field 'itls'\[1\] must be a duration; got -0.01"),
        ("itls", ["0.01"], r"field 'itls'\[0\] must be a duration; got '0.01'"),
        ("itls", 0.01, r"field 'itls' must be of type list; got 0.01"),
        ("latencies", 10**400, r"field 'latencies' must be finite"),
        ("ttfts", 150.0, r"text came 150.* s after the request was sent, which had ended after 0.2.* milliseconds\?"),
        ("output_lens", 7.5, r"field 'output_lens' must be an integer of at least 0; got 7.5"),
        ("output_lens", 2**70, r"field 'output_lens' must be an integer of at least 0"),
    ],
)
def test_what_is_no_time_or_size_is_named(tmp_path, name, value, message):
    with pytest.raises(ImportFormatError, match=rf"r\.json\[2\].*{message}"):
        import_file(write(tmp_path / "r.json", with_request(2, **{name: value})))


@pytest.mark.parametrize("limit", [1, None])
def test_milliseconds_are_no_seconds(tmp_path, limit):
    result = load("vllm_closed.json", max_concurrency=limit)
    for name in ("ttfts", "latencies"):
        result[name] = [1e3 * value for value in result[name]]
    result["itls"] = [[1e3 * value for value in values] for values in result["itls"]]
    with pytest.raises(ImportFormatError, match=r"6 requests took .* were under way at a time.*milliseconds\?"):
        import_file(write(tmp_path / "r.json", result))


def test_run_without_requests_is_refused(tmp_path):
    result = load("vllm_closed.json", num_prompts=0, completed=0) | {name: [] for name in DETAILS}
    with pytest.raises(ImportFormatError, match="holds no requests"):
        import_file(write(tmp_path / "r.json", result))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean_ttft_ms", 300.0, "mean time_to_first_token_s: 0.3 by the totals in the file, 0.1541 by its requests"),
        ("mean_itl_ms", 9.1, "mean inter_chunk_time_s: 0.0091 by the totals"),
        ("total_output_tokens", 49, "num_output_tokens: 49 by the totals in the file, 48 by its requests"),
        ("failed", 1, "failed requests: 1 by the totals in the file, 0 by its requests"),
        ("duration", 0.7, "duration: 0.7 s by the totals, 0.6789 s by its requests"),
    ],
)
def test_totals_that_are_not_those_of_the_requests_are_said(tmp_path, name, value, message):
    with pytest.warns(ImportedDataWarning, match=message):
        import_requests(write(tmp_path / "r.json", load("vllm_closed.json", **{name: value})))


@pytest.mark.parametrize("name", ["vllm_closed.json", "vllm_poisson.json", "guidellm_concurrent.json", "aiperf_closed",
                                  "guidellm_poisson.json", "aiperf_poisson"])  # fmt: skip
def test_what_a_tool_wrote_agrees_with_itself(name):
    assert not import_file(DATA / name).findings


# ---- samples


@pytest.mark.parametrize("name", ["guidellm_0.3.json", "guidellm_concurrent.json"])
def test_sample_of_the_requests_tells_no_throughput(tmp_path, name, capsys):
    path = write(tmp_path / "r.json", sampled(name, 2, 100))
    imported = import_file(path)
    assert measure_throughput(imported.requests, by=LOAD)["requests_per_s"].isna().all()
    assert imported.requests["notes"].str.contains("one of 2 requests that the file keeps of 100").all()
    assert main(["api", "summary", str(path)]) == 0
    assert "sample: 2 of 100 requests are here and tell no throughput, nor does the file" in capsys.readouterr().err


def test_throughput_beside_a_sample_is_the_tools_own(tmp_path, capsys):
    report = sampled("guidellm_concurrent.json", 2, 100)
    report["benchmarks"][0]["metrics"] = {"requests_per_second": {"successful": {"mean": 12.5}},
                                          "output_tokens_per_second": {"successful": {"mean": 100.0}}}  # fmt: skip
    assert main(["api", "summary", str(write(tmp_path / "r.json", report)), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["throughput"]
    assert (row["num_requests"], row["requests_per_s"], row["output_tokens_per_s"]) == (100, 12.5, 100.0)


def test_cut_export_is_a_sample(tmp_path):
    shutil.copytree(DATA / "aiperf_closed", tmp_path, dirs_exist_ok=True)
    lines = (tmp_path / "profile_export.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "profile_export.jsonl").write_text("".join(lines[:4]))
    assert messages(import_file(tmp_path), "sample") == [
        "4 of 6 requests are here and tell no throughput; what is given is AIPerf's own"
    ]


# ---- whose file it is


GENAI_PERF = {"input_config": {"model_names": ["m"], "endpoint": {"url": "u"}, "perf_analyzer": {}},
              "request_latency": {"unit": "ms", "avg": 8.0}, "request_count": {"avg": 3.0}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "contents", "tool"),
    [
        ("r.csv", "Metric,avg,min,max,p99\nTime To First Token (ms),8.00,7.00,9.00,8.98\n", "GenAI-Perf"),
        ("r.json", GENAI_PERF, "GenAI-Perf"),
        ("r.jsonl", {"backend": "sglang", "request_throughput": 1.0, "mean_e2e_latency_ms": 3.0}, "SGLang"),
        ("r.json", {"avg_latency": 1.0, "latencies": [1.0], "percentiles": {}}, "vllm bench latency"),
        ("r.json", {"engine": {}, "world_info": {}, "request_info": {}, "performance": {}}, "trtllm-bench"),
        ("r.json", [{"build_commit": "a", "avg_ts": 3.0}], "llama-bench"),
        ("log.jsonl", {"record": "header", "schema_version": 1}, "this project"),
        ("r.csv", "a,b\n1,2\n", "no known format"),
    ],
)
def test_file_of_a_tool_that_is_not_read_is_named(tmp_path, name, contents, tool):
    with pytest.raises(UnknownFormatError, match=rf"{tool}.*known are the results of `vllm bench serve`"):
        import_file(write(tmp_path / name, contents))


@pytest.mark.parametrize(("name", "tool"), [("vllm_closed.json", "vllm bench serve"), ("aiperf_0.3", "AIPerf"),
                                            ("guidellm_0.3.json", "GuideLLM")])  # fmt: skip
def test_tool_whose_file_is_read_is_named(name, tool, capsys):
    assert main(["api", "summary", str(DATA / name)]) == 0
    assert f"{name}: {tool}, " in capsys.readouterr().err


def test_numbers_with_commas_between_thousands_are_read(tmp_path):
    text = (DATA / "aiperf_closed" / "profile_export_aiperf.csv").read_text()
    rows = [line if not line.startswith("Request Latency") else 'Request Latency (ms),"2,273.5",1,"12,000.25",9,1'
            for line in text.splitlines()]  # fmt: skip
    imported = import_file(write(tmp_path / "r.csv", "\n".join(rows)))
    (runtime,) = [row for row in imported.totals if row["quantity"] == "runtime_s"]
    assert (runtime["mean"], runtime["maximum"]) == pytest.approx((2.2735, 12.00025))


@pytest.mark.parametrize("number", ["1,23", "12,3456", "x"])
def test_other_commas_are_no_number(tmp_path, number):
    text = (DATA / "aiperf_closed" / "profile_export_aiperf.csv").read_text()
    rows = [line if not line.startswith("Request Latency") else f'Request Latency (ms),"{number}"'
            for line in text.splitlines()]  # fmt: skip
    with pytest.raises(ImportFormatError, match="field 'avg' must be"):
        import_file(write(tmp_path / "r.csv", "\n".join(rows)))


def test_folder_is_read_with_all_that_is_below_it(tmp_path):
    shutil.copytree(DATA / "aiperf_closed", tmp_path / "artifacts" / "concurrency2")
    shutil.copy(DATA / "vllm_closed.json", tmp_path)
    write(tmp_path / "inputs.json", {"data": []})
    imported = import_file(tmp_path)
    # The totals beside AIPerf's requests are no second run.
    assert imported.tools == ["AIPerf", "vllm bench serve"]
    assert len(imported.requests) == 12
    assert imported.requests["repetition"].nunique() == 2
    assert messages(imported, "unused") == [f"1 files are of no known format, the first is {tmp_path / 'inputs.json'}"]


def test_folder_of_totals_is_read(tmp_path):
    for name in ("profile_export_aiperf.json", "profile_export_aiperf.csv"):
        shutil.copy(DATA / "aiperf_closed" / name, tmp_path)
    assert len(import_file(tmp_path).runs) == 1


def test_folder_of_nothing_known_is_refused(tmp_path):
    write(tmp_path / "a.json", {})
    with pytest.raises(UnknownFormatError, match="none of its 1 JSON and CSV files is of a known format"):
        import_file(tmp_path)


# ---- damage


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"model_id": "a", "model_id": "b"}', "the key 'model_id' stands twice"),
        ('{"a": 1} {"a": ', "not JSON"),
        ("9" * 5000, "not JSON"),
        ("\0", "not JSON"),
    ],
)
@pytest.mark.parametrize("command", ["import", "summary"])
def test_damaged_file_is_refused_in_one_line(tmp_path, capsys, command, text, message):
    assert main(["api", command, str(write(tmp_path / "r.json", text))]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("name", "place"), [("vllm_closed.json", "model_id"), ("vllm_closed.json", "hardware")])
def test_name_with_control_characters_is_refused(tmp_path, name, place):
    with pytest.raises(ImportFormatError, match=rf"'{place}' must be a name without control characters; got '\\x1b"):
        import_file(write(tmp_path / "r.json", load(name, **{place: "\x1b[31mred"})))


def test_time_beyond_the_calendar_is_refused(tmp_path):
    report = load("guidellm_0.3.json")
    report["benchmarks"][0]["requests"]["successful"][0]["start_time"] = 1e20
    with pytest.raises(ImportFormatError, match="field 'start_time' must be a time"):
        import_file(write(tmp_path / "r.json", report))


# ---- fits


def serial_result(**changed):
    """One request at a time: prompts take 20 ms and 0.1 ms a token, output tokens 12 ms."""
    sizes = [(p, o) for p in (16, 64, 256) for o in (1, 4, 16) for _ in range(3)]
    ttfts = [0.02 + 1e-4 * p for p, _ in sizes]
    itls = [[0.012] * (o - 1) for _, o in sizes]
    latencies = [ttft + sum(between) for ttft, between in zip(ttfts, itls, strict=True)]
    details = {"input_lens": [p for p, _ in sizes], "output_lens": [o for _, o in sizes], "ttfts": ttfts, "itls": itls,
               "latencies": latencies, "errors": [""] * len(sizes)}  # fmt: skip
    counts = {"num_prompts": len(sizes), "completed": len(sizes), "failed": 0, "duration": sum(latencies) + 0.01}
    names = {"date": "20260105-103000", "backend": "openai", "model_id": "m", "request_throughput": 1.0}
    return names | counts | {"request_rate": "inf", "max_concurrency": 1} | details | changed


@pytest.mark.parametrize("changed", [{}, {"request_rate": 4.0}])
def test_imported_run_of_one_request_at_a_time_is_fitted(tmp_path, capsys, changed):
    path, log = write(tmp_path / "r.json", serial_result(**changed)), tmp_path / "log.jsonl"
    assert main(["api", "import", str(path), "--log", str(log)]) == 0
    capsys.readouterr()
    assert main(["api", "fit", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_trials"] == 27
    assert main(["fit", str(log), "--json"]) == 0
    assert "0.012" in capsys.readouterr().out


def test_imported_run_of_two_at_a_time_is_under_load(tmp_path, capsys):
    path, log = write(tmp_path / "r.json", serial_result(max_concurrency=2)), tmp_path / "log.jsonl"
    assert main(["api", "import", str(path), "--log", str(log)]) == 0
    assert main(["fit", str(log)]) == 2
    assert "27 of them are under load" in capsys.readouterr().err


def test_run_whose_limit_is_not_told_is_serial_where_no_two_requests_met(tmp_path):
    shutil.copytree(DATA / "aiperf_0.3", tmp_path, dirs_exist_ok=True)
    totals = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    totals["input_config"]["loadgen"] = {}
    totals["request_count"]["avg"] = 1
    write(tmp_path / "profile_export_aiperf.json", totals)
    lines = (tmp_path / "profile_export.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "profile_export.jsonl").write_text(lines[0])
    assert set(import_file(tmp_path).requests["num_parallel"]) == {1}
    (tmp_path / "profile_export.jsonl").write_text("".join(lines))
    assert import_file(tmp_path).requests["num_parallel"].isna().all()


# Prompts that were cached


def test_prompts_that_another_tool_says_were_cached_are_not_fitted(tmp_path):
    report, log = load("guidellm_concurrent.json"), tmp_path / "log.jsonl"
    for benchmark in report["benchmarks"]:
        benchmark["config"]["strategy"] = {"type_": "synchronous"}
        benchmark["duration"] *= 10
    requests = [request for benchmark in report["benchmarks"] for request in benchmark["requests"]["successful"]]
    requests[0]["cached_tokens"] = requests[0]["prompt_tokens"] - 1
    assert main(["api", "import", str(write(tmp_path / "r.json", report)), "--log", str(log)]) == 0
    with pytest.warns(IncompleteLogWarning, match="1 of them is of cached prompts"):
        assert len(read_trials(log)) == len(requests) - 1


def test_cached_prompt_tokens_of_aiperf_are_read(tmp_path):
    shutil.copytree(DATA / "aiperf_closed", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "profile_export.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["metrics"]["usage_prompt_cache_read_tokens"] = {"value": 7, "unit": "tokens"}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert set(import_requests(tmp_path)["num_cached_prompt_tokens"].dropna()) == {7}
