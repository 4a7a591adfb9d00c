"""The page in a real Chromium: every control, whole tasks, files, the keyboard, a narrow window."""

import json
import re
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from idealized_runtime.page.state import State

# Quick to simulate.
SMALL = State(
    model="gpt2-small", machines=("a100", "v100"), workload="own sizes", num_prompt_tokens=64, num_output_tokens=8,
    rate_per_s=5.0, objectives=("e2e:p95=1",),
)  # fmt: skip
CONFIG = {"model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 50257}
BAD = "<img src=x onerror=alert(1)>"
# Opens at once, where a dialogue would hold up the test.
DROP = """([selector, name, text]) => {
    const files = new DataTransfer();
    files.items.add(new File([text], name));
    document.querySelector(selector).closest(".drop").dispatchEvent(
        new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: files}));
}"""

# The name of what has the focus.
FOCUSED = """(e => (
    e.getAttribute("aria-label") || (e.labels && e.labels[0]?.innerText) || e.innerText || e.title || ""
).trim())(document.activeElement)"""


def state_of(page):
    """What the address of a page says."""
    state, refused = State.from_link(urlsplit(page.url).query)
    assert refused == []
    return state


def wait_for_state(page, name, value):
    """Until the address has a value; the state of the page then has it, too."""
    wanted = json.dumps([name, str(value)])
    for _ in range(600):
        if getattr(state_of(page), name) == value:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{wanted} is not in {page.url}")


def answer_of(page):
    return page.inner_text(".answer")


def wait_for_answer(page, pattern):
    page.wait_for_function("text => new RegExp(text).test(document.querySelector('.answer').innerText)", arg=pattern)


def upload(page, button, name, content):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile(button)).click()
    chooser.value.set_files({"name": name, "mimeType": "text/plain", "buffer": content})


def test_every_control_changes_the_answer(open_page):
    page = open_page(SMALL.to_link())
    page.get_by_label("Model", exact=True).fill("llama-3.2-1b")
    page.keyboard.press("Enter")
    wait_for_state(page, "model", "llama-3.2-1b")
    wait_for_answer(page, r"^llama-3\.2-1b on 1 x A100")
    page.get_by_label("Beside it").fill("gpt-j")
    page.keyboard.press("Enter")
    wait_for_state(page, "other", "gpt-j")
    page.get_by_label(re.compile("^V100-32GB")).uncheck()
    wait_for_state(page, "machines", ("a100",))
    page.get_by_label("Accelerators").select_option("2")
    wait_for_state(page, "num_accelerators", 2)
    wait_for_answer(page, "2 x A100-80GB")
    page.get_by_label("Sizes").select_option("retrieval")
    wait_for_state(page, "num_prompt_tokens", 4096)
    page.get_by_label("Also prompts longer").check()
    wait_for_answer(page, "4,096 prompt tokens and 512 output tokens")
    page.get_by_role("spinbutton", name="Prompt tokens").fill("200")
    page.keyboard.press("Enter")
    wait_for_state(page, "num_prompt_tokens", 200)
    handle = page.get_by_role("slider", name="Output tokens")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    wait_for_state(page, "num_output_tokens", 430)
    page.get_by_label("$ an hour").first.fill("2.5")
    page.keyboard.press("Enter")
    wait_for_state(page, "price_usd_per_hour", {"a100": 2.5})
    page.get_by_label("watts").first.fill("250")
    page.keyboard.press("Enter")
    wait_for_state(page, "power_watts", {"a100": 250.0})
    for name, view in (("Cost and energy", "cost"), ("Frontier", "frontier"), ("Sources", "sources"), ("Plan", "plan")):
        page.get_by_role("button", name=name, exact=True).click()
        wait_for_state(page, "view", view)
        assert page.get_by_role("button", name=name, exact=True).get_attribute("aria-pressed") == "true"
    page.wait_for_selector("text=A plan is for many queries at once")


def test_controls_of_a_plan_change_it(open_page):
    page = open_page(SMALL.to_link())
    page.get_by_role("button", name="many at once").click()
    wait_for_state(page, "is_served", True)
    page.get_by_role("spinbutton", name="Queries a second").fill("3")
    page.keyboard.press("Enter")
    wait_for_state(page, "rate_per_s", 3.0)
    page.get_by_label("Of", exact=True).select_option("mlperf-llama3.1-8b")
    wait_for_state(page, "objectives", ("ttft:p99=2", "tpot:p99=0.1"))
    page.get_by_label("TTFT").select_option("mean")
    wait_for_state(page, "objectives", ("ttft:mean=2", "tpot:p99=0.1"))
    page.get_by_label("at most, s").nth(2).fill("5")
    page.keyboard.press("Enter")
    wait_for_state(page, "objectives", ("ttft:mean=2", "tpot:p99=0.1", "e2e:p95=5"))
    wait_for_answer(page, r"^gpt2-small: 1 replica of 1 x \w+-\d+GB serves 3 requests/s")
    page.wait_for_selector("text=/A tighter objective|cannot be met/")


def test_task_which_machine_for_one_query(open_page, commands_run):
    """Compare two machines, look at the money, take away a figure, a table, the command and a link."""
    page = open_page(State(model="gpt-j").to_link())
    first, second = page.locator("figure").first.locator(".spot").all()
    first.click()
    page.wait_for_selector(".picks button[aria-pressed=true]")
    second.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".comparison >> text=/takes .* times the seconds/")
    page.get_by_role("button", name="Cost and energy").click()
    page.wait_for_selector("text=/Dollars of each candidate/")
    for name, file, begins in (
        ("Figure, PDF", "planner-cost.pdf", b"%PDF"), ("Figure, PNG", "planner-cost.png", b"\x89PNG"),
        ("Table, CSV", "planner-cost.csv", b"model,"), ("Table, LaTeX", "planner-cost.tex", b"\\begin{tabular}"),
        ("Table, Markdown", "planner-cost.md", b"| Model"),
    ):  # fmt: skip
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        assert download.value.suggested_filename == file
        assert download.value.path().read_bytes().lower().startswith(begins.lower())
    page.get_by_role("button", name="Copy the command").click()
    page.wait_for_selector("text=Copied")
    line = page.evaluate("navigator.clipboard.readText()").splitlines()[0]
    seconds = float(re.search(r" in ([\d.]+) s", answer_of(page))[1])
    assert commands_run(line)["runtime_s"]["total"] == pytest.approx(seconds, rel=0.005)
    again = open_page(urlsplit(page.url).query)
    again.wait_for_selector(".comparison >> text=/times the seconds/")
    assert (answer_of(again), again.inner_text(".numbers")) == (answer_of(page), page.inner_text(".numbers"))


def test_task_what_serves_this_demand(open_page, commands_run):
    """Plan, see what limits it and what a tighter objective costs, and plan the same by the command."""
    page = open_page(State(**{**vars(SMALL), "is_served": True, "view": "plan", "machines": ("a100",)}).to_link())
    page.wait_for_selector("text=What limits it")
    page.wait_for_selector(".numbers >> text=/A tighter objective/")
    page.wait_for_function("() => document.querySelector('.busy').innerText === ''")
    (found,) = commands_run(page.inner_text(".command pre"))["candidates"]
    assert answer_of(page).startswith(f"gpt2-small: {found['num_replicas']} replica")
    assert f"{found['usd_per_hour']:.2f} $/h" in answer_of(page)


def test_task_a_model_and_queries_of_ones_own(open_page):
    """Drop in a configuration and a table, see the sources; names from files are text."""
    page = open_page(State(machines=("a100",)).to_link())
    page.evaluate(DROP, [".widget-upload", f"{BAD}.json", json.dumps(CONFIG | {"_name_or_path": BAD})])
    wait_for_answer(page, "onerror=alert")
    table = b"num_prompt_tokens,num_output_tokens\n100,10\n200,20\n"
    upload(page, "queries.csv", f"{BAD}.csv", table)
    wait_for_answer(page, "2 queries of")
    page.get_by_role("button", name="Sources").click()
    page.wait_for_selector("text=Predicted from")
    page.locator("summary").first.click()
    assert page.locator("details[open]").count() == 1
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("button", name="Without this file").click()
    wait_for_state(page, "queries", "")
    link = page.locator(".state-link").get_attribute("href")
    again = open_page(link.lstrip("?"))
    assert "onerror=alert" in answer_of(again)


def test_file_that_is_refused_says_why_in_the_page(open_page):
    page = open_page(SMALL.to_link())
    before = answer_of(page)
    upload(page, "config.json", f"{BAD}.json", b"{]")
    page.wait_for_selector(".notice >> text=/is refused: .* is not JSON/")
    upload(page, "queries.csv", "x.csv", b"a,b\n1,2\n")
    page.wait_for_selector(".notice >> text=/no column num_prompt_tokens/")
    assert answer_of(page) == before
    assert page.locator("img[src=x]").count() == 0


def test_page_is_used_by_the_keyboard_alone(open_page):
    page = open_page(SMALL.to_link())
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        outline, named = page.evaluate(f"[getComputedStyle(document.activeElement).outlineStyle, {FOCUSED}]")
        # Whatever is reached has a name and shows that it is.
        assert named
        assert outline != "none", named
        reached.append(named)
        # The number, then its slider.
        if named == "Prompt tokens" and reached.count(named) == 2:
            page.keyboard.press("ArrowRight")
        if named == "Frontier":
            page.keyboard.press("Enter")
        if named == "Copy the link":
            break
    for name in ("Model", "Beside it", "config.json", "Accelerators", "one at a time", "Sizes", "Prompt tokens",
                 "Output tokens", "queries.csv", "$ an hour", "watts", "Time", "Sources", "Figure, PDF",
                 "Command", "Copy the command", "Link to this answer", "Copy the link"):  # fmt: skip
        assert name in reached, name
    assert reached.index("Model") < reached.index("Accelerators") < reached.index("Time") < reached.index("Figure, PDF")
    wait_for_state(page, "view", "frontier")
    wait_for_state(page, "num_prompt_tokens", 76)


def test_task_by_the_keyboard_keeps_the_focus(open_page):
    """Name a model, leave a machine out, press a point of the frontier, take its table: no press loses its place."""
    page = open_page(SMALL.to_link())

    def tab_to(name):
        for _ in range(80):
            page.keyboard.press("Tab")
            if focused(page).startswith(name):
                return focused(page)
        raise AssertionError(f"{name} is not reached")

    tab_to("Model")
    page.keyboard.press("Control+a")
    page.keyboard.type("qwen2.5-7b")
    page.keyboard.press("Enter")
    wait_for_state(page, "model", "qwen2.5-7b")
    tab_to("V100-32GB")
    page.keyboard.press("Space")
    wait_for_state(page, "machines", ("a100",))
    assert focused(page).startswith("V100-32GB")
    tab_to("Frontier")
    page.keyboard.press("Enter")
    page.wait_for_selector("figure .spot[aria-label^=Put]")
    pressed = tab_to("Put ")
    page.keyboard.press("Enter")
    page.wait_for_selector(".comparison >> text=/times the seconds/")
    # The figure is drawn anew, with rings around both.
    page.wait_for_function("name => document.activeElement.getAttribute('aria-label') === name", arg=pressed)
    tab_to("Table, CSV")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert "mmlu_percent" in download.value.path().read_text().splitlines()[0]


def test_answer_that_comes_meanwhile_keeps_the_focus(open_page):
    """A table is named after the sizes that it is of: shown for others, the focus is still on it."""
    page = open_page(SMALL.to_link())
    page.locator(".numbers .scroll").focus()
    assert focused(page).startswith("A query of 64 prompt tokens")
    page.get_by_role("slider", name="Prompt tokens").dispatch_event("keydown", {"key": "ArrowRight"})
    page.wait_for_selector(".numbers >> text=/A query of 76 prompt tokens/")
    assert focused(page).startswith("A query of 76 prompt tokens")


def focused(page):
    return page.evaluate(FOCUSED)


def test_narrow_window_holds_the_page(open_page):
    page = open_page(f"{SMALL.to_link()}&served=yes", width=360, height=800)
    for view in ("Time", "Cost and energy", "Frontier", "Plan", "Sources"):
        page.get_by_role("button", name=view, exact=True).click()
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate(
        "() => [...document.querySelectorAll('.planner button, .planner input, .planner select')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML)"
    )
    assert small == []


def test_page_that_is_left_ends_its_kernel(browser, own_server):
    address, server = own_server
    page = browser.new_page()
    page.goto(address)
    for _ in range(3):
        page.wait_for_selector(".answer p")
        page.reload()
    page.wait_for_selector(".answer p")
    # The page's, and the one that waits for the next page.
    assert num_kernels(server, awaited=2) == 2
    page.goto("about:blank")
    assert num_kernels(server, awaited=1) == 1


def num_kernels(server, *, awaited):
    """How many kernels a server has, once it has so many: the processes that are forked from its own fork server."""
    deadline = time.monotonic() + 30
    while True:
        process = psutil.Process(server.pid)
        num_forked = len(process.children(recursive=True)) - len(process.children())
        if num_forked == awaited or time.monotonic() > deadline:
            return num_forked
        time.sleep(0.2)


def test_server_answers_this_machine_alone(address, open_page):
    open_page()
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }
    assert f"0100007F:{parts.port:04X}" in listening
    assert f"00000000:{parts.port:04X}" not in listening
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}voila/files/../pyproject.toml")


def test_change_is_answered_within_half_a_second(open_page, record_property):
    """Of CPU time it takes a quarter; here a second is allowed, for a machine that does other things, too."""
    page = open_page(SMALL.to_link())
    took = []
    for size in (100, 200, 300, 400, 500):
        before = answer_of(page)
        page.get_by_role("spinbutton", name="Prompt tokens").fill(str(size))
        took.append(
            page.evaluate(
                """before => new Promise(done => {
                    const start = performance.now();
                    const look = () => document.querySelector(".answer").innerText !== before
                        ? done(performance.now() - start) : requestAnimationFrame(look);
                    document.activeElement.dispatchEvent(new Event("change", {bubbles: true}));
                    look();
                })""",
                before,
            )
        )
    record_property("milliseconds", took)
    assert min(took) < 1000
