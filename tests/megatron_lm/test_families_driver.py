"""The driver times a small configuration of every family that is built, on every engine."""

import json
import resource
import signal

import pytest
import torch
from makers import FAMILIES, hf_config, written
from makers_torch import CASES, RATES
from transformers import AutoConfig

import generate_text
from idealized_runtime.architectures import Architecture, unsupported_features
from idealized_runtime.records import read_trials
from idealized_runtime.records.validity import SEVERE
from megatron_lm import floors
from megatron_lm.engines import PORTABLE_ENGINES

SWEEP = ("--all-num-input-tokens", "8", "--all-num-output-tokens", "1", "3", "--num-warmup", "0", "--num-trials", "1",
         "--device", "cpu")  # fmt: skip
BUILT_FAMILIES = {
    "gpt2", "opt", "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "phi3",
    "gpt_oss", "deepseek_v2", "deepseek_v3", "gptj", "gpt_neox", "falcon",
}  # fmt: skip


@pytest.fixture(autouse=True)
def leave_no_trace(monkeypatch):
    """The driver sets limits and signal handlers of its process, which is this one; no rates are measured."""
    monkeypatch.setattr(floors, "measure_machine_rates", lambda device, dtype: RATES)
    limits, num_threads = resource.getrlimit(resource.RLIMIT_DATA), torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
    resource.setrlimit(resource.RLIMIT_DATA, limits)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def config_file(tmp_path):
    def write(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path / "config.json")

    return write


@pytest.mark.parametrize("engine_name", PORTABLE_ENGINES)
@pytest.mark.parametrize("case", [name for name, (family, _) in CASES.items() if name == family])
def test_driver_times_a_configuration(case, engine_name, config_file, tmp_path):
    family, sizes = CASES[case]
    # Enough tokens for the bytes of the prompts.
    path = config_file(written(AutoConfig.for_model(family, **{**sizes, "vocab_size": 256})))
    log = tmp_path / "log.jsonl"
    assert generate_text.main(["--hf-config", path, *SWEEP, "--inference-engine", engine_name, "--log", str(log)]) == 0
    # Single trials of a busy machine may contradict each other.
    trials = read_trials(log, accept=SEVERE)
    assert trials["num_output_tokens"].tolist() == [1, 3]
    assert (trials["runtime_s"] > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_built_or_refused_by_name(family, config_file, capsys):
    config = written(hf_config(family))
    unsupported = unsupported_features(Architecture.from_hf_config(config))
    assert (family in BUILT_FAMILIES) == (not unsupported)
    if unsupported:
        assert generate_text.main(["--hf-config", config_file(config), *SWEEP]) == 2
        # Named as the flag of its own, where it has one.
        name = unsupported[0].split(" = ")[0]
        error = capsys.readouterr().err
        assert name in error or f"--{name.replace('_', '-')}" in error


def test_every_built_family_is_compared_with_transformers():
    assert {family for family, _ in CASES.values()} == BUILT_FAMILIES
