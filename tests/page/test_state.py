import re
from dataclasses import replace

import pytest

from idealized_runtime.page.state import OWN_SIZES, PRESETS, State

OTHER = State(
    model="gpt-j", other="opt-6.7b", machines=("cpu",), is_served=True, workload=OWN_SIZES, num_prompt_tokens=77,
    num_output_tokens=3, rate_per_s=0.25, objectives=("e2e:mean=2",), num_accelerators=4,
    price_usd_per_hour={"a100": 1.5, "logs/a:b c": 2.25}, power_watts={"cpu": 90.0}, extrapolate=True, view="sources",
    compare=("gpt-j @ cpu", "opt-6.7b @ cpu"),
)  # fmt: skip


def test_link_restores_every_field():
    assert [name for name, value in vars(OTHER).items() if value == getattr(State(), name)] == ["queries"]
    assert State.from_link(OTHER.to_link()) == (OTHER, [])


@pytest.mark.parametrize("state", [State(), State(machines=()), State(objectives=()), State(model="a&b=c#d é")])
def test_link_restores_what_is_empty_or_odd(state):
    assert State.from_link(f"?{state.to_link()}") == (state, [])


def test_machine_that_is_named_twice_is_one():
    assert State.from_link("logs=cpu&logs=cpu") == (State(machines=("cpu",)), [])


def test_link_of_the_first_state_is_empty():
    assert State().to_link() == ""


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("rate=fast", "rate must be a number"),
        ("rate=-1", r"rate_per_s must lie in \[0.01, 100000\]"),
        ("rate=1e-9", r"rate_per_s must lie in"),
        ("rate=nan", "rate_per_s"),
        ("num_prompt_tokens=2e3", "num_prompt_tokens must be a whole number"),
        ("num_prompt_tokens=0", r"must lie in \[1, 131072\]"),
        ("served=perhaps", "served must be yes or no"),
        ("view=tim", "did you mean time"),
        ("workload=chats", "did you mean chat"),
        ("objective=ttft:p95=x", "METRIC:STATISTIC=SECONDS"),
        ("price_usd_per_hour=a100:free", "price_usd_per_hour must be a number"),
        ("price_usd_per_hour=a100:0", "price_usd_per_hour of a100 must be a positive"),
        ("modle=gpt-j", "did you mean model"),
    ],
)
def test_what_a_link_may_not_say_is_named_and_the_rest_is_taken(link, said):
    state, refused = State.from_link(f"{link}&model=gpt-j")
    assert state == State(model="gpt-j")
    assert len(refused) == 1
    assert re.search(said, refused[0])


def test_workload_brings_its_sizes_and_objectives():
    for name in PRESETS:
        state = OTHER.with_workload(name)
        assert (state.workload, state.queries) == (name, "")
        assert State().with_workload(name).num_prompt_tokens == state.num_prompt_tokens
        assert len(state.objectives) == 3


def test_other_sizes_are_own_ones_however_they_come():
    assert replace(State(), num_prompt_tokens=100).workload == OWN_SIZES
    assert replace(State(), num_prompt_tokens=State().num_prompt_tokens).workload == "chat"
    assert State.from_link("workload=chat&num_output_tokens=8")[0].workload == OWN_SIZES
    retrieval = State().with_workload("retrieval")
    assert State.from_link(retrieval.to_link()) == (retrieval, [])
