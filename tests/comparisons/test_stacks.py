import numpy as np
import pandas as pd
import pytest
from makers import write_toy_log

from idealized_runtime.comparisons.stacks import (
    FloorRuntime,
    compare_stacks,
    floor_stack,
    read_stacks,
    summarize_speed_ups,
    workload_ratios,
)
from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.queries.tables import grid_queries
from idealized_runtime.queries.terms import PricedModel


class Linear:
    """A runtime model of ``scale`` seconds a token, known to 10 %, timed up to 100 prompt tokens."""

    def __init__(self, scale):
        self.scale = scale

    def predict(self, p, o):
        return self.scale * (np.asarray(p) + o)

    def predict_interval(self, p, o, *, level):
        return 0.9 * self.predict(p, o), 1.1 * self.predict(p, o)

    def is_extrapolated(self, p):
        return np.asarray(p) > 100


STACKS = {"slow": {"a": Linear(2.0), "b": Linear(3.0)}, "fast": {"a": Linear(1.0), "c": Linear(1.0)}}


def test_speed_up_is_the_ratio_of_runtimes_for_models_that_both_stacks_hold():
    table = compare_stacks(grid_queries([1, 10], [5]), STACKS, baseline="slow")
    assert table["model"].tolist() == ["a", "a"]
    assert table["baseline_s"].tolist() == [12.0, 30.0]
    assert table["speed_up"].tolist() == pytest.approx([2.0, 2.0])


def test_queries_beyond_what_both_stacks_timed_are_left_out_and_equal_ones_share_a_row():
    workload = pd.DataFrame({"num_prompt_tokens": [50, 50, 200], "num_output_tokens": [1, 1, 1]})
    table = compare_stacks(workload, STACKS, baseline="slow")
    assert table[["num_prompt_tokens", "num_queries"]].to_numpy().tolist() == [[50, 2]]


def test_workload_of_which_nothing_was_timed_is_refused():
    with pytest.raises(ValueError, match=r"no two stacks timed prompts as long .*of 200 tokens"):
        compare_stacks(grid_queries([200, 300], [1]), STACKS, baseline="slow")


def test_summary_weighs_each_size_by_the_queries_that_have_it():
    sizes = pd.DataFrame({"baseline_s": [2.0, 4.0], "runtime_s": [1.0, 4.0], "speed_up": [2.0, 1.0]})
    certain = {f"{name}_{bound}": sizes[name] for name in sizes for bound in ("lower", "upper")}
    table = sizes.assign(stack="fast", model="a", num_queries=[3, 1], **certain)
    row = summarize_speed_ups(table).loc[("fast", "a")]
    assert row[["num_queries", "median", "percent_faster"]].tolist() == [4, 2.0, 75.0]
    assert row["workload"] == pytest.approx((3 * 2 + 4) / (3 * 1 + 4))


def test_unknown_baseline_is_refused_with_the_stacks_there_are():
    with pytest.raises(ValueError, match=r"no stack named 'eager'.*slow, fast"):
        compare_stacks(grid_queries([1], [1]), STACKS, baseline="eager")


def test_stacks_without_a_common_model_are_refused():
    with pytest.raises(ValueError, match=r"no model was timed with 'slow' and with another stack.*fast: c"):
        compare_stacks(grid_queries([1], [1]), {**STACKS, "fast": {"c": Linear(1.0)}}, baseline="slow")


def test_summary_counts_queries_that_are_faster_beyond_doubt_and_sums_the_workload():
    table = compare_stacks(grid_queries([1, 10], [5]), STACKS, baseline="slow")
    row = summarize_speed_ups(table).loc[("fast", "a")]
    assert (row["num_queries"], row["percent_faster"], row["percent_slower"]) == (2, 100, 0)
    assert row["workload"] == pytest.approx(2.0)
    # Errors of one fit do not average out over its queries.
    assert row["workload_lower"] == pytest.approx(table["speed_up_lower"].iloc[0])


def test_stacks_of_two_machines_are_refused(tmp_path):
    write_toy_log(tmp_path / "one" / "toy.jsonl", hardware="box")
    write_toy_log(tmp_path / "two" / "toy.jsonl", hardware="tower")
    with pytest.raises(ValueError, match="several: old: box; new: tower"):
        read_stacks({"old": str(tmp_path / "one"), "new": str(tmp_path / "two")})


def test_model_on_different_numbers_of_devices_is_refused(tmp_path):
    write_toy_log(tmp_path / "one" / "toy.jsonl")
    write_toy_log(tmp_path / "two" / "toy.jsonl", tensor_parallel_size=2)
    with pytest.raises(ValueError, match=r"toy was timed at different .*\(old 1x1, new 2x1\)"):
        read_stacks({"old": str(tmp_path / "one"), "new": str(tmp_path / "two")})


def test_engines_of_one_machine_are_read_as_stacks(tmp_path):
    for engine in ("eager", "sdpa"):
        write_toy_log(tmp_path / engine / "toy.jsonl", engine=engine)
    stacks = read_stacks({engine: str(tmp_path / engine) for engine in ("eager", "sdpa")})
    assert ["eager" in stacks["eager"]["toy"].software, "sdpa" in stacks["sdpa"]["toy"].software] == [True, True]


def test_floor_is_certain_and_below_every_measured_runtime():
    models = read_timed_models("cpu")
    floor = floor_stack(models)["gpt2-small"]
    assert isinstance(floor, FloorRuntime)
    runtimes = models["gpt2-small"].runtimes
    p, o = runtimes["num_prompt_tokens"].to_numpy(), runtimes["num_output_tokens"].to_numpy()
    assert np.all(floor.predict(p, o) < runtimes["runtime_s"])
    assert np.array_equal(*floor.predict_interval(p, o))
    assert not floor.is_extrapolated(p).any()


def test_machine_of_which_nothing_is_known_has_no_floor(tmp_path):
    write_toy_log(tmp_path / "toy.jsonl", hardware="box")
    assert floor_stack(read_timed_models(str(tmp_path))) == {}


def test_published_a100_logs_leave_at_least_half_of_their_time_to_better_software():
    models = read_timed_models("a100")
    stacks = {"2022": {name: model.fit for name, model in models.items()}, "floor": floor_stack(models)}
    summary = summarize_speed_ups(compare_stacks(grid_queries([512], [64]), stacks, baseline="2022"))
    assert summary["workload"].median() > 2
    assert summary["workload"].idxmax() == ("floor", "ada")


def test_weights_count_as_so_many_queries():
    sizes = grid_queries([1, 10, 20], [5, 9]).assign(weight=[1, 0, 2, 5, 1, 3])
    repeated = sizes.loc[sizes.index.repeat(sizes["weight"])].drop(columns="weight")
    weighted, counted = (
        summarize_speed_ups(compare_stacks(queries, STACKS, baseline="slow")).iloc[0].drop(["least", "most"])
        for queries in (sizes, repeated)
    )
    assert weighted.tolist() == pytest.approx(counted.tolist())


def test_workload_of_several_models_is_surer_than_that_of_each():
    stacks = {"slow": {"a": Linear(2.0), "b": Linear(2.0)}, "fast": {"a": Linear(1.0), "b": Linear(1.0)}}
    table = compare_stacks(grid_queries([10], [5]), stacks, baseline="slow")
    ratios = workload_ratios(table)
    assert ratios["ratio"].tolist() == pytest.approx([0.5, 0.5, 0.5])
    widths = (ratios["ratio_upper"] / ratios["ratio_lower"]).to_numpy()
    assert widths[2] < widths[0] == pytest.approx(widths[1])


def test_what_a_second_costs_counts_on_both_sides():
    rates = {"slow": DeviceRate.exactly(1.0), "fast": DeviceRate.exactly(0.5)}
    stacks = {
        name: {"a": PricedModel("a", models["a"], 1, price_usd_per_hour=rates[name])} for name, models in STACKS.items()
    }
    table = compare_stacks(grid_queries([10], [5]), stacks, baseline="slow")
    assert workload_ratios(table, "cost_usd").loc["a", "ratio"] == pytest.approx(0.25)
    assert "energy_joules" not in table
