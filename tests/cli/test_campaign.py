import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from makers import SWEEP, TINY, parser_of, write_config

from idealized_runtime.cli import campaign
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import load_log
from megatron_lm.campaigns.jobs import launch_command, plan_jobs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # No GPU is asked for its name.
    monkeypatch.setattr(campaign.shutil, "which", lambda name: None if name == "nvidia-smi" else shutil.which)
    return tmp_path


def refused(capsys, *argv):
    """Message of a command line that is refused, with exit code 2."""
    try:
        code = main(["campaign", *argv])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--parallelisms", "2"), "must be TENSORxPIPELINE, such as 2x1; got '2'"),
        (("--parallelisms", "0x1"), "must be TENSORxPIPELINE, such as 2x1; got '0x1'"),
        (("--partition", "gpu"), "--partition: of Slurm; add --executor slurm"),
        (("--nodes", "2"), "--nodes: of Slurm; add --executor slurm"),
        (("--sbatch", "account=nlp"), "--sbatch: of Slurm; add --executor slurm"),
        (("--executor", "slurm", "--budget-minutes", "5"), "on Slurm give --time"),
        (("--num-trails", "3"), "unrecognized arguments: --num-trails 3"),
        (("--num-trials", "0"), "must be an integer of at least 1; got '0'"),
        (("--hardware", "H2000"), "no accelerator named 'H2000'; did you mean H200"),
        (("--model", "no-such-model"), "no architecture named 'no-such-model'"),
        (("--engines", "no-such-engine"), "--engines no-such-engine: there are sdpa, eager"),
        (("--out", "table.txt"), "table.txt: written are .csv"),
        (("--parallelisms", "5x1"), "every job is refused; gpt2-small sdpa 5x1: --tensor-model-parallel-size must"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_run_is_refused_in_a_line(capsys, argv, message):
    assert message in refused(capsys, "--model", "gpt2-small", "--logs", "logs", *argv)


@pytest.mark.usefixtures("folder")
def test_without_a_gpu_a_model_must_be_named(capsys):
    assert "no model is named, and no GPU found" in refused(capsys, "--dry-run")


def test_dry_run_prints_a_command_for_each_job_and_launches_none(folder, capsys):
    names = [write_config(folder / "a.json"), write_config(folder / "b.json")]
    argv = ["--model", *names, "--parallelisms", "1x1", "2x1", "--logs", "logs", *TINY, "--dry-run"]
    assert main(["campaign", *argv]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["# a sdpa", "# a sdpa 2x1", "# b sdpa", "# b sdpa 2x1"]
    planned = plan_jobs(names, ["sdpa"], [(1, 1), (2, 1)], "logs", TINY)
    assert lines[1::2] == [shlex.join(launch_command(job)) for job in planned]
    assert total.endswith("minutes on cpu")
    assert not (folder / "logs").exists()


def test_target_goes_to_every_job_in_place_of_trials(folder, capsys):
    names = [write_config(folder / "a.json"), write_config(folder / "b.json")]
    argv = ["--model", *names, "--logs", "logs", *SWEEP, "--device", "cpu", "--target-error", "0.05", "--dry-run"]
    assert main(["campaign", *argv]) == 0
    out = capsys.readouterr().out
    assert out.count("some of 4 settings, to 0.05") == 2
    assert out.count("--target-error 0.05") == 2
    assert "--num-trials" not in out


def test_dry_run_of_a_gpu_prints_times_and_what_the_budget_allows(folder, capsys):
    argv = ["--hardware", "H200", "--budget-minutes", "25"]
    assert main(["campaign", "--dry-run", *argv]) == 0
    out = capsys.readouterr().out
    assert "# llama-3-8b sdpa+graph: 24 settings, about" in out
    assert "# gpt-j sdpa: 16 settings, about" in out
    assert "beyond the budget" in out
    assert "--device cuda --bf16 --num-layers-profiled 5 10 --log logs/h200/sdpa-graph/llama-3-70b.jsonl" in out
    assert "of 25.0 minutes on H200" in out


def test_examples_of_the_help_are_commands_that_can_be_planned():
    examples = campaign.EXAMPLES.split("examples\n")[1].replace("\\\n", " ")
    parser = parser_of("campaign")
    for example in examples.strip().splitlines():
        program, subcommand, *argv = shlex.split(example)
        assert (program, subcommand) == ("idealized-runtime", "campaign")
        parsed, parsed_on = parser.parse_known_args(argv)
        parsed.passed_on = parsed_on
        parsed.hardware = parsed.hardware or "H200"
        assert campaign._plan(parsed)


def test_help_is_answered_without_torch():
    program = (
        "import sys\nfrom idealized_runtime.cli.main import main\n"
        "try: main(['campaign', '-h'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "assert not {'torch', 'submitit', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_campaign_times_tiny_models_and_goes_on_where_it_stopped(folder, capfd):
    names = [write_config(folder / "tiny.json"), write_config(folder / "a|b" / "config.json", model_type="mamba")]
    names[1] = "a|b/config.json"
    command = ["campaign", "--model", *names, "--logs", "logs", *TINY, "--all-num-input-tokens", "1", "4", "4096"]
    assert main([*command, "--out", "tables/campaign.csv", "--json", "--budget-minutes", "30"]) == 1
    printed = capfd.readouterr()
    why = "a|b cannot be built here, only counted (num_params, idealized_runtime.architectures): layers = 'state space'"
    assert f"a|b sdpa: refused: {why}" in printed.err
    assert f"1 of 2 jobs failed:\n  a|b sdpa: {why}" in printed.err
    log = folder / "logs/sdpa/tiny.jsonl"
    timed = load_log(log)
    assert timed.is_complete
    assert timed.header["environment"]["machine_rates"]["memory_bytes_per_s"] > 0
    sizes = sorted((setting["num_prompt_tokens"], setting["num_output_tokens"]) for setting in timed.records)
    assert sizes == [(1, 1), (1, 3), (4, 1), (4, 3)]
    assert log.with_suffix(".out").read_text().splitlines()[-1] == "exit status 0"
    whole, none = json.loads(printed.out)["jobs"]
    row = pd.read_csv(folder / "tables/campaign.csv").iloc[0]
    assert row["output_tokens_per_s"] == pytest.approx(whole["output_tokens_per_s"], rel=1e-9)
    assert (whole["status"], whole["num_settings"], none["status"], none["batch_size"]) == (
        "complete",
        4,
        "failed",
        None,
    )
    before = log.read_bytes()
    assert main(command) == 1
    printed = capfd.readouterr()
    assert "tiny sdpa: complete already, skipped" in printed.err
    assert printed.out.splitlines()[1].split()[-1] == "complete"
    assert log.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_campaign_stops_its_job_and_keeps_its_log(tmp_path, number):
    write_config(tmp_path / "tiny.json")
    flags = ("--all-num-input-tokens", "1", "--all-num-output-tokens", "1", "60", "--num-warmup", "0",
             "--num-trials", "1000", "--num-blocks", "1", "--device", "cpu")  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-m", "idealized_runtime", "campaign", "--model", "tiny.json", "--logs", "logs", *flags],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    output = tmp_path / "logs/sdpa/tiny.out"
    while not (output.exists() and "Runtime for" in output.read_text()):
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert "ed; what was measured is kept: give the same command to go on" in err
    assert [line.split()[-1] for line in out.splitlines()] == ["status", "unfinished"]
    assert "exit status" not in output.read_text(), "the campaign itself was interrupted"
    assert "what was measured is in logs/sdpa/tiny.jsonl" in output.read_text()
    assert len(load_log(tmp_path / "logs/sdpa/tiny.jsonl").records) == 1
