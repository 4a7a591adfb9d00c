import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.comparisons.frontier import (
    frontier_probability,
    objective_values,
    pareto_frontier,
    rank,
    rank_agreement,
    rank_probabilities,
)
from idealized_runtime.statistics.intervals import draw_log_normal


def make_frame(costs, qualities, **columns):
    models = [f"model-{i}" for i in range(len(costs))]
    return pd.DataFrame({"model": models, "value": costs, "accuracy": qualities, **columns})


def draws_of(frame, num_draws):
    return draw_log_normal(frame["value"], frame["standard_error"], num_draws=num_draws, rng=0)


def frontier_by_definition(costs, qualities):
    """Every pair compared: a row is off only if another is strictly cheaper and strictly better."""
    costs, qualities = np.asarray(costs, dtype=float), np.asarray(qualities, dtype=float)
    beaten_by = (costs[None] < costs[:, None]) & (qualities[None] > qualities[:, None])
    return ~beaten_by.any(axis=1)


def test_cheapest_and_best_are_on_the_frontier_and_beaten_ones_off():
    frame = make_frame([1.0, 2.0, 3.0, 4.0], [0.5, 0.4, 0.9, 0.8])
    assert pareto_frontier(frame).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("costs", "qualities", "expected"),
    [
        ([1, 1, 2], [0.3, 0.5, 0.4], [True, True, False]),
        ([1, 2, 3], [0.5, 0.5, 0.5], [True, True, True]),
        ([2, 2, 1, 1], [0.5, 0.6, 0.55, 0.1], [False, True, True, True]),
        ([0.0, -1.0], [1, 2], [False, True]),
        ([5], [0], [True]),
        ([], [], []),
    ],
)
def test_ties_do_not_push_each_other_off(costs, qualities, expected):
    frame = make_frame(np.array(costs, dtype=float), np.array(qualities, dtype=float))
    assert pareto_frontier(frame).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_frontier_is_the_definition_on_random_points_with_ties(seed):
    rng = np.random.default_rng(seed)
    costs, qualities = rng.integers(0, 12, (2, 60))
    frame = make_frame(costs, qualities)
    np.testing.assert_array_equal(pareto_frontier(frame), frontier_by_definition(costs, qualities))


def test_results_keep_the_index_even_where_it_repeats():
    frame = make_frame([3.0, 1.0], [0.5, 0.9]).set_axis([7, 7], axis=0)
    assert pareto_frontier(frame).index.tolist() == [7, 7]
    assert pareto_frontier(frame).tolist() == [False, True]
    assert rank(frame).tolist() == [2, 1]


def test_missing_points_are_off_the_frontier_unranked_named_and_counted():
    frame = make_frame([1.0, np.nan, 3.0, 4.0], [0.5, 0.99, np.nan, 0.9])
    with pytest.warns(MissingValueWarning, match=r"2 of 4 rows lack value or accuracy .* model-1, model-2") as caught:
        assert pareto_frontier(frame).tolist() == [True, False, False, True]
    assert caught[0].filename == __file__
    with pytest.warns(MissingValueWarning, match="2 of 4 rows .* have no rank"):
        ranks = rank(frame)
    assert ranks.dtype == "Int64"
    assert ranks[[0, 3]].tolist() == [1, 2]
    assert ranks[[1, 2]].isna().all()


def test_nullable_columns_are_read():
    frame = make_frame(pd.array([1, None, 3], dtype="Int64"), pd.array([0.1, 0.2, None], dtype="Float64"))
    with pytest.warns(MissingValueWarning, match="2 of 3"):
        assert pareto_frontier(frame).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (
            make_frame([1.0], [1.0]),
            {"cost": "runtime"},
            "no column runtime; needed: runtime, accuracy; there are: model",
        ),
        (make_frame(["1"], [1.0]), {}, "column value must hold numbers"),
        (make_frame([1.0, 0.0], [1.0, 1.0]), {}, r"costs must be positive; got \[0.0\]"),
        (make_frame([1.0], [1.0]), {"objective": "product"}, "objective must be one of"),
    ],
)
def test_bad_input_is_refused(frame, options, message):
    with pytest.raises(ValueError, match=message):
        rank(frame, **options)


def test_equal_objectives_share_the_better_rank():
    assert rank(make_frame([1.0, 2.0, 4.0, 1.0], [0.2, 0.8, 1.6, 0.9])).tolist() == [4, 2, 2, 1]


def test_printed_logarithm_puts_all_that_takes_over_a_second_first():
    frame = make_frame([0.1, 0.9, 1.1, 10.0], [0.9, 0.9, 0.1, 0.1])
    assert rank(frame, objective="ratio").tolist() == [1, 2, 3, 4]
    assert rank(frame, objective="ratio_log").tolist() == [3, 4, 1, 2]
    assert rank(frame, objective="ratio_log1p").tolist() == [1, 2, 3, 4]


def test_printed_logarithm_has_no_value_at_one_second():
    frame = make_frame([0.5, 1.0, 2.0], [0.9, 0.9, 0.9])
    with pytest.warns(MissingValueWarning, match=r"1 of 3 rows have no rank: ln\(cost\) is 0: model-1"):
        ranks = rank(frame, objective="ratio_log")
    assert ranks.isna().tolist() == [False, True, False]
    assert rank(frame, objective="ratio_log1p").tolist() == [1, 2, 3]


def test_a_million_points_take_a_second():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((10**6, 2)), columns=["value", "accuracy"])
    start_s = time.process_time()
    assert pareto_frontier(frame).any()
    assert rank(frame).min() == 1
    assert time.process_time() - start_s < 2


def test_frontier_probability_of_two_models_is_that_of_the_better_one_being_cheaper():
    # Equal log-normals: half of the time the better model is the cheaper one, and the other is off.
    frame = make_frame([1.0, 1.0], [0.5, 0.9], standard_error=[0.1, 0.1])
    probabilities = frontier_probability(frame, draws_of(frame, 40_000))
    assert probabilities[1] == 1
    assert probabilities[0] == pytest.approx(0.5, abs=4 * 0.5 / 200)


def test_frontier_probability_of_draws_is_their_share():
    frame = make_frame([9.0, 9.0, 9.0], [0.5, 0.7, 0.9])
    draws = np.array([[1, 2, 3], [3, 2, 1], [2, 2, 1], [1, 3, 2]], dtype=float)
    expected = np.mean([frontier_by_definition(row, frame["accuracy"]) for row in draws], axis=0)
    assert frontier_probability(frame, draws).tolist() == expected.tolist() == [0.5, 0.25, 1]


def test_qualities_may_be_uncertain_too():
    frame = make_frame([1.0, 2.0], [0.5, 0.5])
    qualities = np.array([[0.5, 0.6], [0.5, 0.4]])
    assert frontier_probability(frame, np.array([[1.0, 2.0]] * 2), quality_draws=qualities).tolist() == [1, 0.5]


def test_certain_costs_give_the_frontier_and_the_ranks_themselves():
    frame = make_frame([1.0, 2.0, 3.0, 4.0], [0.5, 0.4, 0.9, 1.2], standard_error=[0.0] * 4)
    draws = draws_of(frame, 3)
    assert frontier_probability(frame, draws).tolist() == pareto_frontier(frame).astype(float).tolist()
    shares = rank_probabilities(frame, draws)
    assert shares.columns.tolist() == [1, 2, 3, 4]
    assert shares.to_numpy()[range(4), rank(frame).to_numpy(dtype=int) - 1].tolist() == [1] * 4
    assert shares.to_numpy().sum() == 4


def test_rank_probabilities_are_the_shares_of_ranked_draws():
    rng = np.random.default_rng(3)
    frame = make_frame(np.full(5, 1.0), rng.integers(1, 4, 5).astype(float))
    draws = rng.integers(1, 4, (50, 5)).astype(float)
    shares = rank_probabilities(frame, draws)
    ranks = np.array([rank(frame.assign(value=row)) for row in draws], dtype=int)
    np.testing.assert_allclose(shares, (ranks[:, :, None] == np.arange(1, 6)).mean(axis=0))
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_missing_uncertainty_has_no_probability_and_is_named():
    frame = make_frame([1.0, 2.0, np.nan], [0.5, 0.9, 0.9], standard_error=[0.1, np.nan, 0.1])
    draws = draws_of(frame, 10)
    with pytest.warns(MissingValueWarning, match="2 of 3 rows lack draws of a cost or accuracy .* model-1"):
        probabilities = frontier_probability(frame, draws)
    assert probabilities[0] == 1
    assert probabilities[1:].isna().all()
    with pytest.warns(MissingValueWarning):
        shares = rank_probabilities(frame, draws)
    assert shares.loc[0, 1] == 1
    assert shares.loc[1:].isna().all(axis=None)


@pytest.mark.parametrize("shape", [(3,), (4, 2), (0, 3)])
def test_draws_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="draws must have the shape"):
        frontier_probability(make_frame([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), np.ones(shape))


@pytest.fixture(scope="module")
def points(published):
    return pd.read_csv(published / "paper_figures" / "figure9_points.csv")


def figure10(points, objective):
    """Ranks by model and task, from the 2022-10 points that Figure 10 draws."""
    drawn = points.query("vintage == '2022-10' and metric == 'idealized_runtime'")
    ranks = [rank(group, objective=objective) for _, group in drawn.groupby("task")]
    return drawn.assign(rank=pd.concat(ranks)).set_index(["model", "task"])["rank"].astype(int).unstack()  # noqa: PD010


def test_every_published_panel_follows_the_definition(points):
    panels = points.groupby(["vintage", "metric", "task"])
    assert len(panels) == 48
    for _, panel in panels:
        np.testing.assert_array_equal(pareto_frontier(panel), frontier_by_definition(panel["value"], panel["accuracy"]))


def test_davinci_is_on_every_frontier_of_raw_runtime_and_on_none_of_idealized_metrics(points):
    on_frontier = pd.concat([pareto_frontier(panel) for _, panel in points.groupby(["vintage", "metric", "task"])])
    davinci = points.assign(on_frontier=on_frontier).query("model == 'OpenAI/davinci'").groupby("metric")["on_frontier"]
    assert davinci.all()["runtime"]
    assert not davinci.any()[["idealized_runtime", "idealized_cost", "flops", "model_size"]].any()


def test_frontiers_of_idealized_runtime_are_those_of_figure_9(points):
    drawn = points.query("vintage == '2023-05' and metric == 'idealized_runtime'")
    models = {task.split(":")[0]: set(panel["model"][pareto_frontier(panel)]) for task, panel in drawn.groupby("task")}
    large, grande = "AI21/J1-Large v1", "AI21/J1-Grande v1"
    gpt_j, anthropic = "EleutherAI/GPT-J", "Anthropic/v4-s3"
    assert models == {
        "imdb": {large},
        "mmlu": {gpt_j, large, anthropic},
        "boolq": {large, grande, anthropic},
        "raft": {large, grande, gpt_j},
    }


def test_printed_logarithm_lifts_tnlg_and_spreads_ranks_over_tasks(points):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratio, ratio_log = figure10(points, "ratio"), figure10(points, "ratio_log")
    tnlg = "Microsoft+NV/TNLG v2"
    assert ratio.loc[tnlg].mean() == 9
    assert ratio_log.loc[tnlg].mean() == 3.5
    assert ratio_log.std(axis=1).mean() > 1.5 * ratio.std(axis=1).mean()
    # Each model has each rank once: no ties in the published points.
    assert all(sorted(ratio[task]) == list(range(1, 11)) for task in ratio)


def test_without_the_change_of_sign_the_logarithm_lifts_nobody(points):
    ratio, ratio_log1p = figure10(points, "ratio"), figure10(points, "ratio_log1p")
    assert (ratio - ratio_log1p).abs().max(axis=None) <= 1


def test_objective_values_broadcast_and_keep_missing_values():
    values = objective_values([[1.0, 2.0], [4.0, np.nan]], [2.0, 4.0])
    np.testing.assert_array_equal(values, [[2.0, 2.0], [0.5, np.nan]])


def test_equal_rankings_agree_for_certain_and_opposite_ones_not_at_all():
    ranks = pd.DataFrame({"a": [1, 2, 3, 4, 5, 6], "same": [2, 4, 6, 8, 10, 12], "opposite": [6, 5, 4, 3, 2, 1]})
    table = rank_agreement(ranks)
    assert table.loc["same"].to_numpy() == pytest.approx([1, 1, 1, 6])
    assert table.loc["opposite"].to_numpy() == pytest.approx([-1, -1, -1, 6])


def test_agreement_counts_pairs_of_models_that_both_rank():
    ranks = pd.DataFrame({"a": [1, 2, 3, 4, 5], "b": [2, 1, 3, 4, pd.NA]}, dtype="Int64")
    row = rank_agreement(ranks).loc["b"]
    # Of six pairs one is ordered the other way round.
    assert row["kendall_tau"] == pytest.approx((5 - 1) / 6)
    assert row["num_models"] == 4


def test_agreement_is_that_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    ranks = pd.DataFrame(rng.integers(1, 9, size=(30, 3)), columns=["a", "b", "c"])
    table = rank_agreement(ranks)
    for name in ("b", "c"):
        assert table.loc[name, "kendall_tau"] == pytest.approx(kendalltau(ranks["a"], ranks[name]).statistic)


def test_interval_of_the_agreement_holds_the_truth_as_often_as_it_says():
    rng, correlation = np.random.default_rng(0), 0.7
    truth = 2 / np.pi * np.arcsin(correlation)
    num_held = 0
    for seed in range(200):
        draws = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=40)
        row = rank_agreement(pd.DataFrame(draws, columns=["a", "b"]).rank(), num_resamples=500, rng=seed).loc["b"]
        num_held += row["kendall_tau_lower"] <= truth <= row["kendall_tau_upper"]
    # Of 200 it is 190 in the mean, and fewer than 180 in one case of a thousand.
    assert num_held >= 180


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2, 3]}, "two rankings are needed to compare them; there is a alone"),
        ({"a": [1, 2, pd.NA], "b": [1, 2, 3]}, "2 models have a rank by both a and b; at least 3 are needed"),
    ],
)
def test_agreement_of_too_little_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        rank_agreement(pd.DataFrame(columns, dtype="Int64"))
