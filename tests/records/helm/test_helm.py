"""HELM's run folders: built here as HELM 0.5.16 writes them (`json.dumps(..., indent=2)`, no nulls)."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.records.helm import (
    COLUMNS,
    NoRunsError,
    RepeatedRunWarning,
    SkippedRunWarning,
    decoding,
    read_runs,
)

DAVINCI = "openai/davinci"
ROBUST = {"name": "typos", "robustness": True, "fairness": False, "computed_on": "perturbed"}


def stat(name, *values, split="test", perturbation=None):
    """A statistic as HELM's class ``Stat`` computes and writes it."""
    full_name = {"name": name, "split": split} | ({"perturbation": perturbation} if perturbation else {})
    stat = {"name": full_name, "count": len(values), "sum": sum(values), "sum_squared": sum(v * v for v in values)}
    if values:
        mean = sum(values) / len(values)
        stat |= {"min": min(values), "max": max(values), "mean": mean, "variance": 0.0, "stddev": 0.0}
    return stat


def entry(instance_id, stats, *, trial=0, perturbation=None):
    head = {"instance_id": instance_id} | ({"perturbation": perturbation} if perturbation else {})
    return head | {"train_trial_index": trial, "stats": stats}


def query(instance_id, *, p=100, o=5, raw_s=1.0, trial=0, split="test", perturbation=None, **metrics):
    """An instance whose statistics HELM's basic generation metric wrote."""
    values = {"num_references": 1, "num_prompt_tokens": p, "num_output_tokens": o, "inference_runtime": raw_s}
    stats = [stat(name, value, split=split, perturbation=perturbation) for name, value in (values | metrics).items()]
    return entry(instance_id, stats, trial=trial, perturbation=perturbation)


def write_run(suite, entries, *, name="boolq:model=openai_davinci", model=DAVINCI, groups=("boolq",), folder=None):
    run = Path(suite) / (folder or name)
    run.mkdir(parents=True)
    adapter_spec = {"method": "generation", "model_deployment": model, "model": model, "num_train_trials": 1}
    spec = {"name": name, "scenario_spec": {"class_name": "helm.Scenario", "args": {}}, "adapter_spec": adapter_spec,
            "metric_specs": [], "groups": list(groups)}  # fmt: skip
    (run / "run_spec.json").write_text(json.dumps(spec, indent=2))
    (run / "per_instance_stats.json").write_text(json.dumps(entries, indent=2))
    return run


def read_silently(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MissingValueWarning)
        return read_runs(folder, **options)


def names(frame, column):
    return frame[column].astype(str).tolist()


# ---- what is in the frame


def test_an_instance_and_train_trial_is_a_row(tmp_path):
    write_run(tmp_path, [query("id1", trial=0, raw_s=0.5), query("id1", trial=1, raw_s=0.7), query("id2", raw_s=0.9)])
    frame = read_silently(tmp_path)
    assert frame.columns.tolist() == COLUMNS
    assert names(frame, "instance_id") == ["id1", "id1", "id2"]
    assert frame["train_trial"].tolist() == [0, 1, 0]
    assert frame["raw_runtime_s"].tolist() == [0.5, 0.7, 0.9]


def test_metrics_come_unrounded_into_their_columns(tmp_path):
    write_run(tmp_path, [query("id1", p=387, o=50, raw_s=1.2158069610595703, inference_denoised_runtime=1.687013671875,
                               inference_idealized_runtime=4.128140186915888, quasi_exact_match=1)])  # fmt: skip
    (row,) = read_silently(tmp_path).drop(columns=["scenario", "model", "instance_id"]).to_dict("records")
    assert pd.isna(row.pop("perturbation"))
    assert row == {"split": "test", "train_trial": 0, "num_prompt_tokens": 387, "num_output_tokens": 50,
                   "raw_runtime_s": 1.2158069610595703, "denoised_runtime_s": 1.687013671875,
                   "idealized_runtime_s": 4.128140186915888, "accuracy": 1,
                   "accuracy_metric": "quasi_exact_match"}  # fmt: skip


def test_count_zero_and_absent_metrics_are_missing_not_zero(tmp_path):
    stats = [stat("num_prompt_tokens", 10), stat("inference_runtime"), stat("quasi_exact_match")]
    write_run(tmp_path, [entry("id1", stats)])
    frame = read_silently(tmp_path)
    assert frame["num_prompt_tokens"].tolist() == [10]
    assert frame.loc[0, ["raw_runtime_s", "denoised_runtime_s", "accuracy", "num_output_tokens"]].isna().all()


def test_zero_stays_zero(tmp_path):
    write_run(tmp_path, [query("id1", o=0, quasi_exact_match=0)])
    assert read_silently(tmp_path)[["num_output_tokens", "accuracy"]].iloc[0].tolist() == [0, 0]


OF_EVERY_KIND = [query("id1", raw_s=1.0), query("id1", raw_s=2.0, perturbation=ROBUST),
                 query("id1", raw_s=4.0, perturbation=ROBUST | {"prob": 0.5}), query("id2", split="train"),
                 query("id3", split="valid"), query("id4", split="valid", perturbation=ROBUST)]  # fmt: skip


def test_instances_that_helm_shows_are_read(tmp_path):
    write_run(tmp_path, OF_EVERY_KIND)
    frame = read_silently(tmp_path)
    assert names(frame, "instance_id") == ["id1"]
    assert names(frame, "split") == ["test"]
    assert frame["perturbation"].isna().all()


def test_valid_instances_are_read_where_there_are_no_others(tmp_path):
    write_run(tmp_path, OF_EVERY_KIND[3:])
    assert names(read_silently(tmp_path), "split") == ["valid"]


def test_instances_of_other_splits_and_perturbed_ones_are_read_where_asked_for(tmp_path):
    write_run(tmp_path, OF_EVERY_KIND)
    frame = read_silently(tmp_path, splits=("valid", "test", "train"), is_perturbed=True)
    assert names(frame, "split") == ["test", "test", "test", "train", "valid", "valid"]
    assert frame["perturbation"].eq("typos").tolist() == [False, True, True, False, False, True]
    # Two perturbations of one name are two rows.
    assert frame["raw_runtime_s"].tolist()[:3] == [1.0, 2.0, 4.0]
    assert names(read_silently(tmp_path, splits=["valid"]), "instance_id") == ["id3"]


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="splits must be of test, valid, train; got tset"):
        read_runs(tmp_path, splits=["tset"])


def test_a_perturbed_or_train_statistic_does_not_mix_into_a_row(tmp_path):
    stats = [stat("num_prompt_tokens", 10), stat("inference_runtime", 1.0),
             stat("inference_runtime", 9.0, perturbation=ROBUST),
             stat("inference_runtime", 9.0, split="train")]  # fmt: skip
    write_run(tmp_path, [entry("id1", stats)])
    assert read_silently(tmp_path)["raw_runtime_s"].tolist() == [1.0]


def test_entries_of_several_metrics_are_one_row(tmp_path):
    entries = [query("id1"), query("id2"), entry("id1", [stat("rouge_2", 0.25)]), entry("id2", [stat("rouge_2", 0.5)])]
    write_run(tmp_path, entries)
    frame = read_silently(tmp_path)
    assert names(frame, "instance_id") == ["id1", "id2"]
    assert frame["accuracy"].tolist() == [0.25, 0.5]


def test_several_requests_of_an_instance_give_their_mean(tmp_path):
    choices = entry("id1", [stat("num_prompt_tokens", 10, 20, 30), stat("inference_runtime", 1.0, 2.0, 6.0)])
    windows = [entry("id2", [stat("inference_runtime", seconds)]) for seconds in (1.0, 2.0, 4.5)]
    write_run(tmp_path, [choices, *windows])
    frame = read_silently(tmp_path)
    assert frame["raw_runtime_s"].tolist() == [3.0, 2.5]
    assert frame["num_prompt_tokens"].iloc[0] == 20


def test_a_metric_reported_twice_for_one_instance_does_not_slip_to_the_next(tmp_path):
    write_run(tmp_path, [query("id1", f1=1), query("id2"), entry("id1", [stat("f1", 3)])])
    np.testing.assert_array_equal(read_silently(tmp_path, accuracy_metric="f1")["accuracy"], [2, np.nan])


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        ("dyck_language_np=3:model=openai_davinci", "dyck_language_np=3"),
        ("mmlu:subject=a,model=a_b,data_augmentation=canonical", "mmlu:subject=a,data_augmentation=canonical"),
        ("bbq:subject=all,model=amazon_nova-lite-v1:0", "bbq:subject=all"),
        ("gsm:model=meta_llama-2-7b,model_deployment=together_llama-2-7b", "gsm"),
        ("copyright:datatag=n_books_1000-extractions_per_book_1,prompt_model=x,model=a_b",
         "copyright:datatag=n_books_1000-extractions_per_book_1,prompt_model=x"),
        ("simple1", "simple1"),
    ],
)  # fmt: skip
def test_scenario_is_the_run_name_without_its_model(tmp_path, name, scenario):
    write_run(tmp_path, [query("id1")], name=name, model="a/b")
    frame = read_silently(tmp_path)
    assert names(frame, "scenario") == [scenario]
    assert names(frame, "model") == ["a/b"]


def test_several_runs_share_one_frame_with_compact_names(tmp_path):
    for model in ("ai21/j1-large", "openai/davinci"):
        name = f"imdb:model={model.replace('/', '_')}"
        write_run(tmp_path, [query(f"id{i}") for i in range(500)], name=name, model=model)
    frame = read_silently(tmp_path)
    assert len(frame) == 1000
    assert isinstance(frame["instance_id"].dtype, pd.CategoricalDtype)
    assert frame.groupby("model", observed=True).size().to_dict() == {"ai21/j1-large": 500, "openai/davinci": 500}
    assert frame.memory_usage(deep=True).sum() < 150 * len(frame)


# ---- accuracy


def test_accuracy_is_helms_main_metric_of_the_scenario(tmp_path):
    reported = {"exact_match": 0.1, "quasi_exact_match": 0.2, "f1_score": 0.3}
    for scenario in ("boolq", "mmlu", "narrative_qa"):
        write_run(tmp_path, [query("id1", **reported)], name=f"{scenario}:model=a_b", groups=[scenario])
    frame = read_silently(tmp_path)
    assert dict(zip(names(frame, "scenario"), frame["accuracy"], strict=True)) == {
        "boolq": 0.2, "mmlu": 0.1, "narrative_qa": 0.3}  # fmt: skip
    assert dict(zip(names(frame, "scenario"), names(frame, "accuracy_metric"), strict=True)) == {
        "boolq": "quasi_exact_match", "mmlu": "exact_match", "narrative_qa": "f1_score"}  # fmt: skip


def test_a_specific_metric_goes_before_string_comparison(tmp_path):
    write_run(tmp_path, [query("id1", exact_match=0, math_equiv=1)], name="math:model=a_b", groups=["math_regular"])
    assert read_silently(tmp_path)["accuracy"].tolist() == [1]


def test_accuracy_metric_can_be_chosen(tmp_path):
    write_run(tmp_path, [query("id1", exact_match=0.1, f1_score=0.3)], name="mmlu:model=a_b", groups=["mmlu"])
    write_run(tmp_path, [query("id1", exact_match=0.1, f1_score=0.3)], name="boolq:model=a_b", groups=["boolq"])
    assert read_silently(tmp_path, accuracy_metric="f1_score")["accuracy"].tolist() == [0.3, 0.3]
    by_group = read_silently(tmp_path, accuracy_metric={"mmlu": "f1_score"})
    assert dict(zip(names(by_group, "scenario"), by_group["accuracy"], strict=True)) == {"boolq": 0.1, "mmlu": 0.3}


def test_a_chosen_metric_is_not_replaced_by_another(tmp_path):
    write_run(tmp_path, [query("id1", exact_match=1)], groups=["boolq"])
    assert read_silently(tmp_path, accuracy_metric={"boolq": "f1_score"})["accuracy"].isna().all()
    with pytest.raises(ValueError, match="no run reports accuracy_metric='f1_scoer'"):
        read_runs(tmp_path, accuracy_metric="f1_scoer")


# ---- where runs are


def test_nested_suites_are_found_and_helms_other_folders_are_not_runs(tmp_path):
    write_run(tmp_path / "runs" / "v1", [query("id1")], name="boolq:model=a_b")
    write_run(tmp_path / "runs" / "v2", [query("id2")], name="imdb:model=a_b")
    for other in ("runs/v1/eval_cache", "runs/v1/groups/json", "scenario_instances/boolq"):
        (tmp_path / other).mkdir(parents=True)
        (tmp_path / other / "core_scenarios.json").write_text("{}")
    assert sorted(names(read_silently(tmp_path), "instance_id")) == ["id1", "id2"]


def test_a_run_folder_itself_can_be_read(tmp_path):
    run = write_run(tmp_path, [query("id1")])
    assert len(read_silently(run)) == len(read_silently(str(run))) == 1


def test_links_are_followed_and_a_folder_counts_once(tmp_path):
    run = write_run(tmp_path / "elsewhere", [query("id1")])
    suites = tmp_path / "runs"
    suites.mkdir()
    (suites / run.name).symlink_to(run)
    (suites / "latest").symlink_to(tmp_path / "elsewhere")
    (suites / "loop").symlink_to(suites)
    (suites / "itself").symlink_to(suites / "itself")
    assert len(read_silently(suites)) == 1


def test_a_run_in_two_suites_is_read_twice_and_named(tmp_path):
    for suite, raw_s in (("v1", 1.0), ("v2", 2.0)):
        write_run(tmp_path / suite, [query("id1", raw_s=raw_s)])
    with pytest.warns(RepeatedRunWarning, match=r"1 HELM runs stand in several folders.*v1.*v2"):
        assert read_runs(tmp_path)["raw_runtime_s"].tolist() == [1.0, 2.0]


def test_rows_without_accuracy_are_counted_by_scenario(tmp_path):
    write_run(tmp_path, [query("id1"), query("id2")])
    with pytest.warns(MissingValueWarning, match="rows have no accuracy"):
        assert read_runs(tmp_path, accuracy_metric={"imdb": "f1_score", "boolq": "f1_score"})["accuracy"].isna().all()


def test_a_folder_without_runs_is_an_error(tmp_path):
    (tmp_path / "groups").mkdir()
    with pytest.raises(NoRunsError, match="no HELM run at or below this folder; a run is a folder with run_spec"):
        read_runs(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_runs(tmp_path / "nowhere")


# ---- broken files


def cut(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("per_instance_stats.json", cut, "per_instance_stats.json: Input data was truncated"),
        ("per_instance_stats.json", lambda text: text[:-1], "per_instance_stats.json: Input data was truncated"),
        ("per_instance_stats.json", lambda text: "", "per_instance_stats.json: Input data was truncated"),
        ("per_instance_stats.json", lambda text: text + text, "per_instance_stats.json: JSON is malformed"),
        ("per_instance_stats.json", lambda text: "\0" * 100, "per_instance_stats.json: JSON is malformed"),
        ("per_instance_stats.json", lambda text: "[]", "no instance of the splits that are read"),
        ("per_instance_stats.json", lambda text: text.replace('"id7"', "7"), "Expected `str`, got `int`"),
        ("run_spec.json", cut, "run_spec.json: Input data was truncated"),
        ("run_spec.json", lambda text: text.replace(DAVINCI, ""), "run_spec.json: adapter_spec names no model"),
        ("run_spec.json", None, "run_spec.json: No such file or directory"),
        ("per_instance_stats.json", None, "per_instance_stats.json: No such file or directory"),
    ],
)  # fmt: skip
def test_a_broken_run_is_named_skipped_and_counted(tmp_path, monkeypatch, file, damage, reason):
    monkeypatch.setattr(decoding, "PIECE_BYTES", 2000)
    write_run(tmp_path, [query("id1", raw_s=0.5)], name="imdb:model=openai_davinci")
    broken = write_run(tmp_path, [query(f"id{i}") for i in range(20)]) / file
    text = broken.read_text()
    broken.unlink() if damage is None else broken.write_text(damage(text))
    with pytest.warns(SkippedRunWarning, match="skipped 1 of 2 HELM runs") as caught:
        frame = read_runs(tmp_path)
    assert names(frame, "instance_id") == ["id1"]
    assert frame["scenario"].cat.categories.tolist() == ["imdb"]
    (message,) = [str(warning.message) for warning in caught if warning.category is SkippedRunWarning]
    assert str(broken.parent) in message
    assert reason in message


def test_a_folder_that_helm_made_and_left_empty_is_counted(tmp_path):
    write_run(tmp_path, [query("id1")])
    (tmp_path / "imdb:model=openai_davinci").mkdir()
    (tmp_path / "raft:model=openai_davinci").symlink_to(tmp_path / "gone")
    with pytest.warns(SkippedRunWarning, match="skipped 2 of 3 HELM runs"):
        assert len(read_runs(tmp_path)) == 1


def test_nothing_but_broken_runs_is_an_error_that_names_them(tmp_path):
    (write_run(tmp_path, [query("id1")]) / "per_instance_stats.json").write_text("[{")
    with pytest.raises(NoRunsError, match=r"skipped 1 of 1 HELM runs\n.*boolq.*truncated"):
        read_runs(tmp_path)


def test_numbers_that_are_not_finite_are_missing(tmp_path):
    entries = [query("id1", raw_s=float("inf")), query("id2", raw_s=2.0, logprob=float("-inf"), other=float("nan"))]
    write_run(tmp_path, entries)
    np.testing.assert_array_equal(read_silently(tmp_path)["raw_runtime_s"], [np.nan, 2.0])


# ---- pieces and layouts


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("piece_bytes", [64, 1500, 5000, 1 << 18])
def test_neither_layout_nor_piece_size_changes_what_is_read(tmp_path, monkeypatch, indent, piece_bytes):
    monkeypatch.setattr(decoding, "PIECE_BYTES", piece_bytes)
    rng = np.random.default_rng(0)
    entries = [query(f"id,{{\n  }},\n  {{ü{i}", raw_s=float(rng.random())) for i in range(60)]
    run = write_run(tmp_path, entries)
    (run / "per_instance_stats.json").write_text(json.dumps(entries, indent=indent))
    frame = read_silently(tmp_path)
    assert names(frame, "instance_id") == [entry["instance_id"] for entry in entries]
    assert frame["raw_runtime_s"].tolist() == [entry["stats"][3]["sum"] for entry in entries]


def test_a_file_in_helms_layout_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PIECE_BYTES", 4000)
    run = write_run(tmp_path, [query(f"id{i}") for i in range(100)])
    sizes = [len(piece) for piece in decoding._read_pieces(run / "per_instance_stats.json")]
    assert len(sizes) > 20
    assert max(sizes) < 2 * 4000


@pytest.mark.parametrize("piece_bytes", [1500, 8000])
def test_instances_may_report_different_metrics_in_any_order(tmp_path, monkeypatch, piece_bytes):
    monkeypatch.setattr(decoding, "PIECE_BYTES", piece_bytes)
    rng = np.random.default_rng(1)
    pool = ["inference_runtime", "inference_denoised_runtime", "num_prompt_tokens", "quasi_exact_match", "a", "b", "c"]
    entries, expected = [], []
    for i in range(300):
        # Long stretches of one layout, in which single instances differ by a swap or a replacement.
        kept = pool[: 4 + i // 100] if rng.random() < 0.7 else list(rng.permutation(pool)[: rng.integers(1, 8)])
        values = {name: float(rng.random()) for name in kept}
        entries.append(entry(f"id{i}", [stat(name, value) for name, value in values.items()]))
        expected.append([values.get(name, np.nan) for name in pool[:4]])
    write_run(tmp_path, entries)
    columns = ["raw_runtime_s", "denoised_runtime_s", "num_prompt_tokens", "accuracy"]
    np.testing.assert_array_equal(read_silently(tmp_path)[columns], expected)


# ---- HELM's own output


@pytest.fixture
def helm_runs(published):
    folder = published.parent / "helm_runs"
    if not folder.is_dir():
        pytest.skip(f"no run folders of HELM at {folder}")
    return folder


def test_helms_own_runs_read_as_a_json_loop_reads_them(helm_runs):
    frame = read_silently(helm_runs)
    assert frame.groupby("scenario", observed=True).size().to_dict() == {
        "dyck_language_np=3": 10, "simple1": 30, "synthetic_reasoning:mode=pattern_match": 5,
        "synthetic_efficiency:random=p256o16,num_prompt_tokens=256,num_output_tokens=16,tokenizer=huggingface_gpt2": 10,
    }  # fmt: skip
    columns = {"num_prompt_tokens": "num_prompt_tokens", "num_output_tokens": "num_output_tokens",
               "raw_runtime_s": "inference_runtime", "denoised_runtime_s": "inference_denoised_runtime",
               "idealized_runtime_s": "inference_idealized_runtime"}  # fmt: skip
    expected = []
    for path in sorted(helm_runs.glob("*/*/per_instance_stats.json")):
        for instance in json.loads(path.read_text()):
            if instance["stats"][0]["name"]["split"] != "test":
                continue
            means = {stat["name"]["name"]: stat.get("mean") for stat in instance["stats"]}
            expected.append([instance["train_trial_index"], *(means.get(name) for name in columns.values())])
    np.testing.assert_array_equal(frame[["train_trial", *columns]], np.array(expected, dtype=float))


def test_accuracy_of_helms_own_runs_is_each_scenarios_main_metric(helm_runs):
    metrics = read_silently(helm_runs).groupby("scenario", observed=True)["accuracy_metric"].unique()
    assert {scenario.partition(":")[0]: found.dropna().tolist() for scenario, found in metrics.items()} == {
        "dyck_language_np=3": ["exact_match_indicator"], "simple1": [], "synthetic_efficiency": ["exact_match"],
        "synthetic_reasoning": ["quasi_exact_match"],
    }  # fmt: skip
