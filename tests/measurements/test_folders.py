import hashlib
import json
import shutil

import pytest

from idealized_runtime import write_parameters
from idealized_runtime.architectures.registry import by_helm_name
from idealized_runtime.measurements import published as published_module
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import fit_models, read_timed_models

LOG = """\
using world size: 1
------------------------ arguments ------------------------
  hidden_size ..................................... 64
  num_attention_heads ............................. 4
  num_layers ...................................... 2
-------------------- end of arguments ---------------------
Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.100 seconds +- 0.001
Runtime for {'num_input_tokens': 1, 'num_output_tokens': 2}: 0.200 seconds +- 0.001
"""


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A repository with logs/box/{first,second}.log, seen from its notebooks folder, without published data."""
    folder = tmp_path / "logs" / "box"
    folder.mkdir(parents=True)
    for name in ("second", "first"):
        (folder / f"{name}.log").write_text(LOG)
    (folder / "notes.txt").write_text("not a log")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(published_module, "ROOT", tmp_path)
    monkeypatch.setenv("PUBLISHED_DATA", str(tmp_path / "published"))
    return folder


def write_json_log(path, model):
    parallelism = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    architecture = {"name": model, "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    header = {"model": model, "hardware": "box", "software": {"megatron-core": "0"}, "engine": "sdpa", **parallelism}
    setting = {"num_prompt_tokens": 1, "num_output_tokens": 1, "batch_size": 1, "runtimes_s": [0.1, 0.2]}
    records = [
        {"record": "header", "schema_version": 1, **header, "architecture": architecture, "num_layers_profiled": 2},
        {"record": "setting", **setting},
        {"record": "footer", "num_settings": 1},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_logs_are_found_by_the_name_of_their_hardware_sorted(logs):
    assert [path.name for path in find_logs("box")] == ["first.log", "second.log"]


def test_logs_are_found_by_path(logs, tmp_path):
    elsewhere = shutil.copytree(logs, tmp_path / "elsewhere")
    assert [path.parent for path in find_logs(str(elsewhere), ["first"])] == [elsewhere]
    assert find_logs(elsewhere / "first.log") == [elsewhere / "first.log"]


def test_logs_of_the_working_directory_come_before_those_of_the_repository(logs, tmp_path):
    nearer = shutil.copytree(logs, tmp_path / "notebooks" / "logs" / "box")
    assert [path.absolute().parent for path in find_logs("box")] == [nearer] * 2


def test_logs_of_the_parent_of_the_repository_are_no_logs_of_this_one(logs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(logs, tmp_path.parent / "logs" / "other")
    with pytest.raises(PublishedDataMissingError, match=r"no timing logs of hardware 'other'.*There are: box\."):
        find_logs("other")
    shutil.rmtree(tmp_path.parent / "logs")


def test_logs_come_in_the_order_of_the_models_asked_for(logs):
    assert list(read_timed_models("box", ["second", "first"])) == ["second", "first"]
    assert list(read_timed_models("box", "second")) == ["second"]


def test_unknown_model_is_refused_with_the_models_there_are(logs):
    with pytest.raises(ValueError, match=r"no box log of frist \(did you mean first\?\); there are: first, second"):
        find_logs("box", ["frist"])


def test_unknown_hardware_is_refused_with_the_hardware_there_is(logs):
    with pytest.raises(PublishedDataMissingError, match=r"no timing logs of hardware 'bxo'.*There are: .*box"):
        find_logs("bxo")


def test_folder_without_logs_is_no_hardware(logs, tmp_path):
    (tmp_path / "logs" / "empty").mkdir()
    with pytest.raises(PublishedDataMissingError, match="'empty'"):
        find_logs("empty")


def test_every_row_of_a_frame_is_of_its_model(logs):
    for name, model in read_timed_models("box").items():
        assert set(model.runtimes["model"]) == {name}
        assert len(model.runtimes) == 2


def test_second_log_of_a_model_is_refused(logs):
    for name in ("one", "two"):
        write_json_log(logs / f"{name}.jsonl", "same")
    with pytest.raises(ValueError, match=r"two logs of same with .*, box/one\.jsonl and box/two\.jsonl; keep one"):
        read_timed_models("box", ["one", "two"])


def test_parameters_name_their_log_alike_on_every_machine(published, tmp_path):
    fits = fit_models(read_timed_models("a100", ["davinci"]))
    write_parameters(tmp_path / "a100.json", by_helm_name(fits))
    entries = json.loads((tmp_path / "a100.json").read_text())
    assert sorted(entries) == ["openai/davinci", "together/opt-175b"]
    (source,) = entries["openai/davinci"]["fit"]["sources"]
    assert source["file"] == "a100/openai_davinci.log"
    log = (published / "helm-efficiency" / "logs" / "a100" / "openai_davinci.log").read_bytes()
    assert source["sha256"] == hashlib.sha256(log).hexdigest()


def test_model_that_cannot_be_fitted_is_named(logs):
    with pytest.raises(ValueError, match=r"first: a fit needs at least 2 prompt sizes.*second: "):
        fit_models(read_timed_models("box"))


def test_published_model_is_found_by_registry_name_and_by_stem(published):
    assert find_logs("a100", ["davinci"]) == find_logs("a100", ["openai_davinci"])
    assert find_logs("a100", ["davinci"])[0].name == "openai_davinci.log"


def test_published_hardware_has_its_logs(published):
    assert len(find_logs("a100")) == 13
    assert len(find_logs("v100")) == 11


def test_parameter_files_use_the_names_of_helm_where_it_has_them():
    named = by_helm_name({"davinci": 1, "gpt2-small": 2, "my-model": 3})
    assert named == {"openai/davinci": 1, "together/opt-175b": 1, "gpt2-small": 2, "my-model": 3}
