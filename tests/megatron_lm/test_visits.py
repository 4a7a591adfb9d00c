from itertools import groupby

import pytest
from makers import HEADER, make_setting

from idealized_runtime.design.replay import DEFAULT_RUNS
from idealized_runtime.records import BATCH_COLUMNS, setting_key
from idealized_runtime.records.settings import SettingsLog
from megatron_lm.arguments import parse_arguments
from megatron_lm.measurement import Measurement
from megatron_lm.visits import by_slice, plan_visits


def planned(*flags, log=None, num_trials=10, num_warmup=3):
    """Measurement of four sizes, and its visits."""
    arguments = parse_arguments(
        ["--architecture", "gpt2-small", "--all-num-input-tokens", "16", "1", "--all-num-output-tokens", "2", "1",
         "--num-trials", str(num_trials), "--num-warmup", str(num_warmup), *map(str, flags)]
    )  # fmt: skip
    measurement = Measurement.from_arguments(arguments)
    return measurement, plan_visits(measurement, log or empty_log())


def empty_log():
    return SettingsLog(None, {"schema_version": 1, **HEADER})


def sizes(visits):
    return [(visit["setting"]["num_prompt_tokens"], visit["setting"]["num_output_tokens"]) for visit in visits]


def num_trials_by_setting(visits):
    counts = {}
    for visit in visits:
        key = setting_key(visit["setting"])
        counts[key] = counts.get(key, 0) + visit["num_trials"]
    return counts


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5, 7, 10, 99])
def test_every_block_visits_every_setting_and_all_trials_are_planned(num_blocks):
    _, visits = planned("--num-blocks", num_blocks)
    assert len(visits) == 4 * min(num_blocks, 10)
    for start in range(0, len(visits), 4):
        assert len(set(sizes(visits[start : start + 4]))) == 4
    assert set(num_trials_by_setting(visits).values()) == {10}
    assert max(visit["num_trials"] for visit in visits) - min(visit["num_trials"] for visit in visits) <= 1
    assert [visit["is_last"] for visit in visits] == [False] * (len(visits) - 4) + [True] * 4


def test_runs_of_a_setting_by_default_are_those_that_designs_are_compared_with():
    arguments = parse_arguments(
        ["--architecture", "gpt2-small", "--all-num-input-tokens", "1", "16", "--all-num-output-tokens", "1", "2"]
    )
    visits = plan_visits(Measurement.from_arguments(arguments), empty_log())
    assert sum(visit["num_warmup"] + visit["num_trials"] for visit in visits) == 4 * DEFAULT_RUNS


def test_orders_of_blocks_differ_and_follow_from_the_seed():
    orders = {tuple(sizes(planned("--seed", seed)[1])) for seed in (1, 1, 2)}
    assert len(orders) == 2
    (order, *_) = orders
    assert len({order[start : start + 4] for start in range(0, 20, 4)}) > 1


def test_one_block_keeps_the_order_that_was_asked_for():
    assert sizes(planned("--num-blocks", 1)[1]) == [(16, 2), (16, 1), (1, 2), (1, 1)]


@pytest.mark.parametrize(("num_warmup", "later"), [(3, 1), (1, 1), (0, 0)])
def test_first_visit_warms_up_as_asked_and_later_ones_once_if_at_all(num_warmup, later):
    _, visits = planned(num_warmup=num_warmup)
    assert [visit["num_warmup"] for visit in visits] == [num_warmup] * 4 + [later] * 16


def test_weights_are_made_once_for_each_slice_in_a_block_and_kept_into_the_next():
    _, visits = planned("--num-layers-profiled", 2, 4, 12, "--num-blocks", 3)
    slices = [num_layers for num_layers, _ in by_slice(visits)]
    assert slices == [12, 4, 2, 4, 12, 4, 2]
    assert slices == [num_layers for num_layers, _ in groupby(v["setting"]["num_layers_profiled"] for v in visits)]
    assert set(num_trials_by_setting(visits).values()) == {10}


@pytest.mark.parametrize("num_blocks", [1, 3, 5, 10])
def test_run_that_goes_on_plans_the_trials_that_are_left_however_many_blocks_it_has(num_blocks):
    log = empty_log()
    batch = {name: 1 for name in (*BATCH_COLUMNS,)}
    log.keep({"record": "block", **make_setting(16, 1, [0.1] * 4), **batch, "num_layers_profiled": 12})
    log.keep({"record": "setting", **make_setting(1, 1, [0.1] * 10), **batch, "num_layers_profiled": 12})
    _, visits = planned("--num-blocks", num_blocks, log=log)
    assert sorted(num_trials_by_setting(visits).values()) == [6, 10, 10]
    assert (1, 1) not in sizes(visits)
    first = next(visit for visit in visits if sizes([visit]) == [(16, 1)])
    assert first["num_warmup"] == 3, "this process has not run it before"
    assert sum(visit["is_last"] for visit in visits) == 3


@pytest.mark.parametrize(
    ("flags", "varying"),
    [
        ((), []),
        (("--global-batch-size", 4), []),
        (("--global-batch-size", 4, "--token-micro-batch-size", 1, 2), ["token_micro_batch_size"]),
        (("--global-batch-size", 2, 4, "--micro-batch-size", 1), ["batch_size", "token_micro_batch_size"]),
        (("--num-layers-profiled", 1, 2), ["num_layers_profiled"]),
    ],
)
def test_columns_that_vary_are_those_that_tell_settings_of_the_same_tokens_apart(flags, varying):
    assert planned(*flags)[0].varying_columns == varying
