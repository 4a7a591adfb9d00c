import json

import numpy as np
import pytest

from idealized_runtime.measurements.ml_energy import FOLDER, TASKS, read_ml_energy
from idealized_runtime.measurements.points import POINT_COLUMNS, count_flags, usable_points

ROW = {
    "model_id": "org/model", "gpu_model": "H100", "num_gpus": 4, "tensor_parallel": 1, "expert_parallel": 4,
    "data_parallel": 1, "weight_precision": "fp8", "max_num_seqs": 16, "avg_batch_size": 15.9, "avg_output_len": 600.0,
    "median_itl_ms": 10.0, "p90_itl_ms": 10.5, "p95_itl_ms": 11.0,
    "output_throughput_tokens_per_sec": 1500.0, "avg_power_watts": 1600.0,
    "energy_per_token_joules": 1.07,
}  # fmt: skip
LENGTHS = {"bins": [0, 400, 1200], "counts": [500, 500]}


@pytest.fixture
def read_rows(tmp_path, monkeypatch):
    """What the reader makes of rows that differ from ROW."""

    def read(*changes, counts=(500, 500)):
        folder = tmp_path / FOLDER
        for part in ("tasks", "models"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        rows = [
            ROW | {"median_itl_ms": ROW["median_itl_ms"] + 0.001 * number} | change
            for number, change in enumerate(changes)
        ]
        for task in TASKS:
            text = json.dumps({"configurations": rows if task == "gpqa" else []})
            (folder / "tasks" / f"{task}.json").write_text(text)
        for model in {row["model_id"] for row in rows}:
            of_model = [
                row | {"output_length_distribution": LENGTHS | {"counts": list(counts)}}
                for row in rows
                if row["model_id"] == model
            ]
            entry = {"model_id": model, "task": "gpqa", "configurations": of_model}
            (folder / "models" / f"{model.replace('/', '__')}__gpqa.json").write_text(json.dumps(entry))
        monkeypatch.setenv("PUBLISHED_DATA", str(tmp_path))
        return read_ml_energy()

    return read


def test_row_becomes_a_point_in_our_units(read_rows):
    (point,) = read_rows({}).to_dict("records")
    assert tuple(point)[: len(POINT_COLUMNS)] == POINT_COLUMNS
    expected = {
        "model": "org/model", "hardware": "H100", "num_accelerators": 4, "dtype": "float8", "concurrency": 15.9,
        "time_per_output_token_s": 0.01, "power_watts": 1600.0, "requests_per_step": 15.9 / 600,
        "inter_token_p95_s": 0.011, "flags": "",
        "num_requests": 1000,
    }  # fmt: skip
    assert {name: point[name] for name in expected} == pytest.approx(expected)
    assert np.isnan(point["num_prompt_tokens"])


def test_running_requests_have_half_their_square_length_in_the_cache(read_rows):
    # Lengths are 0 to 400 and 400 to 1200, each of half of the requests, evenly: E[L^2] = 373333, E[L] = 500.
    output = (400**2 / 3 + (1200**3 - 400**3) / 3 / 800) / 2 / (2 * 500)
    assert read_rows({})["num_context_tokens"].tolist() == pytest.approx([300 + output])


@pytest.mark.parametrize(("copies", "tensor"), [(1, 4), (4, 1)])
def test_attention_is_split_over_the_devices_of_a_copy_whatever_the_row_says(read_rows, copies, tensor):
    assert read_rows({"data_parallel": copies})["tensor_parallel_size"].tolist() == [tensor]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"p90_itl_ms": 12.5}, "host-bound"),
        ({"avg_output_len": 20.0}, "prompts-in-most-steps"),
        ({"data_parallel": 4}, "data-parallel"),
        ({"max_num_seqs": 501, "avg_batch_size": 500.0, "avg_output_len": 9e4}, "few-rounds"),
        ({"avg_batch_size": 15.0}, "batch-not-filled"),
    ],
)
def test_each_trap_is_flagged_by_what_the_row_shows(read_rows, changes, rule):
    assert read_rows(changes)["flags"].tolist() == [rule]


def test_host_of_a_server_is_one_in_all_its_rows(read_rows):
    slow, busy = {"p90_itl_ms": 13.0}, {"max_num_seqs": 128, "avg_batch_size": 127.0, "p90_itl_ms": 11.0}
    flags = read_rows(slow, busy, busy | {"model_id": "org/other"})["flags"]
    assert flags.tolist() == ["host-bound", "host-bound", ""]


def test_spread_that_prompts_make_is_no_host(read_rows):
    assert read_rows({"p90_itl_ms": 13.0, "avg_output_len": 100.0})["flags"].tolist() == [""]


def test_same_server_measured_twice_is_named_and_stays(read_rows):
    points = read_rows({}, {}, {"max_num_seqs": 17, "avg_batch_size": 16.9})
    assert points["flags"].tolist() == ["measured-twice", "measured-twice", ""]
    assert len(usable_points(points)) == 3


def test_published_rows_and_what_is_left_of_them():
    points = read_ml_energy()
    assert len(points) == 565
    counts = count_flags(points)["num_rows"].to_dict()
    assert counts == {
        "host-bound": 155, "prompts-in-most-steps": 91, "data-parallel": 16, "few-rounds": 73, "batch-not-filled": 32,
        "measured-twice": 6,
    }  # fmt: skip
    assert usable_points(points)["hardware"].value_counts().to_dict() == {"H100": 244, "B200": 98}


def test_joules_a_token_are_watts_over_tokens_a_second():
    points = read_ml_energy()
    ratio = points["power_watts"] / points["output_tokens_per_s"] / points["energy_per_output_token_joules"]
    assert ratio.to_numpy() == pytest.approx(1, abs=1e-6)
