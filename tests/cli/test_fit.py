import contextlib
import json

import pytest
from makers import API_HEADER, HEADER, make_setting, make_trial, write_api_log, write_log

from idealized_runtime.cli.main import main
from idealized_runtime.fits import read_parameters
from idealized_runtime.measurements.published import ROOT


def write_box(folder, *, name="gpt2-small", batch_size=1):
    """A log in which a prompt token takes 0.1 s and an output token 0.01 s."""
    folder.mkdir(exist_ok=True)
    settings = [make_setting(p, o, [0.1 * p + 0.01 * o], batch_size=batch_size) for p in (1, 16) for o in (1, 2)]
    return write_log(folder / f"{name}.jsonl", settings, {**HEADER, "model": name})


def write_api(path):
    """A log of an API that takes 10 ms an output token."""
    path.parent.mkdir(exist_ok=True)
    sizes = [(p, o) for p in (4, 16, 32) for o in (1, 4, 8)]
    return write_api_log(path, [make_trial(n, p=p, o=o, start_s=0.1, step_s=0.01) for n in range(3) for p, o in sizes])


def test_parameter_file_of_one_batch_size_is_written(tmp_path, capsys):
    path = tmp_path / "batched.json"
    assert main(["fit", "cpu_batch", "--batch-size", "32", "--out", str(path)]) == 0
    answer = capsys.readouterr()
    assert "gpt2-small" in answer.out
    assert "warning:" in answer.err
    assert ".py" not in answer.err
    models = read_parameters(path)
    assert {name: model.batch_size for name, model in models.items()} == {"distilgpt2": 32, "gpt2-small": 32}
    assert models["gpt2-small"].sources[0]["file"] == "cpu_batch/gpt2-small.jsonl"


def test_logs_of_one_batch_size_are_fitted_without_being_told(tmp_path, capsys):
    write_box(tmp_path / "box", batch_size=4)
    assert main(["fit", str(tmp_path / "box")]) == 0
    assert "gpt2-small" in capsys.readouterr().out


def test_committed_parameter_file_is_that_of_its_logs(tmp_path):
    assert main(["fit", "cpu", "--out", str(tmp_path / "cpu.json")]) == 0
    written, committed = (
        json.loads(path.read_text()) for path in (tmp_path / "cpu.json", ROOT / "processed_jsons/cpu.json")
    )
    assert written.keys() == committed.keys()
    for name, entry in committed.items():
        assert written[name]["runtime_per_output_token"] == pytest.approx(entry["runtime_per_output_token"], rel=1e-9)


def test_folders_and_single_logs_of_machines_and_apis_make_one_file(tmp_path, capsys):
    write_box(tmp_path / "box")
    log = write_api(tmp_path / "api" / "tiny.jsonl")
    out = tmp_path / "new" / "all.json"
    assert main(["fit", str(tmp_path / "box"), str(log), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpt2-small"]["runtime_per_output_token"] == pytest.approx(0.01)
    models = read_parameters(out)
    assert set(models) == {"gpt2-small", "tiny"}
    assert models["tiny"].time_per_output_token_s == pytest.approx(0.01)
    assert models["tiny"].overhead_s > 0
    assert models["tiny"].sources[0]["file"].endswith("tiny.jsonl")


@pytest.mark.parametrize("command", ["fit", "api fit"])
def test_file_is_written_though_nothing_can_be_printed(tmp_path, monkeypatch, command):
    log, out = write_api(tmp_path / "api" / "tiny.jsonl"), tmp_path / "out.json"
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr("os.dup2", lambda *_: None)
        assert main([*command.split(), str(log), "--out", str(out)]) == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert set(read_parameters(out)) == {"tiny"}


@pytest.mark.parametrize(("flag", "value"), [("--software", "s"), ("--batch-size", "2")])
def test_flag_of_timings_in_process_is_refused_for_an_api(tmp_path, capsys, flag, value):
    assert main(["fit", str(write_api(tmp_path / "api" / "tiny.jsonl")), flag, value]) == 2
    assert f"{flag} is for logs timed in process" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit {}", "price {}/../queries.csv --logs {} --num-accelerators 1"])
def test_log_under_load_is_left_out(tmp_path, capsys, command):
    folder = write_api(tmp_path / "api" / "tiny.jsonl").parent
    (tmp_path / "queries.csv").write_text("num_prompt_tokens,num_output_tokens\n8,2\n")
    load = {"load": "closed", "num_parallel": 2, "repetition": 0}
    write_api_log(folder / "tiny-load.jsonl", [{**make_trial(0), **load}])
    assert main([word.format(folder) for word in command.split()]) == 0
    answer = capsys.readouterr()
    assert "tiny" in answer.out
    assert "warning: left out:" in answer.err
    assert "under load" in answer.err


def test_requests_of_a_load_that_are_left_out_are_told(tmp_path, capsys):
    sizes = [(p, o) for p in (4, 16) for o in (1, 4)]
    trials = [
        make_trial(n, p=p, o=o, load="closed", num_parallel=num_parallel, repetition=0)
        for p, o in sizes for num_parallel in (1, 8) for n in range(2)
    ]  # fmt: skip
    (tmp_path / "api").mkdir()
    for command in ("fit", "api fit"):
        assert main([*command.split(), str(write_api_log(tmp_path / "api" / f"{command}.jsonl", trials))]) == 0
        assert "warning: " in (said := capsys.readouterr().err)
        assert "16 requests, 8 of them are under load: a summary reads those; those sent one at" in said


def test_load_beside_a_sweep_of_the_same_model_is_left_to_it(tmp_path, capsys):
    sweep = write_api(tmp_path / "api" / "sweep.jsonl")
    assert main(["fit", str(sweep), "--json"]) == 0
    alone = capsys.readouterr().out
    loaded = [
        make_trial(n, p=p, o=o, load="closed", num_parallel=1, repetition=0)
        for p in (4, 16) for o in (1, 4) for n in range(2)
    ]  # fmt: skip
    write_api_log(tmp_path / "api" / "load.jsonl", loaded, {**API_HEADER, "sweep": {"all_num_parallel": [1]}})
    assert main(["fit", str(tmp_path / "api"), "--json"]) == 0
    answer = capsys.readouterr()
    assert answer.out == alone
    assert "load.jsonl: requests under load; tiny is fitted to its sweep of sizes beside it" in answer.err


def test_second_log_of_a_model_is_refused(tmp_path, capsys):
    for folder in ("one", "two"):
        write_box(tmp_path / folder)
    assert main(["fit", str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert "two: a second log of gpt2-small" in capsys.readouterr().err


def test_logs_of_an_api_among_others_are_not_passed_over(tmp_path, capsys):
    write_box(tmp_path / "box")
    write_api(tmp_path / "box" / "tiny.jsonl")
    assert main(["fit", str(tmp_path / "box")]) == 2
    assert "box holds logs of APIs and of models timed in process: give them one by one" in capsys.readouterr().err


def test_models_can_be_chosen(tmp_path, capsys):
    for name in ("gpt2-small", "gpt2-large"):
        write_box(tmp_path / "box", name=name)
    assert main(["fit", str(tmp_path / "box"), "--model", "gpt2-large", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"gpt2-large"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cpu", "--estimator", "frontier"], "--estimator is for logs of APIs; cpu: logs timed in process"),
        (["cpu", "--out", "x.csv"], "x.csv: written are .json, by the ending; got '.csv'"),
        (["nowhere"], "no timing logs of hardware 'nowhere'"),
        (["cpu_batch"], "distilgpt2: one fit takes one --batch-size; the timings hold 7"),
        (["cpu_batch", "--batch-size", "33"], "distilgpt2: --batch-size must be one that was timed"),
    ],
)
def test_bad_input_is_named(capsys, arguments, message):
    assert main(["fit", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def in_milliseconds():
    return [make_setting(p, o, [1000 * (0.02 * o + 1e-4 * p)] * 2, warmups_s=[]) for p in (1, 64) for o in (1, 8)]


@pytest.mark.parametrize("command", ["fit", "price", "predict", "compare"])
def test_log_that_cannot_be_is_refused_by_every_command_that_reads_logs(tmp_path, capsys, command):
    log = str(write_log(tmp_path / "box" / "gpt2-small.jsonl", in_milliseconds()))
    (tmp_path / "queries.csv").write_text("num_prompt_tokens,num_output_tokens\n1,2\n")
    queries = str(tmp_path / "queries.csv")
    arguments = {
        "fit": [log],
        "price": [queries, "--logs", log],
        "predict": ["--model", "gpt2-medium", "--logs", log, "--num-prompt-tokens", "1", "--num-output-tokens", "2"],
        "compare": [log, "cpu"],
    }[command]
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert "far_above_floor: 3 of 4 settings" in error
    assert error.rstrip().endswith("--accept far_above_floor")
    assert main([command, *arguments, "--accept", "nothing"]) == 2
    assert "accept takes names of findings: checksum, " in capsys.readouterr().err


def test_accepted_finding_is_warned_of_and_the_log_fitted(tmp_path, capsys):
    log = str(write_log(tmp_path / "box" / "gpt2-small.jsonl", in_milliseconds()))
    assert main(["fit", log, "--accept", "far_above_floor", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["gpt2-small"]["runtime_per_output_token"] == pytest.approx(20)
    assert "far_above_floor" in printed.err


def test_one_table_of_two_machines_says_so(tmp_path, capsys):
    logs = [
        str(write_log(tmp_path / name / "a.jsonl", header={**HEADER, "model": name, "hardware": name},
                      records=[make_setting(p, o, [0.02 * o + 1e-4 * p] * 2, warmups_s=[])
                               for p in (1, 64) for o in (1, 8)]))
        for name in ("xeon", "epyc")
    ]  # fmt: skip
    assert main(["fit", *logs]) == 0
    assert "one table of 2 machines: xeon: xeon; epyc: epyc" in capsys.readouterr().err
