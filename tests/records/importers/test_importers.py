import json
import shutil
import warnings
from time import process_time

import numpy as np
import pandas as pd
import pytest
from makers import make_requests

from idealized_runtime.api.statistics import LOAD, measure_throughput, summarize_requests, summary_columns, totals_table
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import IncompleteLogWarning, Journal, read_requests
from idealized_runtime.records.definitions import DEFINITIONS
from idealized_runtime.records.importers import (
    ImportedDataWarning,
    ImportFormatError,
    import_file,
    import_requests,
)

DATA = ROOT / "tests" / "records" / "importers" / "data"
CLOSED = ["vllm_closed.json", "guidellm_concurrent.json", "aiperf_closed"]
OPEN = ["vllm_poisson.json", "guidellm_poisson.json", "aiperf_poisson"]


def load(name):
    return json.loads((DATA / name).read_text())


def write(path, record):
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("name", CLOSED)
def test_times_of_a_mock_server_are_those_it_was_told(name):
    requests = import_requests(DATA / name)
    assert len(requests) == 6
    assert requests["time_to_first_token_s"].median() == pytest.approx(0.150, rel=0.05)
    # The server sleeps 10 ms between tokens, and takes 0.3 ms of its own.
    assert requests["time_per_output_token_s"].median() == pytest.approx(0.0103, rel=0.03)
    assert (requests["runtime_s"] > requests["time_to_first_token_s"] + 6 * 0.01).all()
    assert (requests["num_output_tokens"] == 8).all()


@pytest.mark.parametrize("name", CLOSED + OPEN)
def test_frame_has_the_columns_and_types_of_a_log(name, tmp_path):
    header = {"kind": "api", "model": "m", "hardware": "h", "software": "s", "base_url": "u", "endpoint": "e"}
    trial = {"num_prompt_tokens": 1, "num_output_tokens": 1, "trial": 0, "runtime_s": 1.0}
    with Journal(tmp_path / "log.jsonl", header) as journal:
        journal.append("trial", {**trial, "sent_at": "2026-01-05T10:00:00+00:00", "definitions": "client-whole"})
        journal.finish()
    expected, imported = read_requests(tmp_path / "log.jsonl"), import_requests(DATA / name)
    assert list(imported) == list(expected)
    numbers = ["runtime_s", "time_to_first_token_s", "rate_per_s", "num_parallel", "sent_at", "is_fit", "status"]
    assert imported[numbers].dtypes.astype(str).tolist() == expected[numbers].dtypes.astype(str).tolist()
    assert set(imported["definitions"]) <= set(DEFINITIONS)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_loop_is_read_with_its_parallel_requests(name):
    requests = import_requests(DATA / name)
    assert set(requests["load"]) == {"closed"}
    assert set(requests["num_parallel"]) == {2}
    # Two at once: the second is sent while the first is under way.
    assert requests["sent_at"].is_monotonic_increasing
    first = requests.iloc[0]
    assert requests["sent_at"][1] < first["sent_at"] + pd.Timedelta(seconds=first["runtime_s"])


@pytest.mark.parametrize(("name", "num_failed"), zip(OPEN, [1, 2, 3], strict=True))
def test_open_loop_is_read_with_its_rate_and_failures(name, num_failed):
    requests = import_requests(DATA / name)
    assert set(requests["load"]) == {"open"}
    assert set(requests["rate_per_s"]) == {20.0}
    failed = requests[requests["error_type"].notna()]
    assert len(failed) == num_failed
    assert failed["error_message"].str.contains("Server Error|fail_after").all()
    assert not failed["is_fit"].any()
    assert failed["runtime_s"].isna().all()


def test_warmups_of_aiperf_are_marked():
    requests = import_requests(DATA / "aiperf_poisson")
    assert requests["is_warmup"].tolist() == [True] + [False] * 5


@pytest.mark.parametrize("name", ["guidellm_poisson.json", "aiperf_poisson"])
def test_arrival_times_of_an_open_loop_are_kept(name):
    late_s = import_requests(DATA / name).eval("sent_at - scheduled_at").dt.total_seconds()
    assert ((late_s >= 0) & (late_s < 0.05)).all()


def test_hardware_is_what_the_caller_says_or_the_file():
    assert set(import_requests(DATA / "vllm_closed.json")["hardware"]) == {"mock"}
    assert set(import_requests(DATA / "vllm_closed.json", hardware="a100")["hardware"]) == {"a100"}
    assert set(import_requests(DATA / "aiperf_closed")["hardware"]) == {"unknown"}


def test_vllm_run_ends_at_its_date():
    requests = import_requests(DATA / "vllm_closed.json")
    ends = requests["sent_at"] + pd.to_timedelta(requests["runtime_s"], unit="s")
    assert abs(ends.max() - pd.Timestamp("2026-11-21T10:42:25Z")) < pd.Timedelta(milliseconds=10)


def test_appended_vllm_results_are_read_one_after_the_other(tmp_path):
    path = tmp_path / "appended.json"
    path.write_text("\n".join(json.dumps(load(name)) for name in ("vllm_closed.json", "vllm_poisson.json")))
    assert import_requests(path)["load"].tolist() == ["closed"] * 6 + ["open"] * 5


def test_appended_vllm_results_are_repetitions_with_a_time_of_their_own(tmp_path):
    path = tmp_path / "twice.json"
    later = load("vllm_closed.json") | {"date": "20261121-114225"}
    path.write_text("\n".join(json.dumps(result) for result in (load("vllm_closed.json"), later)))
    assert import_requests(path)["repetition"].tolist() == [0] * 6 + [1] * 6
    assert measure_throughput(import_requests(path), by=["load"])["duration_s"].item() < 10


def test_list_of_vllm_results_is_read_one_after_the_other(tmp_path):
    path = write(tmp_path / "summary.json", [load("vllm_closed.json"), load("vllm_poisson.json")])
    assert import_requests(path)["load"].tolist() == ["closed"] * 6 + ["open"] * 5


def test_older_vllm_results_name_a_backend(tmp_path):
    result = load("vllm_closed.json")
    result["backend"] = result.pop("endpoint_type")
    assert len(import_requests(write(tmp_path / "r.json", result))) == 6


def test_rate_that_rises_is_none(tmp_path):
    result = load("vllm_closed.json") | {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 9}
    requests = import_requests(write(tmp_path / "r.json", result))
    assert set(requests["load"]) == {"open"}
    assert requests["rate_per_s"].isna().all()


def test_vllm_request_that_was_refused_without_a_reason_failed(tmp_path):
    result = load("vllm_closed.json")
    for name, value in (("ttfts", 0.0), ("itls", []), ("latencies", 0.0), ("output_lens", 0)):
        result[name][1] = value
    requests = import_file(write(tmp_path / "r.json", result)).requests
    assert requests["error_message"].notna().tolist() == [False, True, False, False, False, False]
    assert requests["is_fit"].sum() == 5


def test_vllm_result_without_a_limit_has_all_requests_in_parallel(tmp_path):
    path = write(tmp_path / "r.json", load("vllm_closed.json") | {"max_concurrency": None})
    assert set(import_requests(path)["num_parallel"]) == {6}


def test_older_vllm_results_without_latencies_are_read(tmp_path):
    result = load("vllm_closed.json")
    del result["latencies"], result["start_times"]
    requests = import_requests(write(tmp_path / "r.json", result))
    assert requests["runtime_s"].tolist() == pytest.approx(load("vllm_closed.json")["latencies"])
    assert requests["sent_at"].isna().all()


def without_details(result):
    """What vLLM leaves out without --save-detailed."""
    names = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
    return {name: value for name, value in result.items() if name not in names}


def summarize(path):
    """As tools sum up: over all sizes of a load."""
    return summarize_requests(import_requests(path), by=["model", *LOAD])


def test_vllm_totals_are_no_requests_but_a_summary(tmp_path):
    path = write(tmp_path / "totals.json", without_details(load("vllm_closed.json")))
    with pytest.raises(ImportFormatError, match=r"totals\.json: holds totals only.*--save-detailed"):
        import_requests(path)
    totals, ours = totals_table(import_file(path).totals), summarize(DATA / "vllm_closed.json")
    for quantity in ("time_to_first_token_s", "time_per_output_token_s", "inter_chunk_time_s"):
        theirs, recomputed = (table.set_index("quantity").loc[quantity] for table in (totals, ours))
        assert theirs[["mean", "p50", "p99"]].tolist() == pytest.approx(recomputed[["mean", "p50", "p99"]].tolist())
    assert totals[["load", "num_parallel"]].drop_duplicates().to_numpy().tolist() == [["closed", 2]]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("profile_export_aiperf.json", 1e-6), ("profile_export_aiperf.csv", 1e-2)]
)
def test_totals_of_aiperf_are_those_of_its_requests(name, tolerance):
    totals = totals_table(import_file(DATA / "aiperf_closed" / name).totals).set_index("quantity")
    ours = summarize(DATA / "aiperf_closed").set_index("quantity").loc[totals.index]
    columns = ["mean", "minimum", "maximum", "p50", "p90", "p99"]
    np.testing.assert_allclose(totals[columns].astype(float), ours[columns].astype(float), rtol=tolerance)


def test_totals_have_the_columns_of_a_summary():
    for name in ("profile_export_aiperf.json", "profile_export_aiperf.csv"):
        columns = list(totals_table(import_file(DATA / "aiperf_closed" / name).totals))
        assert columns[: len(summary_columns())] == summary_columns()


@pytest.mark.parametrize("name", ["profile_export_aiperf.json", "profile_export_aiperf.csv"])
def test_totals_of_aiperf_are_no_requests(name):
    with pytest.raises(ImportFormatError, match=r"holds totals only.*give profile_export\.jsonl beside it"):
        import_requests(DATA / "aiperf_closed" / name)


def test_older_aiperf_is_read():
    with pytest.warns(ImportedDataWarning, match="8 of 8 requests do not tell their prompt tokens"):
        requests = import_requests(DATA / "aiperf_0.3")
    assert requests["is_fit"].all()
    assert set(requests["num_parallel"]) == {3}
    assert set(requests["model"]) == {"NAME"}
    totals = totals_table(import_file(DATA / "aiperf_0.3" / "profile_export_aiperf.json").totals).set_index("quantity")
    assert totals.loc["runtime_s", "mean"] == pytest.approx(requests["runtime_s"].mean())
    assert set(totals["num_parallel"]) == {3}


def test_older_aiperf_at_a_rate_is_an_open_loop(tmp_path):
    shutil.copytree(DATA / "aiperf_0.3", tmp_path, dirs_exist_ok=True)
    totals = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    totals["input_config"]["loadgen"] = {"request_rate": 10.0, "request_rate_mode": "poisson", "request_count": 8}
    write(tmp_path / "profile_export_aiperf.json", totals)
    assert set(import_file(tmp_path).requests["rate_per_s"]) == {10.0}


def test_export_of_aiperf_under_a_chosen_name_is_found(tmp_path):
    for name, ours in (("profile_export.jsonl", "mine.jsonl"), ("profile_export_aiperf.json", "mine.json")):
        shutil.copy(DATA / "aiperf_closed" / name, tmp_path / ours)
    expected = import_requests(DATA / "aiperf_closed")
    for path in (tmp_path, tmp_path / "mine.jsonl"):
        pd.testing.assert_frame_equal(import_requests(path), expected)


def test_usage_that_aiperf_was_told_stands_beside_its_own_counts(tmp_path):
    shutil.copytree(DATA / "aiperf_closed", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "profile_export.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["metrics"]["usage_completion_tokens"] = {"value": 9, "unit": "tokens"}
    path.write_text("\n".join(map(json.dumps, records)))
    requests = import_requests(tmp_path)
    assert set(requests["num_output_tokens"]) == {8}
    assert set(requests["num_output_tokens_reported"]) == {9}


def test_requests_of_aiperf_need_its_totals_for_model_and_load(tmp_path):
    shutil.copy(DATA / "aiperf_closed" / "profile_export.jsonl", tmp_path)
    with pytest.raises(ImportFormatError, match=r"profile_export_aiperf\.json must lie beside it"):
        import_requests(tmp_path / "profile_export.jsonl")


def test_several_benchmarks_of_guidellm_are_several_loads(tmp_path):
    report = load("guidellm_concurrent.json")
    report["benchmarks"] += load("guidellm_poisson.json")["benchmarks"]
    assert import_requests(write(tmp_path / "sweep.json", report))["load"].tolist() == ["closed"] * 6 + ["open"] * 5


def test_benchmarks_of_one_load_are_repetitions(tmp_path):
    report = load("guidellm_concurrent.json")
    report["benchmarks"] *= 2
    assert import_requests(write(tmp_path / "twice.json", report))["repetition"].tolist() == [0] * 6 + [1] * 6


def test_guidellm_before_it_named_its_version_is_read():
    requests = import_requests(DATA / "guidellm_0.3.json")
    assert set(requests["num_parallel"]) == {2}
    assert requests["num_output_tokens"].tolist() == [6] * 3
    assert requests["time_per_output_token_s"].median() == pytest.approx(0.0103, rel=0.05)
    assert (requests["runtime_s"] > requests["time_to_first_token_s"] + 5 * 0.01).all()
    assert (requests["sent_at"] >= pd.Timestamp("2026-11-21T14:22:00Z")).all()


def test_failed_request_of_guidellm_before_it_named_its_version_is_read(tmp_path):
    report = load("guidellm_0.3.json")
    requests = report["benchmarks"][0]["requests"]
    requests["errored"] = [{**requests["successful"].pop(), "error": "Server Error", "output_tokens": None}]
    report["benchmarks"][0]["request_totals"] |= {"successful": 2, "errored": 1}
    assert import_requests(write(tmp_path / "r.json", report))["error_message"].tolist()[2] == "Server Error"


def test_failed_request_of_guidellm_without_a_reason_has_failed(tmp_path):
    report = load("guidellm_concurrent.json")
    requests = report["benchmarks"][0]["requests"]
    requests["errored"] = [requests["successful"].pop()]
    assert import_file(write(tmp_path / "r.json", report)).requests["is_fit"].tolist() == [True] * 5 + [False]


def test_guidellm_before_it_named_the_protocol_is_read(tmp_path):
    report = load("guidellm_concurrent.json")
    del report["benchmarks"][0]["config"]["backend"]["request_format"]
    assert len(import_requests(write(tmp_path / "r.json", report))) == 6


@pytest.mark.parametrize(
    ("strategy", "load_columns"),
    [
        ({"type_": "synchronous"}, ("closed", 1)),
        ({"type_": "throughput", "max_concurrency": 64}, ("closed", 64)),
        ({"type_": "constant", "rate": 3.0}, ("open", pd.NA)),
    ],
)
def test_strategies_of_guidellm_are_loads(tmp_path, strategy, load_columns):
    report = load("guidellm_concurrent.json")
    report["benchmarks"][0]["config"]["strategy"] = strategy
    report["benchmarks"][0]["duration"] *= 2
    first = import_requests(write(tmp_path / "r.json", report)).iloc[0]
    assert (first["load"], str(first["num_parallel"])) == (load_columns[0], str(load_columns[1]))


def test_answers_that_were_not_streamed_have_no_time_to_first_token(tmp_path):
    report = load("guidellm_concurrent.json")
    for request in report["benchmarks"][0]["requests"]["successful"]:
        request.update(time_to_first_token_ms=None, inter_token_latency_ms=None)
    requests = import_requests(write(tmp_path / "r.json", report))
    assert requests["time_to_first_token_s"].isna().all()
    assert requests["is_fit"].all()


def damage(record, place, value):
    """Set the field at a place, or remove it."""
    *parents, last = place
    for name in parents:
        record = record[name]
    if value is None:
        del record[last]
    else:
        record[last] = value


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("vllm_closed.json", ["model_id"], 3, r"field 'model_id' must be of type str; got 3"),
        ("vllm_closed.json", ["request_rate"], None, r"field 'request_rate' is missing; vllm bench serve writes it"),
        ("vllm_closed.json", ["ttfts", 4], "x", r"\[4\]: field 'ttfts' must be of type int or float; got 'x'"),
        ("vllm_closed.json", ["ttfts", 2], float("nan"), r"\[2\]: field 'ttfts' must be finite; got nan"),
        ("vllm_closed.json", ["itls"], [], r"lists of one length each request; got .*'itls': 0"),
        ("vllm_closed.json", ["date"], "today", r"field 'date' must be like 20260105-103000"),
        ("guidellm_concurrent.json", ["benchmarks", 0, "config"], None, r"benchmarks\[0\]: field 'config' is missing"),
        (
            "guidellm_concurrent.json",
            ["benchmarks", 0, "requests", "successful", 3, "request_latency"],
            None,
            r"successful\[3\]: field 'request_latency' is missing; GuideLLM writes it",
        ),
        (
            "guidellm_concurrent.json",
            ["benchmarks", 0, "config", "strategy", "type_"],
            "bursty",
            r"strategy: field 'type_' must be synchronous, .* or trace; got 'bursty'",
        ),
        (
            "guidellm_concurrent.json",
            ["benchmarks", 0, "requests", "successful"],
            [],
            "holds totals only, no single requests; run GuideLLM without a sample size",
        ),
    ],
)
def test_fault_of_a_file_is_named_with_its_place(tmp_path, name, place, value, message):
    record = load(name)
    damage(record, place, value)
    with pytest.raises(ImportFormatError, match=rf"{name}.*{message}"):
        import_requests(write(tmp_path / name, record))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["metrics", "request_latency"], None, "metrics: field 'request_latency' is missing; AIPerf writes it"),
        (["metrics", "request_latency", "unit"], "min", "request_latency: field 'unit' must be one of ns, us, ms"),
        (["metrics", "output_sequence_length", "value"], True, "field 'value' must be of type int or float; got True"),
        (["metadata"], None, "fields 'metadata' and 'metrics' are missing; AIPerf writes them"),
    ],
)
def test_fault_of_a_line_is_named_with_its_number(tmp_path, place, value, message):
    shutil.copytree(DATA / "aiperf_closed", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "profile_export.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[2])
    damage(record, place, value)
    path.write_text("\n".join([*lines[:2], json.dumps(record), *lines[3:]]))
    with pytest.raises(ImportFormatError, match=rf"profile_export\.jsonl:3.*{message}"):
        import_requests(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; known are"),
        ("{", "not JSON in UTF-8"),
        ('{"a": 1}', "no known format; known are the results of"),
        ('{"benchmarks": [], "metadata": null}', "no known format; known are the results of"),
        ("[1, 2]", "no known format; known are the results of"),
    ],
)
def test_file_of_no_known_tool_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ImportFormatError, match=rf"x\.json: {message}"):
        import_requests(path)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        import_requests(tmp_path / "absent.json")


@pytest.mark.parametrize("name", CLOSED + OPEN)
def test_imported_requests_written_to_a_log_are_read_back_alike(tmp_path, name):
    imported = import_file(DATA / name)
    header, trials = imported.log()
    with Journal(tmp_path / "log.jsonl", header) as journal:
        for trial in trials:
            journal.append("trial", trial)
        journal.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteLogWarning)
        back = read_requests(tmp_path / "log.jsonl")
    columns = ["model", "load", "sent_at", "runtime_s", "time_to_first_token_s", "time_per_output_token_s", "is_fit"]
    pd.testing.assert_frame_equal(back[columns], imported.requests[columns])


def test_time_to_read_grows_with_the_number_of_requests_only(tmp_path):
    line = (DATA / "aiperf_closed" / "profile_export.jsonl").read_text().splitlines(keepends=True)[0]
    times_s = []
    for num_requests in (300, 2400):
        folder = shutil.copytree(DATA / "aiperf_closed", tmp_path / str(num_requests))
        (folder / "profile_export.jsonl").write_text(line * num_requests)
        start_s = process_time()
        import_file(folder)
        times_s.append(process_time() - start_s)
    # 8 times as many take 8 times as long; of a quadratic reader 64.
    assert times_s[1] < 30 * times_s[0]


@pytest.fixture
def helm_run(tmp_path):
    """A HELM run of three instances: measured, without a runtime, of two requests."""
    folder = tmp_path / "runs" / "suite" / "quiz:model=maker_one"
    folder.mkdir(parents=True)
    write(folder / "run_spec.json", {"name": "quiz:model=maker_one", "adapter_spec": {"model": "maker/one"}})
    instances = [(100, 5, 2.5, 1), (80, 4, None, 1), (201, 9, 3.0, 2)]
    entries = []
    for index, (p, o, runtime_s, count) in enumerate(instances):
        values = {"num_prompt_tokens": p, "num_output_tokens": o, "inference_runtime": runtime_s}
        stats = [
            {"name": {"name": name, "split": "test"}, "count": count, "sum": value}
            for name, value in values.items()
            if value is not None
        ]
        entries.append({"instance_id": f"id{index}", "train_trial_index": 0, "stats": stats})
    write(folder / "per_instance_stats.json", entries)
    return tmp_path / "runs"


def test_helm_runs_are_requests_of_their_instances(helm_run):
    with pytest.warns(UserWarning, match="1 of 3 rows have no tokens or runtime and are left out: quiz"):
        requests = import_requests(helm_run, hardware="api")
    assert requests["model"].tolist() == ["maker/one", "maker/one"]
    assert requests["runtime_s"].tolist() == [2.5, 1.5]
    assert requests["num_prompt_tokens"].tolist() == [100, 100]
    # The second is a mean over two requests.
    assert requests["is_fit"].tolist() == [True, False]
    assert requests["sent_at"].isna().all()
    assert list(requests) == list(import_requests(DATA / "vllm_closed.json"))


def test_imported_frames_are_like_those_of_the_tests():
    # Statistics are tested on frames made by hand: their columns must be those that importers give.
    assert set(make_requests([1.0])) <= set(import_requests(DATA / "vllm_closed.json"))
