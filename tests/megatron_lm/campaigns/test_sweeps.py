import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from makers.logs import HEADER, make_failed, make_setting, write_log
from makers.sweeps import SIZES, TINY, write_config

from idealized_runtime.records import load_log
from megatron_lm.campaigns import execution, jobs
from megatron_lm.campaigns import sweep_command_line as command_line
from megatron_lm.campaigns.execution import Outcome, first_error
from megatron_lm.campaigns.jobs import Job, launch_command, plan_jobs
from megatron_lm.campaigns.sweep_command_line import main
from megatron_lm.campaigns.sweep_summary import format_summary, summarize

ROOT = Path(__file__).resolve().parents[3]
# Stands for generate_text.py where the sweep around it is tested: it does what the configuration says.
FAKE_DRIVER = """
import json, pathlib, shutil, sys, time
log, config = (pathlib.Path(sys.argv[sys.argv.index(flag) + 1]) for flag in ("--log", "--hf-config"))
folder = pathlib.Path(__file__).parent
with (folder / "launches").open("a") as file:
    print(config.stem, file=file)
print("timing", config.stem)
behaviour = json.loads(config.read_text())["behaviour"]
if behaviour == "wait":
    time.sleep(600)
if behaviour == "fail":
    sys.exit("Traceback (most recent call last):\\n  ...\\nRuntimeError: no more memory\\nOSError: peer is gone")
shutil.copy(folder / "whole.jsonl", log)
"""


BATCHES = [
    make_setting(16, 1, [0.01], batch_size=1),
    make_setting(8, 4, [0.01], batch_size=1),
    make_setting(16, 4, [0.5, 0.5], batch_size=1),
    make_setting(16, 4, [1.0, 2.0], batch_size=8, micro_batch_size=8, token_micro_batch_size=2),
    make_setting(16, 4, [1.6], batch_size=8, micro_batch_size=8, token_micro_batch_size=8),
    make_failed(16, 512),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a stand-in for the driver and the log that it leaves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "driver.py").write_text(FAKE_DRIVER)
    monkeypatch.setattr(jobs, "DRIVER", tmp_path / "driver.py")
    write_log(tmp_path / "whole.jsonl", BATCHES)
    return tmp_path


def sweep(*architectures, options=()):
    return main(["--architectures", *architectures, "--logs", "logs", *SIZES, *options])


def launches(folder):
    path = folder / "launches"
    return path.read_text().split() if path.exists() else []


def refused(capsys, *argv):
    """Message of a command line that is refused, with exit code 2."""
    try:
        code = main(list(argv))
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    return capsys.readouterr().err.splitlines()[-1]


# What is planned.


def test_every_architecture_is_planned_on_every_parallelism_once():
    planned = plan_jobs(["gpt2-small", "gpt2-large", "gpt2-small"], [(1, 1), (2, 1), (1, 2), (2, 1)], "logs")
    assert [job.name for job in planned] == [
        "gpt2-small 1x1", "gpt2-small 2x1", "gpt2-small 1x2", "gpt2-large 1x1", "gpt2-large 2x1", "gpt2-large 1x2",
    ]  # fmt: skip


def test_log_tells_model_and_parallelism():
    assert Job("gpt2-small", 2, 1, Path("logs")).log == Path("logs/tensor2-pipeline1/gpt2-small.jsonl")


@pytest.mark.parametrize(("path", "model"), [("models/my-gpt/config.json", "my-gpt"), ("models/my-gpt.json", "my-gpt")])
def test_configuration_is_named_after_its_folder_or_itself(path, model):
    assert Job(path, 1, 1, Path("logs")).model == model


def test_one_process_needs_no_launcher():
    command = launch_command(Job("gpt2-small", 1, 1, Path("logs"), ("--seed", "7")))
    assert command[:2] == [sys.executable, str(ROOT / "generate_text.py")]
    assert command[2:4] == ["--architecture", "gpt2-small"]
    assert command[-4:] == ["--seed", "7", "--log", "logs/tensor1-pipeline1/gpt2-small.jsonl"]


def test_several_processes_are_launched_by_torchrun():
    command = launch_command(Job("tiny.json", 2, 3, Path("logs")))
    launcher = command[1 : command.index(str(ROOT / "generate_text.py"))]
    assert launcher == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "6", "--"]
    sizes = "--hf-config tiny.json --tensor-model-parallel-size 2 --pipeline-model-parallel-size 3"
    assert sizes in " ".join(command)


def test_nodes_share_the_processes_and_meet_at_one_endpoint():
    command = launch_command(Job("gpt2-small", 4, 2, Path("logs")), num_nodes=2, endpoint="node1:20012", run_id="12")
    launcher = " ".join(command[3 : command.index(str(ROOT / "generate_text.py"))])
    rendezvous = "--rdzv-backend c10d --rdzv-endpoint node1:20012 --rdzv-id 12"
    assert launcher == f"--nnodes 2 {rendezvous} --nproc-per-node 4 --"


@pytest.mark.parametrize(
    ("architectures", "arguments", "message"),
    [
        (["gpt2-smal"], (), "no architecture named 'gpt2-smal'; did you mean gpt2-small"),
        (["missing.json"], (), "--architectures missing.json: no such file"),
        (["gpt2-small"], ("--log=a.jsonl",), "--log is given to each job by the sweep: use --architectures"),
        (["gpt2-small"], ("--hf-config", "a"), "--hf-config is given to each job by the sweep"),
    ],
)
def test_what_cannot_be_planned_is_refused(architectures, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plan_jobs(architectures, [(1, 1)], "logs", arguments)


def test_two_models_of_one_name_are_refused(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.json", "a/config.json")]
    for path in paths:
        write_config(Path(path))
    with pytest.raises(ValueError, match="both are named a; rename one"):
        plan_jobs(paths, [(1, 1)], "logs")


# The command line.


@pytest.mark.parametrize("text", ["2", "2x", "0x1", "2X1", "1x-1"])
def test_parallelism_of_another_form_is_refused(capsys, text):
    message = refused(capsys, "--architectures", "gpt2-small", "--logs", "logs", "--parallelisms", text)
    assert f"must be TENSORxPIPELINE, such as 2x1; got '{text}'" in message


@pytest.mark.parametrize("option", [("--partition", "gpu"), ("--nodes", "2"), ("--sbatch", "account=nlp")])
def test_options_of_slurm_are_refused_without_it(capsys, option):
    message = refused(capsys, "--architectures", "gpt2-small", "--logs", "logs", *option)
    assert message == f"sweep.py: error: {option[0]}: of Slurm; add --executor slurm"


def test_dry_run_prints_a_command_for_each_job_and_launches_none(folder, capsys):
    names = [write_config(folder / "a.json"), write_config(folder / "b.json")]
    assert sweep(*names, options=("--parallelisms", "1x1", "2x1", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == ["# a 1x1", "# a 2x1", "# b 1x1", "# b 2x1"]
    planned = plan_jobs(names, [(1, 1), (2, 1)], "logs", SIZES)
    assert [shlex.split(line) for line in lines[1::2]] == [launch_command(job) for job in planned]
    assert launches(folder) == []
    assert not (folder / "logs").exists()


def test_examples_of_the_help_are_commands_that_work(capsys):
    examples = command_line._EPILOG.split("examples\n")[1].replace("\\\n", " ")
    for example in examples.strip().splitlines():
        program, *argv = shlex.split(example)
        assert program == "sweep.py"
        argv = [word for word in argv if word not in ("--executor", "slurm")] if not shutil.which("sbatch") else argv
        parsed, _ = command_line._build_parser().parse_known_args(argv)
        assert plan_jobs(parsed.architectures, parsed.parallelisms, parsed.logs)


def test_help_is_answered_without_torch():
    program = (
        "import sys, idealized_runtime.sweeps\n"
        "try: megatron_lm.campaigns.sweep_command_line.main(['-h'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "assert not {'torch', 'submitit'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False).returncode == 0


# What is run, and what is not run again.


def test_failed_job_is_reported_with_its_first_error_and_the_rest_goes_on(folder, capsys):
    names = [write_config(folder / f"{name}.json", name) for name in ("succeed", "fail", "also")]
    assert sweep(*names) == 1
    assert launches(folder) == ["succeed", "fail", "also"]
    answer = capsys.readouterr()
    assert answer.err.endswith("1 of 3 jobs failed:\n  fail 1x1: RuntimeError: no more memory\n")
    assert [line.split()[-2] for line in answer.out.splitlines()] == ["status", "complete", "failed", "complete"]
    assert load_log("logs/tensor1-pipeline1/also.jsonl").is_complete


def test_output_of_a_job_is_kept_beside_its_log(folder):
    sweep(write_config(folder / "a.json"))
    (job,) = plan_jobs(["a.json"], [(1, 1)], "logs", SIZES)
    lines = (folder / "logs/tensor1-pipeline1/a.out").read_text().splitlines()
    assert lines == [f"$ {shlex.join(launch_command(job))}", "timing a", "", "exit status 0"]


def test_arguments_that_the_driver_refuses_fail_without_a_launch(folder, capsys):
    names = [write_config(folder / "a.json", model_type="mamba"), write_config(folder / "b.json")]
    assert sweep(*names) == 1
    assert launches(folder) == ["b"]
    assert "a 1x1: failed: model_type 'mamba' cannot be counted here" in capsys.readouterr().err


def test_mistyped_flag_is_named(folder, capsys):
    assert sweep(write_config(folder / "a.json"), options=("--num-trails", "3")) == 1
    assert "a 1x1: failed: unrecognized arguments: --num-trails 3" in capsys.readouterr().err
    assert launches(folder) == []


def test_finished_log_is_not_launched_again(folder, capsys):
    names = [write_config(folder / "a.json"), write_config(folder / "b.json", "fail")]
    for code in (1, 1):
        assert sweep(*names) == code
    assert launches(folder) == ["a", "b", "b"]
    assert "a 1x1: complete already, skipped" in capsys.readouterr().err


def test_incomplete_log_goes_on(folder):
    name = write_config(folder / "a.json")
    assert sweep(name) == 0
    write_log(folder / "logs/tensor1-pipeline1/other.jsonl", BATCHES[:2], finish=False).rename(
        folder / "logs/tensor1-pipeline1/a.jsonl"
    )
    assert sweep(name) == 0
    assert launches(folder) == ["a", "a"]


def test_finished_log_of_other_arguments_is_launched_again(folder):
    name = write_config(folder / "a.json")
    for trials in ("3", "3", "5"):
        assert sweep(name, options=("--num-trials", trials)) == 0
    assert launches(folder) == ["a", "a"]


def test_complete_log_whose_last_run_failed_is_launched_again(folder):
    name = write_config(folder / "a.json")
    assert sweep(name) == 0
    write_config(folder / "a.json", "fail")
    for _ in range(2):
        assert sweep(name, options=("--num-trials", "5")) == 1
    assert launches(folder) == ["a", "a", "a"]


START = """
import sys
from idealized_runtime.sweeps import jobs, main
jobs.DRIVER = sys.argv[1]
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_stops_its_job_keeps_the_logs_and_goes_on(folder, number):
    names = [write_config(folder / "a.json"), write_config(folder / "b.json", "wait"), write_config(folder / "c.json")]
    argv = ["--architectures", *names, "--logs", "logs", *SIZES]
    started = subprocess.Popen(
        [sys.executable, "-c", START, folder / "driver.py", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while launches(folder) != ["a", "b"]:
        assert started.poll() is None, started.communicate()
        time.sleep(0.02)
    (child,) = psutil.Process(started.pid).children()
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "what was measured is kept: give the same command to go on" in err
    assert [line.split()[-2] for line in out.splitlines()] == ["status", "complete", "unfinished", "unfinished"]
    assert not child.is_running()
    write_config(folder / "b.json")
    assert sweep(*names) == 0
    assert launches(folder) == ["a", "b", "b", "c"]


# How an error is found in what a job printed.

RANKS = """\
W1121 11:04:23.326 torch/distributed/run.py:851] *****
[rank1]: Traceback (most recent call last):
[rank1]:   File "generate_text.py", line 1, in <module>
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
generate_text.py: error: Connection closed by peer
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
KILLED = """\

generate_text.py: interrupted, or another rank ended (torchrun says which); nothing was kept
E1121 11:04:23 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: -9) local_rank: 1
  traceback : Signal 15 (SIGTERM) received by PID 3249
  traceback : Signal 9 (SIGKILL) received by PID 3250
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("gpt2: 3%|\rgpt2: 5%|\ngenerate_text.py: error: 3 heads, 2 ranks\nlater", "3 heads, 2 ranks"),
        ("generate_text.py: rank 1: error: out of memory at p=5 o=4", "out of memory at p=5 o=4"),
        (RANKS, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (KILLED, "Signal 9 (SIGKILL) received by PID 3250"),
        ("Traceback ...\nKeyError: 'a'\n\nDuring handling ...\nValueError: b", "KeyError: 'a'"),
        ("UserWarning: an Error: to come\nRuntime for {...}: 0.261 seconds +- 0.001\n", None),
    ],
)
def test_first_error_of_an_output_is_its_cause(text, error):
    assert first_error(text) == error


def finish(job, text, *settings):
    job.output.parent.mkdir(parents=True, exist_ok=True)
    job.output.write_text(text)
    if settings:
        write_log(job.log, settings)
    return job


def test_job_killed_without_a_word_names_the_signal_and_its_output(tmp_path):
    job = finish(Job("gpt2-small", 1, 1, tmp_path), "gpt2-small: 3%|")
    assert execution.outcome_of(job, -9) == Outcome("failed", f"killed by SIGKILL; see {job.output}")


def test_error_of_a_job_is_found_on_whichever_node_it_was_printed(tmp_path):
    job = finish(Job("gpt2-small", 2, 1, tmp_path), "gpt2-small: 3%|")
    job.output_of_node(1).write_text("RuntimeError: no more memory")
    assert execution.outcome_of(job, 1, num_nodes=2) == Outcome("failed", "RuntimeError: no more memory")


def test_job_that_ends_well_with_a_log_of_other_arguments_is_not_complete(tmp_path):
    job = finish(Job("gpt2-small", 1, 1, tmp_path), "$ generate_text.py --seed 1\n\nexit status 0", make_setting(1, 1))
    assert execution.outcome_of(job, 0).error.startswith("exit status 0 without a whole log")


def test_job_without_any_timed_setting_names_the_error_of_the_first(tmp_path):
    job = finish(Job("gpt2-small", 1, 1, tmp_path), "p=1 o=1 failed: full", make_failed(1, 1), make_failed(1, 2))
    assert execution.outcome_of(job, 1) == Outcome("failed", "no setting could be timed: full")


# The table at the end.


@pytest.fixture
def outcomes(tmp_path):
    whole, none = (Job("gpt2-small", *parallelism, tmp_path) for parallelism in ((1, 1), (2, 1)))
    whole.log.parent.mkdir()
    write_log(whole.log, BATCHES)
    return {whole: Outcome("complete"), none: Outcome("failed", "no more memory")}


def test_summary_has_the_best_batch_of_the_longest_query_of_each_job(outcomes):
    best = summarize(outcomes).iloc[0]
    # 8 x 4 tokens in 1.5 s and in 1.6 s, 4 tokens in 0.5 s.
    assert best["output_tokens_per_s"] == pytest.approx(32 / 1.5)
    assert best[["num_prompt_tokens", "num_output_tokens"]].tolist() == [16, 4]
    assert best[["batch_size", "token_micro_batch_size"]].tolist() == [8, 2]
    assert best[["num_settings", "num_failed_settings"]].tolist() == [5, 1]


def test_summary_of_a_job_without_log_has_its_error(outcomes):
    row = summarize(outcomes).iloc[1]
    assert (row["status"], row["error"], row["num_settings"]) == ("failed", "no more memory", 0)
    assert row[["batch_size", "output_tokens_per_s"]].isna().all()


def test_summary_counts_what_an_incomplete_log_holds(tmp_path):
    job = Job("gpt2-small", 1, 1, tmp_path)
    job.log.parent.mkdir()
    write_log(job.log, BATCHES[:2], finish=False)
    assert summarize({job: Outcome("unfinished")})["num_settings"].tolist() == [2]


def test_table_is_rounded_and_marks_what_is_missing(outcomes):
    lines = format_summary(summarize(outcomes)).splitlines()
    header, whole, none = (" ".join(line.split()[:-1]) for line in lines)
    assert header == "model T P timed failed prompt output B k tokens/s status"
    assert whole == "gpt2-small 1 1 5 1 16 4 8 2 21.33 complete"
    assert none == "gpt2-small 2 1 0 0 - - - - - failed"


@pytest.fixture
def outcome_of_slices(tmp_path):
    job = Job("gpt2-small", 1, 2, tmp_path)
    job.log.parent.mkdir()
    settings = [make_setting(16, 4, [1.0, 1.0], num_layers_profiled=size) for size in (2, 4)]
    write_log(job.log, settings, {**HEADER, "num_layers_profiled": [2, 4]})
    return {job: Outcome("complete")}


def test_row_from_slices_of_the_layers_says_that_it_is_extrapolated(outcome_of_slices, outcomes):
    summary = summarize({**outcomes, **outcome_of_slices})
    assert summary["is_extrapolated"].tolist() == [False, pd.NA, True]


def test_table_marks_what_is_extrapolated_and_explains_the_mark(outcome_of_slices, outcomes):
    *lines, explanation = format_summary(summarize({**outcomes, **outcome_of_slices})).splitlines()
    rates = [line.split()[9] for line in lines]
    assert rates == ["tokens/s", "21.33", "-", "4*"]
    assert explanation == "* extrapolated to the whole model from slices of its layers"


def test_files_hold_the_table_unrounded(folder):
    name = write_config(folder / "a.json")
    sweep(name, options=("--csv", "tables/sweep.csv", "--json", "tables/sweep.json"))
    (record,) = json.loads((folder / "tables/sweep.json").read_text())
    row = pd.read_csv(folder / "tables/sweep.csv").iloc[0]
    expected_of = {"output_tokens_per_s": 32 / 1.5, "token_micro_batch_size": 2, "is_extrapolated": False}
    for name, value in {**expected_of, "status": "complete"}.items():
        expected = value if isinstance(value, str | bool) else pytest.approx(value, rel=1e-9)
        assert record[name] == expected
        assert row[name] == expected


# Real jobs.


def test_sweep_of_real_models_finishes_and_reports_the_one_that_cannot_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = write_config(tmp_path / "tiny.json")
    code = main(["--architectures", name, "--parallelisms", "1x1", "3x1", "--logs", "logs", *TINY])
    assert code == 1
    answer = capsys.readouterr()
    assert re.search(r"3x1: failed: .*tensor-model-parallel-size 3", answer.err)
    assert len(load_log("logs/tensor1-pipeline1/tiny.jsonl").settings) == 4
    assert not Path("logs/tensor3-pipeline1/tiny.jsonl").exists()
    statuses = {line.split()[1]: line.split()[-2] for line in answer.out.splitlines()[1:]}
    assert statuses == {"1": "complete", "3": "failed"}
