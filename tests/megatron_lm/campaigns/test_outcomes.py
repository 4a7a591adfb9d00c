from pathlib import Path

import pytest
from makers import SWEEP, write_log_of

from idealized_runtime.records.settings import REFUSED
from megatron_lm.campaigns.jobs import Job
from megatron_lm.campaigns.outcomes import COMPLETE, Outcome, first_error, outcome_of

RANKS = """\
W1121 11:04:23.326 torch/distributed/run.py:851] *****
[rank1]: Traceback (most recent call last):
[rank1]:   File "generate_text.py", line 1, in <module>
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
generate_text.py: error: Connection closed by peer
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
KILLED = """\

idealized-runtime time: terminated; or another rank ended (torchrun says which); nothing was kept
E1121 11:04:23 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: -9) local_rank: 1
  traceback : Signal 15 (SIGTERM) received by PID 3249
  traceback : Signal 9 (SIGKILL) received by PID 3250
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("gpt2: 3%|\rgpt2: 5%|\ngenerate_text.py: error: 3 heads, 2 ranks\nlater", "3 heads, 2 ranks"),
        ("idealized-runtime time: error: rank 1: out of memory at p=5 o=4", "out of memory at p=5 o=4"),
        (RANKS, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        (KILLED, "Signal 9 (SIGKILL) received by PID 3250"),
        ("Traceback ...\nKeyError: 'a'\n\nDuring handling ...\nValueError: b", "KeyError: 'a'"),
        ("UserWarning: an Error: to come\nRuntime for {...}: 0.261 seconds +- 0.001\n", None),
    ],
)
def test_first_error_of_an_output_is_its_cause(text, error):
    assert first_error(text) == error


def finish(job, text, settings=None):
    write_log_of(job, settings)
    job.output.write_text(text)
    return job


@pytest.fixture
def job(tmp_path):
    return Job("gpt2-small", tmp_path, driver_flags=SWEEP)


def test_job_with_a_whole_log_is_complete_whatever_it_printed(job):
    assert outcome_of(finish(job, ""), 0) == COMPLETE


def test_job_killed_without_a_word_names_the_signal_and_its_output(job):
    assert outcome_of(finish(job, "gpt2-small: 3%|"), -9) == Outcome("failed", f"killed by SIGKILL; see {job.output}")


def test_error_of_a_job_is_found_on_whichever_node_it_was_printed(tmp_path):
    job = finish(Job("gpt2-small", tmp_path, "sdpa", 2, 1, SWEEP), "gpt2-small: 3%|")
    job.output_of_node(1).write_text("RuntimeError: no more memory")
    assert outcome_of(job, 1, num_nodes=2) == Outcome("failed", "RuntimeError: no more memory")


def test_job_that_ends_well_with_a_log_of_other_settings_is_not_complete(job):
    other = Job("gpt2-small", job.folder, driver_flags=(*SWEEP, "--seed", "1"))
    finish(other, "Runtime for ...")
    assert outcome_of(job, 0).error.startswith("exit status 0 without a whole log")


def test_job_without_any_timed_setting_names_the_error_of_the_first(job):
    error = {"error": {"type": "OutOfMemoryError", "message": "full"}}
    finish(job, "p=1 o=1 failed: full", [{**setting, **error} for setting in job.measurement.settings()])
    assert outcome_of(job, 1) == Outcome("failed", "no setting could be timed: full")


def test_output_is_beside_the_log_and_that_of_other_nodes_too():
    job = Job("gpt2-small", Path("logs"))
    assert job.output == Path("logs/sdpa/gpt2-small.out")
    assert job.output_of_node(1) == Path("logs/sdpa/gpt2-small.node1.out")


def test_job_with_a_refused_setting_is_not_complete_and_says_why(tmp_path):
    job = Job("gpt2-small", tmp_path, driver_flags=SWEEP)
    first, *others = job.measurement.settings()
    refused = {**first, "error": {"type": REFUSED, "message": "a trial took 1e-9 s"}}
    write_log_of(job, [refused, *({**setting, "runtimes_s": [1.0]} for setting in others)])
    assert outcome_of(job, 0) == Outcome("failed", "1 of 4 settings are refused: a trial took 1e-9 s")
    assert job.pending_settings() == [first]
