"""Designs replayed on logs: the means are the truth, every run costs, and a few settings tell what a grid tells."""

from functools import cache

import numpy as np
import pytest
from makers import HEADER, make_setting, write_log

from idealized_runtime.design.priors import prior_from_others
from idealized_runtime.design.replay import (
    DEFAULT_RUNS,
    PUBLISHED_RUNS,
    ReplayedModel,
    at_shares,
    grid_settings,
    pooled_errors,
    random_settings,
    replay_each,
    replay_hand_made,
    replay_sequential,
    replay_settings,
    stated_errors,
)
from idealized_runtime.design.sequential import SequentialDesign
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.records import Journal, read_trials

MODELS = ("gpt-j", "ada", "opt-66b", "bloom")


@cache
def timed():
    try:
        return {name: model for name, model in read_timed_models("a100").items() if name in MODELS}
    except PublishedDataMissingError as error:
        pytest.skip(str(error))


def test_trials_scatter_about_the_printed_mean_and_warmups_cost():
    model = ReplayedModel(timed()["gpt-j"], num_warmups=1)
    model.time([(512, 8, 2000)])
    truth = model.settings.query("num_prompt_tokens == 512 and num_output_tokens == 8").iloc[0]
    runs_s = model.timings["runtime_s"]
    assert len(runs_s) == 2000
    assert runs_s.mean() == pytest.approx(truth["runtime_s"], rel=0.01)
    assert runs_s.std() == pytest.approx(truth["runtime_std_s"], rel=0.1)
    assert model.device_s == pytest.approx(2001 * truth["runtime_s"], rel=0.01)


def test_grid_by_hand_costs_what_it_says():
    model = timed()["gpt-j"]
    result = replay_settings(model, grid_settings(model, None, [1, 8], 3))
    settings = model.fit.settings
    once_s = settings.loc[settings["num_output_tokens"].isin([1, 8]), "runtime_s"].sum()
    assert result["times_cheaper"] == pytest.approx(
        PUBLISHED_RUNS * settings["runtime_s"].sum() / (4 * once_s), rel=0.01
    )
    assert result["p95"] < 0.03


def test_random_settings_are_of_the_grid_and_differ_by_seed():
    model = timed()["gpt-j"]
    first, second = (random_settings(model, 16, 3, seed=seed) for seed in (0, 1))
    assert len(set(first)) == 16
    assert first != second


def test_sequential_design_is_within_its_targets_at_small_parts_of_the_published_time():
    paths = replay_each(timed(), use_others=False, times_cheaper=490)
    table = at_shares(paths, [1000, 500]).set_index("times_cheaper")
    assert table.loc[500, "p95"] <= 2.0
    assert table.loc[1000, "p95"] <= 4.0
    assert table.loc[500, "covered"] >= 90


def test_other_models_tell_something_before_anything_is_timed():
    model = timed()["gpt-j"]
    path = replay_sequential(model, prior=prior_from_others("gpt-j", timed()), max_seconds=6)
    assert path.iloc[0]["p95"] < 0.08
    assert path.iloc[-1]["rule"] == "budget"
    assert path.iloc[-1]["device_s"] < 6.3


def test_designs_by_hand_are_pooled_over_models():
    table = replay_hand_made(timed()).set_index("design")
    whole, few = table.loc["the whole grid, 1 trial"], table.loc["4 prompt sizes, o = 1 and 8"]
    assert whole["times_cheaper"] == pytest.approx(30, rel=0.01)
    assert few["p95"] > 2 * whole["p95"]


def test_pooled_errors_are_of_all_settings():
    model = timed()["gpt-j"]
    path = replay_sequential(model, prior=None, max_seconds=4).tail(1).assign(model="gpt-j")
    assert pooled_errors(path)["p95"] == pytest.approx(100 * np.quantile(np.abs(path["errors"].iloc[0]), 0.95))


# Logs of designs

PROMPT_SIZES, OUTPUT_SIZES = [1, 64, 256], [1, 8]
TARGET = {"target_error": 0.02, "level": 0.95, "max_seconds": 60.0, "of": "each"}


def true_s(p, o):
    return 0.05 + 1e-3 * p + 0.02 * (o - 1)


def write_designed_log(path, *, noise=0.01, num_blocks=6, **target):
    """A design's own log of a known machine; a visit of the second block took twice as long, and was set aside."""
    sweep = {
        "all_num_prompt_tokens": PROMPT_SIZES, "all_num_output_tokens": OUTPUT_SIZES, "target": {**TARGET, **target},
        "batchings": [{"batch_size": 1, "micro_batch_size": 1, "token_micro_batch_size": 1}],
    }  # fmt: skip
    rng, now_s, held = np.random.default_rng(0), 0.0, {}
    with Journal(path, {**HEADER, "sweep": sweep}) as journal:
        for block in range(1, num_blocks + 1):
            for p, o in [(p, o) for p in PROMPT_SIZES for o in OUTPUT_SIZES]:
                visit = journal.log.num_visits + 1
                factor = 2.0 if visit == 8 else 1.0
                runs_s = factor * true_s(p, o) * np.exp(noise * rng.standard_normal(3))
                starts_s, now_s = now_s + np.cumsum(runs_s)[:2], now_s + runs_s.sum()
                trials = {"runtimes_s": runs_s[1:].tolist(), "trial_starts_s": starts_s.tolist()}
                record = make_setting(p, o, warmups_s=runs_s[:1].tolist(), block=block, visit=visit, **trials)
                journal.append("block", record)
                if visit != 8:
                    held.setdefault((p, o), []).append(trials)
            if block == 2:
                guard = {"finding": "held_up", "action": "again", "message": "2 times as long", "visits": [8]}
                journal.append("guard", {**guard, "block": 2})
        for (p, o), its in held.items():
            trials = {name: [value for one in its for value in one[name]] for name in its[0]}
            journal.append("setting", make_setting(p, o, **trials))
        journal.finish()
    return now_s


def test_log_of_a_design_tells_what_was_known_after_each_block_and_what_a_default_sweep_would_take(tmp_path):
    spent_s = write_designed_log(path := tmp_path / "gpt2-small.jsonl")
    table = stated_errors(path)
    once_s = sum(true_s(p, o) for p in PROMPT_SIZES for o in OUTPUT_SIZES)
    assert table["block"].tolist() == [1, 2, 3, 4, 5, 6]
    # Of two trials each, the visit that was set aside counts as device time alone.
    assert table["num_trials"].tolist() == [12, 22, 34, 46, 58, 70]
    assert table["device_s"].iloc[-1] == pytest.approx(spent_s)
    assert table["device_s"].iloc[0] == pytest.approx(3 * once_s, rel=0.03)
    assert table["default_s"].to_numpy() == pytest.approx(DEFAULT_RUNS * once_s, rel=0.02)
    assert table["stated_error"].iloc[-1] < table["stated_error"].iloc[0]
    # Trials of 1 % noise, twelve of a setting.
    assert (table["deviation"] < 0.01).all()
    assert table["deviation"].iloc[-1] < 0.005


def test_error_after_the_last_block_is_that_of_all_trials_of_the_log(tmp_path):
    write_designed_log(path := tmp_path / "gpt2-small.jsonl")
    design = SequentialDesign(prompt_sizes=PROMPT_SIZES, output_sizes=OUTPUT_SIZES, target_error=0.02)
    assert stated_errors(path)["stated_error"].iloc[-1] == pytest.approx(design.error(design.belief(read_trials(path))))
    # A sum is known sooner than each of its parts.
    assert (stated_errors(path, of="total")["stated_error"] < stated_errors(path)["stated_error"]).all()


@pytest.mark.parametrize("asked", [None, {"logs": "cpu"}, {"queries": {"source": "queries.csv"}}])
def test_log_that_was_asked_for_something_else_is_refused(tmp_path, asked):
    path = tmp_path / "gpt2-small.jsonl"
    if asked is None:
        write_log(path)
    else:
        write_designed_log(path, **asked)
    with pytest.raises(ValueError, match=r"gpt2-small.jsonl: must be a log of --target-error without --queries"):
        stated_errors(path)
