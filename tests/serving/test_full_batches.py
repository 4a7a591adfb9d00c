import numpy as np
import pandas as pd
import pytest

from idealized_runtime.measurements.ml_energy import read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.full_batches import COSTS, FullBatches
from idealized_runtime.serving.groups import SERVER

BATCHES = np.array([8.0, 16, 32, 64, 128, 256])


def make_points(model="Qwen/Qwen3-8B", *, batches=BATCHES, hardware="H100", num_accelerators=2, slower=1.0, **more):
    """Medians of 10 ms and 0.1 ms a request, mean steps a tenth longer, 200 J a step and 0.5 J a request."""
    median_s = slower * (0.010 + 1e-4 * batches)
    table = {
        "model": model, "hardware": hardware, "software": "vllm", "dtype": "bfloat16", "tensor_parallel_size": 2,
        "data_parallel_size": 1, "expert_parallel_size": 1, "num_accelerators": num_accelerators, "task": "chat",
        "concurrency": batches, "max_num_seqs": batches, "num_prompt_tokens": np.nan, "num_output_tokens": 500.0,
        "num_context_tokens": 600.0, "time_per_output_token_s": median_s, "inter_token_p90_s": 1.25 * median_s,
        "inter_token_p95_s": 2 * median_s, "output_tokens_per_s": batches / (1.1 * median_s),
        "energy_per_output_token_joules": (200 + 0.5 * batches) / batches,
    }  # fmt: skip
    return pd.DataFrame(table | more)


def within(points, limit_s=0.03, percentile=50, **options):
    return FullBatches.fit(points, percentile=percentile).within(limit_s, **options)


def test_cost_is_that_of_the_largest_batch_within_the_limit():
    (row,) = within(make_points(), prices_usd_per_hour={"H100": 3.6}).to_dict("records")
    # 10 ms + 0.1 ms x 200 are 30 ms; a mean step is 33 ms on two devices of a tenth of a cent a second.
    assert row["batch"] == pytest.approx(200, rel=0.02)
    assert row["accelerator_s_per_output_token"] == pytest.approx(2 * 0.033 / 200, rel=0.01)
    assert row["usd_per_million_output_tokens"] == pytest.approx(1e6 * 0.001 * 2 * 0.033 / 200, rel=0.01)
    assert row["joules_per_output_token"] == pytest.approx(300 / 200, rel=0.01)
    assert not row["is_largest_measured"]
    assert (row["architecture"], row["num_accelerators"], row["task"]) == ("qwen3-8b", 2, "chat")


def test_higher_percentile_within_the_same_limit_runs_a_smaller_batch():
    (row,) = within(make_points(), percentile=95).to_dict("records")
    assert row["batch"] == pytest.approx(50, rel=0.02)


def test_median_counts_where_the_line_of_a_higher_percentile_lies_below_it():
    points = make_points(inter_token_p95_s=0.001)
    (row,) = within(points, percentile=95).to_dict("records")
    assert row["batch"] == pytest.approx(200, rel=0.02)


def test_batch_is_none_that_was_not_measured():
    (row,) = within(make_points(), limit_s=1.0).to_dict("records")
    assert (row["batch"], row["is_largest_measured"]) == (pytest.approx(256), True)


def test_batch_between_two_that_were_measured_is_as_far_off_the_line_as_they_are():
    # Of the batches on either side both are a quarter slower than all others: 30 ms are reached at 140.
    factor = np.where(BATCHES >= 128, 1.25, 1.0)
    median_s = factor * (0.010 + 1e-4 * BATCHES)
    points = make_points(time_per_output_token_s=median_s, output_tokens_per_s=BATCHES / (1.1 * median_s))
    (row,) = within(points, prices_usd_per_hour={"H100": 3.6}).to_dict("records")
    assert row["batch"] == pytest.approx(140, rel=0.03)
    assert row["accelerator_s_per_output_token"] == pytest.approx(2 * 0.033 / 140, rel=0.03)


def test_server_that_is_slower_at_its_smallest_batch_is_left_out():
    points = pd.concat([make_points(), make_points("Qwen/Qwen3-32B", slower=10.0)])
    assert within(points)["architecture"].tolist() == ["qwen3-8b"]


def test_limit_that_no_server_keeps_is_refused_with_the_least_that_was_measured():
    with pytest.raises(ValueError, match=r"within 0\.001 s at its smallest batch; .* takes 0\.0108 s"):
        within(make_points(), limit_s=0.001)


def test_machine_without_a_price_has_joules_and_no_dollars():
    (row,) = within(make_points(hardware="GB300")).to_dict("records")
    assert np.isnan(row["usd_per_million_output_tokens"])
    assert row["joules_per_output_token"] == pytest.approx(1.5, rel=0.01)


def test_intervals_hold_what_the_same_server_costs_again():
    noise = np.random.default_rng(3)

    def noisy(points):
        factor = np.exp(0.05 * noise.standard_normal(len(points)))
        names = ["time_per_output_token_s", "energy_per_output_token_joules"]
        return points.assign(output_tokens_per_s=points["output_tokens_per_s"] / factor).assign(
            **{name: points[name] * factor for name in names}
        )

    models = ["Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B", "google/gemma-3-12b-it", "google/gemma-3-27b-it"]
    true = within(make_points()).iloc[0]
    rows = pd.concat(within(noisy(pd.concat(map(make_points, models)))) for _ in range(10))
    for cost in COSTS:
        is_held = rows[f"{cost}_lower"].le(true[cost]) & rows[f"{cost}_upper"].ge(true[cost])
        assert is_held.mean() > 0.9
        assert (rows[f"{cost}_upper"] / rows[f"{cost}_lower"]).median() < 2


def test_percentile_that_nobody_publishes_is_refused():
    with pytest.raises(ValueError, match="percentile must be one of 50, 90, 95; got 99"):
        FullBatches.fit(make_points(), percentile=99)


@pytest.fixture(scope="module")
def measured():
    points = usable_points(read_ml_energy())
    return points[points["hardware"] == "H100"]


def test_published_rows_cost_what_their_servers_do_at_the_largest_batch(measured):
    rows = FullBatches.fit(measured).within(0.05, num_draws=20)
    rows = rows[rows["is_largest_measured"]]
    assert len(rows) > 10
    keys = ["hardware", "dtype", "num_accelerators", "task", "tensor_parallel_size", "expert_parallel_size"]
    ratios = []
    for row in rows.itertuples():
        points = measured[(measured[keys] == [getattr(row, key) for key in keys]).all(axis=1)]
        (own,) = points.index[(points["concurrency"] / row.batch - 1).abs() < 1e-9][:1]
        usd = 1e6 * 6.88 / 3600 * row.num_accelerators / points.loc[own, "output_tokens_per_s"]
        ratios.append(row.usd_per_million_output_tokens / usd)
    assert np.median(np.abs(np.log(ratios))) < 1e-9
    # A batch that was measured twice is the mean of both.
    assert np.max(np.abs(np.log(ratios))) < 0.02


def test_published_batches_that_are_left_out_are_within_a_few_per_cent(measured):
    fitted = FullBatches.fit(measured)
    table = fitted.left_out_table()
    assert (table["median_percent"] < 2.3).all()
    assert table["covered_percent"].between(90, 98).all()
    # A small batch of a server costs several times what the largest within 50 ms does.
    server = [*SERVER, "num_accelerators", "task"]
    tight, loose = (
        fitted.within(limit_s, num_draws=20).set_index(server)["usd_per_million_output_tokens"]
        for limit_s in (0.02, 0.05)
    )
    ratios = (tight / loose).dropna()
    assert len(ratios) > 15
    assert (ratios >= 1).all()
    assert ratios.median() > 1.3
