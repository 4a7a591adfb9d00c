from dataclasses import replace

import pytest

from idealized_runtime.page.served import demand_of, plan_commands, plan_served
from idealized_runtime.page.state import State
from idealized_runtime.serving.planning import Simulations

ASKED = State(is_served=True, model="gpt-j", machines=("a100",), rate_per_s=4.0)


@pytest.fixture(scope="module")
def simulations():
    return Simulations()


def answers(state, simulations):
    return list(plan_served(state, simulations, lambda: False))


@pytest.fixture(scope="module")
def found(simulations):
    return answers(ASKED, simulations)


def test_answer_comes_soon_then_with_its_interval_then_with_tighter_objectives(found):
    soon, bounded, last = found
    assert [answer.is_bounded for answer in found] == [False, True, True]
    assert soon.best.num_replicas == bounded.best.num_replicas
    assert "are about to say" in soon.sentence
    assert bounded.sentence.endswith(bounded.best.sentence)
    assert last.tighter is not None
    assert soon.tighter is bounded.tighter is None


def test_command_gives_the_same_plan(found, commands_run):
    (line,) = plan_commands(ASKED)
    assert "--workload chat --rate 4" in line
    (candidate,) = commands_run(line)["candidates"]
    best = found[-1].best
    assert (candidate["num_replicas"], candidate["num_replicas_lower"], candidate["num_replicas_upper"]) == (
        best.num_replicas, best.num_replicas_lower, best.num_replicas_upper,
    )  # fmt: skip
    assert candidate["max_requests_per_s"] == pytest.approx(best.max_requests_per_s, rel=1e-4)
    assert candidate["usd_per_hour"] == pytest.approx(best.usd_per_hour)


def test_commands_have_own_sizes_objectives_and_rates():
    state = replace(ASKED, machines=("a100", "v100"), price_usd_per_hour={"v100": 2.0}, num_accelerators=2,
                    objectives=("ttft:p95=1",), num_prompt_tokens=64)  # fmt: skip
    first, second = plan_commands(state)
    assert (
        "printf 'num_prompt_tokens,num_output_tokens\\n64,256\\n' | idealized-runtime plan --logs v100"
        in first + second
    )
    assert "--price-usd-per-hour 2" in first + second
    for line in (first, second):
        assert "--queries - --rate 4 --objective ttft:p95=1" in line
        assert "--num-accelerators 2" in line


def test_command_of_a_server_gives_the_same_plan(simulations, commands_run):
    state = replace(
        ASKED, model="llama-3.1-8b", machines=("H100 vllm",), objectives=("e2e:p95=5",), num_output_tokens=16
    )
    soon = next(plan_served(state, simulations, lambda: False))
    (line,) = plan_commands(state)
    assert "--hardware H100 --software vllm --model llama-3.1-8b" in line
    (candidate,) = commands_run(line)["candidates"]
    assert (candidate["num_replicas"], candidate["software"]) == (soon.best.num_replicas, "vllm 0.11.1")
    assert candidate["max_requests_per_s"] == pytest.approx(soon.best.max_requests_per_s, rel=1e-4)


def test_a_tighter_objective_costs_at_least_as_much(found):
    usd = found[-1].tighter.sort_values("seconds")["usd_per_hour"]
    assert usd.is_monotonic_decreasing
    assert found[-1].cost_of_tighter


def test_what_cannot_be_met_says_why(simulations):
    *_, last = answers(replace(ASKED, objectives=("tpot:p95=0.001",)), simulations)
    assert last.best is None
    assert "is below what an idle replica takes" in last.sentence


def test_candidates_do_not_wait_for_each_other(simulations):
    first, second, *_ = answers(replace(ASKED, machines=("a100", "v100")), simulations)
    assert [len(first.plan.answers), len(second.plan.answers)] == [1, 2]
    assert "the cheapest so far (1 candidate to come)" in first.sentence
    assert "so far" not in second.sentence


def test_cheapest_is_named_with_its_probability(simulations):
    state = replace(ASKED, machines=("a100", "v100"))
    *_, last = answers(state, simulations)
    first, second = last.plan.answers
    assert "It is the cheapest of 2 with a probability of " in last.sentence
    assert last.probability_to_be_cheapest > 0.5
    # Where the other is ten times as dear there is no doubt.
    price = 10 * first.usd_per_hour / second.num_replicas
    dear = list(answers(replace(state, price_usd_per_hour={"a100": price, "v100": price / 100}), simulations))[-1]
    assert dear.probability_to_be_cheapest == 1


def test_plan_of_a_state_that_is_no_longer_chosen_is_stopped(simulations):
    with pytest.raises(InterruptedError):
        list(plan_served(replace(ASKED, rate_per_s=5.5), simulations, lambda: True))


@pytest.mark.parametrize(
    ("changes", "said"), [({"objectives": ()}, "at least one objective"), ({"machines": ()}, "choose a machine")]
)
def test_what_is_not_chosen_is_asked_for(changes, said, simulations):
    with pytest.raises(ValueError, match=said):
        answers(replace(ASKED, **changes), simulations)


def test_trace_comes_as_it_came(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n0,10,5\n1,10,5\n3,10,5\n")
    state = replace(ASKED, queries=str(path))
    assert not demand_of(state).is_random
    (line,) = plan_commands(state)
    assert f"--requests {path}" in line
    assert "--rate" not in line
    path = tmp_path / "sizes.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n10,5\n")
    state = replace(ASKED, queries=str(path))
    assert demand_of(state).rate_per_s == 4
    assert f"--queries {path} --rate 4" in plan_commands(state)[0]
