import os
import sys
from pathlib import Path

import psutil
import pytest
from makers import TINY, write_config, write_log_of

from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.records import load_log
from megatron_lm.campaigns import execution
from megatron_lm.campaigns.budget import Budget, estimated_s
from megatron_lm.campaigns.execution import JobServer, run_campaign, run_command, run_here
from megatron_lm.campaigns.jobs import Job, plan_jobs
from megatron_lm.campaigns.outcomes import COMPLETE, UNFINISHED, Outcome

H200 = get_accelerator("H200")


@pytest.fixture(scope="module")
def server():
    return JobServer()


class FakeServer:
    """Notes which jobs it is given; each takes no time."""

    def __init__(self, outcomes=()):
        self.outcomes, self.ran = dict(outcomes), []

    def run(self, job, timeout_s):
        self.ran.append(job.name)
        return self.outcomes.get(job.name, COMPLETE)


@pytest.fixture
def fake_server(monkeypatch):
    server = FakeServer()
    monkeypatch.setattr(execution, "JobServer", lambda **_: server)
    return server


def planned(models, engines, folder, flags=TINY):
    return plan_jobs(models, engines, [(1, 1)], folder, flags)


# What is run, and what is not run again.


def test_failed_job_is_reported_and_the_others_run(fake_server, tmp_path):
    fake_server.outcomes["gpt2-small sdpa"] = Outcome("failed", "no luck")
    said = []
    outcomes, is_interrupted = run_campaign(planned(["gpt2-small"], ["sdpa", "eager"], tmp_path), run_here, said.append)
    assert fake_server.ran == ["gpt2-small sdpa", "gpt2-small eager"]
    assert [outcome.status for outcome in outcomes.values()] == ["failed", "complete"]
    assert not is_interrupted
    assert "gpt2-small sdpa: failed: no luck" in said


def test_refused_and_complete_jobs_are_not_run(fake_server, tmp_path):
    plan = planned(["gpt2-small", "gemma-2-9b"], ["sdpa", "eager"], tmp_path)
    write_log_of(next(iter(plan)))
    said = []
    outcomes, _ = run_campaign(plan, run_here, said.append)
    assert fake_server.ran == ["gpt2-small eager"]
    assert "gpt2-small sdpa: complete already, skipped" in said
    assert [outcome.status for outcome in outcomes.values()] == ["complete", "complete", "failed", "failed"]


def test_interrupt_keeps_the_outcomes_so_far(tmp_path):
    def execute(jobs, announce):
        yield jobs[0], COMPLETE
        raise KeyboardInterrupt

    plan = planned(["gpt2-small"], ["sdpa", "eager"], tmp_path)
    outcomes, is_interrupted = run_campaign(plan, execute, print)
    assert is_interrupted
    assert list(outcomes.values()) == [COMPLETE, UNFINISHED]


def test_jobs_find_this_package_where_it_is_not_installed(fake_server, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    for _ in range(2):
        run_campaign(planned(["gpt2-small"], ["sdpa"], tmp_path), run_here, print)
    assert os.environ["PYTHONPATH"] == f"{Path(__file__).resolve().parents[3]}{os.pathsep}/elsewhere"


def test_job_that_would_outrun_the_budget_is_not_started_and_a_shorter_one_is(fake_server, tmp_path):
    plan = plan_jobs(["davinci", "gpt-j"], ["sdpa"], [(1, 1)], tmp_path, (*TINY, "--bf16", "--num-trials", "10"), H200)
    long, short = plan
    said, budget = [], Budget(estimated_s(short, H200) + 1, H200)
    assert estimated_s(long, H200) > budget.left_s
    assert dict(run_here([long, short], said.append, budget)) == {long: UNFINISHED, short: COMPLETE}
    assert fake_server.ran == ["gpt-j sdpa"]
    assert said[0].startswith("davinci sdpa: not started, about ")


# Real jobs.


def test_output_of_a_command_is_kept_with_its_exit_status(tmp_path):
    output = tmp_path / "new" / "a.out"
    assert run_command([sys.executable, "-c", "print('timing'); raise SystemExit(3)"], output) == 3
    assert output.read_text().splitlines()[1:] == ["timing", "", "exit status 3"]


def test_failed_job_has_its_own_first_error(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(write_config(tmp_path / "tiny.json"), Path("logs"), driver_flags=TINY)
    write_log_of(job, seed=1)
    outcome = server.run(job)
    assert outcome.status == "failed"
    assert "holds another measurement" in outcome.error
    assert job.output.read_text().splitlines()[-1] == "exit status 2"


def test_job_that_is_stopped_keeps_what_it_measured(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--all-num-input-tokens", "1", "--all-num-output-tokens", "1", "2", "60", "--num-warmup", "0",
             "--num-trials", "1000000", "--device", "cpu")  # fmt: skip
    job = Job(write_config(tmp_path / "tiny.json"), Path("logs"), driver_flags=flags)
    assert server.run(job, timeout_s=4) == UNFINISHED
    assert "idealized-runtime time: terminated; " in job.output.read_text()
    assert not job.is_complete()
    assert not [child for child in psutil.Process().children(recursive=True) if "driver" in " ".join(child.cmdline())]


def test_job_of_two_processes_runs_under_torchrun(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(write_config(tmp_path / "tiny.json"), Path("logs"), "sdpa", 2, 1, TINY)
    assert server.run(job) == COMPLETE, job.output.read_text()
    assert load_log(job.log).header["tensor_parallel_size"] == 2
    first, *_, last = job.output.read_text().splitlines()
    assert "torch.distributed.run" in first
    assert last == "exit status 0"
