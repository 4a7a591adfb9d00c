import pytest
from makers import write_log_of

from idealized_runtime.hardware.accelerators import get_accelerator
from megatron_lm.campaigns.budget import Budget, estimated_s
from megatron_lm.campaigns.jobs import GPU_MODELS, plan_jobs

H200 = get_accelerator("H200")
SIZES = ("--all-num-input-tokens", "1", "128", "512", "1024", "2048", "4096", "--all-num-output-tokens", "1", "2", "16",
         "64", "--num-warmup", "3", "--num-trials", "10", "--bf16")  # fmt: skip


def planned(models, folder="logs", *flags):
    return list(plan_jobs(models, ["sdpa"], [(1, 1)], folder, (*SIZES, *flags), H200))


def test_estimate_grows_with_the_model_and_shrinks_as_settings_are_timed(tmp_path):
    small, large = planned(["gpt-j", "qwen2.5-14b"], tmp_path)
    assert estimated_s(small, H200) < estimated_s(large, H200)
    whole_s = estimated_s(small, H200)
    settings = [{**setting, "runtimes_s": [1.0]} for setting in small.measurement.settings()]
    write_log_of(small, settings[:2], finish=False)
    assert len(small.pending_settings()) == 16 - 2
    assert estimated_s(small, H200) < whole_s


def test_estimate_grows_with_the_batch_and_with_the_rounds_that_it_is_cut_into():
    sizes = [("1",), ("8",), ("8", "--token-micro-batch-size", "1")]
    jobs = [planned(["gpt-j"], "logs", "--global-batch-size", *size)[0] for size in sizes]
    seconds = [estimated_s(job, H200) for job in jobs]
    assert seconds == sorted(seconds)


def test_estimate_of_a_job_with_a_target_is_at_most_what_it_may_spend():
    start = SIZES.index("--num-warmup")
    flags = (*SIZES[:start], "--bf16", "--target-error", "0.02")
    seconds = []
    for more in ((), ("--max-seconds", "0.5")):
        (job,) = plan_jobs(["gpt-j"], ["sdpa"], [(1, 1)], "logs", (*flags, *more), H200)
        seconds.append(estimated_s(job, H200))
    assert seconds[1] < seconds[0] < estimated_s(planned(["gpt-j"])[0], H200)


def test_estimates_of_the_whole_campaign_are_minutes_not_hours():
    jobs = planned([name for name in GPU_MODELS if name != "mixtral-8x7b"])
    total_s = sum(estimated_s(job, H200) for job in jobs)
    assert 3 * 60 < total_s < 25 * 60


def test_estimates_are_corrected_by_what_jobs_took():
    budget = Budget(1e6, H200)
    assert budget.expected_s(7.0) == 7.0
    budget.note(estimated_s=4.0, used_s=10.0)
    assert budget.expected_s(7.0) == pytest.approx(2.5 * 7.0)


def test_job_that_hangs_is_stopped_long_before_the_budget_ends():
    budget = Budget(1e6, H200)
    assert budget.limit_s(300.0) == pytest.approx(3 * 300.0)
    assert budget.limit_s(10.0) == pytest.approx(120)
    # Nor is any job left to outrun the budget.
    assert Budget(50, H200).limit_s(300.0) < 30
