import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.measurements.inferencex import read_inferencex
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.served import predict_served
from idealized_runtime.serving.served_points import predict_points

POINT = {
    "model": "Qwen/Qwen3-8B", "hardware": "H200", "software": "vllm 0.19.0", "dtype": "float8", "num_accelerators": 1,
    "tensor_parallel_size": 1, "concurrency": 16, "num_prompt_tokens": 1024, "num_output_tokens": 1024,
    "time_to_first_token_s": 0.2, "time_per_output_token_s": 0.005,
}  # fmt: skip


def test_point_is_met_by_what_is_predicted_of_its_server():
    (row,) = predict_points(pd.DataFrame([POINT])).to_dict("records")
    served = predict_served(get_architecture("qwen3-8b"), hardware="H200", software="vllm", dtype="float8")
    runtimes = served.runtimes(16)
    assert row["predicted_s"] == pytest.approx(runtimes.output_token_s(1024, 1024))
    assert row["relative_error"] == pytest.approx(row["predicted_s"] / 0.005 - 1)
    lower_s, upper_s = runtimes.output_token_interval_s(1024, 1024)
    assert row["is_covered"] == float(lower_s <= 0.005 <= upper_s)
    assert row["first_token_error"] == pytest.approx(runtimes.predict(1024, 1) / 0.2 - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"software": "sglang 0.5"},
        {"model": "org/unknown"},
        {"dtype": "float4"},
        {"num_accelerators": 8},
        {"model": "meta-llama/Llama-3.1-70B-Instruct"},
    ],
)
def test_other_engines_formats_and_layouts_are_left_out(changes):
    hardware = {"hardware": "L4"} if changes.get("model", "").startswith("meta") else {}
    points = pd.DataFrame([POINT, POINT | changes | hardware])
    assert predict_points(points).index.tolist() == [0]


def test_published_points_of_machines_without_logs_are_held():
    """Of H200 and B200 nothing was fitted; on H100 later versions of the engine are quicker than that of the stack."""
    rows = predict_points(usable_points(read_inferencex()))
    held = rows.groupby("hardware")["is_covered"].mean()
    errors = rows["relative_error"].abs().groupby(rows["hardware"]).median()
    assert (held[["H200", "B200", "B300"]] >= 0.95).all()
    assert (errors < 0.2).all()
