import json

import pytest
from makers import write_toy_log

from idealized_runtime.fits import read_parameters
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.queries.terms import on_terms, priced_by_parameters, read_priced_models

PARAMETERS = ROOT / "processed_jsons"


def test_logs_say_what_their_models_ran_on():
    model = read_priced_models("cpu")["gpt2-small"]
    assert (model.num_accelerators, model.batch_size, model.hardware, model.dtype) == (
        1, 1, "Intel(R) Xeon(R) Processor, 2 cores", "float32",
    )  # fmt: skip
    assert model.num_params == model.architecture.num_params


def test_models_of_logs_go_by_helms_names_too(published):
    assert list(read_priced_models("a100", ["openai/ada", "gpt-j"])) == ["ada", "gpt-j"]


def test_parameters_say_what_their_logs_ran_on():
    model = priced_by_parameters(PARAMETERS / "cpu.json")["gpt2-small"]
    assert (model.num_accelerators, model.batch_size, model.hardware, model.dtype) == (1, 1, "cpu", "float32")


def test_published_parameters_say_it_without_their_logs(monkeypatch):
    monkeypatch.setenv("PUBLISHED_DATA", "/nowhere")
    (model,) = priced_by_parameters(PARAMETERS / "v100.json", "microsoft/TNLGv2_530B").values()
    assert (model.num_accelerators, model.hardware, model.software) == (48, "v100", "Megatron-LM 2022")


def test_model_without_a_source_is_known_by_its_name_alone(tmp_path):
    path = tmp_path / "helm.json"
    entry = {"runtime_per_output_token": 0.02, "runtime_for_prompt_tokens": {"1": 0.1, "512": 0.2}}
    path.write_text(json.dumps({"openai/davinci": entry, "mystery": entry}))
    known, unknown = priced_by_parameters(path).values()
    assert (known.architecture.name, known.num_accelerators, known.hardware) == ("davinci", None, "")
    assert (unknown.architecture, unknown.num_params) == (None, None)


def test_parameters_of_one_log_under_several_names_are_one_model():
    davinci, opt = priced_by_parameters(PARAMETERS / "a100.json", "davinci").values()
    assert (davinci.name, opt.name) == ("openai/davinci", "together/opt-175b")
    assert davinci.runtimes is opt.runtimes


def test_parameter_file_of_a_shipped_stack_is_found_without_the_repository(monkeypatch, tmp_path):
    whole = priced_by_parameters(PARAMETERS / "v100.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("idealized_runtime.measurements.published.ROOT", tmp_path)
    for path in ("processed_jsons/v100.json", "v100"):
        shipped = priced_by_parameters(path)
        assert shipped.keys() == whole.keys()
        for name, model in shipped.items():
            assert model.num_accelerators == whole[name].num_accelerators
            assert model.runtimes.predict(100, 20) == pytest.approx(whole[name].runtimes.predict(100, 20))
            assert model.origin == "by coefficients shipped with this package"


def test_conditions_say_how_queries_come_on_what_and_at_which_dated_rates():
    (davinci,) = priced_by_parameters(PARAMETERS / "a100.json", "openai/davinci").values()
    assert on_terms(davinci, power_watts=350).conditions("it") == (
        "it, one at a time (batch 1), 8 x A100-80GB, Megatron-LM 2022, float16; 4.096 USD an hour each (list price of "
        "2023-05); 350 W each (as given)"
    )
    (small,) = read_priced_models("cpu", ["gpt2-small"]).values()
    assert "measured 2026-11-2" in on_terms(small).conditions()


def test_models_are_chosen_by_either_name():
    path = PARAMETERS / "a100.json"
    assert list(priced_by_parameters(path, ["openai/ada", "bloom"])) == ["openai/ada", "together/bloom"]
    with pytest.raises(ValueError, match=r"a100\.json: no model curie; there are: ada, ai21/j1-grande"):
        priced_by_parameters(path, ["curie"])


def test_parameters_are_those_of_the_file():
    path = PARAMETERS / "a100.json"
    assert priced_by_parameters(path, "gpt-j")["together/gpt-j-6b"].runtimes.to_json() == (
        read_parameters(path)["together/gpt-j-6b"].to_json()
    )


def test_model_timed_on_several_devices_holds_them_all(tmp_path):
    write_toy_log(tmp_path / "toy.jsonl", tensor_parallel_size=2)
    assert read_priced_models(tmp_path)["toy"].num_accelerators == 2


def test_runtimes_keep_what_they_were_timed_on_under_other_terms():
    (davinci,) = priced_by_parameters(PARAMETERS / "a100.json", "openai/davinci").values()
    with pytest.warns(UserWarning, match="timed on 8 x A100-80GB; priced as 8 x H100"):
        model = on_terms(davinci, hardware="H100")
    assert (model.hardware, model.devices) == ("A100-80GB", "timed on 8 x A100-80GB, priced as 8 x H100")
    with pytest.warns(UserWarning, match="timed on 8 x A100-80GB; priced as 3 x A100-80GB"):
        assert on_terms(davinci, num_accelerators=3).num_accelerators == 3


@pytest.mark.filterwarnings("error")
def test_terms_that_are_those_of_the_log_pass_without_a_word():
    (davinci,) = priced_by_parameters(PARAMETERS / "a100.json", "openai/davinci").values()
    assert on_terms(davinci, hardware="A100-80GB", num_accelerators=8).devices == "8 x A100-80GB"
