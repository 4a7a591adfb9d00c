from dataclasses import replace

import pytest
from makers import TOY, write_toy_log

from idealized_runtime.measurements.timed_models import (
    by_size,
    findings_table,
    fit_models,
    fitted_models,
    read_timed_model,
    read_timed_models,
)
from idealized_runtime.records import (
    ImplausibleLogError,
    IncompleteLogWarning,
    LogFormatError,
    SuspiciousLogWarning,
)

TEXT_LOG = """\
------------------------ arguments ------------------------
  hidden_size ..................................... 64
  ffn_hidden_size ................................. 256
  max_position_embeddings ......................... 2048
  num_attention_heads ............................. 4
  num_layers ...................................... 2
  params_dtype .................................... torch.float16
  tensor_model_parallel_size ...................... 2
  pipeline_model_parallel_size .................... 1
  micro_batch_size ................................ 1
-------------------- end of arguments ---------------------
 > padded vocab (size: 50257) with 47 dummy tokens (new size: 50304)
Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.100 seconds +- 0.001
Runtime for {'num_input_tokens': 1, 'num_output_tokens': 2}: 0.200 seconds +- 0.001
"""


def test_json_log_tells_what_was_timed_and_on_what(tmp_path):
    rates = {"memory_bytes_per_s": 1e9, "matmul_flops_per_s": {"float32": 1e12}}
    path = write_toy_log(
        tmp_path / "toy.jsonl", num_layers_profiled=2, environment={"machine_rates": rates},
        software={"megatron-core": "0.16", "torch": "2", "cuda": "13.0"},
    )  # fmt: skip
    model = read_timed_model(path)
    assert (model.architecture, model.dtype, model.hardware) == (TOY, "float32", "box")
    assert (model.is_cuda, model.slices, model.machine_rates) == (True, 2, rates)


@pytest.mark.parametrize(
    "rates",
    [{}, "fast", {"memory_bytes_per_s": 0, "matmul_flops_per_s": {}},
     {"memory_bytes_per_s": "fast", "matmul_flops_per_s": {}},
     {"memory_bytes_per_s": 1e9, "matmul_flops_per_s": {"float32": -1.0}}],
)  # fmt: skip
def test_rates_that_are_none_are_refused(tmp_path, rates):
    path = write_toy_log(tmp_path / "toy.jsonl", environment={"machine_rates": rates})
    with pytest.raises(LogFormatError, match=r"toy\.jsonl: machine_rates must have memory_bytes_per_s"):
        read_timed_model(path)


def test_log_without_a_cuda_version_is_of_a_cpu_without_known_rates(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.jsonl"))
    assert (model.is_cuda, model.machine_rates) == (False, None)


def test_json_log_is_known_by_its_contents_and_not_by_its_name(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.log"))
    assert (model.architecture, model.dtype, model.is_cuda) == (TOY, "float32", False)


def test_mean_power_is_all_measured_joules_over_their_seconds(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.jsonl"))
    assert model.mean_power_watts is None
    joules = 50 * model.runtimes["runtime_s"]
    joules[0] = None
    assert replace(model, runtimes=model.runtimes.assign(energy_joules=joules)).mean_power_watts == pytest.approx(50)


def test_text_log_of_2023_tells_its_data_type_and_parallelism(tmp_path):
    (tmp_path / "old.log").write_text(TEXT_LOG)
    model = read_timed_model(tmp_path / "old.log")
    assert (model.dtype, model.tensor_parallel_size, model.is_cuda) == ("float16", 2, True)
    assert (model.architecture.name, model.num_layers_profiled) == ("old", 2)


def test_text_log_need_not_tell_its_data_type_or_architecture(tmp_path):
    (tmp_path / "old.log").write_text(TEXT_LOG.replace("params_dtype", "params_type"))
    model = read_timed_model(tmp_path / "old.log")
    assert (model.dtype, model.architecture.num_layers) == (None, 2)
    sentences = [line for line in TEXT_LOG.splitlines() if line.startswith("Runtime")]
    (tmp_path / "old.log").write_text("\n".join(sentences) + "\n")
    model = read_timed_model(tmp_path / "old.log")
    assert (model.name, model.architecture, model.num_layers_profiled) == ("old", None, None)
    assert len(model.runtimes) == len(sentences)


def test_fit_is_of_the_settings_of_one_sequence(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.jsonl", batch_sizes=(1, 8)))
    assert len(model.runtimes) == 12
    assert model.fit.time_per_output_token_s == pytest.approx(0.02)
    assert model.reference_num_context_tokens == model.fit.reference_num_prompt_tokens + 1


def test_stack_is_named_by_a_part_of_its_name_where_there_are_several(tmp_path):
    for engine in ("sdpa", "eager"):
        write_toy_log(tmp_path / "box" / f"{engine}.jsonl", engine=engine)
    folder = str(tmp_path / "box")
    with pytest.raises(ValueError, match=r"eager, torch 2, float32; .*sdpa, torch 2, float32. Name one; none was"):
        read_timed_models(folder)
    with pytest.raises(ValueError, match="'torch' names 2 of them"):
        read_timed_models(folder, software="torch")
    assert read_timed_models(folder, software="eager")["toy"].software == "megatron-core 0.16 eager, torch 2, float32"


def test_whole_name_of_a_stack_wins_over_one_that_contains_it(tmp_path):
    for engine in ("sdpa", "sdpa+graph"):
        write_toy_log(tmp_path / "box" / f"{engine}.jsonl", engine=engine)
    models = read_timed_models(str(tmp_path / "box"), software="megatron-core 0.16 sdpa, torch 2, float32")
    assert models["toy"].software == "megatron-core 0.16 sdpa, torch 2, float32"


def test_logs_of_two_machines_in_one_folder_are_refused_unless_those_of_one_are_named(tmp_path):
    write_toy_log(tmp_path / "box" / "xeon.jsonl", model="one", hardware="Xeon, 2 cores")
    write_toy_log(tmp_path / "box" / "epyc.jsonl", model="two", hardware="EPYC, 2 cores")
    named = r"2 machines: EPYC, 2 cores \(box/epyc\.jsonl\); Xeon, 2 cores \(box/xeon\.jsonl\)\. Keep each"
    with pytest.raises(ValueError, match=named):
        read_timed_models(tmp_path / "box")
    assert list(read_timed_models(tmp_path / "box", ["xeon"])) == ["one"]


def test_findings_are_accepted_by_name(tmp_path):
    settings = [
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": 1, "runtimes_s": [1000.0 * (1 + p + o)] * 2}
        for p in (1, 2) for o in (1, 2)
    ]  # fmt: skip
    write_toy_log(tmp_path / "box" / "toy.jsonl", settings=settings)
    with pytest.raises(ImplausibleLogError, match="far_above_floor"):
        read_timed_models(tmp_path / "box")
    with pytest.warns(SuspiciousLogWarning, match="far_above_floor"):
        assert list(read_timed_models(tmp_path / "box", accept=["far_above_floor"])) == ["toy"]


def test_two_logs_of_one_model_with_one_stack_are_refused(tmp_path):
    for name in ("a", "b"):
        write_toy_log(tmp_path / "box" / f"{name}.jsonl")
    with pytest.raises(ValueError, match="two logs of toy"):
        read_timed_models(str(tmp_path / "box"))


@pytest.mark.filterwarnings("ignore:.*incomplete. no footer")
def test_logs_that_cannot_be_fitted_are_left_out_with_a_warning(tmp_path):
    write_toy_log(tmp_path / "box" / "toy.jsonl")
    lines = write_toy_log(tmp_path / "box" / "few.jsonl", model="few").read_text().splitlines(keepends=True)
    (tmp_path / "box" / "few.jsonl").write_text("".join(lines[:3]))
    failed = {"num_prompt_tokens": 1, "num_output_tokens": 1, "batch_size": 1, "error": {"type": "OutOfMemoryError"}}
    write_toy_log(tmp_path / "box" / "none.jsonl", model="none", settings=[failed])
    with pytest.warns(IncompleteLogWarning, match=r"left out: .*none\.jsonl: holds no timing"):
        models = read_timed_models(tmp_path / "box")
    assert list(models) == ["few", "toy"]
    with pytest.warns(IncompleteLogWarning, match="left out: few: a fit needs"):
        assert [model.name for model in fitted_models(models.values())] == ["toy"]
    with pytest.warns(IncompleteLogWarning, match="left out: few: a fit needs"):
        assert list(fit_models(models)) == ["toy"]


def test_any_class_is_a_fit(tmp_path):
    class MeanRuntime:
        def __init__(self, frame):
            self.runtime_s = frame["runtime_s"].mean()

    write_toy_log(tmp_path / "box" / "toy.jsonl")
    timed = read_timed_models(tmp_path / "box")
    assert fit_models(timed, MeanRuntime)["toy"].runtime_s == timed["toy"].runtimes["runtime_s"].mean()


def test_folder_in_which_no_log_can_be_fitted_is_refused_with_every_reason(tmp_path):
    write_toy_log(tmp_path / "box" / "toy.jsonl", batch_sizes=(8,))
    with pytest.raises(ValueError, match="no log is left to go by: toy: "):
        fitted_models(read_timed_models(tmp_path / "box").values())


def test_log_of_a_stack_that_is_not_asked_for_need_not_be_fitted(tmp_path, recwarn):
    write_toy_log(tmp_path / "box" / "toy.jsonl")
    write_toy_log(tmp_path / "box" / "other.jsonl", engine="eager", batch_sizes=(8,))
    folder = str(tmp_path / "box")
    assert list(read_timed_models(folder, software="sdpa")) == ["toy"]
    assert not recwarn.list
    with pytest.raises(ValueError, match="Name one; none was given"):
        read_timed_models(folder)


def test_damaged_log_is_not_left_out(tmp_path):
    write_toy_log(tmp_path / "box" / "toy.jsonl")
    (tmp_path / "box" / "bad.jsonl").write_text("not a log\n")
    with pytest.raises(LogFormatError, match=r"bad\.jsonl:1"):
        read_timed_models(str(tmp_path / "box"))


def test_log_that_cannot_be_fitted_names_its_model(tmp_path):
    model = read_timed_model(write_toy_log(tmp_path / "toy.jsonl", batch_sizes=(8,)))
    with pytest.raises(ValueError, match=r"^toy: "):
        _ = model.fit


def test_what_speaks_against_logs_is_a_row_each_and_none_where_nothing_does(tmp_path):
    write_toy_log(tmp_path / "sound" / "toy.jsonl")
    assert findings_table(tmp_path / "sound").empty
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "toy.log").write_text(TEXT_LOG.replace("0.100 seconds", "0.230 seconds"))
    table = findings_table(tmp_path / "odd")
    assert table[["log", "finding", "is_severe"]].values.tolist() == [["toy.log", "longer_is_faster", False]]


def test_models_are_ordered_by_their_parameters():
    timed = read_timed_models("cpu", ["gpt2-medium", "distilgpt2", "gpt2-small"])
    assert list(by_size(timed)) == ["distilgpt2", "gpt2-small", "gpt2-medium"]
