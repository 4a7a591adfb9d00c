import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from makers import make_runtimes, make_trials

from idealized_runtime import RuntimeModel, read_parameters, write_parameters
from idealized_runtime.fits import PublishedRuntimeModel, model_from_json


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    sizes = {1: 0.02, 32: 0.021, 64: 0.025, 128: 0.03, 256: 0.05, 512: 0.09}
    return RuntimeModel.fit(make_trials(rng, prompt_times_s=sizes, slope=1e-5))


def assert_same_model(first, second):
    p, o = np.arange(1, 513), np.arange(1, 513)[::-1]
    assert (first.predict(p, o) == second.predict(p, o)).all()
    assert np.array_equal(first.predict_interval(p, o, level=0.9), second.predict_interval(p, o, level=0.9))
    assert first.time_per_output_token_interval_s() == second.time_per_output_token_interval_s()
    assert first.prompt_encoding_interval_s(100) == second.prompt_encoding_interval_s(100)
    assert first.r_squared == second.r_squared


def test_json_restores_predictions_and_intervals_exactly(model):
    assert_same_model(model, model_from_json(json.loads(json.dumps(model.to_json(), allow_nan=False))))


def test_json_restores_a_model_with_unlimited_degrees_of_freedom():
    runtimes = make_runtimes().assign(runtime_std_s=1e-3, num_trials=10, runtime_resolution_s=1e-3)
    model = RuntimeModel.fit(runtimes)
    assert_same_model(model, model_from_json(json.loads(json.dumps(model.to_json(), allow_nan=False))))


def test_entry_has_helms_keys_in_numeric_order(model):
    entry = model.to_json()
    assert entry["runtime_per_output_token"] == model.time_per_output_token_s
    assert list(entry["runtime_for_prompt_tokens"]) == ["1", "32", "64", "128", "256", "512"]
    assert "overhead" not in entry


def test_file_is_read_back_and_its_bytes_do_not_depend_on_the_order(tmp_path, model):
    other = PublishedRuntimeModel.fit(make_runtimes())
    log = tmp_path / "a.log"
    log.write_text("timings")
    write_parameters(tmp_path / "1.json", {"a": model, "b": other}, sources={"a": log})
    write_parameters(tmp_path / "2.json", {"b": other, "a": model}, sources={"a": [log]})
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    models = read_parameters(tmp_path / "1.json")
    assert list(models) == ["a", "b"]
    assert_same_model(models["a"], model)
    assert models["a"].sources[0]["sha256"] == hashlib.sha256(b"timings").hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.json", "2.json", "a.log"]


def test_sources_of_an_unknown_model_are_refused(tmp_path, model):
    with pytest.raises(ValueError, match="not written: b"):
        write_parameters(tmp_path / "1.json", {"a": model}, sources={"b": tmp_path})


def test_failed_write_leaves_the_old_file(tmp_path, model):
    path = tmp_path / "1.json"
    write_parameters(path, {"a": model})
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        write_parameters(path, {"a": model}, sources={"a": tmp_path / "absent.log"})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a parameter file"),
        ("[]", "JSON object by model name; got list"),
        ('{"a": 1}', "a: parameters of a model are a JSON object"),
        ('{"a": {"runtime_per_output_token": 0.1}}', "a: .*lack the key 'runtime_for_prompt_tokens'"),
        ('{"a": {"runtime_per_output_token": "x", "runtime_for_prompt_tokens": {"1": 1}}}', "must be a finite number"),
        ('{"a": {"runtime_per_output_token": 1, "runtime_for_prompt_tokens": {"x": 1}}}', "a: .*'x'"),
        ('{"a": {"runtime_per_output_token": 1, "runtime_for_prompt_tokens": {}}}', "at least one prompt size"),
    ],
)
def test_broken_file_is_named_with_its_model(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"broken.json: .*{message}|broken.json: {message}"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fit": "x"}, "fit must be an object; got 'x'"),
        ({"runtime_for_prompt_tokens": {"1": 0.1, "01": 0.2}}, "twice; got 1, 01"),
    ],
)
def test_wrong_entry_is_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        model_from_json({**model.to_json(), **change})


def changed(entry, **changes):
    """The entry with values at dotted paths; None removes a key."""
    entry = json.loads(json.dumps(entry))
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = entry
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[name]
        else:
            place[name] = value
    return entry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime_per_output_token": -0.02}, "runtime_per_output_token must be positive; got -0.02"),
        ({"runtime_per_output_token": 0}, "runtime_per_output_token must be positive; got 0"),
        ({"runtime_per_output_token": float("nan")}, "runtime_per_output_token must be a finite number"),
        ({"runtime_per_output_token": 10**400}, "runtime_per_output_token must be a finite number"),
        ({"runtime_for_prompt_tokens__64": -1e-3}, "a prompt time must not be negative; got -0.001 at 64"),
        ({"runtime_for_prompt_tokens__" + "9" * 30: 0.1}, "at least one prompt size"),
        ({"overhead": -1.0}, "overhead must not be negative"),
        ({"fit__time_per_output_token_slope": -1e-3}, "positive at every prompt size; fit.time_per_output_token_slope"),
        ({"fit__reference_num_prompt_tokens": 10**400}, "fit.reference_num_prompt_tokens must be an integer"),
        ({"fit__prompt_rule__tile_share": "x"}, "fit.prompt_rule.tile_share must be a finite number"),
        ({"fit__prompt_rule": []}, "parameters are not what their method writes"),
        (
            {"runtime_per_output_token": 1.2},
            r"runtime_per_output_token is not what .* 1\.2 s, there 0\.02",
        ),
        ({"runtime_for_prompt_tokens__128": 0.3}, r"runtime_for_prompt_tokens is not what .* 0\.3 s, there 0\.0"),
        ({"runtime_for_prompt_tokens__64": None}, "runtime_for_prompt_tokens has 5 sizes, fit.intervals.covariance 6"),
        ({"fit__intervals__covariance__is_from_residuals": None}, "fit.intervals.covariance lacks is_from_residuals"),
        ({"fit__intervals__covariance__extra": 1}, "fit.intervals.covariance has extra, which it should not"),
        (
            {"fit__intervals__covariance__slope_dof": "x"},
            "covariance.slope_dof must be a number; got 'x'",
        ),
        ({"fit__intervals__covariance__slopes": [[1], 2]}, "fit.intervals.covariance.slopes must be a list of numbers"),
        ({"fit__intervals__covariance__level_dof": [1.0]}, r"covariance.level_dof must be of shape \(6,\); got \(1,\)"),
        ({"fit__intervals__covariance__lack_of_fit": -1.0}, "covariance.lack_of_fit must not be negative"),
        ({"fit__intervals__covariance": 7}, "fit.intervals.covariance must be an object; got 7"),
        ({"fit__intervals__rule_error": None}, "lack the key 'rule_error'"),
        ({"fit__intervals__rule_error__scale": "x"}, "fit.intervals.rule_error.scale must be a number"),
    ],
)
def test_entry_that_cannot_be_is_refused_by_its_key(model, changes, message):
    with pytest.raises(ValueError, match=message):
        model_from_json(changed(model.to_json(), **changes))


def test_committed_parameters_are_those_of_their_covariances():
    files = sorted((Path(__file__).parents[2] / "processed_jsons").glob("*.json"))
    assert all(read_parameters(path) for path in files)


def test_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.json"
    path.write_text('{"a": {"runtime_per_output_token": 1, "runtime_per_output_token": 2}}')
    with pytest.raises(ValueError, match="'runtime_per_output_token' stands twice"):
        read_parameters(path)


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text('{"a": ' * 100_000)
    with pytest.raises(ValueError, match="not a parameter file: nested too deeply"):
        read_parameters(path)


def test_standard_errors_stand_beside_the_parameters(model):
    errors_s = model.to_json()["fit"]["standard_errors"]
    assert errors_s["runtime_for_prompt_tokens"].keys() == model.to_json()["runtime_for_prompt_tokens"].keys()
    lower, upper = model.time_per_output_token_interval_s(level=0.6827)
    assert errors_s["runtime_per_output_token"] == pytest.approx((upper - lower) / 2, rel=0.1)


def test_parameters_of_a_later_schema_are_refused(model):
    entry = model.to_json()
    entry["fit"]["schema_version"] = 2
    with pytest.raises(ValueError, match="schema_version must be 1; got 2"):
        model_from_json(entry)


def test_residuals_do_not_survive_the_file_and_say_so(model):
    with pytest.raises(ValueError, match="residual_summary"):
        _ = model_from_json(model.to_json()).residuals


def test_efficiency_file_is_read_as_helm_estimates_and_written_with_helms_keys(tmp_path):
    prompt_times_s = {"1": 0.029, "256": 0.04}
    davinci = {"runtime_per_output_token": 0.029, "runtime_for_prompt_tokens": prompt_times_s, "overhead": 0.1}
    (tmp_path / "in.json").write_text(json.dumps({"openai/davinci": davinci}))
    models = read_parameters(tmp_path / "in.json")
    assert models["openai/davinci"].predict(128, 2) == pytest.approx(0.02 + 0.029 + 0.1)
    write_parameters(tmp_path / "out.json", models)
    assert json.loads((tmp_path / "out.json").read_text()) == {"openai/davinci": davinci}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "out.json"]


def test_published_parameter_files_survive_unchanged(tmp_path, published):
    for path in sorted((published / "helm-efficiency" / "processed_jsons").glob("*.json")):
        write_parameters(tmp_path / path.name, read_parameters(path))
        assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())


def test_prompt_time_far_above_that_of_a_longer_prompt_is_refused():
    times_s = {"1": 0.03, "16": 50.0, "64": 0.1}
    with pytest.raises(ValueError, match="a prompt of 16 tokens takes 50 s, over ten times as long as a longer one"):
        model_from_json({"runtime_per_output_token": 0.02, "runtime_for_prompt_tokens": times_s})


def test_step_times_of_a_server_stay_in_the_file_and_are_no_runtimes(tmp_path, model):
    path, steps = tmp_path / "p.json", {"fixed_s": 0.01}
    path.write_text(json.dumps({"a": {"steps": steps}, "served": {"steps": steps}}))
    with pytest.raises(ValueError, match=r"p.json: holds the step times of a server alone \(of a, served\)"):
        read_parameters(path)
    write_parameters(path, {"a": model})
    entries = json.loads(path.read_text())
    assert entries["a"]["steps"] == entries["served"]["steps"] == steps
    assert list(read_parameters(path)) == ["a"]
    assert_same_model(read_parameters(path)["a"], model)
