from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.comparisons.capability import (
    capability_points,
    frontier_table,
    points_of_servers,
    served_frontier,
)
from idealized_runtime.comparisons.capability_scores import CapabilityScore
from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.measurements.timed_models import read_timed_models
from idealized_runtime.prediction import RuntimePredictor, fit_predictor
from idealized_runtime.serving.candidates import predicted_candidates
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, plan
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel

QUERY = {"num_prompt_tokens": 512, "num_output_tokens": 64}
PRICES = {"price_usd_per_hour": 3.6, "power_watts": 400.0}


@pytest.fixture(scope="module")
def predictor():
    return fit_predictor(read_timed_models("a100").values())


@pytest.fixture(scope="module")
def points(predictor):
    return capability_points(predictor, **QUERY, **PRICES, parallelisms={"deepseek-v3": (1, 24)})


def test_model_that_was_timed_has_the_runtime_of_its_own_fit(points):
    fit = read_timed_models("a100")["gpt-neox-20b"].fit
    row = points.loc["gpt-neox-20b"]
    assert row["is_measured"]
    assert row["caveats"] == ""
    assert row["runtime_s"] == fit.predict(512, 64)
    assert (row["runtime_s_lower"], row["runtime_s_upper"]) == fit.predict_interval(512, 64)


def test_model_that_was_not_timed_is_predicted_with_its_caveats(points, predictor):
    row = points.loc["llama-3.1-8b"]
    assert not row["is_measured"]
    assert "rotary positions" in row["caveats"]
    assert row["runtime_s_lower"] < row["runtime_s"] < row["runtime_s_upper"]
    predicted_width = row["runtime_s_upper"] / row["runtime_s_lower"]
    assert (
        predicted_width > points.loc["gpt-neox-20b", "runtime_s_upper"] / points.loc["gpt-neox-20b", "runtime_s_lower"]
    )


def test_cost_and_energy_follow_from_runtime_and_devices(points):
    device_s = points["runtime_s"] * points["num_accelerators"]
    assert points["cost_usd_per_1000_queries"].to_numpy() == pytest.approx(device_s)
    assert points["energy_joules"].to_numpy() == pytest.approx(400 * device_s)


def test_parallelism_that_is_given_replaces_the_fewest_devices(points):
    assert points.loc["deepseek-v3", "num_accelerators"] == 24


def test_model_whose_context_is_shorter_than_the_query_is_left_out(predictor):
    points = capability_points(predictor, num_prompt_tokens=1900, num_output_tokens=300, **PRICES)
    assert "llama-7b" not in points.index
    assert "llama-2-7b" in points.index


def slice_of_two_models(predictor, name, num_layers):
    """A predictor of logs of one device, one of them of ``num_layers`` layers of a model that needs two."""
    (gpt_j, ada) = (model for model in predictor.models if model.name in ("gpt-j", "ada"))
    model = replace(
        gpt_j,
        name=name,
        architecture=get_architecture(name),
        runtimes=gpt_j.runtimes.assign(is_extrapolated=True),
        num_layers_profiled=num_layers,
    )
    return RuntimePredictor((gpt_j, ada, model), predictor.times, predictor.left_out)


def test_models_on_several_devices_are_left_out_where_no_message_was_timed(predictor):
    models = tuple(model for model in predictor.models if model.tensor_parallel_size == 1)
    points = capability_points(replace(predictor, models=models), **QUERY, **PRICES)
    assert "llama-2-70b" not in points.index
    assert points["num_accelerators"].tolist() == [1] * len(points)


@pytest.mark.parametrize(("num_layers", "number"), [(80, 2), (20, 4)])
def test_model_timed_by_slices_counts_the_devices_that_hold_all_of_it(predictor, num_layers, number):
    row = capability_points(slice_of_two_models(predictor, "llama-2-70b", num_layers), **QUERY, **PRICES).loc[
        "llama-2-70b"
    ]
    assert row["is_measured"]
    assert row["num_accelerators"] == number
    assert "slices" in row["caveats"]


def test_devices_that_do_not_hold_a_model_are_refused(predictor):
    with pytest.raises(ValueError, match=r"llama-3\.1-405b on 8 x 1 devices: 1\.\d+e\+11 bytes a device do not fit"):
        capability_points(predictor, **QUERY, **PRICES, parallelisms={"llama-3.1-405b": (8, 1)})


def test_devices_of_a_model_without_a_score_are_refused(predictor):
    with pytest.raises(ValueError, match=r"there is none of deepseek-v33"):
        capability_points(predictor, **QUERY, **PRICES, parallelisms={"deepseek-v33": (8, 3)})


def test_query_that_no_model_can_answer_is_refused(predictor):
    with pytest.raises(ValueError, match="no model with a score can answer 100000000 tokens"):
        capability_points(predictor, num_prompt_tokens=99_999_999, num_output_tokens=1, **PRICES)


def make_points(**rows):
    columns = ["cost", "cost_lower", "cost_upper", "mmlu_percent"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).assign(is_measured=False)


def test_frontier_is_sure_where_intervals_and_scores_are_far_apart():
    points = make_points(best=(4, 3.9, 4.1, 80), cheap=(1, 0.9, 1.1, 60), beaten=(5, 4.9, 5.1, 50))
    table = frontier_table(points, "cost")
    assert table.index.tolist() == ["cheap", "best", "beaten"]
    assert table["on_frontier"].tolist() == [True, True, False]
    assert table["frontier_probability"].tolist() == [1, 1, 0]


def test_wider_intervals_make_the_frontier_less_sure():
    narrow = make_points(one=(1.0, 0.98, 1.02, 60), two=(1.1, 1.08, 1.12, 50))
    wide = make_points(one=(1.0, 0.5, 2.0, 60), two=(1.1, 0.55, 2.2, 50))
    probabilities = [frontier_table(points, "cost").loc["two", "frontier_probability"] for points in (narrow, wide)]
    assert probabilities[0] < 0.01
    assert 0.3 < probabilities[1] < 0.5


def test_models_of_one_shape_share_their_error_and_do_not_push_each_other_off():
    shape = (1.0, 0.5, 2.0)
    table = frontier_table(make_points(old=(*shape, 50), new=(*shape, 70)), "cost")
    assert table["frontier_probability"].tolist() == [1, 1]


def test_scores_vary_as_a_test_of_so_many_questions_does():
    # 0.4 points of standard error each: two that differ by 0.1 point change places often.
    table = frontier_table(make_points(cheap=(1, 0.99, 1.01, 70.1), dear=(2, 1.98, 2.02, 70.0)), "cost")
    assert not table.loc["dear", "on_frontier"]
    assert 0.35 < table.loc["dear", "frontier_probability"] < 0.5


def test_frontier_is_of_the_score_asked_for_and_of_the_models_that_have_it():
    points = make_points(cheap=(1, 0.9, 1.1, 60), dear=(4, 3.9, 4.1, 80), unknown=(0.1, 0.09, 0.11, 90))
    points["mmlu_pro_percent"] = [50, 40, None]
    table = frontier_table(points, "cost", score="mmlu_pro_percent")
    assert table["mmlu_pro_percent"].to_dict() == {"cheap": 50, "dear": 40}
    assert table["on_frontier"].to_dict() == {"cheap": True, "dear": False}


def test_model_on_two_machines_has_one_score_and_does_not_push_itself_off():
    points = make_points(here=(1, 0.99, 1.01, 70), there=(2, 1.98, 2.02, 70))
    apart, alike = (
        frontier_table(points.assign(architecture=names), "cost").loc["there", "frontier_probability"]
        for names in (["one", "other"], ["one", "one"])
    )
    assert 0.4 < apart < 0.6
    assert alike == 1


def test_measured_model_stands_where_it_costs_least():
    servers = pd.DataFrame(
        {
            "architecture": ["llama-3.1-8b", "llama-3.1-8b", "gpt-oss-20b", "qwen3-8b"],
            "num_accelerators": [1, 2, 1, 1],
            "usd": [0.5, 0.3, 0.1, np.nan],
            "joules": [1.0, 2.0, 0.1, 0.5],
        }
    )
    # Nobody states what gpt-oss knew before post-training, and one server has no price.
    by_usd, by_joules = (points_of_servers(servers, cost) for cost in ("usd", "joules"))
    assert by_usd[["num_accelerators", "usd"]].to_dict("index") == {"llama-3.1-8b": {"num_accelerators": 2, "usd": 0.3}}
    assert by_joules["num_accelerators"].to_dict() == {"llama-3.1-8b": 1, "qwen3-8b": 1}
    assert by_joules.loc["qwen3-8b", ["mmlu_percent", "mmlu_pro_percent"]].tolist() == [76.89, 56.73]
    assert by_joules["is_measured"].all()
    assert by_joules.loc["llama-3.1-8b", "params_billion"] == pytest.approx(8.03, abs=0.01)


SCORES = {name: CapabilityScore(name, score, "made up") for name, score in (("small", 60), ("large", 70), ("poor", 50))}
TEN_TOKENS = pd.DataFrame({"num_prompt_tokens": [100], "num_output_tokens": [10]})


def serves_one_at_a_time(model, step_s, *, error=0.0, usd=3.6, num_accelerators=1):
    """A request takes ten steps, one for its prompt; the next one waits until it is done."""
    covariance = np.diag([(error * step_s) ** 2, 0, 0, 0, 0, 0])
    steps = StepModel(step_s, 0.0, 0.0, 0.0, covariance=covariance, scheduler=Scheduler(max_num_seqs=1))
    return Candidate(model, steps, num_accelerators, None if usd is None else DeviceRate.exactly(usd))


def served(*candidates, rate_per_s=1.0, seconds=100):
    """What is as good as always busy: the objective is that far."""
    demand = Demand.of_queries(TEN_TOKENS, rate_per_s=rate_per_s, num_requests=500)
    return plan(candidates, demand, [Objective("e2e_s", "mean", seconds)], num_draws=2).answers


def test_dollars_are_those_of_a_replica_that_is_full():
    answers = served(serves_one_at_a_time("small", 0.01, num_accelerators=2), rate_per_s=0.5)
    row = served_frontier(answers, scores=SCORES).loc["small"]
    # Two devices of 0.001 $/s work 0.1 s for ten tokens; nearly always busy, within the tolerance of the search.
    assert row["usd_per_million_output_tokens"] == pytest.approx(20, rel=0.005)
    assert row["max_requests_per_s"] == pytest.approx(10, rel=0.005)
    assert (row["num_accelerators"], row["is_measured"]) == (2, True)


def test_tighter_objective_makes_the_same_model_dearer():
    candidate = serves_one_at_a_time("small", 0.01)
    loose, tight = (
        served_frontier(served(candidate, seconds=seconds), scores=SCORES).loc["small"] for seconds in (100, 0.15)
    )
    # A queue of constant service at half its load waits for half a service: M/D/1.
    assert tight["max_requests_per_s"] / loose["max_requests_per_s"] == pytest.approx(0.5, rel=0.1)
    ratio = tight["usd_per_million_output_tokens"] / loose["usd_per_million_output_tokens"]
    assert ratio == pytest.approx(loose["max_requests_per_s"] / tight["max_requests_per_s"])


def test_dearer_and_worse_model_is_off_the_frontier_of_serving_for_sure():
    given = {"small": 0.01, "poor": 0.03, "large": 0.02}
    answers = served(*(serves_one_at_a_time(model, step_s, error=0.02) for model, step_s in given.items()))
    table = served_frontier(answers, scores=SCORES)
    assert table.index.tolist() == ["small", "large", "poor"]
    assert table["on_frontier"].tolist() == [True, True, False]
    assert table["frontier_probability"].tolist() == [1, 1, 0]


def test_error_of_the_step_time_is_that_of_the_dollars():
    (row,) = served_frontier(
        served(serves_one_at_a_time("small", 0.01, error=0.05)), scores=SCORES, num_draws=4000
    ).to_dict("records")  # fmt: skip
    value = row["usd_per_million_output_tokens"]
    assert row["usd_per_million_output_tokens_lower"] / value == pytest.approx(np.exp(-1.96 * 0.05), rel=0.01)
    assert row["usd_per_million_output_tokens_upper"] / value == pytest.approx(np.exp(1.96 * 0.05), rel=0.01)


def test_models_of_the_same_steps_share_their_error_when_served():
    answers = served(*(serves_one_at_a_time(model, 0.01, error=0.1) for model in ("large", "poor")))
    # As dear in every draw, neither is strictly cheaper.
    assert served_frontier(answers, scores=SCORES)["frontier_probability"].tolist() == [1, 1]


def test_each_model_is_served_by_the_cheapest_of_its_candidates():
    both = [serves_one_at_a_time("small", 0.01, num_accelerators=number) for number in (4, 1, 2)]
    assert served_frontier(served(*both), scores=SCORES)["num_accelerators"].tolist() == [1]


def test_serving_needs_a_price_and_a_model_with_a_score():
    with pytest.raises(ValueError, match=r"small on .* has no price: give price_usd_per_hour"):
        served_frontier(served(serves_one_at_a_time("small", 0.01, usd=None)), scores=SCORES)
    with pytest.raises(ValueError, match="none of the candidates that serve is a model with a score"):
        served_frontier(served(serves_one_at_a_time("mine", 0.01)), scores=SCORES)


def test_mixture_that_serves_many_at_once_gains_on_dense_models(predictor, points):
    demand = Demand.of_queries(pd.DataFrame([QUERY]), rate_per_s=0.1, num_requests=500)
    names = ("qwen3-30b-a3b", "qwen3-14b")
    candidates = [
        it
        for name in names
        for it in predicted_candidates(get_architecture(name), predictor, longest=demand.longest, **PRICES)
    ]
    table = served_frontier(plan(candidates, demand, [Objective.parse("tpot:p99=0.2")], num_draws=2).answers)
    assert not table["is_measured"].any()
    alone, full = points["cost_usd_per_1000_queries"], table["usd_per_million_output_tokens"]
    # One query pays the reading of the weights that it visits; many share all of them.
    assert full[names[0]] / full[names[1]] < 0.5 * alone[names[0]] / alone[names[1]]
    # A thousand queries have 64000 output tokens.
    assert (full * 0.064 < 0.2 * alone[list(names)]).all()
