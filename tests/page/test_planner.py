import json
from datetime import UTC, datetime

import pytest

from idealized_runtime.measurements.published import ROOT
from idealized_runtime.page.files import FOLDER_SETTING
from idealized_runtime.page.planner import Planner
from idealized_runtime.page.state import State

CONFIG = {"model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 50257}
BAD = "<img src=x onerror=alert(1)>"
NOW = datetime.now(UTC)
# Quick to simulate and, in this view, to draw.
SMALL = State(
    model="gpt2-small", machines=("a100",), workload="own sizes", num_prompt_tokens=64, num_output_tokens=8,
    rate_per_s=5.0, objectives=("e2e:p95=1",), view="plan",
)  # fmt: skip


@pytest.fixture
def planner(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_SETTING, str(tmp_path))
    return Planner("")


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_SETTING, str(tmp_path))
    planner = Planner(SMALL.to_link())
    yield planner
    planner.close()


def drop(upload, name, content):
    upload.value = ({"name": name, "type": "", "size": len(content), "content": content, "last_modified": NOW},)


def shown(planner):
    """All that the page shows as HTML."""
    return "".join(
        widget.value
        for widget in (planner._sentence, planner._busy, planner._figures, planner._numbers, planner._comparison,
                       planner._command, planner._link, planner._saved, planner.choices.notice, planner.choices.file)
    )  # fmt: skip


def test_first_state_is_answered_at_once(planner):
    assert planner.state == State()
    assert planner.sentence in planner._sentence.value
    assert planner._figures.value.count("<img") == 3


@pytest.mark.parametrize(
    "link",
    ["model=gpt-j&logs=cpu&view=sources", "served=yes&view=plan&rate=2", "num_prompt_tokens=77&workload=own+sizes",
     "price_usd_per_hour=a100%3A2.5&power_watts=v100%3A100&num_accelerators=2&extrapolate=yes"],
)  # fmt: skip
def test_widgets_say_what_the_link_says_and_change_nothing(link, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_SETTING, str(tmp_path))
    planner = Planner(link)
    planner.close()
    assert planner.state == State.from_link(link)[0]


def test_link_opens_no_file_but_those_of_the_page(small, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "of-mine"
    other.write_text(json.dumps(CONFIG))
    for name in ("model", "other", "queries"):
        planner = Planner(f"logs=a100&{name}={other}")
        assert planner.state == State(machines=("a100",))
        assert "of-mine is not among the files of this page" in planner.choices.notice.value


def test_link_with_rates_of_no_machine_says_so(small):
    planner = Planner("logs=a100&price_usd_per_hour=a200:2&price_usd_per_hour=a100:3")
    assert planner.state == State(machines=("a100",), price_usd_per_hour={"a100": 3.0})
    assert "price_usd_per_hour of a200: no such machine" in planner.choices.notice.value


def test_every_widget_changes_its_part_of_the_state(small):
    choices = small.choices
    for widget, value, name, expected in (
        (choices.model, "gpt-j", "model", "gpt-j"),
        (choices.other, "opt-6.7b", "other", "opt-6.7b"),
        (choices.machine["v100"], True, "machines", ("a100", "v100")),
        (choices.number, 2, "num_accelerators", 2),
        (choices.preset, "retrieval", "num_prompt_tokens", 4096),
        (choices.prompt.exact, 77, "num_prompt_tokens", 77),
        (choices.output.slider, 64.0, "num_output_tokens", 64),
        (choices.extrapolate, True, "extrapolate", True),
        (choices.rates["v100"][0], "2.5", "price_usd_per_hour", {"v100": 2.5}),
        (choices.rates["a100"][1], "333", "power_watts", {"a100": 333.0}),
        (choices.mode, "many at once", "is_served", True),
        (choices.rate.exact, 2.5, "rate_per_s", 2.5),
        (choices.goals, "mlperf-llama3.1-8b", "objectives", ("ttft:p99=2", "tpot:p99=0.1")),
        (choices.objective["e2e_s"][1], "20", "objectives", ("ttft:p99=2", "tpot:p99=0.1", "e2e:p95=20")),
        (choices.objective["ttft_s"][0], "mean", "objectives", ("ttft:mean=2", "tpot:p99=0.1", "e2e:p95=20")),
        (small._view, "cost", "view", "cost"),
    ):
        widget.value = value
        assert getattr(small.state, name) == expected
        assert State.from_link(small.state.to_link()) == (small.state, [])
    assert choices.preset.value == "own sizes"
    assert choices.goals.value == "own objectives"


def test_objective_is_taken_and_shown_to_its_last_digit(small):
    _, seconds = small.choices.objective["e2e_s"]
    seconds.value = "0.123456789"
    assert small.state.objectives == ("e2e:p95=0.123456789",)
    assert seconds.value == "0.123456789"


def test_slider_stands_next_to_its_number_and_leaves_it(small):
    small.choices.prompt.exact.value = 500
    assert small.choices.prompt.slider.value == 512
    assert small.state.num_prompt_tokens == 500
    # As the browser says it back.
    small.choices.prompt.slider.value = 512.0000001
    assert small.state.num_prompt_tokens == 500


@pytest.mark.parametrize(
    ("part", "text", "said"),
    [
        ("model", "lama-3.1-8b", "did you mean llama-3.1-8b"),
        ("model", f"{BAD}.json", "No such file"),
        ("rates", "cheap", "price_usd_per_hour must be a positive number"),
        ("rates", "-2", "price_usd_per_hour of a100 must be a positive"),
        ("objective", "soon", "METRIC:STATISTIC=SECONDS"),
    ],
)
def test_what_is_refused_is_said_in_the_page_and_changes_nothing(part, text, said, small):
    choices = small.choices
    widget = {"model": choices.model, "rates": choices.rates["a100"][0], "objective": choices.objective["ttft_s"][1]}[
        part
    ]
    widget.value = text
    assert said in choices.notice.value
    assert small.state == SMALL
    assert BAD not in shown(small)
    small.choices.machine["cpu"].value = True
    assert choices.notice.value == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{]", "is not JSON"), (b"[]", "is not a JSON object"), (b"", "is empty"), (b"\xff\xfe\x00", "is not JSON"),
        (json.dumps(CONFIG | {"n_head": BAD}).encode(), "n_head"),
        (json.dumps(CONFIG | {"n_layer": -1}).encode(), "n_layer"),
    ],
)  # fmt: skip
def test_configuration_that_is_refused_says_why(content, said, small):
    drop(small.choices.config, f"{BAD}.json", content)
    assert said in small.choices.notice.value
    assert "is refused: " in small.choices.notice.value
    assert small.state == SMALL
    assert BAD not in shown(small)
    assert str(small._files.folder) not in small.choices.notice.value


def test_configuration_of_ones_own_is_answered(planner):
    drop(planner.choices.config, "mine.json", json.dumps(CONFIG | {"_name_or_path": BAD}).encode())
    assert planner.answer.answered
    assert planner.state.model.endswith("mine.json")
    for view in ("time", "cost", "frontier", "sources"):
        planner._view.value = view
        assert BAD not in shown(planner)
        assert "alert(1)" in shown(planner)
    for suffix in ("pdf", "png", ".csv", ".tex", ".md"):
        planner._save(suffix)
    # The link holds as long as the file is there.
    again = Planner(planner.state.to_link())
    assert again.state == planner.state
    planner._files.check(planner.state.model)


def test_names_with_dollars_are_no_formulas(planner):
    drop(planner.choices.config, "mine.json", json.dumps(CONFIG | {"_name_or_path": r"$\frac{$ $x_$"}).encode())
    assert planner._figures.value.count("<img") == 3


def test_link_to_a_file_of_another_page_says_so(planner, tmp_path):
    other = Planner("model=%2Fetc%2Fhostname.json&queries=%2Fetc%2Fpasswd")
    assert other.choices.notice.value.count("drop it in again") == 2
    assert (other.state.model, other.state.queries) == (State().model, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "no column num_prompt_tokens"),
        (b"num_prompt_tokens,num_output_tokens\nx,2\n", "num_prompt_tokens"),
        (b"num_prompt_tokens,num_output_tokens\n", "holds no query"),
        (b"\x00\x01", "queries"),
        (BAD.encode(), "column"),
    ],
)  # fmt: skip
def test_table_that_is_refused_says_why(content, said, small):
    drop(small.choices.table, f"queries {BAD}.csv", content)
    assert "is refused: " in small.choices.notice.value
    assert said in small.choices.notice.value
    assert small.state == SMALL
    assert BAD not in shown(small)


def test_table_takes_the_place_of_the_sizes_until_it_is_left_out(small):
    drop(small.choices.table, "day.csv", b"num_prompt_tokens,num_output_tokens\n10,20\n30,40\n")
    assert "2 queries of day.csv" in small.sentence
    assert small.choices.prompt.box.layout.display == "none"
    small.choices.forget.click()
    assert small.state == SMALL


def test_two_candidates_are_compared_and_a_third_takes_the_place_of_the_first(planner):
    planner.choices.machine["cpu"].value = True
    planner.choices.model.value = "gpt2-small"
    for button in planner._candidates[:2]:
        button.value = True
    first, second, third = planner.answer.answered
    assert planner._comparison.value.endswith(f"of {second.label}.</p>")
    assert f"{first.label} takes " in planner._comparison.value
    planner._candidates[2].value = True
    assert planner.state.compare == (second.key, third.key)
    assert [button.value for button in planner._candidates[:3]] == [False, True, True]
    planner._candidates[2].value = False
    assert planner._comparison.value == ""


def test_candidates_can_be_pressed_where_they_are_drawn(planner):
    for view in ("time", "cost"):
        planner._view.value = view
        for place, option in enumerate(planner.answer.answered):
            assert f'aria-label="Compare {option.label}"' in planner._figures.value
            assert f'data-press="candidate-{place}"' in planner._figures.value
    panel = planner._panels[0]
    _, spots = panel.png()
    tops = [spots[option.label][1] for option in planner.answer.answered]
    assert tops == sorted(tops)
    for left, top, width, height in spots.values():
        assert 0 <= left < left + width <= 1
        assert 0 <= top < top + height <= 1


def test_model_of_the_frontier_is_put_beside_and_compared(planner):
    planner._view.value = "frontier"
    planner._model_buttons[planner._models.index("qwen3-8b")].click()
    assert planner.state.other == "qwen3-8b"
    assert planner.state.compare == ("llama-3.1-8b @ a100", "qwen3-8b @ a100")
    assert "takes" in planner._comparison.value
    planner._model_buttons[planner._models.index("qwen3-8b")].click()
    assert planner.state.compare == ("llama-3.1-8b @ a100",)


def test_frontier_is_as_served_where_many_come_at_once(small):
    small.choices.mode.value = "many at once"
    small._view.value = "frontier"
    assert "are being simulated" in small._numbers.value
    small.wait(120)
    assert "many at once on a100, each replica full within E2E p95" in small._numbers.value
    assert "Dollars a million output tokens" in small._numbers.value
    assert small._figures.value.count("<img") == 1
    # Another rate asks for nothing new.
    small.choices.rate.exact.value = 2.0
    assert small._figures.value.count("<img") == 1


def test_plan_fills_in(small):
    small.choices.mode.value = "many at once"
    assert small.state.view == "plan"
    assert "being simulated" in small.sentence
    assert "simulating" in small._busy.value
    small.wait()
    assert small.sentence == small.served.sentence
    assert small._busy.value == ""
    assert "What limits it" in small._numbers.value
    assert "idealized-runtime plan" in small._command.value
    small.choices.mode.value = "one at a time"
    assert small.state.view == "time"


def test_last_of_two_plans_counts(small):
    small.choices.mode.value = "many at once"
    first = small._planning
    small.choices.rate.exact.value = 2.0
    small.wait()
    first.join(30)
    small._take_news()
    assert small.served.plan.demand.rate_per_s == 2


def test_plan_without_an_objective_says_what_is_missing(small):
    small.choices.mode.value = "many at once"
    for _, seconds in small.choices.objective.values():
        seconds.value = ""
    small.wait()
    assert "No plan: a plan needs at least one objective" in small.sentence


def test_files_of_equal_answers_are_equal(planner):
    for suffix in ("pdf", "png", ".csv", ".tex", ".md"):
        planner._save(suffix)
        first = planner._saved.value
        planner._save(suffix)
        assert planner._saved.value == first
        assert f'download="planner-time.{suffix.lstrip(".")}"' in first


def test_every_source_is_named(planner):
    planner.choices.model.value = "gpt-j"
    planner._view.value = "sources"
    said = planner._numbers.value
    for text in (
        "fitted to its own log",
        "a100/gptj_6b.log",
        "list price of 2023-05",
        "arxiv.org/abs/2305.02440",
        "<details>",
    ):
        assert text in said


def test_source_of_a_served_prediction_opens(small):
    small.choices.machine["B200 vllm"].value = True
    small._view.value = "sources"
    said = small._numbers.value
    assert "<summary>idealized_runtime/measurements/stacks/vllm_h100.json</summary>" in said
    assert (ROOT / "idealized_runtime" / "measurements" / "stacks" / "vllm_h100.json").is_file()
    for text in ("taken from H100 by the data sheets", "https://github.com/ml-energy/leaderboard", "left-out models",
                 "cache_bytes", "base_watts"):  # fmt: skip
        assert text in said
