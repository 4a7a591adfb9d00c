import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from makers import SWEEP, TINY, write_config, write_log_of

from idealized_runtime.cli.main import main
from megatron_lm.campaigns.jobs import Job, launch_command, plan_jobs

submitit = pytest.importorskip("submitit", reason="submitit is not installed")

from megatron_lm.campaigns import slurm as cluster  # noqa: E402

# Stand-ins for Slurm's commands. sbatch writes down its script and queues the job, scancel takes it out again.
SCRIPTS = {
    "sbatch": """
grep -q -- '--partition=nope' "$1" && { echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1; }
id=$(( $(cat submitted 2>/dev/null | wc -l) + 7 ))
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
echo "$name" >> submitted
cp "$1" "$id.sh"
echo "$id|$(cat reason)|$name" >> queue
echo "Submitted batch job $id"
""",
    "squeue": "cat queue",
    "scancel": 'echo "$1" >> cancelled; sed -i "/^$1|/d" queue',
    "srun": "exit 1",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder whose files show, and make, what Slurm does."""
    monkeypatch.chdir(tmp_path)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, script in SCRIPTS.items():
        (binaries / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (binaries / name).chmod(0o755)
    (tmp_path / "queue").touch()
    (tmp_path / "reason").write_text("None")
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setattr(cluster, "_POLL_S", 0.01)
    monkeypatch.setattr(cluster, "_RESULT_TIMEOUT_S", 0.01)
    write_config(tmp_path / "tiny.json")
    return tmp_path


def campaign(*options, model="tiny.json"):
    return main(["campaign", "--model", model, "--logs", "logs", *SWEEP, "--executor", "slurm", *options])


def lines(path):
    return path.read_text().split() if path.exists() else []


def job(tensor_parallel_size=1, pipeline_parallel_size=1):
    return Job("tiny.json", Path("logs"), "sdpa", tensor_parallel_size, pipeline_parallel_size, SWEEP)


def test_queue_is_read_whatever_other_jobs_are_named(slurm):
    (slurm / "queue").write_text("3|None|a|b\nthe rest of a name\n\n4|Priority|c\n")
    assert cluster._queue() == {"a|b": ("3", "None"), "c": ("4", "Priority")}


# What is asked for.


def test_script_asks_for_whole_nodes_and_a_core_and_a_gpu_a_process(slurm):
    (slurm / "reason").write_text("BadConstraints")
    campaign(
        "--parallelisms", "2x2", "--nodes", "2", "--gpus-per-node", "8", "--cpus-per-process", "3",
        "--partition", "gpu", "--time", "90", "--sbatch", "account=nlp", "--num-layers-profiled", "2",
    )  # fmt: skip
    script = (slurm / "7.sh").read_text()
    for option in ("nodes=2", "ntasks-per-node=1", "cpus-per-task=6", "gpus-per-node=2", "exclusive", "partition=gpu",
                   "time=90", "account=nlp", "requeue", f"job-name={cluster.slurm_name(job(2, 2))}"):  # fmt: skip
        assert f"\n#SBATCH --{option}\n" in script
    assert re.search(r"^srun .*--cpus-per-task 6 ", script, flags=re.MULTILINE)


def test_shared_nodes_without_gpus_ask_for_neither(slurm):
    (slurm / "reason").write_text("BadConstraints")
    campaign("--share-nodes")
    assert not re.search("SBATCH --(exclusive|gpus)", (slurm / "7.sh").read_text())


@pytest.mark.parametrize(
    ("nodes", "sizes", "num_nodes"), [(1, (4, 2), 1), (2, (4, 2), 2), (4, (1, 2), 2), (2, (1, 1), 1)]
)
def test_job_takes_no_more_nodes_than_processes(nodes, sizes, num_nodes):
    assert cluster.Allocation(num_nodes=nodes).nodes_of(job(*sizes)) == num_nodes


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"num_nodes": 2}, "tiny sdpa 3x1: 3 processes cannot be spread evenly over --nodes 2"),
        ({"gpus_per_node": 2}, "tiny sdpa 3x1: 3 processes on a node of --gpus-per-node 2; give --nodes 2 or more"),
    ],
)
def test_job_that_no_allocation_fits_is_refused(allocation, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cluster.Allocation(**allocation).nodes_of(job(3, 1))


def test_refused_allocation_submits_nothing(slurm, capsys):
    assert campaign("--parallelisms", "1x1", "3x1", "--nodes", "2") == 2
    assert "cannot be spread evenly over --nodes 2; give a number that divides them" in capsys.readouterr().err
    assert lines(slurm / "submitted") == []


def test_nodes_of_a_job_meet_on_the_first_at_a_port_of_the_job(slurm, monkeypatch):
    commands = []
    monkeypatch.setattr(cluster, "run_command", lambda command, output: commands.append((command, output)) or 0)
    environment = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "10012", "SLURM_JOB_NODELIST": "gpu[3-4]",
                   "SLURM_NODEID": "1"}  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cluster.Task(job(2, 2), 2, 3)() == 0
    expected = launch_command(job(2, 2), num_nodes=2, endpoint="gpu3:20012", run_id="10012")
    assert commands == [(expected, Path("logs/sdpa-2x2/tiny.node1.out"))]
    assert os.environ["OMP_NUM_THREADS"] == "3"


# What happens to submitted jobs.


def test_job_that_leaves_the_queue_without_a_result_failed(slurm, capsys):
    (slurm / "bin/squeue").write_text("#!/bin/sh\n")
    assert campaign() == 1
    assert (
        "tiny sdpa: failed: job 7 ended without a result: cancelled, out of time too often" in capsys.readouterr().err
    )


def test_job_that_can_never_start_is_cancelled_and_the_rest_goes_on(slurm, capsys):
    (slurm / "reason").write_text("PartitionConfig")
    assert campaign("--parallelisms", "1x1", "2x1") == 1
    assert lines(slurm / "cancelled") == ["7", "8"]
    assert "tiny sdpa 2x1: failed: Slurm cannot start job 8 (PartitionConfig)" in capsys.readouterr().err


def test_job_that_slurm_refuses_is_reported_in_its_words(slurm, capsys):
    assert campaign("--partition", "nope") == 1
    assert "failed: not submitted: sbatch: error: invalid partition specified: nope" in capsys.readouterr().err


def test_job_that_is_in_the_queue_is_waited_for_and_not_submitted_again(slurm, capsys):
    (slurm / "queue").write_text(f"40|(Dependency, never)|a|b\n41|BadConstraints|{cluster.slurm_name(job())}\n")
    assert campaign() == 1
    assert lines(slurm / "submitted") == []
    assert "tiny sdpa: in the queue already, Slurm job 41" in capsys.readouterr().err


def test_logs_of_one_name_in_two_folders_are_two_jobs(slurm):
    other = Job("tiny.json", Path("others"), driver_flags=SWEEP)
    assert cluster.slurm_name(job()) != cluster.slurm_name(other)
    assert cluster.slurm_name(job(2, 1)).startswith("tiny-sdpa-2x1-")


def test_name_of_a_file_is_no_syntax_of_slurm(slurm):
    (slurm / "reason").write_text("BadConstraints")
    model = write_config(slurm / "a|b 'c'.json")
    assert campaign(model=model) == 1
    (line,) = lines(slurm / "submitted")
    assert line == cluster.slurm_name(Job(model, Path("logs"), driver_flags=SWEEP))
    assert line.startswith("a-b--c--sdpa-")
    assert lines(slurm / "cancelled") == ["7"]


def test_interrupted_wait_leaves_the_jobs_and_says_how_to_cancel_them(slurm, capsys, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert campaign("--parallelisms", "1x1", "2x1") == 130
    assert "`scancel 7 8` cancels them, the same command waits for them again" in capsys.readouterr().err
    assert lines(slurm / "cancelled") == []


def test_finished_log_is_not_submitted(slurm):
    (planned,) = plan_jobs(
        ["tiny.json"], ["sdpa"], [(1, 1)], "logs", (*SWEEP, "--num-warmup", "3", "--num-trials", "10")
    )
    write_log_of(planned)
    assert campaign() == 0
    assert lines(slurm / "submitted") == []


def test_machine_without_slurm_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_config(tmp_path / "tiny.json")
    assert campaign() == 2
    assert "--executor slurm needs sbatch, which is not on the PATH" in capsys.readouterr().err


def test_missing_submitit_is_named_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "tiny.json")
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, cluster.__name__)
    monkeypatch.delattr("megatron_lm.campaigns.slurm")
    assert campaign() == 2
    assert "--executor slurm needs submitit: pip install -c requirements.txt submitit" in capsys.readouterr().err


# Real jobs.


@pytest.fixture
def real_slurm(tmp_path):
    """A folder that Slurm's nodes see (of several machines: give pytest a shared ``--basetemp``)."""
    if shutil.which("sbatch") is None:
        pytest.skip("no Slurm here: sbatch is not on the PATH")
    answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(f"Slurm is installed and does not answer: {answer.stderr.strip()[:200]}")
    return tmp_path


@pytest.mark.slurm
def test_real_slurm_times_a_model_and_reports_the_job_that_it_cannot_start(real_slurm, monkeypatch, capsys):
    monkeypatch.chdir(real_slurm)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    name = write_config(real_slurm / "tiny.json", n_head=8)
    argv = ["--model", name, "--parallelisms", "1x1", "8x1", "--cpus-per-process", "1", "--time", "5"]
    code = main(["campaign", *argv, "--logs", "logs", *TINY, "--executor", "slurm", "--json"])
    answer = capsys.readouterr()
    summary = {row["tensor_parallel_size"]: row for row in json.loads(answer.out)["jobs"]}
    assert (summary[1]["status"], summary[1]["num_settings"]) == ("complete", 4), answer.err
    # A node of 8 cores runs the second job as well.
    assert summary[8]["status"] == "complete" or "Slurm cannot start job" in summary[8]["error"]
    assert code == (summary[8]["status"] != "complete")
