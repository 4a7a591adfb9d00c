import re
import sys
from pathlib import Path

import pytest
from makers import SWEEP, write_config, write_log_of

from idealized_runtime.architectures import get_architecture
from idealized_runtime.hardware.accelerators import get_accelerator
from megatron_lm.campaigns.jobs import GPU_MODELS, Job, launch_command, plan_jobs, slices_that_fit

H200 = get_accelerator("H200")
GPU_SIZES = ("--all-num-input-tokens", "1", "128", "512", "1024", "2048", "4096",
             "--all-num-output-tokens", "1", "2", "16", "64")  # fmt: skip


def planned(models, engines=("sdpa",), parallelisms=((1, 1),), flags=SWEEP, **options):
    return list(plan_jobs(models, engines, parallelisms, "logs", flags, **options))


# What is planned.


def test_every_model_is_planned_on_every_parallelism_once():
    jobs = planned(["gpt2-small", "gpt2-large", "gpt2-small"], parallelisms=[(1, 1), (2, 1), (1, 2), (2, 1)])
    assert [job.name for job in jobs] == [
        "gpt2-small sdpa", "gpt2-small sdpa 2x1", "gpt2-small sdpa 1x2",
        "gpt2-large sdpa", "gpt2-large sdpa 2x1", "gpt2-large sdpa 1x2",
    ]  # fmt: skip


def test_all_engines_of_the_first_model_come_before_one_engine_after_the_other():
    jobs = planned(["llama-3-8b", "gpt-j", "qwen2.5-14b"], ["sdpa", "eager"])
    assert [job.name for job in jobs] == [
        "llama-3-8b sdpa", "llama-3-8b eager",
        "gpt-j sdpa", "qwen2.5-14b sdpa", "gpt-j eager", "qwen2.5-14b eager",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stack", "path"),
    [
        (("sdpa",), "logs/sdpa/gpt2-small.jsonl"),
        (("sdpa+graph",), "logs/sdpa-graph/gpt2-small.jsonl"),
        (("eager", 2, 1), "logs/eager-2x1/gpt2-small.jsonl"),
    ],
)
def test_each_software_stack_has_a_folder_that_notebooks_can_name(stack, path):
    assert Job("gpt2-small", Path("logs"), *stack).log == Path(path)


@pytest.mark.parametrize(("path", "model"), [("models/my-gpt/config.json", "my-gpt"), ("models/my-gpt.json", "my-gpt")])
def test_configuration_is_named_after_its_folder_or_itself(path, model):
    assert Job(path, Path("logs")).model == model


@pytest.mark.parametrize(
    ("models", "flags", "message"),
    [
        (["gpt2-smal"], (), "no architecture named 'gpt2-smal'; did you mean gpt2-small"),
        (["missing.json"], (), "--model missing.json: no such file"),
        (["gpt2-small"], ("--log=a.jsonl",), "--log is given to each job by the campaign: use --logs"),
        (["gpt2-small"], ("--hf-config", "a"), "--hf-config is given to each job by the campaign: use --model"),
    ],
)
def test_what_cannot_be_planned_is_refused(models, flags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        planned(models, flags=flags)


def test_two_models_of_one_name_are_refused(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.json", "a/config.json")]
    for path in paths:
        write_config(Path(path))
    with pytest.raises(ValueError, match="both are named a; rename one"):
        planned(paths)


def test_what_the_driver_refuses_is_named_and_the_rest_is_planned():
    plan = plan_jobs(["llama-3-8b", "gemma-2-9b"], ["sdpa"], [(1, 1), (3, 1)], "logs", SWEEP)
    refused = {job.name: why for job, why in plan.items()}
    assert refused["llama-3-8b sdpa"] == ""
    assert "--tensor-model-parallel-size must divide" in refused["llama-3-8b sdpa 3x1"]
    assert "gemma-2-9b cannot be built here" in refused["gemma-2-9b sdpa"]


# Within the limits of model and device.


def test_prompt_sizes_leave_room_for_the_longest_generation():
    plan = plan_jobs(["gpt-j", "llama-3-8b"], ["sdpa"], [(1, 1)], "logs", GPU_SIZES)
    assert [job.measurement.all_num_prompt_tokens for job in plan] == [
        (1, 128, 512, 1024), (1, 128, 512, 1024, 2048, 4096)
    ]  # fmt: skip
    flags = ("--all-num-input-tokens", "2048", "--all-num-output-tokens", "64")
    (why,) = plan_jobs(["gpt-j"], ["sdpa"], [(1, 1)], "logs", flags).values()
    assert why.startswith("gpt-j: no prompt size leaves room for 64 output tokens")


def test_model_that_fits_is_timed_whole_and_another_in_two_slices():
    assert slices_that_fit(get_architecture("qwen2.5-32b"), 141e9, dtype="bfloat16") == [64]
    assert slices_that_fit(get_architecture("llama-3-70b"), 141e9, dtype="bfloat16") == [5, 10]
    assert slices_that_fit(get_architecture("davinci"), 40e9, dtype="bfloat16") == [3, 6]


def test_model_of_which_no_two_layers_fit_is_refused():
    with pytest.raises(ValueError, match=r"davinci: not even two of its layers fit 4 GB in bfloat16"):
        slices_that_fit(get_architecture("davinci"), 4e9, dtype="bfloat16")


@pytest.mark.parametrize(
    ("options", "flags", "slices"),
    [
        ({"accelerator": H200}, (), (5, 10)),
        ({"accelerator": H200}, ("--num-layers-profiled", "4"), (4,)),
        ({}, (), (80,)),
        ({"accelerator": H200, "parallelisms": [(1, 8)]}, (), (80,)),
    ],
)
def test_slices_are_for_one_gpu_that_is_known_unless_flags_say_otherwise(options, flags, slices):
    (job,) = planned(["llama-3-70b"], flags=(*SWEEP, "--bf16", *flags), **options)
    assert job.measurement.all_num_layers == slices


def test_models_for_a_gpu_are_of_the_registry_and_ordered_from_small_to_large():
    sizes = [get_architecture(name).num_params for name in GPU_MODELS]
    assert sizes[:4] == sorted(sizes[:4])
    assert sum(8e9 > size > 5e9 or size > 1.7e11 for size in sizes[-2:]) == 2


# How it is launched.


def test_one_process_needs_no_launcher():
    command = launch_command(Job("gpt2-small", Path("logs"), driver_flags=("--seed", "7")))
    assert command[:4] == [sys.executable, "-m", "idealized_runtime", "time"]
    assert command[4:6] == ["--architecture", "gpt2-small"]
    assert command[-4:] == ["--seed", "7", "--log", "logs/sdpa/gpt2-small.jsonl"]


def test_several_processes_are_launched_by_torchrun():
    command = launch_command(Job("tiny.json", Path("logs"), "sdpa", 2, 3))
    launcher = command[1 : command.index("idealized_runtime")]
    assert launcher == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "6", "-m", "--"]
    sizes = "--hf-config tiny.json --tensor-model-parallel-size 2 --pipeline-model-parallel-size 3"
    assert sizes in " ".join(command)


def test_nodes_share_the_processes_and_meet_at_one_endpoint():
    job = Job("gpt2-small", Path("logs"), "sdpa", 4, 2)
    command = launch_command(job, num_nodes=2, endpoint="node1:20012", run_id="12")
    launcher = " ".join(command[3 : command.index("idealized_runtime")])
    rendezvous = "--rdzv-backend c10d --rdzv-endpoint node1:20012 --rdzv-id 12"
    assert launcher == f"--nnodes 2 {rendezvous} --nproc-per-node 4 -m --"


# What its log says.


@pytest.fixture
def job(tmp_path):
    return Job("gpt2-small", tmp_path, driver_flags=(*SWEEP, "--global-batch-size", "1", "4"))


def test_job_is_complete_when_its_log_holds_what_is_asked_for(job):
    assert not job.is_complete()
    assert len(job.pending_settings()) == 8
    write_log_of(job)
    assert job.is_complete()
    assert job.pending_settings() == []


def test_log_that_was_cut_off_is_not_complete_and_leaves_the_rest_to_do(job):
    settings = [{**setting, "runtimes_s": [1.0]} for setting in job.measurement.settings()]
    write_log_of(job, settings[:3], finish=False)
    assert not job.is_complete()
    assert job.pending_settings() == job.measurement.settings()[3:]


def test_log_of_fewer_settings_is_not_complete_though_it_has_its_footer(job):
    settings = [{**setting, "runtimes_s": [1.0]} for setting in job.measurement.settings()]
    write_log_of(job, settings[:3])
    assert not job.is_complete()


@pytest.mark.parametrize("change", [{"num_trials": 5}, {"dtype": "bfloat16"}, {"seed": 1}, {"engine": "eager"}])
def test_log_of_another_measurement_is_not_complete(job, change):
    write_log_of(job, **change)
    assert not job.is_complete()


def test_log_of_another_machine_or_description_is_complete(job):
    architecture = {**get_architecture("gpt2-small").to_dict(), "source": "another book"}
    write_log_of(job, hardware="another", architecture=architecture, environment={"cpu_model": "any"})
    assert job.is_complete()


def test_log_in_which_nothing_could_be_timed_is_not_complete(job):
    error = {"error": {"type": "OutOfMemoryError", "message": "full"}}
    settings = [{**setting, **error} for setting in job.measurement.settings()]
    write_log_of(job, settings)
    assert not job.is_complete()


def test_file_that_is_no_log_is_as_none(job):
    job.log.parent.mkdir()
    job.log.write_text("not a log\n")
    assert job.read() is None
    assert len(job.pending_settings()) == 8


def test_target_of_a_job_is_complete_when_its_log_ends_and_was_asked_for_it(tmp_path):
    def job(*flags):
        (job,) = plan_jobs(["gpt2-small"], ["sdpa"], [(1, 1)], tmp_path, (*SWEEP, "--target-error", *flags))
        return job

    asked = job("0.02")
    settings = [{**setting, "runtimes_s": [1.0]} for setting in asked.measurement.settings()[:3]]
    write_log_of(asked, settings)
    assert asked.is_complete(), "not all settings need be timed"
    assert not job("0.01").is_complete()
    assert not job("0.02", "--max-seconds", "9").is_complete()
    asked.log.write_text("".join(asked.log.read_text().splitlines(keepends=True)[:-1]))
    assert not asked.is_complete()
