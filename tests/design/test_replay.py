"""Designs replayed on logs: the means are the truth, every run costs, and a few settings tell what a grid tells."""

from functools import cache

import numpy as np
import pytest

from idealized_runtime.design.priors import prior_from_others
from idealized_runtime.design.replay import (
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
)
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import read_timed_models

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
