"""The numbers behind Figures 8, 9 and 10 of arXiv:2305.02440, computed with the package from the published data."""

import warnings

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures.closed_forms import closed_form_flops_without_attention
from idealized_runtime.fits import PublishedRuntimeModel, read_parameters
from idealized_runtime.measurements.timed_models import fit_models, read_timed_models
from idealized_runtime.reproductions.paper import tradeoffs as tradeoff_points
from idealized_runtime.reproductions.paper.models import PAPER_MODELS, by_printed_name

LARGE, GRANDE, GPT_J = "AI21/J1-Large v1", "AI21/J1-Grande v1", "EleutherAI/GPT-J"
ANTHROPIC, DAVINCI, TNLG, YALM = "Anthropic/v4-s3", "OpenAI/davinci", "Microsoft+NV/TNLG v2", "Yandex/YaLM"
MMLU, RAFT = "mmlu:subject=college_chemistry", "raft:subset=terms_of_service"
# Squares of Figure 9 in the rows of idealized runtime and idealized cost.
IDEALIZED_FRONTIERS = {
    MMLU: {GPT_J, LARGE, ANTHROPIC},
    RAFT: {LARGE, GRANDE, GPT_J},
    "imdb": {LARGE},
    "boolq": {LARGE, GRANDE, ANTHROPIC},
}


@pytest.fixture(scope="module")
def folder(published):
    return published / "paper_figures"


@pytest.fixture(scope="module")
def points(folder):
    return pd.read_csv(folder / "figure9_points.csv")


@pytest.fixture(scope="module")
def printed(points):
    return points[points["vintage"] == "2023-05"]


@pytest.fixture(scope="module")
def queries(folder):
    return pd.read_csv(folder / "figure9_query_sizes.csv")


@pytest.fixture(scope="module")
def figure8(published):
    return tradeoff_points.read_figure8()


@pytest.fixture(scope="module")
def fits(published):
    with warnings.catch_warnings():
        # The rerun of YaLM on V100 repeats nine settings.
        warnings.filterwarnings("ignore", ".*yalm.log: 9 settings")
        return {name: by_printed_name(fit_models(read_timed_models(name))) for name in ("a100", "v100")}


@pytest.fixture(scope="module")
def fitted(queries, fits, printed):
    return tradeoff_points.beside_printed(tradeoff_points.idealized_points(queries, fits), printed)


def frontiers(points):
    on_frontier = points[tradeoff_points.mark_frontiers(points)]
    return {key: set(panel["model"]) for key, panel in on_frontier.groupby(["metric", "task"])}


@pytest.mark.parametrize("method", ["files of the authors", "logs"])
def test_the_80_idealized_values_of_figure_9_follow_to_a_millionth(published, queries, printed, method):
    if method == "logs":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*yalm.log: 9 settings")
            models = {name: fit_models(read_timed_models(name), PublishedRuntimeModel.fit) for name in ("a100", "v100")}
    else:
        parameters = published / "helm-efficiency" / "processed_jsons"
        models = {
            "a100": read_parameters(parameters / "inference_idealized_runtimes.json"),
            "v100": read_parameters(parameters / "inference_idealized_runtimes_v100.json"),
        }
    models = {name: by_printed_name(found) for name, found in models.items()}
    compared = tradeoff_points.beside_printed(tradeoff_points.idealized_points(queries, models), printed)
    assert len(compared) == 80
    np.testing.assert_allclose(compared["value"], compared["value_printed"], rtol=1e-6)


def test_costs_of_figure_8_are_runtime_times_devices_times_price(figure8):
    assert tradeoff_points.cost_identity_error(figure8) < 1e-6
    dearer = figure8["cost_cents"] * np.where(figure8["hardware"] == "v100", 1.01, 1)
    assert tradeoff_points.cost_identity_error(figure8.assign(cost_cents=dearer)) > 9e-3


def test_figure_8_is_slower_and_dearer_on_v100_with_four_exceptions(figure8):
    ratios = tradeoff_points.compare_hardware(figure8)
    assert len(ratios) == 36
    faster = ratios[ratios["runtime_ratio"] < 1]
    assert set(zip(faster["model"], faster["task"], strict=True)) == {(YALM, MMLU), (YALM, "imdb"), (YALM, "boolq")}
    cheaper = ratios[ratios["cost_ratio"] < 1]
    assert set(zip(cheaper["model"], cheaper["task"], strict=True)) == {(GPT_J, RAFT)}


def test_recomputed_costs_agree_with_figure_8_on_which_hardware_is_dearer(figure8, queries, fits):
    ratios = tradeoff_points.compare_hardware(tradeoff_points.price_on_hardware(queries, fits))
    beside = ratios.merge(tradeoff_points.compare_hardware(figure8), on=["task", "model"], suffixes=("", "_printed"))
    assert len(beside) == 36
    assert ((beside["cost_ratio"] > 1) == (beside["cost_ratio_printed"] > 1)).all()
    # Nor do the errors of the fits leave any of them open.
    assert ((beside["cost_lower"] > 1) | (beside["cost_upper"] < 1)).all()


@pytest.mark.parametrize("metric", ["idealized_runtime", "idealized_cost"])
def test_printed_and_recomputed_idealized_frontiers_are_those_of_figure_9(printed, fitted, metric):
    expected = {(metric, task): models for task, models in IDEALIZED_FRONTIERS.items()}
    for found in (frontiers(printed), frontiers(fitted)):
        assert {key: models for key, models in found.items() if key[0] == metric} == expected


def test_davinci_is_on_all_frontiers_of_raw_runtime_and_on_none_of_idealized_metrics(printed):
    counts = tradeoff_points.frontier_counts(printed.assign(on_frontier=tradeoff_points.mark_frontiers(printed)))
    assert counts.loc[DAVINCI].to_dict() == {
        "model_size": 0, "flops": 0, "runtime": 4, "denoised_runtime": 4, "idealized_runtime": 0, "idealized_cost": 0,
    }  # fmt: skip


def test_probabilities_name_the_one_place_that_the_fits_leave_open(fitted):
    probabilities = tradeoff_points.frontier_probabilities(fitted)
    on_frontier = tradeoff_points.mark_frontiers(fitted)
    unsure = probabilities.between(0.01, 0.99)
    assert set(zip(fitted["model"][unsure], fitted["task"][unsure], strict=True)) == {(GPT_J, MMLU)}
    assert (probabilities[on_frontier & ~unsure] > 0.99).all()
    assert (probabilities[~on_frontier] < 0.01).all()


def test_recomputed_values_lie_near_the_printed_ones(fitted):
    assert fitted["deviation_percent"].abs().median() < 3
    assert fitted["deviation_percent"].abs().max() < 15


def test_ranks_of_figure_10_put_tnlg_last_but_one_and_the_logarithm_second(points):
    drawn = points.query("vintage == '2022-10' and metric == 'idealized_runtime'")
    ratio = tradeoff_points.rank_table(drawn)
    assert ratio.index[-2:].tolist() == [TNLG, YALM]
    assert ratio.loc[LARGE].to_dict() == {MMLU: 1, RAFT: 6, "imdb": 1, "boolq": 1}
    ratio_log = tradeoff_points.rank_table(drawn, "ratio_log")
    assert ratio_log.index[:2].tolist() == [LARGE, TNLG]
    assert ratio_log.loc[TNLG].to_dict() == {MMLU: 10, RAFT: 1, "imdb": 2, "boolq": 1}
    ratio_log1p = tradeoff_points.rank_table(drawn, "ratio_log1p")
    assert ratio_log1p.loc[TNLG].tolist() == ratio.loc[TNLG].tolist()


def test_error_of_the_fit_leaves_the_printed_logarithm_no_rank_for_tnlg_on_raft(points, queries, fits):
    drawn = points.query("vintage == '2022-10' and metric == 'idealized_runtime'")
    drawn = tradeoff_points.with_relative_errors(drawn, queries, fits["a100"])
    widths = tradeoff_points.rank_intervals(drawn, "ratio_log").set_index(["model", "task"])
    assert widths.loc[(TNLG, RAFT)].tolist() == [1, 10]
    steady = tradeoff_points.rank_intervals(drawn, "ratio")
    assert (steady["upper"] - steady["lower"]).max() <= 1


def test_a100_points_of_figure_8_are_those_of_2022_which_priced_an_a100_at_3_67_dollars(points, figure8):
    old = points[points["vintage"] == "2022-10"].pivot_table(index=["task", "model"], columns="metric", values="value")
    of_figure8 = figure8[figure8["hardware"] == "a100"].set_index(["task", "model"])["runtime_s"]
    np.testing.assert_allclose(of_figure8, old["idealized_runtime"].loc[of_figure8.index], rtol=1e-7)
    old = old.reset_index()
    old = old.assign(hardware="a100", runtime_s=old["idealized_runtime"])
    cents = tradeoff_points.cost_cents(old, prices_usd={"a100": 3.67})
    np.testing.assert_allclose(old["idealized_cost"], cents, rtol=1e-6)


def test_flops_of_figure_9_are_the_closed_form_without_attention(printed):
    flops = printed[printed["metric"] == "flops"]
    per_token = flops["model"].map(
        {name: closed_form_flops_without_attention(row.architecture, 1) for name, row in PAPER_MODELS.items()}
    )
    tokens = flops.assign(tokens=flops["value"] / per_token).pivot_table(index="model", columns="task", values="tokens")
    # Mean tokens of a query: models of one tokenizer must agree, however they differ in shape.
    ai21 = tokens.loc[[LARGE, GRANDE, "AI21/J1-Jumbo v1"]]
    np.testing.assert_allclose(ai21, np.broadcast_to(ai21.iloc[0], ai21.shape), rtol=2e-3)
    np.testing.assert_allclose(tokens.loc[TNLG], tokens.loc[DAVINCI], rtol=5e-4)
    assert tokens[MMLU].round(3).to_dict()[LARGE] == 485.991


def test_sizes_of_figure_9_are_those_of_table_1_but_for_j1_large(printed):
    sizes = printed[printed["metric"] == "model_size"].groupby("model")["value"].first()
    for name, row in PAPER_MODELS.items():
        assert sizes[name] == pytest.approx(row.num_params_drawn / 1e9, rel=1e-6)
    assert [row.name for row in PAPER_MODELS.values() if row.num_params_drawn != row.num_params_printed] == [LARGE]
