import json
import re

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.page.queries import answer_queries, capability_frontier, unread_of
from idealized_runtime.page.state import State


def total_of(answer):
    """Seconds, dollars and joules of the answer of ``predict`` or ``price``."""
    for name in ("runtime_s", "cost_usd", "energy_joules"):
        found = answer[name] or {}
        value = found.get("estimate", found.get("total"))
        bounds = (found.get("lower", found.get("total_lower")), found.get("upper", found.get("total_upper")))
        yield name, (value, *bounds) if found else None


@pytest.mark.parametrize(
    "state",
    [
        State(machines=("v100",)),
        State(machines=("H100 vllm",), price_usd_per_hour={"H100 vllm": 3.0}),
        State(model="gpt-j", machines=("a100",), num_output_tokens=64),
        State(model="opt-6.7b", machines=("a100",), num_accelerators=2, price_usd_per_hour={"a100": 1.25},
              power_watts={"a100": 300.0}),
        State(model="gpt2-small", machines=("cpu",), num_prompt_tokens=700, extrapolate=True,
              price_usd_per_hour={"cpu": 0.1}),
    ],
    ids=["predicted", "server", "own log", "own rates", "extrapolated"],
)  # fmt: skip
def test_command_gives_the_same_numbers(state, commands_run):
    answer = answer_queries(state)
    (option,), (line,) = answer.answered, answer.commands()
    for name, found in total_of(commands_run(line)):
        assert (name in option.estimates) == (found is not None)
        if found is not None:
            assert tuple(option.estimates[name]) == pytest.approx(found, rel=1e-6)


def test_command_of_a_table_gives_the_same_numbers(commands_run, tmp_path):
    path = tmp_path / "my queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n100,10\n500,20\n1000,1\n")
    answer = answer_queries(State(model="gpt-j", machines=("a100",), queries=str(path)))
    (option,), (line,) = answer.answered, answer.commands()
    found = dict(total_of(commands_run(line)))
    assert tuple(option.estimates["runtime_s"]) == pytest.approx(found["runtime_s"], rel=1e-6)
    assert "3 queries of my queries.csv" in answer.sentence


def test_rows_without_sizes_are_left_out_named_and_priced_as_by_the_command(commands_run, tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,model\n100,10,opt\nNaN,20,opt\n\n-5,3,\n1000,1,opt\n")
    answer = answer_queries(State(model="gpt-j", machines=("a100",), queries=str(path)))
    (option,), (line,) = answer.answered, answer.commands()
    assert "2 queries of day.csv" in answer.sentence
    assert unread_of(str(path)) == [
        "row 2 of 4 left out: no token counts",
        "row 3 of 4 left out: fewer than one prompt or output token",
        "its column model (opt) is not read: all are asked of each model that is chosen",
    ]
    found = dict(total_of(commands_run(line)))
    assert tuple(option.estimates["runtime_s"]) == pytest.approx(found["runtime_s"], rel=1e-6)


def test_prompt_and_further_tokens_add_up():
    answer = answer_queries(State(model="gpt-j", machines=("a100",), num_output_tokens=1))
    (option,) = answer.answered
    assert option.prompt_s == option.estimates["runtime_s"]
    more = answer_queries(State(model="gpt-j", machines=("a100",), num_output_tokens=101)).answered[0]
    assert more.prompt_s == option.prompt_s
    per_token = (more.estimates["runtime_s"].value - option.prompt_s.value) / 100
    assert per_token == pytest.approx(more.priced.runtimes.time_per_output_token_at(512), rel=1e-6)


def test_ratio_of_two_candidates_is_that_of_their_numbers():
    answer = answer_queries(State())
    first, second = answer.answered
    for metric, ratio in answer.ratios(first, second).items():
        assert ratio.value == pytest.approx(first.estimates[metric].value / second.estimates[metric].value)
        assert ratio.lower < ratio.value < ratio.upper


def test_curves_go_through_the_answer_and_the_points_that_were_measured():
    answer = answer_queries(State(model="gpt2-small", machines=("cpu",), num_prompt_tokens=128, num_output_tokens=16))
    (option,) = answer.answered
    for varied, size in (("num_output_tokens", 16), ("num_prompt_tokens", 128)):
        curve = answer.curves(varied)[option.label]
        value = np.interp(size, curve[varied], curve["runtime_s"])
        assert value == pytest.approx(option.estimates["runtime_s"].value, rel=0.02)
        points = answer.measured(varied)[option.label]
        assert len(points) >= 3
        fitted = np.interp(points[varied], curve[varied], curve["runtime_s"])
        assert np.median(np.abs(points["runtime_s"] / fitted - 1)) < 0.1


def test_points_at_another_size_have_the_fit_there():
    answer = answer_queries(State(model="gpt2-small", machines=("cpu",), num_prompt_tokens=100, num_output_tokens=12))
    points = answer.measured("num_output_tokens")["gpt2-small on 1 x cpu"]
    assert points["num_prompt_tokens"].unique() == [128]
    assert np.median(np.abs(points["fitted_s"] / points["runtime_s"] - 1)) < 0.1


def test_the_quickest_stands_first_and_the_cheapest_is_named():
    answer = answer_queries(State())
    quickest, other = answer.answered
    assert quickest.estimates["runtime_s"].value < other.estimates["runtime_s"].value
    assert other.estimates["cost_usd"].value < quickest.estimates["cost_usd"].value
    assert answer.sentence.startswith(f"{quickest.label} answers")
    assert f"{other.label} is the cheapest with one of 99.6 %: " in answer.sentence
    # Of one machine under two names, neither.
    twice = answer_queries(State(model="gpt2-small", machines=("cpu", "cpu_batch"), num_prompt_tokens=64))
    shares = [twice.probability_to_be_least(option, "runtime_s") for option in twice.answered]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State(num_prompt_tokens=5000), "beyond the profiled prompt sizes, 1 to 1,920 tokens"),
        (
            State(model="gpt2-small", num_prompt_tokens=1000, num_output_tokens=100),
            "the model's context, 1,024 tokens",
        ),
        (State(machines=("cpu",)), "every log of this stack is of one device"),
        (State(machines=()), "choose a machine"),
        (State(model=""), "choose a model"),
    ],
)
def test_what_has_no_answer_says_why(state, said):
    answer = answer_queries(state)
    assert answer.answered == ()
    assert said in re.sub(r"\s+", " ", answer.sentence)
    assert answer.table().empty
    assert answer.commands() == []


def test_configuration_named_like_a_timed_model_is_not_taken_for_it(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"_name_or_path": "gpt-j", "model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4})
    )
    (option,) = answer_queries(State(model=str(path), machines=("a100",))).answered
    assert not option.is_timed


def test_two_machines_of_one_kind_have_labels_of_their_own():
    answer = answer_queries(State(model="gpt2-small", machines=("cpu", "cpu_batch"), num_prompt_tokens=64))
    labels = [option.label for option in answer.options]
    assert len(set(labels)) == 2


def test_frontier_has_probabilities_and_goes_by_own_prices():
    points, frontier = capability_frontier(State(), "a100")
    assert frontier["frontier_probability"].between(0, 1).all()
    assert frontier["on_frontier"].any()
    dearer, _ = capability_frontier(State(price_usd_per_hour={"a100": 8.192}), "a100")
    pd.testing.assert_series_equal(dearer["cost_usd_per_1000_queries"], 2 * points["cost_usd_per_1000_queries"])
