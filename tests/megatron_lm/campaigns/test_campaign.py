import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from makers.timed_logs import write_log

from idealized_runtime.architectures import get_architecture
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.measurements.timed_models import read_timed_model
from idealized_runtime.records import load_log
from megatron_lm.campaigns import Settings, main, plan_campaign
from megatron_lm.campaigns import campaign_command_line as command_line
from megatron_lm.campaigns.campaign_jobs import MODELS, slices_that_fit
from megatron_lm.campaigns.campaign_summary import joules_per_output_token
from megatron_lm.campaigns.execution import COMPLETE, UNFINISHED, Outcome
from megatron_lm.engines import ENGINES

H200 = get_accelerator("H200")
TINY = {
    "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip
SMALL = ("--device", "cpu", "--dtype", "float32", "--all-num-input-tokens", "1", "16", "4096",
         "--all-num-output-tokens", "1", "4", "--num-warmup", "1",
         "--num-trials", "3", "--budget-minutes", "30")  # fmt: skip


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(TINY))
    return str(path)


def planned(models, engines=("sdpa", "eager"), accelerator=H200, **changes):
    return plan_campaign(models, engines, Settings(**changes), "logs/somewhere", accelerator)


def test_model_that_fits_is_timed_whole_and_another_in_two_slices():
    assert slices_that_fit(get_architecture("qwen2.5-32b"), 141e9, dtype="bfloat16") == [64]
    assert slices_that_fit(get_architecture("llama-3-70b"), 141e9, dtype="bfloat16") == [5, 10]
    assert slices_that_fit(get_architecture("davinci"), 40e9, dtype="bfloat16") == [3, 6]


def test_model_of_which_no_two_layers_fit_is_refused():
    with pytest.raises(ValueError, match=r"davinci: not even two of its layers fit 4 GB in bfloat16"):
        slices_that_fit(get_architecture("davinci"), 4e9, dtype="bfloat16")


def test_prompt_sizes_leave_room_for_the_longest_generation():
    assert Settings().prompt_sizes(get_architecture("gpt-j")) == [1, 128, 512, 1024]
    assert Settings().prompt_sizes(get_architecture("llama-3-8b")) == [1, 128, 512, 1024, 2048, 4096]
    with pytest.raises(ValueError, match="gpt-j: no prompt size leaves room for 64 output tokens"):
        Settings(all_num_prompt_tokens=(2048,)).prompt_sizes(get_architecture("gpt-j"))


def test_all_engines_of_the_first_model_come_before_one_engine_after_the_other():
    jobs, refused = planned(["llama-3-8b", "gpt-j", "qwen2.5-14b"])
    assert refused == {}
    assert [job.name for job in jobs] == [
        "llama-3-8b sdpa", "llama-3-8b eager",
        "gpt-j sdpa", "qwen2.5-14b sdpa", "gpt-j eager", "qwen2.5-14b eager",
    ]  # fmt: skip


def test_each_engine_has_a_folder_that_notebooks_can_name():
    (job, *_), _ = planned(["gpt-j"], engines=["eager"])
    assert job.log.as_posix() == "logs/somewhere/eager/gpt-j.jsonl"


def test_what_the_driver_refuses_is_named_and_the_rest_is_planned():
    jobs, refused = planned(["llama-3-8b", "gemma-2-9b"], engines=["sdpa", "no-such-engine"])
    assert [job.name for job in jobs] == ["llama-3-8b sdpa"]
    assert "gemma-2-9b cannot be built here" in refused["gemma-2-9b"]
    assert "invalid choice: 'no-such-engine'" in refused["llama-3-8b no-such-engine"]


def test_default_models_are_of_the_registry_and_ordered_from_small_to_large():
    sizes = [get_architecture(name).num_params for name in MODELS]
    assert sizes[:4] == sorted(sizes[:4])
    assert sum(8e9 > size > 5e9 or size > 1.7e11 for size in sizes[-2:]) == 2


def test_estimate_grows_with_the_model_and_shrinks_as_settings_are_timed(tmp_path):
    (small, large), _ = plan_campaign(["gpt-j", "qwen2.5-14b"], ["sdpa"], Settings(), tmp_path, H200)
    assert small.estimated_s() < large.estimated_s()
    whole_s = small.estimated_s()
    header = {"num_warmup": 3, "num_trials": 10, "num_layers_profiled": 28}
    small.log.parent.mkdir()
    write_log(small.log, architecture=get_architecture("gpt-j").to_dict(), **header)
    assert len(small.pending_settings()) == 16 - 2
    assert small.estimated_s() < whole_s
    assert not small.is_complete()


def test_estimates_of_the_whole_campaign_are_minutes_not_hours():
    jobs, _ = planned([name for name in MODELS if name != "mixtral-8x7b"], engines=["sdpa"])
    total_s = sum(job.estimated_s() for job in jobs)
    assert 3 * 60 < total_s < 25 * 60


class FakeServer:
    """Notes which jobs it is given; each takes no time."""

    def __init__(self, outcomes=()):
        self.outcomes, self.ran = dict(outcomes), []

    def run(self, job, timeout_s):
        self.ran.append(job.name)
        return self.outcomes.get(job.name, COMPLETE)


def test_job_that_would_outrun_the_budget_is_not_started_and_a_shorter_one_is():
    (long, short), _ = planned(["davinci", "gpt-j"], engines=["sdpa"])
    server, said = FakeServer(), []
    budget = command_line.Budget(short.estimated_s() + 30)
    outcomes = [command_line._run_job(job, server, budget, said.append) for job in (long, short)]
    assert outcomes == [UNFINISHED, COMPLETE]
    assert server.ran == ["gpt-j sdpa"]
    assert said[0].startswith("davinci sdpa: not started: about ")


def test_estimates_are_corrected_by_what_jobs_took():
    (job, *_), _ = planned(["gpt-j"])
    budget = command_line.Budget(1e6, estimated_s=10.0, used_s=25.0)
    assert budget.expected_s(job) == pytest.approx(2.5 * job.estimated_s())


def test_job_that_hangs_is_stopped_long_before_the_budget_ends():
    (short, long), _ = planned(["gpt-j", "davinci"], engines=["sdpa"])
    budget = command_line.Budget(1e6)
    assert budget.limit_s(long) == pytest.approx(3 * long.estimated_s())
    assert budget.limit_s(short) == pytest.approx(max(120, 3 * short.estimated_s()))
    # Nor is any job left to outrun the budget.
    assert command_line.Budget(50).limit_s(long) < 30


def test_failed_job_is_reported_and_the_others_run(monkeypatch, capsys, tmp_path, config):
    server = FakeServer({"tiny sdpa": Outcome("failed", "no luck")})
    monkeypatch.setattr("megatron_lm.campaigns.job_server.JobServer", lambda: server)
    status = main(["--models", config, "--engines", "sdpa", "eager", "--logs", str(tmp_path / "logs"), *SMALL])
    assert status == 1
    assert server.ran == ["tiny sdpa", "tiny eager"]
    assert "tiny sdpa: failed: no luck" in capsys.readouterr().err


def test_dry_run_prints_commands_and_times_and_runs_nothing(capsys, tmp_path):
    assert main(["--dry-run", "--models", "gpt-j", "--engines", "sdpa", "--logs", str(tmp_path / "logs"),
                 "--hardware", "H200"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "# gpt-j sdpa: 16 settings, about" in out
    assert "generate_text.py --architecture gpt-j" in out
    assert "of 25.0 minutes on H200" in out
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--hardware", "H2000"], "or give --hardware with the nearest: its rates"),
        (["--models", "no-such-model"], "no architecture named 'no-such-model'"),
    ],
)
def test_bad_arguments_end_with_a_sentence(capsys, argv, message):
    assert main(["--dry-run", *argv]) == 2
    assert message in capsys.readouterr().err


def test_help_answers_without_torch():
    code = "import sys; sys.argv = ['profile_gpu.py', '-h']\ntry:\n    import runpy; runpy.run_path("
    code += "'scripts/profile_gpu.py', run_name='__main__')\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "--budget-minutes" in answer.stdout


def test_campaign_times_a_tiny_model_on_a_cpu_and_goes_on_where_it_stopped(capfd, tmp_path, config):
    command = ["--models", config, "--engines", "sdpa", "no-such-engine", "--logs", str(tmp_path / "logs"), *SMALL]
    assert main([*command, "--csv", str(tmp_path / "summary.csv")]) == 1
    printed = capfd.readouterr()
    assert "tiny no-such-engine: refused" in printed.err
    log = tmp_path / "logs" / "sdpa" / "tiny.jsonl"
    timed = load_log(log)
    assert timed.is_complete
    assert timed.header["environment"]["machine_rates"]["memory_bytes_per_s"] > 0
    sizes = [(setting["num_prompt_tokens"], setting["num_output_tokens"]) for setting in timed.settings]
    assert sizes == [(1, 1), (1, 4), (16, 1), (16, 4)]
    assert log.with_suffix(".out").read_text().splitlines()[-1] == "exit status 0"
    assert (tmp_path / "summary.csv").read_text().startswith("model,engine,num_settings")
    before = log.read_bytes()
    assert main(command) == 1
    assert "tiny sdpa: complete already, skipped" in capfd.readouterr().err
    assert log.read_bytes() == before


def test_job_that_is_stopped_keeps_what_it_measured(tmp_path, config):
    from megatron_lm.campaigns.job_server import JobServer

    settings = Settings((1,), (1, 2, 60), num_warmup=0, num_trials=10**6, device="cpu", dtype="float32")
    (job,), _ = plan_campaign([config], ["sdpa"], settings, tmp_path, H200)
    assert JobServer().run(job, timeout_s=4) == UNFINISHED
    assert "interrupted" in job.output.read_text()
    assert not job.is_complete()


def test_joules_of_an_output_token_are_what_longer_generations_add():
    import pandas as pd

    runtimes = pd.DataFrame(
        {"num_prompt_tokens": [8, 8, 8, 1], "num_output_tokens": [1, 2, 11, 1], "energy_joules": [5.0, 7.0, 25.0, 1.0]}
    )
    assert joules_per_output_token(SimpleNamespace(runtimes=runtimes), 8) == pytest.approx(2.0)
    assert np.isnan(joules_per_output_token(SimpleNamespace(runtimes=runtimes), 1))


def test_two_slices_are_a_timing_of_the_whole_model(tmp_path):
    path = write_log(tmp_path / "toy.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    header, *settings, footer = lines
    header["num_layers_profiled"] = [1, 2]
    settings = [{**setting, "num_layers_profiled": size} for size in (1, 2) for setting in settings]
    footer["num_settings"] = len(settings)
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *settings, footer)))
    assert read_timed_model(path).slices == 1


def test_every_engine_of_the_driver_is_known_to_the_estimates():
    from megatron_lm.campaigns.campaign_jobs import _LAUNCH_S

    assert set(ENGINES) <= set(_LAUNCH_S)
