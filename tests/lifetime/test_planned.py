from dataclasses import replace

import numpy as np
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.lifetime.planned import PlannedQueryCosts, predicted_servers
from idealized_runtime.lifetime.size_curve import FloorPowerLaw
from idealized_runtime.measurements.shipped import read_shipped
from idealized_runtime.prediction import fit_predictor
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import StepModel

NAMES = ("opt-125m", "opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b", "opt-30b")
ARCHITECTURES = {name: get_architecture(name) for name in (*NAMES, "mixtral-8x7b")}
SIZES = np.array([ARCHITECTURES[name].num_params for name in NAMES], dtype=float)
# A step for the prompt and the first token, ten for the others.
MIX, NUM_STEPS = QueryMix.from_means(10, 11), 11
LOOSE = [Objective.parse("e2e:p50=1e6")]


def make_server(name, step_s, *, num_accelerators=1, max_num_seqs=4, **known):
    """A server each of whose steps takes this long, whatever is in it."""
    steps = StepModel(step_s, 0.0, 0.0, 0.0, hardware="box", scheduler=Scheduler(max_num_seqs=max_num_seqs), **known)
    return Candidate(name, steps, num_accelerators)


def make_servers(steps_s, **known):
    return [make_server(name, step_s, **known) for name, step_s in zip(NAMES, steps_s, strict=True)]


def planned(candidates, objectives=LOOSE, mix=MIX):
    return PlannedQueryCosts.plan(candidates, ARCHITECTURES, mix, objectives)


def test_full_replica_costs_its_accelerators_for_its_share_of_the_steps():
    found = planned([make_server(name, 0.01, num_accelerators=3) for name in NAMES]).table()
    np.testing.assert_allclose(found["max_requests_per_s"], 4 / (NUM_STEPS * 0.01), rtol=0.01)
    np.testing.assert_allclose(found["planned_s"], 3 * NUM_STEPS * 0.01 / 4, rtol=0.01)


def test_one_query_at_a_time_costs_all_of_its_steps():
    found = planned([make_server(name, 0.01, num_accelerators=3) for name in NAMES]).table()
    np.testing.assert_allclose(found["one_at_a_time_s"], 3 * NUM_STEPS * 0.01)


def test_mix_of_sizes_costs_the_mean_of_its_queries():
    both = QueryMix([10, 10], [1, 41], [3, 1])
    found = planned(make_servers([0.01] * 6), mix=both).table()
    np.testing.assert_allclose(found["one_at_a_time_s"], 0.01 * (0.75 * 1 + 0.25 * 41))


def test_power_of_the_size_is_given_back():
    costs = planned(make_servers(1e-11 * SIZES))
    for curve, share in ((costs.planned.per_query, 1 / 4), (costs.one_at_a_time.per_query, 1)):
        np.testing.assert_allclose(curve(SIZES), 1e-11 * SIZES * NUM_STEPS * share, rtol=0.02)


def test_floor_and_power_of_the_size_are_given_back():
    law = FloorPowerLaw(0.01, 3e9, 1.4)
    found = planned(make_servers(law(SIZES))).one_at_a_time.per_query.law
    assert found.floor == pytest.approx(0.01 * NUM_STEPS, rel=0.01)
    assert found.num_params_knee == pytest.approx(3e9, rel=0.03)
    assert found.exponent == pytest.approx(1.4, rel=0.03)


def test_objective_that_allows_fewer_at_once_makes_a_query_dearer():
    # Each sequence adds to a step: at full batches a token takes 0.01 + 64 x 0.001 s.
    servers = [
        Candidate(name, StepModel(0.01, 1e-5, 1e-3, 0.0, hardware="box", scheduler=Scheduler(max_num_seqs=64)), 1)
        for name in NAMES
    ]
    loose, tight = (planned(servers, [Objective.parse(f"tpot:p95={limit}")]) for limit in (1.0, 0.02))
    assert (tight.planned.per_query.costs > 1.5 * loose.planned.per_query.costs).all()
    np.testing.assert_array_equal(tight.one_at_a_time.per_query.costs, loose.one_at_a_time.per_query.costs)


def test_cheapest_candidate_of_a_model_counts():
    # Twice the devices take 0.6 of the time: 1.2 times the cost; with a batch twice as large 0.6 times.
    few, many = make_servers([0.01] * 6), [make_server(name, 0.006, num_accelerators=2) for name in NAMES]
    larger = [make_server(name, 0.006, num_accelerators=2, max_num_seqs=8) for name in NAMES]
    assert (planned([*few, *many]).table()["num_accelerators"] == 1).all()
    found = planned([*few, *larger]).table()
    assert (found["num_accelerators"] == 2).all()
    # One query at a time knows nothing of the batch.
    np.testing.assert_allclose(found["one_at_a_time_s"], NUM_STEPS * 0.01)


def test_error_that_predictions_share_stands_in_the_interval():
    steps_s = 1e-11 * SIZES
    covariances = [np.diag([(0.1 * step_s) ** 2, 0, 0, 0, 0, 0]) for step_s in steps_s]
    servers = [
        make_server(name, step_s, covariance=covariance, origin="predicted")
        for name, step_s, covariance in zip(NAMES, steps_s, covariances, strict=True)
    ]
    costs = planned(servers)
    assert costs.has_errors
    assert costs.one_at_a_time.per_query.log_error == pytest.approx(0.1, rel=1e-6)
    # The largest rate of a server that may be full is inverse to the time of its steps.
    assert costs.planned.per_query.log_error == pytest.approx(0.1, rel=0.02)
    lower, upper = costs.one_at_a_time.per_query.interval(1e10)
    assert np.log(upper / lower) == pytest.approx(2 * 1.96 * 0.1, rel=0.05)


def test_errors_of_fitted_steps_are_in_the_scatter_already():
    servers = [make_server(name, 0.01, covariance=np.diag([1e-6, 0, 0, 0, 0, 0]), origin="fitted") for name in NAMES]
    assert planned(servers).planned.per_query.log_error == 0
    assert not planned(make_servers([0.01] * 6)).has_errors


def test_model_that_is_too_slow_is_left_out_and_said_why():
    *others, slowest = make_servers([0.01] * 5 + [1.0])
    costs = planned([*others, slowest], [Objective.parse("tpot:p95=0.5")])
    assert list(costs.answers) == list(NAMES[:-1])
    assert [it.candidate.model for it in costs.left_out] == [NAMES[-1]]
    assert "below what an idle replica takes, 1 s" in costs.left_out[0].reason
    assert costs.planned.is_extrapolated(SIZES[-1])
    assert not costs.one_at_a_time.is_extrapolated(SIZES[-1])
    assert costs.table()["planned_s"].isna().tolist() == [False] * 5 + [True]


def test_too_few_models_within_the_objectives_are_refused_with_the_reasons():
    with pytest.raises(
        ValueError, match=r"at least 4 models must serve .*; 0 do; opt-125m on 1 x box: TPOT p95 <= 0.001"
    ):
        planned(make_servers([0.01] * 6), [Objective.parse("tpot:p95=0.001")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "my-own"}, "my-own: its size is not known"),
        ({"model": "mixtral-8x7b"}, "mixtral-8x7b: a token visits a part of its experts"),
        ({"steps": replace(make_server("", 0.01).steps, hardware="other")}, "on one hardware; got box, other"),
    ],
)
def test_models_whose_costs_are_no_function_of_size_are_refused(change, message):
    first, *others = make_servers([0.01] * 6)
    with pytest.raises(ValueError, match=message):
        planned([replace(first, **change), *others])


@pytest.fixture(scope="module")
def a100():
    timed = read_shipped("a100")
    architectures = {name: timed[name].architecture for name in ("ada", "gpt-j", "gpt-neox-20b", "yalm", "bloom")}
    mix = QueryMix.from_means(128, 64)
    servers = predicted_servers(architectures.values(), fit_predictor(timed.values()), mix)
    objectives = [Objective.parse("ttft:p95=2"), Objective.parse("tpot:p95=0.2")]
    return servers, PlannedQueryCosts.plan(servers, architectures, mix, objectives)


def test_predicted_servers_are_as_few_devices_as_hold_a_model_and_twice_as_many(a100):
    numbers = {}
    for server in a100[0]:
        candidate = getattr(server, "candidate", server)
        numbers.setdefault(candidate.model, []).append(candidate.num_accelerators)
    assert numbers == {"ada": [1, 2], "gpt-j": [1, 2], "gpt-neox-20b": [1, 2], "yalm": [2, 4], "bloom": [8, 16]}


def test_model_whose_weights_fill_its_devices_is_served_on_twice_as_many(a100):
    assert a100[1].table().loc["yalm", "num_accelerators"] == 4


def test_published_a100_serve_many_at_once_for_a_small_part_of_the_cost(a100):
    table = a100[1].table()
    assert table["one_at_a_time_s"].div(table["planned_s"]).between(20, 300).all()
    assert a100[1].has_errors
    assert 0.01 < a100[1].planned.per_query.log_error < 0.3


def test_number_of_devices_that_is_given_takes_the_place_of_both(a100):
    timed = read_shipped("a100")
    predictor, mix = fit_predictor(timed.values()), QueryMix.from_means(128, 64)
    servers = predicted_servers(
        [timed[name].architecture for name in ("ada", "gpt-j")], predictor, mix, num_accelerators={"gpt-j": 4, None: 1}
    )
    assert [(it.model, it.num_accelerators) for it in servers] == [("ada", 1), ("gpt-j", 4)]
