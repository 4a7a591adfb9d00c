import itertools
import json
from dataclasses import replace

import pytest
from makers import TOY, make_setting, write_toy_log

from idealized_runtime.architectures import get_architecture
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.prediction import fit_predictor, predict_model

GPT2 = {"model_type": "gpt2", "n_layer": 18, "n_embd": 896, "n_head": 14, "vocab_size": 50257, "n_positions": 1024}
QUERY = ("--num-prompt-tokens", "100", "--num-output-tokens", "20")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "between" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(GPT2))
    return path


def answer(capsys, *arguments):
    assert main(["predict", *arguments, *QUERY, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments):
    assert main(["predict", *arguments]) == 2
    return capsys.readouterr().err


def test_config_of_a_new_model_gets_a_runtime_with_an_interval(config, capsys):
    result = answer(capsys, "--model", str(config), "--logs", "cpu")
    assert (result["model"], result["dtype"], result["num_accelerators"]) == ("between", "float32", 1)
    bounds = read_timed_models("cpu")
    smaller, larger = (bounds[name].fit.predict(100, 20) for name in ("gpt2-small", "gpt2-medium"))
    assert smaller < result["runtime_s"]["estimate"] < larger
    assert result["runtime_s"]["lower"] < result["runtime_s"]["estimate"] < result["runtime_s"]["upper"]


def test_findings_on_the_logs_gone_by_are_counted_in_a_line_and_named_by_fit(tmp_path, config, capsys):
    folder = tmp_path / "box"
    folder.mkdir()
    for name in ("one", "two"):
        write_toy_log(folder / f"{name}.jsonl", model=name, num_trials=5)
    assert main(["predict", "--model", str(config), "--logs", str(folder), *QUERY, "--extrapolate"]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "finding" in line]
    assert said.endswith(f"{folder}: 2 findings speak against its logs; `idealized-runtime fit {folder}` names them")
    assert main(["fit", str(folder)]) == 0
    assert capsys.readouterr().err.count("num_trials: 6 of 6 settings have 2; the header says 5") == 2


def test_cost_and_energy_are_of_all_devices_at_the_price_and_power_given(config, capsys):
    result = answer(
        capsys, "--model", str(config), "--logs", "cpu", "--price-usd-per-hour", "3.6", "--power-watts", "100"
    )
    for bound in ("estimate", "lower", "upper"):
        assert result["cost_usd"][bound] == pytest.approx(1e-3 * result["runtime_s"][bound])
        assert result["energy_joules"][bound] == pytest.approx(100 * result["runtime_s"][bound])


def test_price_that_nobody_knows_is_not_made_up(config, capsys):
    result = answer(capsys, "--model", str(config), "--logs", "cpu")
    assert result["cost_usd"] is result["energy_joules"] is None


@pytest.mark.parametrize("flag", ["--price-usd-per-hour", "--power-watts"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e300"])
def test_price_or_power_that_is_no_positive_number_is_refused(config, capsys, flag, value):
    message = error_of(capsys, "--model", str(config), "--logs", "cpu", *QUERY, flag, value)
    assert f"argument {flag}: must be a positive number of at most 100,000; got {value!r}" in message


def test_answer_says_where_price_and_power_come_from(published, capsys):
    result = answer(capsys, "--model", "gpt2-small", "--logs", "a100", "--price-usd-per-hour", "2")
    assert result["price_source"] == "as given"
    assert result["power_source"] == "maximum of its data sheet, so energy is an upper bound"
    assert main(["predict", "--model", "gpt2-small", "--logs", "a100", *QUERY]) == 0
    text = capsys.readouterr().out
    first = text.splitlines()[0]
    assert "4.096 USD an hour each (list price of 2023-05); 400 W each (maximum of its data sheet" in first


def write_stack(folder, *, num_models=3, watts=None, **header):
    """Logs of models of several depths and widths, 1 ms a layer and 10 us a token; each draws another power."""
    for number in range(num_models):
        shape = replace(TOY, name=f"toy-{number}", num_layers=2 + 3 * number, hidden_size=64 * (1 + number))
        settings = []
        for p, o in itertools.product((1, 2, 4), (1, 2)):
            runtimes_s = [1e-3 * shape.num_layers * o + 1e-5 * p] * 2
            energies = {} if watts is None else {"energies_joules": [watts[number] * time_s for time_s in runtimes_s]}
            settings.append(make_setting(p, o, runtimes_s, **energies))
        write_toy_log(folder / f"toy-{number}.jsonl", settings=settings, model=shape.name,
                      architecture=shape.to_dict(), num_layers_profiled=shape.num_layers, **header)  # fmt: skip
    return folder


def small_answer(capsys, folder, *arguments):
    sizes = ("--num-prompt-tokens", "2", "--num-output-tokens", "2")
    assert main(["predict", *arguments, "--logs", str(folder), *sizes, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_power_that_logs_measured_comes_before_that_of_the_data_sheet(tmp_path, config, capsys):
    folder = write_stack(tmp_path / "box", watts=(40, 50, 60), hardware="NVIDIA H200")
    result = small_answer(capsys, folder, "--model", str(config))
    assert (result["power_watts"], result["power_source"]) == (pytest.approx(50), "measured with 3 timed models")
    for bound, watts in (("lower", 40), ("estimate", 50), ("upper", 60)):
        assert result["energy_joules"][bound] == pytest.approx(watts * result["runtime_s"][bound])
    assert small_answer(capsys, folder, "--model", str(config), "--power-watts", "7")["power_watts"] == 7


def test_model_with_a_log_of_its_own_is_answered_by_that_as_well(capsys):
    result = answer(capsys, "--model", "gpt2-small", "--logs", "cpu")
    fit = read_timed_models("cpu")["gpt2-small"].fit
    own_s = result["own_log_runtime_s"]
    assert own_s["estimate"] == pytest.approx(fit.predict(100, 20))
    assert (own_s["lower"], own_s["upper"]) == pytest.approx(fit.predict_interval(100, 20))


def test_two_models_know_which_they_are_and_give_no_interval(capsys):
    result = answer(capsys, "--model", "gpt2-small", "--logs", "cpu_sdpa")
    assert result["runtime_s"]["lower"] is result["left_out_percent"] is None
    assert result["is_timed"]
    assert result["own_log_runtime_s"]["lower"] < result["own_log_runtime_s"]["upper"]


def test_other_model_in_a_folder_of_the_same_name_was_not_timed(tmp_path, capsys):
    path = tmp_path / "gpt2-small" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(GPT2))
    result = answer(capsys, "--model", str(path), "--logs", "cpu")
    assert (result["model"], result["is_timed"], result["own_log_runtime_s"]) == ("gpt2-small", False, None)


def test_model_timed_on_other_devices_only_was_not_timed_on_these(published, capsys):
    result = answer(capsys, "--model", "davinci", "--logs", "a100", "--tensor-parallel-size", "4")
    assert not result["is_timed"]


def test_large_model_takes_as_few_devices_as_hold_it(published, capsys):
    result = answer(capsys, "--model", "davinci", "--logs", "a100")
    assert (result["tensor_parallel_size"], result["pipeline_parallel_size"]) == (8, 1)
    assert result["cost_usd"]["estimate"] == pytest.approx(result["runtime_s"]["estimate"] * 8 * 4.096 / 3600)
    assert result["is_timed"]


def test_answer_is_that_of_the_library(published, capsys):
    result = answer(capsys, "--model", "davinci", "--logs", "a100", "--tensor-parallel-size", "4")
    predictor = fit_predictor(read_timed_models("a100").values())
    predicted = predict_model(get_architecture("davinci"), predictor, tensor_parallel_size=4)
    assert result["runtime_s"]["estimate"] == pytest.approx(predicted.predict(100, 20))
    assert result["left_out_percent"]["time_per_output_token"]["median"] < 5


def test_text_names_the_model_the_stack_and_what_is_unknown(config, capsys):
    assert main(["predict", "--model", str(config), "--logs", "cpu", *QUERY]) == 0
    text = capsys.readouterr().out
    assert text.startswith("between, predicted from the logs of other models, one at a time (batch 1), 1 x cpu, ")
    assert "megatron-core 0.16.1 sdpa, torch 2.13.0+cpu, float32, measured 2026-" in text.splitlines()[0]
    assert "at worst" in text
    assert "95 % interval" in text
    assert "unknown: give --price-usd-per-hour" in text
    assert "Each timed model predicted from the others is off by: time per output token" in text


def test_unknown_hardware_lists_what_has_logs(config, capsys):
    message = error_of(capsys, "--model", str(config), "--logs", "h900", *QUERY)
    assert "no timing logs of hardware 'h900'" in message
    assert "There are: " in message
    assert "`make published` gets 'a100'" in message


@pytest.mark.parametrize(
    ("contents", "message"),
    [(None, "No such file"), ("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "model_type None")],
)
def test_file_that_is_no_config_is_refused_by_name(tmp_path, capsys, contents, message):
    path = tmp_path / "config.json"
    if contents is not None:
        path.write_text(contents)
    assert message in error_of(capsys, "--model", str(path), "--logs", "cpu", *QUERY)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (("1000", "100"), "takes 1024 tokens of context"),
        (("0", "5"), "--num-prompt-tokens: must be an integer of at least 1; got '0'"),
        (("600", "5"), r"must lie in [1, 512]"),
    ],
)
def test_query_that_cannot_be_answered_is_refused(config, capsys, query, message):
    sizes = ("--num-prompt-tokens", query[0], "--num-output-tokens", query[1])
    assert message in error_of(capsys, "--model", str(config), "--logs", "cpu", *sizes)


def test_longer_prompt_is_predicted_when_asked_for_and_said_not_to_be_timed(config, capsys):
    sizes = ("--num-prompt-tokens", "600", "--num-output-tokens", "5")
    options = ("--model", str(config), "--logs", "cpu", *sizes)
    assert "Profile that size, or give --extrapolate" in error_of(capsys, *options)
    assert main(["predict", *options, "--extrapolate", "--json"]) == 0
    caveats = json.loads(capsys.readouterr().out)["caveats"]
    assert "prompts of 600 tokens were not timed, only of 1 to 512" in caveats
    assert "contexts of 605 tokens were not timed, only of up to 528" in caveats


def test_model_that_the_devices_cannot_hold_is_named(published, capsys):
    result = answer(capsys, "--model", "davinci", "--logs", "a100", "--tensor-parallel-size", "4")
    assert "weights and cache take 87.4 GB a device, which has 80 GB" in result["caveats"]


def test_model_beyond_one_device_of_a_stack_of_one_device_says_what_can_be_done(capsys):
    message = error_of(capsys, "--model", "llama-3.1-8b", "--logs", "cpu", *QUERY)
    assert "llama-3.1-8b in float32 takes 2 devices of 25.3 GB" in message
    assert "--num-accelerators must be 1" in message


def test_devices_that_no_log_tells_of_are_refused(config, capsys):
    options = ("--model", str(config), "--logs", "cpu", *QUERY, "--tensor-parallel-size")
    assert "every log of this stack is of one device" in error_of(capsys, *options, "2")
    assert "--tensor-parallel-size: must be an integer of at least 1" in error_of(capsys, *options, "0")


def test_unknown_model_is_answered_with_near_names_or_those_of_the_logs(capsys):
    assert "did you mean gpt2-small" in error_of(capsys, "--model", "gpt2-smal", "--logs", "cpu", *QUERY)
    message = error_of(capsys, "--model", "zzz", "--logs", "cpu", *QUERY)
    assert "gpt2-small" in message
    assert "davinci" not in message


SERVER = ("--hardware", "H100", "--software", "vllm")


def test_model_that_nobody_served_is_answered_without_logs(config, capsys):
    result = answer(capsys, "--model", "qwen2.5-7b", *SERVER)
    assert (result["hardware"], result["software"], result["logs"]) == ("H100", "vllm 0.11.1", None)
    assert result["origin"] == "predicted from 16 architectures that others served on H100"
    for name in ("runtime_s", "prompt_encoding_time_s", "time_per_output_token_s", "cost_usd", "energy_joules"):
        assert result[name]["lower"] < result[name]["estimate"] < result[name]["upper"], name
    token_s = result["time_per_output_token_s"]["estimate"]
    # Read at no more than 3350 GB/s, and at no less than half of it.
    assert 15.2e9 / 3350e9 < token_s < 2 * 15.2e9 / 3350e9
    seconds = result["prompt_encoding_time_s"]["estimate"] + 19 * token_s
    assert result["runtime_s"]["estimate"] == pytest.approx(seconds)
    assert result["cost_usd"]["estimate"] == pytest.approx(6.88 / 3600 * seconds)
    assert result["caveats"][0] == "batches of 1 were not measured, only of about 7.9 to 1024"
    assert answer(capsys, "--model", str(config), *SERVER)["model"] == "between"


def test_several_queries_at_a_time_share_the_cost(capsys):
    alone, many = (answer(capsys, "--model", "qwen2.5-7b", *SERVER, "--concurrency", n) for n in ("1", "32"))
    assert alone["runtime_s"]["estimate"] < many["runtime_s"]["estimate"]
    assert many["cost_usd"]["estimate"] < alone["cost_usd"]["estimate"] / 10
    assert "32 at a time" in many["conditions"]


def test_machine_without_measurements_says_so(capsys):
    sizes = ("--num-prompt-tokens", "100", "--num-output-tokens", "20")
    assert main(["predict", "--model", "qwen2.5-7b", "--hardware", "L40S", "--software", "vllm", *sizes]) == 0
    text = capsys.readouterr().out
    assert "served on H100, taken to L40S by the data sheets" in text
    assert "Not in the interval: nothing was measured on L40S" in text
    assert "1.861 USD an hour each (list price of 2026-08-17)" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hardware", "H100", "--software", "sglang"), "no engine 'sglang' was measured with many models; there are"),
        (("--hardware", "H1000", "--software", "vllm"), "no accelerator named 'H1000'; did you mean H100"),
        (("--hardware", "H100"), "give --logs, or --hardware and --software (such as H100 and vllm)"),
        ((*SERVER, "--pipeline-parallel-size", "2"), "--pipeline-parallel-size must be 1"),
        ((*SERVER, "--num-accelerators", "2", "--tensor-parallel-size", "4"), "must agree"),
        ((*SERVER, "--accept", "num_trials"), "--accept is of logs: give it with --logs"),
        ((*SERVER, "--num-accelerators", "3"), "which 3 devices cannot share"),
        (("--logs", "cpu", "--dtype", "float8"), "--dtype is of servers"),
        (("--logs", "cpu", "--concurrency", "2"), "--concurrency is of servers"),
        ((*SERVER, "--dtype", "fp8"), "dtype must be one of bfloat16, float8, mxfp4"),
    ],
)
def test_what_cannot_be_predicted_of_servers_is_said_in_one_line(capsys, options, message):
    error = error_of(capsys, "--model", "qwen2.5-7b", *options, *QUERY)
    assert message in error
    assert len(error.splitlines()) == 1
