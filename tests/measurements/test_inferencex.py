import numpy as np
import pandas as pd
import pytest

from idealized_runtime.measurements.inferencex import FILE, read_inferencex
from idealized_runtime.measurements.points import POINT_COLUMNS, count_flags, usable_points

ROW = {
    "id": "a", "silicon_data_source": "dump; silicon_concurrency=16; measured=2026-01-01", "backend": "vllm",
    "backend_version": "0.19.0", "model_path": "org/model", "system": "h100_sxm", "precision": "fp8", "mode": "agg",
    "isl": 1024, "osl": 1025, "tp_size": 8.0, "attention_dp_size": 1.0, "moe_tp_size": 1.0, "moe_ep_size": 8.0,
    "decode_tp_size": np.nan, "decode_attention_dp_size": np.nan, "decode_moe_tp_size": np.nan,
    "decode_moe_ep_size": np.nan, "silicon_ttft_ms": 500.123, "silicon_tpot_ms": 20.004,
}  # fmt: skip


@pytest.fixture
def read_rows(tmp_path, monkeypatch):
    """What the reader makes of rows that differ from ROW."""

    def read(*changes):
        path = tmp_path / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([ROW | change for change in changes]).to_csv(path, index=False)
        monkeypatch.setenv("PUBLISHED_DATA", str(tmp_path))
        return read_inferencex()

    return read


def test_row_becomes_a_point_in_our_units(read_rows):
    (point,) = read_rows({}).to_dict("records")
    assert tuple(point)[: len(POINT_COLUMNS)] == POINT_COLUMNS
    expected = {
        "hardware": "H100", "software": "vllm 0.19.0", "num_accelerators": 8, "dtype": "float8", "concurrency": 16,
        "num_prompt_tokens": 1024, "time_to_first_token_s": 0.500123, "time_per_output_token_s": 0.020004, "flags": "",
    }  # fmt: skip
    assert {name: point[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"mode": "disagg", "decode_tp_size": 8.0}, "disaggregated"),
        ({"silicon_data_source": "dump; measured=2026-01-01"}, "no-concurrency"),
        ({"silicon_ttft_ms": 20_600.0}, "queued"),
        ({"tp_size": 64.0}, "devices-added-up"),
        ({"tp_size": 12.0}, "devices-added-up"),
        ({"moe_tp_size": 8.0}, "devices-in-doubt"),
        ({"tp_size": 4.0, "attention_dp_size": 4.0, "moe_ep_size": 16.0}, "devices-in-doubt"),
    ],
)
def test_each_trap_is_flagged_by_what_the_row_shows(read_rows, changes, rule):
    assert read_rows(changes)["flags"].tolist() == [rule]


def test_number_of_devices_in_doubt_is_missing(read_rows):
    points = read_rows({"tp_size": 64.0, "moe_tp_size": 8.0}, {"tp_size": 1.0, "attention_dp_size": 8.0})
    assert np.isnan(points["num_accelerators"][0])
    assert points["num_accelerators"][1] == 8


def test_measurement_that_is_listed_again_counts_once_by_its_best_listing(read_rows):
    doubtful = {"tp_size": 64.0, "moe_tp_size": 8.0, "model_path": "org/other-name"}
    rounded = {"silicon_ttft_ms": 500.12, "silicon_tpot_ms": 20.0, "backend_version": np.nan}
    points = read_rows(doubtful, rounded, {}, {"silicon_tpot_ms": 20.1})
    assert points["flags"].tolist() == [
        "devices-added-up listed-again devices-in-doubt",
        "listed-again",
        "measured-twice",
        "measured-twice",
    ]


def test_server_that_is_much_quicker_with_more_clients_is_another_one(read_rows):
    def row(clients, tpot_ms, **more):
        return {"silicon_data_source": f"silicon_concurrency={clients}", "silicon_tpot_ms": tpot_ms} | more

    steady = [row(1, 10.0, isl=2048), row(2, 9.5, isl=2048), row(4, 30.0, isl=2048)]
    points = read_rows(row(1, 8.0), row(2, 42.0), row(8, 27.0), *steady)
    assert points["flags"].tolist() == 3 * ["quicker-with-more"] + 3 * [""]


@pytest.mark.parametrize(
    "changes", [{"isl": 2048}, {"system": "h200_sxm"}, {"precision": "bf16"}, {"backend": "sglang"}]
)
def test_equal_times_of_another_setting_are_another_measurement(read_rows, changes):
    assert read_rows({}, changes)["flags"].tolist() == ["", ""]


def test_published_rows_and_what_is_left_of_them():
    points = read_inferencex()
    assert len(points) == 5221
    counts = count_flags(points)["num_rows"].to_dict()
    assert counts == {
        "disaggregated": 1602, "devices-added-up": 435, "no-concurrency": 19, "listed-again": 1441, "queued": 84,
        "quicker-with-more": 30, "measured-twice": 595, "devices-in-doubt": 956,
    }  # fmt: skip
    usable = usable_points(points)
    assert usable["hardware"].value_counts().to_dict() == {
        "B200": 1032, "H100": 762, "H200": 579, "B300": 246, "GB200": 3,
    }  # fmt: skip
    assert usable["time_per_output_token_s"].between(0.002, 0.21).all()
