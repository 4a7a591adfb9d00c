import numpy as np
import pandas as pd
import pytest
from makers.timed_logs import write_log

from idealized_runtime.comparisons.stacks import (
    FloorRuntime,
    compare_stacks,
    floor_stack,
    ratio_interval,
    read_stacks,
    summarize_speed_ups,
)
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.queries.tables import grid_workload, read_workload


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


def test_grid_holds_every_pair_of_sizes():
    assert grid_workload([1, 2], [3, 4]).to_numpy().tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_speed_up_is_the_ratio_of_runtimes_for_models_that_both_stacks_hold():
    table = compare_stacks(grid_workload([1, 10], [5]), STACKS, baseline="slow")
    assert table["model"].tolist() == ["a", "a"]
    assert table["baseline_s"].tolist() == [12.0, 30.0]
    assert table["speed_up"].tolist() == pytest.approx([2.0, 2.0])


def test_queries_beyond_what_both_stacks_timed_are_left_out_and_equal_ones_share_a_row():
    workload = pd.DataFrame({"num_prompt_tokens": [50, 50, 200], "num_output_tokens": [1, 1, 1]})
    table = compare_stacks(workload, STACKS, baseline="slow")
    assert table[["num_prompt_tokens", "num_queries"]].to_numpy().tolist() == [[50, 2]]


def test_workload_of_which_nothing_was_timed_is_refused():
    with pytest.raises(ValueError, match=r"no two stacks timed prompts as long .*of 200 tokens"):
        compare_stacks(grid_workload([200, 300], [1]), STACKS, baseline="slow")


def test_summary_weighs_each_size_by_the_queries_that_have_it():
    sizes = pd.DataFrame({"baseline_s": [2.0, 4.0], "runtime_s": [1.0, 4.0], "speed_up": [2.0, 1.0]})
    certain = {f"{name}_{bound}": sizes[name] for name in sizes for bound in ("lower", "upper")}
    table = sizes.assign(stack="fast", model="a", num_queries=[3, 1], **certain)
    row = summarize_speed_ups(table).loc[("fast", "a")]
    assert row[["num_queries", "median", "percent_faster"]].tolist() == [4, 2.0, 75.0]
    assert row["workload"] == pytest.approx((3 * 2 + 4) / (3 * 1 + 4))


def test_workload_is_read_from_the_file_of_a_user(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("task,num_prompt_tokens,num_output_tokens\nqa,512,1\nqa,512,64\n")
    workload = read_workload(path)
    assert workload[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [[512, 1], [512, 64]]
    assert workload["task"].tolist() == ["qa", "qa"]


def test_published_workload_is_read_by_its_name_there():
    assert len(read_workload("paper_figures/figure9_query_sizes.csv")) > 10


def test_workload_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_workload(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prompt,num_output_tokens\n1,1\n",
            "no column num_prompt_tokens; needed: .*; there are: prompt",
        ),
        ("num_prompt_tokens,num_output_tokens\n1,1\n2,0\n", "row 2 of 2 holds .*'num_output_tokens': 0"),
        ("num_prompt_tokens,num_output_tokens\n1.5,1\n", "integers of at least 1; row 1 of 1"),
        ("num_prompt_tokens,num_output_tokens\n,1\n", "row 1 of 1"),
        ("num_prompt_tokens,num_output_tokens\nmany,1\n", "row 1 of 1 holds .*'many'"),
    ],
)
def test_workload_without_numbers_of_tokens_is_refused_with_its_row(tmp_path, text, message):
    path = tmp_path / "queries.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_workload(path)


def test_unknown_baseline_is_refused_with_the_stacks_there_are():
    with pytest.raises(ValueError, match=r"no stack named 'eager'.*slow, fast"):
        compare_stacks(grid_workload([1], [1]), STACKS, baseline="eager")


def test_stacks_without_a_common_model_are_refused():
    with pytest.raises(ValueError, match=r"no model was timed with 'slow' and with another stack.*fast: c"):
        compare_stacks(grid_workload([1], [1]), {**STACKS, "fast": {"c": Linear(1.0)}}, baseline="slow")


def test_interval_of_a_ratio_is_that_of_the_top_where_the_bottom_is_certain():
    assert ratio_interval((4.0, 3.0, 6.0), (2.0, 2.0, 2.0)) == pytest.approx((2.0, 1.5, 3.0))


def test_interval_of_a_ratio_covers_it_as_often_as_its_parts_are_covered():
    rng = np.random.default_rng(0)
    tops, bottoms = np.exp(0.1 * rng.standard_normal((2, 20_000)))
    factor = np.exp(1.96 * 0.1)
    _, lower, upper = ratio_interval(*((value, value / factor, value * factor) for value in (tops, bottoms)))
    assert np.mean((lower < 1) & (upper > 1)) == pytest.approx(0.95, abs=0.005)


def test_runtime_that_may_be_zero_leaves_the_speed_up_without_an_upper_bound():
    _, lower, upper = ratio_interval((1.0, 0.9, 1.1), (1.0, -0.1, 1.5))
    assert upper == np.inf
    assert 0 < lower < 1


def test_summary_counts_queries_that_are_faster_beyond_doubt_and_sums_the_workload():
    table = compare_stacks(grid_workload([1, 10], [5]), STACKS, baseline="slow")
    row = summarize_speed_ups(table).loc[("fast", "a")]
    assert (row["num_queries"], row["percent_faster"], row["percent_slower"]) == (2, 100, 0)
    assert row["workload"] == pytest.approx(2.0)
    # Errors of one fit do not average out over its queries.
    assert row["workload_lower"] == pytest.approx(table["speed_up_lower"].iloc[0])


def test_stacks_of_two_machines_are_refused(tmp_path):
    write_log(tmp_path / "one" / "toy.jsonl", hardware="box")
    write_log(tmp_path / "two" / "toy.jsonl", hardware="tower")
    with pytest.raises(ValueError, match="several: old: box; new: tower"):
        read_stacks({"old": str(tmp_path / "one"), "new": str(tmp_path / "two")})


def test_model_on_different_numbers_of_devices_is_refused(tmp_path):
    write_log(tmp_path / "one" / "toy.jsonl")
    write_log(tmp_path / "two" / "toy.jsonl", tensor_parallel_size=2)
    with pytest.raises(ValueError, match=r"toy was timed at different .*\(old 1x1, new 2x1\)"):
        read_stacks({"old": str(tmp_path / "one"), "new": str(tmp_path / "two")})


def test_engines_of_one_machine_are_read_as_stacks(tmp_path):
    for engine in ("eager", "sdpa"):
        write_log(tmp_path / engine / "toy.jsonl", engine=engine)
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
    write_log(tmp_path / "toy.jsonl", hardware="box")
    assert floor_stack(read_timed_models(str(tmp_path))) == {}


def test_published_a100_logs_leave_at_least_half_of_their_time_to_better_software():
    models = read_timed_models("a100")
    stacks = {"2022": {name: model.fit for name, model in models.items()}, "floor": floor_stack(models)}
    summary = summarize_speed_ups(compare_stacks(grid_workload([512], [64]), stacks, baseline="2022"))
    assert summary["workload"].median() > 2
    assert summary["workload"].idxmax() == ("floor", "ada")
