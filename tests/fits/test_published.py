"""Fits of the published logs against the numbers their authors and HELM print."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from idealized_runtime import RuntimeModel, read_log
from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.fits import PublishedRuntimeModel, model_from_json
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import SuspiciousLogWarning

# Log behind each entry of the three idealized parameter files; HELM's has four more than the authors'.
LOG_OF_ENTRY = {name: row.published_log for row in ARCHITECTURES.values() for name in row.helm_names}
pytestmark = pytest.mark.filterwarnings("ignore::idealized_runtime.records.RepeatedSettingWarning")


@pytest.fixture(scope="module")
def logs(published):
    """Published timings by hardware and log name."""
    folder = published / "helm-efficiency" / "logs"
    return {
        hardware: {path.stem: read_log(path) for path in sorted((folder / hardware).glob("*.log"))}
        for hardware in ("a100", "v100")
    }


@pytest.fixture(scope="module")
def a100_models(logs):
    return {name: RuntimeModel.fit(runtimes) for name, runtimes in logs["a100"].items()}


@pytest.fixture(scope="module")
def helm():
    """Folder that holds the package helm: .helm/ or where it is installed."""
    spec = importlib.util.find_spec("helm")
    installed = Path(spec.submodule_search_locations[0]).parent if spec else None
    for folder in filter(None, (ROOT / ".helm", installed)):
        if (folder / "helm/benchmark/efficiency_data").is_dir():
            return folder
    message = "crfm-helm is not installed: `make test` puts it, without its dependencies, into .helm/"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    return pytest.skip(message)


def assert_same_entries(entries: dict, logs: dict):
    for name, entry in entries.items():
        fitted = PublishedRuntimeModel.fit(logs[LOG_OF_ENTRY[name]]).to_json()
        assert fitted["runtime_per_output_token"] == entry["runtime_per_output_token"], name
        assert fitted["runtime_for_prompt_tokens"] == entry["runtime_for_prompt_tokens"], name


@pytest.mark.parametrize(
    ("hardware", "file"),
    [("a100", "inference_idealized_runtimes.json"), ("v100", "inference_idealized_runtimes_v100.json")],
)
def test_published_method_gives_every_number_of_the_authors_files(published, logs, hardware, file):
    entries = json.loads((published / "helm-efficiency" / "processed_jsons" / file).read_text())
    assert len(entries) == 15
    assert_same_entries(entries, logs[hardware])


def test_published_method_gives_every_number_of_helms_file(helm, logs):
    path = helm / "helm/benchmark/efficiency_data/inference_idealized_runtimes.json"
    entries = json.loads(path.read_text())
    assert len(entries) == 19
    assert_same_entries(entries, logs["a100"])


def test_weighted_method_meets_its_error_targets_on_a100(a100_models):
    errors = np.concatenate([model.residuals["relative_error"].abs() for model in a100_models.values()])
    median, p95, worst = np.percentile(errors, [50, 95, 100])
    assert len(errors) == 13 * 270
    assert median <= 0.0015
    assert p95 <= 0.010
    assert worst <= 0.051


def leave_one_size_out(models: dict, logs: dict):
    """Relative error of each inner prompt time, fitted without any setting of its size, and whether it is covered."""
    errors, covered = [], []
    for name, model in models.items():
        for size in model.num_prompt_tokens[1:-1]:
            without = RuntimeModel.fit(logs[name][logs[name]["num_prompt_tokens"] != size])
            time_s = model.prompt_encoding_time_s(size)
            lower_s, upper_s = without.prompt_encoding_interval_s(size)
            errors.append(abs(without.prompt_encoding_time_s(size) / time_s - 1))
            covered.append(lower_s <= time_s <= upper_s)
    return np.array(errors), np.array(covered)


def test_prompt_times_of_left_out_sizes_are_predicted_and_covered(a100_models, logs):
    errors, covered = leave_one_size_out(a100_models, logs["a100"])
    assert len(errors) == 13 * 25
    assert np.median(errors) <= 0.020
    assert np.percentile(errors, 95) <= 0.060
    assert 0.93 <= covered.mean() <= 0.97


def test_prompt_times_never_fall_between_neighbours_that_do_not(a100_models):
    for model in a100_models.values():
        times_s = model.prompt_encoding_time_s(np.arange(1, 1921))
        falls = np.flatnonzero(np.diff(times_s) < 0) + 1
        knots, knot_times_s = model.num_prompt_tokens, model.profiled_prompt_times_s
        right = np.searchsorted(knots, falls, side="right")
        assert (knot_times_s[right] < knot_times_s[right - 1]).all()


def test_weighted_fits_describe_v100_logs_better_than_the_authors(logs):
    worse = []
    for fit in (RuntimeModel.fit, PublishedRuntimeModel.fit):
        models = [fit(runtimes) for runtimes in logs["v100"].values()]
        worse.append(np.percentile(np.concatenate([m.residuals["relative_error"].abs() for m in models]), [50, 95]))
    assert (worse[0] < worse[1]).all()


def test_helms_entry_predicts_with_helms_saw_tooth():
    entry = {"runtime_per_output_token": 0.03, "runtime_for_prompt_tokens": {"1": 0.084, "16": 0.087}, "overhead": 0.2}
    model = model_from_json(entry)
    assert model.predict([1, 2, 16], [1, 1, 3]) == pytest.approx([0.284, 0.2 + 0.087 / 8, 0.347])
    assert model.predict(32, 1, extrapolate=True) == pytest.approx(0.374)
    with pytest.raises(ValueError, match="no interval is known"):
        model.predict_interval(1, 1)
    assert model.to_json() == entry


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"runtime_per_output_token": 30.0}, "30 s an output token"),
        ({"runtime_for_prompt_tokens": {"1": 0.084, "16": 0.0}}, "0 s for a prompt of 16"),
        ({"standard_errors": {}}, "standard_errors is not read"),
    ],
)
def test_values_of_no_model_in_helms_entry_are_named(changed, said):
    entry = {"runtime_per_output_token": 0.03, "runtime_for_prompt_tokens": {"1": 0.084, "16": 0.087}, **changed}
    with pytest.warns(SuspiciousLogWarning, match=said):
        model_from_json(entry)
