import numpy as np
import pandas as pd
import pytest

from idealized_runtime.fits import PublishedRuntimeModel, RuntimeModel
from idealized_runtime.reproductions.paper import tradeoffs as tradeoff_points

DAVINCI, TNLG, GPT_J = "OpenAI/davinci", "Microsoft+NV/TNLG v2", "EleutherAI/GPT-J"
ANTHROPIC, COHERE = "Anthropic/v4-s3", "Cohere/XL v20220609"


def make_fit(scale=1.0, fit=RuntimeModel.fit):
    """A fit of runtimes 1 ms p + 10 ms (o - 1), times ``scale``, of trials that scatter by 1 %."""
    p, o = np.meshgrid([1, 128, 256, 384, 512, 640], [1, 4, 16, 64])
    runtime_s = scale * (1e-3 * p + 1e-2 * (o - 1)).ravel()
    frame = pd.DataFrame({"num_prompt_tokens": p.ravel(), "num_output_tokens": o.ravel(), "runtime_s": runtime_s})
    return fit(frame.assign(runtime_std_s=0.01 * runtime_s, num_trials=10))


def make_queries(models, num_prompt_tokens=512, num_output_tokens=11, task="imdb"):
    return pd.DataFrame(
        {"task": task, "model": models, "num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens}
    )


def make_points(models, values, accuracies, errors=0.0, metric="idealized_runtime", task="imdb"):
    return pd.DataFrame(
        {"metric": metric, "task": task, "model": models, "value": values, "accuracy": accuracies}
    ).assign(standard_error=errors)


def on_a100(queries, models):
    return tradeoff_points.price_on_hardware(queries, {"a100": models})


def test_points_are_predictions_with_the_errors_of_their_intervals():
    fit = make_fit()
    points = on_a100(make_queries([DAVINCI]), {DAVINCI: fit})
    lower_s, upper_s = fit.predict_interval(512, 11)
    assert points["runtime_s"].item() == fit.predict(512, 11)
    assert points["standard_error_s"].item() == pytest.approx((upper_s - lower_s) / 3.92, rel=1e-3)


def test_points_without_a_fit_or_without_intervals_are_missing():
    points = on_a100(make_queries([DAVINCI, GPT_J]), {DAVINCI: make_fit(fit=PublishedRuntimeModel.fit)})
    assert points["runtime_s"].isna().tolist() == [False, True]
    assert points["standard_error_s"].isna().all()


def test_queries_beyond_the_profiled_sizes_are_marked(recwarn):
    points = on_a100(make_queries([DAVINCI, DAVINCI], num_prompt_tokens=[640, 641]), {DAVINCI: make_fit()})
    assert points["is_extrapolated"].tolist() == [False, True]
    assert points["runtime_s"].notna().all()
    assert not recwarn.list


def test_idealized_points_are_means_of_both_hardware_but_for_tnlg():
    a100, v100 = make_fit(1.0), make_fit(3.0)
    queries = make_queries([DAVINCI, TNLG])
    fits = {name: dict.fromkeys([DAVINCI, TNLG], fit) for name, fit in (("a100", a100), ("v100", v100))}
    points = tradeoff_points.idealized_points(queries, fits)
    runtime, cost = (points[points["metric"] == metric] for metric in ("idealized_runtime", "idealized_cost"))
    t = a100.predict(512, 11)
    np.testing.assert_allclose(runtime["value"], [2 * t, t])
    # 8 A100s and 16 V100s for davinci, 24 A100s for TNLG; hourly dollars to cents a second.
    np.testing.assert_allclose(cost["value"], [t * (8 * 4.096 + 3 * 16 * 3.06) / 72, t * 24 * 4.096 / 36])
    errors_s = [(fit.predict_interval(512, 11)[1] - fit.predict_interval(512, 11)[0]) / 3.92 for fit in (a100, v100)]
    np.testing.assert_allclose(runtime["standard_error"], [np.hypot(*errors_s) / 2, errors_s[0]], rtol=1e-3)
    assert cost["standard_error"].notna().all()


def test_ratios_of_hardware_hold_their_intervals_and_break_even_price():
    fits = {"a100": {DAVINCI: make_fit(1.0)}, "v100": {DAVINCI: make_fit(2.0)}}
    prices_usd = {"a100": 4.0, "v100": 2.0}
    both = tradeoff_points.price_on_hardware(make_queries([DAVINCI]), fits, prices_usd=prices_usd)
    ratios = tradeoff_points.compare_hardware(both).iloc[0]
    assert ratios["runtime_ratio"] == pytest.approx(2)
    # Twice the time on twice the devices at half the price.
    assert ratios["cost_ratio"] == pytest.approx(2)
    assert ratios["break_even_price_ratio"] == pytest.approx(0.25)
    assert ratios["runtime_lower"] < 2 < ratios["runtime_upper"]
    assert ratios["runtime_lower"] * ratios["runtime_upper"] == pytest.approx(4)


def test_ratios_of_printed_points_have_no_intervals():
    printed = pd.DataFrame({"hardware": ["a100", "v100"], "task": "imdb", "model": DAVINCI,
                            "runtime_s": [1.0, 2.0], "cost_cents": [1.0, 3.0]})  # fmt: skip
    ratios = tradeoff_points.compare_hardware(printed).iloc[0]
    assert ratios[["runtime_ratio", "cost_ratio"]].tolist() == [2, 3]
    assert ratios[["runtime_lower", "cost_upper"]].isna().all()


def test_frontiers_are_found_panel_by_panel_and_counted():
    first = make_points([DAVINCI, GPT_J], [2.0, 1.0], [0.5, 0.6])
    second = make_points([DAVINCI, GPT_J], [2.0, 1.0], [0.7, 0.6], task="boolq")
    points = pd.concat([first, second], ignore_index=True).sample(frac=1, random_state=0)
    points["on_frontier"] = tradeoff_points.mark_frontiers(points)
    assert points.loc[points["on_frontier"], "task"].value_counts().to_dict() == {"boolq": 2, "imdb": 1}
    assert tradeoff_points.frontier_counts(points)["idealized_runtime"].to_dict() == {DAVINCI: 1, GPT_J: 2}
    members = tradeoff_points.frontier_members(points)["frontier"].droplevel("metric")
    assert members.to_dict() == {"imdb": GPT_J, "boolq": f"{GPT_J}, {DAVINCI}"}


def test_models_of_one_log_move_together():
    panel = make_points([ANTHROPIC, COHERE, DAVINCI], [1.0, 2.0, 3.0], [0.5] * 3, errors=[0.1, 0.2, 0.3])
    draws = tradeoff_points.draw_values(panel, num_draws=20_000)
    np.testing.assert_allclose(draws[:, 1], 2 * draws[:, 0])
    assert abs(np.corrcoef(draws[:, 0], draws[:, 2])[0, 1]) < 0.03
    np.testing.assert_allclose(draws.mean(axis=0), panel["value"], rtol=0.01)
    np.testing.assert_allclose(draws.std(axis=0), panel["standard_error"], rtol=0.03)


def test_models_of_one_log_keep_their_order_in_every_draw():
    # Independent errors would push the dearer, better one off in half of the draws, if it were the cheaper one there.
    points = make_points([ANTHROPIC, COHERE], [1.0, 1.01], [0.5, 0.4], errors=0.3)
    assert tradeoff_points.frontier_probabilities(points).tolist() == [1, 0]
    independent = make_points([ANTHROPIC, DAVINCI], [1.0, 1.01], [0.5, 0.4], errors=0.3)
    assert tradeoff_points.frontier_probabilities(independent)[1] == pytest.approx(0.5, abs=0.05)


def test_rank_intervals_hold_the_ranks_and_what_the_errors_allow():
    points = make_points([DAVINCI, GPT_J, TNLG], [1.0, 1.05, 9.0], [0.5] * 3, errors=[0.1, 0.1, 0.1])
    ranks = tradeoff_points.rank_table(points)
    assert ranks["imdb"].to_dict() == {DAVINCI: 1, GPT_J: 2, TNLG: 3}
    intervals = tradeoff_points.rank_intervals(points).set_index("model")
    assert intervals.loc[[DAVINCI, GPT_J, TNLG], "lower"].tolist() == [1, 1, 3]
    assert intervals.loc[[DAVINCI, GPT_J, TNLG], "upper"].tolist() == [2, 2, 3]


@pytest.mark.filterwarnings("ignore:1 of 3 rows lack draws")
def test_rank_without_a_known_error_has_no_interval():
    points = make_points([DAVINCI, GPT_J, TNLG], [1.0, 1.05, 9.0], [0.5] * 3, errors=[0.1, 0.1, np.nan])
    intervals = tradeoff_points.rank_intervals(points).set_index("model")
    assert intervals.loc[TNLG, ["lower", "upper"]].isna().all()
    assert intervals.loc[DAVINCI, ["lower", "upper"]].tolist() == [1, 2]


def test_errors_of_another_query_are_taken_relative():
    points = make_points([DAVINCI, GPT_J], [10.0, 20.0], [0.5, 0.6]).drop(columns="standard_error")
    fit = make_fit()
    lower_s, upper_s = fit.predict_interval(512, 11)
    joined = tradeoff_points.with_relative_errors(points, make_queries([DAVINCI, GPT_J]), {DAVINCI: fit})
    assert joined["standard_error"][0] == pytest.approx(
        10 * (upper_s - lower_s) / 3.92 / fit.predict(512, 11), rel=1e-3
    )
    assert joined["fitted_s"][0] == fit.predict(512, 11)
    assert joined[["fitted_s", "standard_error"]].loc[1].isna().all()


def test_deviations_from_the_print_hold_their_interval():
    points = make_points([DAVINCI], [1.1], [0.5], errors=0.1).drop(columns="accuracy")
    printed = make_points([DAVINCI], [1.0], [0.5]).drop(columns="standard_error")
    row = tradeoff_points.beside_printed(points, printed).iloc[0]
    assert row["deviation_percent"] == pytest.approx(10)
    assert (row["lower_percent"], row["upper_percent"]) == pytest.approx((-9.6, 29.6), abs=0.01)
