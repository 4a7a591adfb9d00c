import json

import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import IncompleteLogWarning, Journal, read_requests

DATA = ROOT / "tests" / "records" / "importers" / "data"
HEADER = {"kind": "api", "model": "m", "hardware": "h", "software": "s", "base_url": "u", "endpoint": "e"}


def write_sweep(path, day, *, factor=1.0, num_blocks=10):
    """A log of four settings, each of ten trials that scatter a little."""
    with Journal(path, HEADER) as journal:
        for block in range(num_blocks):
            for index, (p, o) in enumerate([(1, 1), (1, 9), (64, 1), (64, 9)]):
                runtime_s = (0.1 + p * 1e-3 + (o - 1) * 0.01) * (1 + 0.01 * ((7 * block + 3 * index) % 10)) * factor
                key = {"num_prompt_tokens": p, "num_output_tokens": o, "trial": block, "block": block}
                sent_at = f"2026-01-{day:02d}T10:00:{block:02d}+00:00"
                journal.append(
                    "trial", {**key, "sent_at": sent_at, "runtime_s": runtime_s, "definitions": "client-whole"}
                )
        journal.finish()
    return path


def test_summary_of_a_log_and_of_another_tools_file_are_printed_alike(tmp_path, capsys):
    assert main(["api", "import", str(DATA / "vllm_closed.json"), "--log", str(tmp_path / "log.jsonl")]) == 0
    imported = capsys.readouterr().out
    assert main(["api", "summary", str(tmp_path / "log.jsonl")]) == 0
    assert capsys.readouterr().out == imported
    assert main(["api", "summary", str(DATA / "vllm_closed.json")]) == 0
    assert capsys.readouterr().out == imported
    assert "time_to_first_token_s" in imported


def test_load_of_mixed_sizes_is_summarised_whole(tmp_path, capsys):
    # vLLM drew three prompt sizes: a third of the requests is not what the server bore.
    assert main(["api", "summary", str(DATA / "vllm_closed.json")]) == 0
    out, err = capsys.readouterr()
    assert out.split().count("runtime_s") == 1
    assert "num_prompt_tokens" not in out
    assert "few_requests: 2 parallel: p99 of 6 requests" in err


def test_findings_of_several_models_name_them(tmp_path, capsys):
    results = [json.loads((DATA / "vllm_closed.json").read_text()) | {"model_id": name} for name in ("one", "two")]
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert main(["api", "summary", str(tmp_path / "r.json")]) == 0
    err = capsys.readouterr().err
    assert "few_requests: one: 2 parallel: p99 of 6" in err
    assert "; and so of 1 more" in err, "said once"


def test_sweep_under_no_load_has_no_throughput(tmp_path, capsys):
    assert main(["api", "summary", str(write_sweep(tmp_path / "log.jsonl", 1))]) == 0
    assert "requests_per_s" not in capsys.readouterr().out


def test_fit_of_requests_under_load_names_the_remedy(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    assert main(["api", "import", str(DATA / "vllm_closed.json"), "--log", str(log)]) == 0
    assert main(["api", "fit", str(log)]) == 2
    assert "6 of them are under load: a summary reads those" in capsys.readouterr().err


def test_imported_log_says_the_hardware(tmp_path):
    log = tmp_path / "log.jsonl"
    assert main(["api", "import", str(DATA / "guidellm_concurrent.json"), "--hardware", "a100", "--log", str(log)]) == 0
    assert set(read_requests(log)["hardware"]) == {"a100"}


def test_runs_of_one_model_are_imported_into_one_log(tmp_path, capsys):
    results = [json.loads((DATA / name).read_text()) for name in ("vllm_closed.json", "vllm_poisson.json")]
    (tmp_path / "runs.json").write_text("\n".join(map(json.dumps, results)))
    assert (
        main(["api", "import", str(tmp_path / "runs.json"), "--hardware", "h", "--log", str(tmp_path / "log.jsonl")])
        == 0
    )
    with pytest.warns(IncompleteLogWarning, match="1 trials failed"):
        assert len(read_requests(tmp_path / "log.jsonl")) == 11
    (tmp_path / "models.json").write_text(json.dumps([results[0], results[0] | {"model_id": "other"}]))
    assert main(["api", "import", str(tmp_path / "models.json"), "--log", str(tmp_path / "other.jsonl")]) == 2
    assert "holds runs of several models, protocols or hardware, and a log one: split it" in capsys.readouterr().err


def test_import_that_cannot_be_logged_whole_leaves_no_log(tmp_path, capsys):
    results = [json.loads((DATA / "vllm_closed.json").read_text()) | {"model_id": name} for name in "ab"]
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert main(["api", "import", str(tmp_path / "r.json"), "--log", str(tmp_path / "log.jsonl")]) == 2
    assert "r.json holds runs of several models" in capsys.readouterr().err
    assert not (tmp_path / "log.jsonl").exists()


def test_helm_runs_are_no_log(tmp_path, capsys):
    assert main(["api", "import", str(tmp_path), "--log", str(tmp_path / "log.jsonl")]) == 2
    run = tmp_path / "quiz:model=m"
    run.mkdir()
    (run / "run_spec.json").write_text(json.dumps({"name": run.name, "adapter_spec": {"model": "m"}}))
    values = {"num_prompt_tokens": 9, "num_output_tokens": 2, "inference_runtime": 1.0}
    stats = [{"name": {"name": name, "split": "test"}, "count": 1, "sum": value} for name, value in values.items()]
    (run / "per_instance_stats.json").write_text(
        json.dumps([{"instance_id": "id1", "train_trial_index": 0, "stats": stats}])
    )
    assert main(["api", "import", str(tmp_path), "--log", str(tmp_path / "log.jsonl")]) == 2
    assert "HELM, which do not say when a query was sent" in capsys.readouterr().err


def test_import_does_not_write_over_a_log(tmp_path, capsys):
    log = write_sweep(tmp_path / "log.jsonl", 1)
    contents = log.read_bytes()
    assert main(["api", "import", str(DATA / "aiperf_closed"), "--log", str(log)]) == 2
    assert "give another --log" in capsys.readouterr().err
    assert log.read_bytes() == contents


def test_totals_are_summarised_as_they_are(capsys):
    assert main(["api", "summary", str(DATA / "aiperf_closed" / "profile_export_aiperf.csv")]) == 0
    assert "0.2273" in capsys.readouterr().out


def test_file_of_no_known_tool_is_bad_input(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["api", "summary", str(tmp_path / "x.json")]) == 2
    assert "no known format; known are" in capsys.readouterr().err


def test_changes_are_tested_from_the_oldest_log_to_the_newest(tmp_path, capsys):
    logs = [write_sweep(tmp_path / f"{day}.jsonl", day, factor=factor) for day, factor in ((2, 1.2), (1, 1.0))]
    assert main(["api", "changes", *map(str, logs)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2026-01-02 10:00 against 2026-01-01 10:00 (UTC)")
    assert "time_per_output_token_s" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[:11]}
    assert (rows["change_percent"][0], rows["is_changed"][0]) == ("20", "True")


def test_history_of_four_logs_is_used(tmp_path, capsys):
    logs = [write_sweep(tmp_path / f"{day}.jsonl", day, factor=1 + 0.01 * (day % 3)) for day in range(1, 5)]
    assert main(["api", "changes", *map(str, logs)]) == 0
    assert "unchanged_percent_lower" in capsys.readouterr().out


def test_sweep_is_not_compared_with_itself(tmp_path, capsys):
    log, copy = write_sweep(tmp_path / "log.jsonl", 1), tmp_path / "copy.jsonl"
    # A copy of a log that another run went on with holds its requests and more.
    copy.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:20]))
    for other in (log, copy):
        assert main(["api", "changes", str(log), str(other)]) == 2
        assert f"{log} and {other} hold the same requests" in capsys.readouterr().err


def test_sweeps_of_unknown_time_are_not_compared(tmp_path, capsys):
    report = json.loads((DATA / "vllm_closed.json").read_text())
    del report["start_times"]
    (tmp_path / "result.json").write_text(json.dumps(report))
    assert main(["api", "import", str(tmp_path / "result.json"), "--log", str(tmp_path / "a.jsonl")]) == 0
    assert main(["api", "changes", str(tmp_path / "a.jsonl"), str(write_sweep(tmp_path / "b.jsonl", 1))]) == 2
    assert "does not say when its requests were sent" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [((), "two sweeps or more"), (("--level", "2"), "between 0 and 1")])
def test_unusable_comparison_is_refused(tmp_path, capsys, arguments, message):
    log = str(write_sweep(tmp_path / "log.jsonl", 1))
    assert main(["api", "changes", log, *([log] if arguments else []), *arguments]) == 2
    assert message in capsys.readouterr().err
