"""The planner: choices on the left, above all the answer in a sentence, on the right what it is made of."""

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue

import ipywidgets as widgets
import pandas as pd
from IPython import get_ipython
from IPython.display import display

from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.measurements.shipped import SHIPPED_STACKS
from idealized_runtime.page import figures, sources
from idealized_runtime.page.choices import Choices, section
from idealized_runtime.page.files import DroppedFiles
from idealized_runtime.page.machines import SERVING_MACHINES, read_model
from idealized_runtime.page.markup import Html, download, image, join, table, tag
from idealized_runtime.page.queries import QueryAnswer, answer_queries, capability_frontier
from idealized_runtime.page.served import ServedAnswer, plan_commands, plan_served, served_capability
from idealized_runtime.page.server import MACHINES_SETTING, asked_link, is_page
from idealized_runtime.page.state import VIEWS, State
from idealized_runtime.page.words import bounded, chance, count, number
from idealized_runtime.plots.planner import style_candidates
from idealized_runtime.plots.style import use_style
from idealized_runtime.plots.tables import named_in_words
from idealized_runtime.records.table_files import table_text
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Simulations

# A change that comes within so many seconds of another is answered with it.
_TOGETHER_S = 0.03
_MOST_CANDIDATES, _MOST_MODELS = 12, 64
# What comes with the package.
MACHINES = (*sorted(SHIPPED_STACKS, key=lambda name: name == "cpu"), *SERVING_MACHINES)
_TITLES = {"time": "Time", "cost": "Cost and energy", "frontier": "Frontier", "plan": "Plan", "sources": "Sources"}
_MEDIA = {
    "pdf": "application/pdf",
    "png": "image/png",
    ".csv": "text/csv",
    ".tex": "application/x-tex",
    ".md": "text/markdown",
}
_RATIO_OF = {"runtime_s": "seconds", "cost_usd": "dollars", "energy_joules": "joules"}


class Planner:
    """What it costs to run a model for given queries, as a page.

    Parameters
    ----------
    link : str, optional
        The part of an address behind the ``?``, which holds the state to begin with; as the page was asked for with
        where it is not given.
    machines : sequence of str, optional
        Further folders of timing logs, beside those that come with the package; as the server names them where it is
        not given.

    Examples
    --------
    >>> print(Planner("model=gpt-j&logs=a100").sentence)
    gpt-j on 1 x A100-80GB answers a query of 512 prompt tokens and 256 output tokens in 5.40 s [5.39, 5.40], for $6.14
    [± 0.05 %] a thousand queries and at most 2,160 J [± 0.05 %].
    """

    def __init__(self, link: str | None = None, machines: Sequence[str] | None = None):
        use_style()
        self._files, self._simulations = DroppedFiles(), Simulations()
        self._loop, self._timer, self._drawing, self._ticket = _running_loop(), None, None, 0
        self._planning, self._searching, self._news = None, None, SimpleQueue()
        # As served, by what they depend on: a table, or why there is none.
        self._frontiers, self._asked_frontier = {}, ""
        machines = json.loads(os.environ.get(MACHINES_SETTING, "[]")) if machines is None else machines
        state, refused = State.from_link(asked_link() if link is None else link)
        state, more = self._known(state, known := [*MACHINES, *machines])
        self.served: ServedAnswer | None = None
        self.choices = Choices(state, known, self._files, self._change)
        self.choices.say(*refused, *more)
        self._build()
        self._change(state, soon=True)

    @property
    def state(self) -> State:
        """What is chosen."""
        return self.choices.state

    @property
    def sentence(self) -> str:
        """The answer, as it stands above the page."""
        if not self.state.is_served:
            return self.answer.sentence
        return self._fault or (self.served.sentence if self.served else "Days of this demand are being simulated.")

    def show(self):
        """Display the page in a notebook."""
        display(self.box)

    def wait(self, timeout_s: float = 60.0):
        """Until what runs in the background is done; not at all on a page, which it comes to when it is."""
        for thread in (self._planning, self._searching):
            if thread is not None and not is_page():
                thread.join(timeout_s)
                self._take_news()

    def close(self, timeout_s: float = 10.0):
        """End what runs in the background."""
        self._ticket, self._asked_frontier = self._ticket + 1, ""
        for thread in (self._planning, self._searching):
            if thread is not None:
                thread.join(timeout_s)

    def _known(self, state, machines) -> tuple[State, list[str]]:
        """A state of a link without what is not there: files of another page, machines without logs."""
        refused = []
        for name in ("model", "other", "queries"):
            text = getattr(state, name)
            if text and (name == "queries" or text not in ARCHITECTURES):
                try:
                    # A name that is none is told as such.
                    if name == "queries" or os.path.exists(text) or text.endswith(".json"):
                        self._files.check(text)
                    else:
                        read_model(text)
                except ValueError as error:
                    refused.append(str(error))
                    state = replace(state, **{name: getattr(State(), name)})
        if absent := [name for name in state.machines if name not in machines]:
            refused.append(f"no machine {', '.join(absent)}; there are: {', '.join(machines)}")
            state = replace(state, machines=tuple(name for name in state.machines if name in machines))
        for rate in ("price_usd_per_hour", "power_watts"):
            if unused := [name for name in getattr(state, rate) if name not in machines]:
                refused.append(f"{rate} of {', '.join(unused)}: no such machine; there are: {', '.join(machines)}")
                known = {name: value for name, value in getattr(state, rate).items() if name in machines}
                state = replace(state, **{rate: known})
        try:
            answer_queries(state)
        except (ValueError, OSError) as error:
            refused.append(str(error))
            state = replace(state, model=State().model, other="", queries="")
        return state, refused

    def _build(self):
        self._sentence, self._busy, self._figures, self._numbers = (widgets.HTML() for _ in range(4))
        for widget, name in (
            (self._sentence, "answer"),
            (self._busy, "busy"),
            (self._figures, "figures"),
            (self._numbers, "numbers"),
        ):
            widget.add_class(name)
        self._view = widgets.ToggleButtons(options=[(_TITLES[view], view) for view in VIEWS])
        self._view.add_class("views")
        self._view.observe(lambda change: self._look(change["new"]), "value")
        self._candidates = [widgets.ToggleButton(layout={"display": "none"}) for _ in range(_MOST_CANDIDATES)]
        for place, button in enumerate(self._candidates):
            button.add_class(f"candidate-{place}")
            button.observe(lambda change, place=place: self._pick(place, change["new"]), "value")
        # Never shown themselves: a press on a point of the frontier presses them.
        self._model_buttons = [widgets.Button() for _ in range(_MOST_MODELS)]
        for place, button in enumerate(self._model_buttons):
            button.add_class(f"model-{place}")
            button.on_click(lambda _, place=place: self._put_beside(self._models[place]))
        points = widgets.Box(self._model_buttons)
        points.add_class("points")
        self._keys, self._models, self._likely, self._comparison = [], [], set(), widgets.HTML()
        self._comparison.add_class("comparison")
        picks = widgets.Box(self._candidates)
        picks.add_class("picks")
        results = widgets.VBox([
            self._view, self._figures, self._numbers,
            section("Candidates", _hint("Press two, here or in a figure, to compare them."), picks, self._comparison),
            points,
            self._take_away(),
        ])  # fmt: skip
        results.add_class("results")
        columns = widgets.Box([self.choices.box, results])
        columns.add_class("columns")
        head = widgets.VBox([self._sentence, self._busy])
        head.add_class("head")
        self.box = widgets.VBox([head, columns])
        self.box.add_class("planner")

    def _take_away(self):
        buttons, self._saved = [], widgets.HTML()
        for name, suffix in (
            ("Figure, PDF", "pdf"),
            ("Figure, PNG", "png"),
            ("Table, CSV", ".csv"),
            ("Table, LaTeX", ".tex"),
            ("Table, Markdown", ".md"),
        ):
            button = widgets.Button(description=name)
            button.on_click(lambda _, suffix=suffix: self._save(suffix))
            buttons.append(button)
        row = widgets.Box(buttons)
        row.add_class("buttons")
        self._command, self._link = widgets.HTML(), widgets.HTML()
        self._command.add_class("command")
        return section("Take away", row, self._saved, self._command, self._link)

    def _change(self, state: State, *, soon: bool = False):
        """Answer a state: at once, or, where changes follow each other, the last of them."""
        if self._loop is None or soon:
            self._answer(state)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_TOGETHER_S, self._answer, state)

    def _answer(self, state):
        self._ticket += 1
        self._fault, self.served = "", None
        try:
            self.answer = answer_queries(state)
        except (ValueError, OSError) as error:
            self.choices.say(str(error))
            return
        self._show_candidates()
        if state.is_served:
            self._plan(state, self._ticket)
        self._render()

    def _plan(self, state, ticket):
        """Simulate in the background; what comes of a state that is no longer chosen is dropped."""

        def work():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for answer in plan_served(state, self._simulations, lambda: ticket != self._ticket):
                        self._tell(ticket, answer, "")
            except InterruptedError:
                return
            except RuntimeError:
                # No thread starts another any more once the program ends.
                if threading.main_thread().is_alive():
                    raise
            except (ValueError, OSError) as error:
                self._tell(ticket, None, f"No plan: {error}.")

        self._planning = threading.Thread(target=work, daemon=True)
        self._planning.start()

    def _tell(self, *news):
        """Have the thread of the page take what another has found."""
        self._news.put(news)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._take_news)

    def _take_news(self):
        while not self._news.empty():
            ticket, served, fault = self._news.get()
            if ticket == self._ticket:
                self.served, self._fault = served, fault
            if ticket == self._ticket or (ticket is None and self.state.view == "frontier"):
                self._render()

    def _look(self, view):
        if view != self.state.view:
            self.choices.show(replace(self.state, view=view))
            self._render()

    def _pick(self, place, is_picked):
        """Compare the two candidates that were pressed last."""
        if place >= len(self._keys) or self._is_showing:
            return
        key = self._keys[place]
        picked = [one for one in self.state.compare if one != key and one in self._keys]
        self.choices.show(replace(self.state, compare=tuple([*picked, key][-2:]) if is_picked else tuple(picked)))
        self._show_candidates()
        self._show_comparison()
        self._show_link()

    def _put_beside(self, model):
        """Compare a model of the frontier with that which is chosen, on the machine of the frontier."""
        state, machine = self.state, self._frontier_machine
        if model in state.models:
            place = self._keys.index(f"{model} @ {machine}")
            self._candidates[place].value = not self._candidates[place].value
            return
        keys = tuple(f"{name} @ {machine}" for name in (state.model, model))
        self.choices.take(replace(state, other=model, compare=keys))

    def _show_candidates(self):
        self._is_showing = True
        options = self.answer.options[:_MOST_CANDIDATES]
        self._keys = [option.key for option in options]
        for place, button in enumerate(self._candidates):
            button.layout.display = None if place < len(options) else "none"
            if place < len(options):
                button.description, button.disabled = options[place].label, bool(options[place].reason)
                button.tooltip = options[place].reason or options[place].origin
                button.value = options[place].key in self.state.compare
        self._is_showing = False

    def _render(self):
        """Show the answer as far as it is known."""
        state = self.state
        self._sentence.value = tag("p", self.sentence)
        is_busy = (
            state.is_served
            and not self._fault
            and (
                self.served is None
                or not self.served.is_bounded
                or (self.served.best is not None and self.served.tighter is None)
            )
        )
        if is_busy:
            them = self.served and self.served.best and count(self.served.best.num_replicas, "replica")
            said = f"simulating days of this demand{f' on {them}' if them else ''} …"
            self._busy.value = tag("p", f"{said} (many replicas take minutes; other changes are answered meanwhile)")
        self._view.value = state.view
        self._panels, self._numbers.value = self._view_of(state.view)
        self._draw_soon()
        self._saved.value = ""
        self._show_comparison()
        self._show_link()
        if not is_busy:
            # Last: what it waited for is there.
            self._busy.value = ""

    def _draw_soon(self):
        """Draw the figures: at once, or, on a page, once what is said is on its way to the browser."""
        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = None if self._loop is None else self._loop.call_soon(self._draw)
        if self._loop is None:
            self._draw()

    def _draw(self):
        self._figures.value = join(map(self._figure, self._panels))

    def _figure(self, panel):
        """A picture of a panel, with a button on each candidate and each model in it."""
        png, spots = panel.png()
        labels = {option.label: place for place, option in enumerate(self.answer.options[:_MOST_CANDIDATES])}
        buttons = []
        for label, spot in spots.items():
            # Of dozens of models a keyboard stops at those that matter; the others can be typed.
            tabindex = -1 if label in self._models and label not in self._likely else None
            if label in labels:
                target, said = f"candidate-{labels[label]}", f"Compare {label}"
            elif label in self._models:
                target, said = f"model-{self._models.index(label)}", f"Put {label} beside, and compare"
            else:
                continue
            style = "; ".join(
                f"{side}: {100 * share:.2f}%"
                for side, share in zip(("left", "top", "width", "height"), spot, strict=True)
            )
            buttons.append(
                tag("button", "", type="button", class_="spot", style=style, aria_label=said, title=said,
                    data_press=target, tabindex=tabindex)
            )  # fmt: skip
        return tag(
            "figure", tag("div", image(png, panel.words), *buttons, class_="picture"), tag("figcaption", panel.words)
        )

    def _view_of(self, view) -> tuple[list[figures.Panel], Html]:
        answer = self.answer
        if view == "sources":
            return [], sources.sources_of(answer, self.served)
        if view == "plan":
            return (
                (figures.plan_panels(self.served), self._plan_numbers()) if self.served else ([], self._without_plan())
            )
        if view == "frontier":
            return self._frontier()
        panels = figures.time_panels(answer) if view == "time" else figures.cost_panels(answer)
        return panels, _query_table(answer)

    def _frontier(self):
        """Of the first machine of which prices and watts are known, and which holds what was timed elsewhere."""
        self._frontier_table = pd.DataFrame()
        if self.state.is_served:
            return self._served_frontier()
        reasons = []
        for machine in self.state.machines:
            try:
                points, frontier = capability_frontier(self.state, machine)
                break
            except ValueError as error:
                reasons.append(tag("p", f"No frontier on {machine}: {error}."))
        else:
            return [], join(reasons or [tag("p", "Choose a machine.")])
        how = f"{self.answer.asked}, each on as few accelerators of {machine} as hold it"
        return self._frontier_of(points, frontier, "cost_usd_per_1000_queries", machine, how)

    def _served_frontier(self):
        """Of the first machine; simulated in the background, once for each demand and its objectives."""
        state = replace(self.state, model="", other="", view="frontier", compare=(), rate_per_s=1.0)
        self._asked_frontier = key = state.to_link()
        if key not in self._frontiers:
            if not (self._searching is not None and self._searching.is_alive() and self._searching.name == key):
                self._searching = threading.Thread(target=self._search, args=(state, key), name=key, daemon=True)
                self._searching.start()
            return [], tag("p", "Days of every model with a published score are being simulated: some ten seconds.")
        frontier, machine = self._frontiers[key], next(iter(state.machines), "")
        if isinstance(frontier, str):
            return [], tag("p", frontier)
        goals = " and ".join(Objective.parse(text).label for text in state.objectives)
        how = f"many at once on {machine}, each replica full within {goals}"
        return self._frontier_of(frontier, frontier, "usd_per_million_output_tokens", machine, how)

    def _search(self, state, key):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._frontiers[key] = served_capability(state, lambda: key != self._asked_frontier)
        except InterruptedError:
            return
        except RuntimeError:
            # As in a plan: the program ends.
            if threading.main_thread().is_alive():
                raise
            return
        except ValueError as error:
            self._frontiers[key] = f"No frontier as served: {error}."
        self._tell(None, None, "")

    def _frontier_of(self, points, frontier, value, machine, how):
        on = frontier[frontier["on_frontier"] | (frontier["frontier_probability"] >= 0.05)]
        rows = [
            (model, number(row["mmlu_percent"]), number(row[value]), chance(row["frontier_probability"]))
            for model, row in on.iterrows()
        ]
        head = ("model", "MMLU, %", figures.FRONTIER_LABELS[value], "probability to be on the frontier")
        names = list(dict.fromkeys(one.priced.name for one in self.answer.answered))
        without = [name for name in names if name not in points.index]
        numbers = [table(head, rows, caption=f"Models with a published score, {how}")]
        numbers += [tag("p", f"No published score and no price here of {' and '.join(without)}.")] if without else []
        self._models, self._likely = list(points.index[:_MOST_MODELS]), {*on.index, *names}
        self._frontier_machine, self._frontier_table = machine, frontier.rename_axis("model").reset_index()
        return figures.frontier_panels(points, frontier, value, names), join(numbers)

    def _without_plan(self):
        if not self.state.is_served:
            return tag("p", "A plan is for many queries at once: choose it under Demand.")
        return tag("p", self._fault or "The first days are being simulated.")

    def _plan_numbers(self) -> Html:
        served = self.served
        if served.best is None:
            return tag("p", served.sentence)
        rows = []
        for one in served.plan.answers:
            usd = "–" if one.usd_per_hour is None else f"{one.usd_per_hour:.2f}"
            upper = "more" if one.num_replicas_upper is None else one.num_replicas_upper
            replicas = (
                f"{one.num_replicas} [{one.num_replicas_lower}, {upper}]"
                if served.is_bounded
                else f"{one.num_replicas}"
            )
            surely = f"{one.probability_met:.0%}" if served.is_bounded else "…"
            joules = "–" if one.joules_per_query is None else number(one.joules_per_query)
            rows.append(
                (
                    f"{one.candidate.model}, {one.candidate.devices}",
                    replicas,
                    surely,
                    usd,
                    joules,
                    number(one.max_requests_per_s),
                    one.limited_by,
                    one.candidate.steps.origin,
                )
            )
        head = (
            "candidate",
            "replicas",
            "objectives met with probability",
            "$ an hour",
            "J a query",
            "requests/s of a replica",
            "limited by",
            "step times",
        )
        parts = [table(head, rows, caption="Cheapest first; in brackets the 95 % interval"), tag("p", served.limits)]
        parts += [tag("p", served.cost_of_tighter)] if served.cost_of_tighter else []
        if served.plan.rejections:
            parts.append(
                tag(
                    "ul",
                    *(
                        tag("li", f"{it.candidate.model} on {it.candidate.devices} is left out: {it.reason}")
                        for it in served.plan.rejections
                    ),
                )
            )
        return join(parts)

    def _show_comparison(self):
        picked = [option for option in self.answer.answered if option.key in self.state.compare]
        if len(picked) != 2:
            self._comparison.value = ""
            return
        picked.sort(key=lambda option: self.state.compare.index(option.key))
        first, second = picked
        ratios = self.answer.ratios(first, second).items()
        said = ", ".join(f"{bounded(ratio)} times the {_RATIO_OF[metric]}" for metric, ratio in ratios)
        parts = [tag("p", f"One query at a time, {first.label} takes {said} of {second.label}.")]
        if self.served is not None and self.served.is_bounded:
            found = {f"{it.candidate.model} on {it.candidate.devices}": it for it in self.served.plan.answers}
            if first.label in found and second.label in found:
                ratios = self.served.ratios(found[first.label], found[second.label])
                said = ", ".join(f"{bounded(ratio)} times the {what}" for what, ratio in ratios.items())
                parts.append(tag("p", f"Within the objectives, {said}."))
        self._comparison.value = join(parts)

    def _show_link(self):
        lines = plan_commands(self.state) if self.state.is_served else self.answer.commands()
        copy = tag("button", "Copy", type="button", class_="copy", aria_label="Copy the command")
        self._command.value = join([
            tag("p", "The same answer from the command line:", class_="hint"),
            tag("pre", "\n".join(lines), tabindex="0", aria_label="Command"), copy if lines else Html(),
        ])  # fmt: skip
        address = f"?{self.state.to_link()}"
        self._link.value = join([
            tag("a", "Link to this answer", href=address, class_="state-link"), " ",
            tag("button", "Copy", type="button", class_="copy", data_copy=address, aria_label="Copy the link"),
        ])  # fmt: skip

    def _table(self) -> pd.DataFrame:
        """What a view is drawn from."""
        if self.state.view == "plan" and self.served is not None:
            return self.served.table()
        return self._frontier_table if self.state.view == "frontier" else self.answer.table()

    def _save(self, suffix):
        """Make a file of the view, and a link that saves it."""
        name = f"planner-{self.state.view}"
        if suffix in ("pdf", "png"):
            if not self._panels:
                self._saved.value = tag("p", "This view has no figure.", role="status")
                return
            data, name = figures.save_panels(self._panels, suffix), f"{name}.{suffix}"
        else:
            frame = self._table()
            if frame.empty:
                self._saved.value = tag("p", "There is no answer to save.", role="status")
                return
            frame = frame if suffix == ".csv" else named_in_words(frame)
            data, name = table_text(frame, suffix).encode(), f"{name}{suffix}"
        self._saved.value = download(name, data, _MEDIA[suffix])


def _query_table(answer: QueryAnswer) -> Html:
    """The numbers of each candidate, with the colour that it has in the figures."""
    styles, rows = style_candidates(option.label for option in answer.answered), []
    for option in answer.options:
        mark = Html()
        if not option.reason:
            red, green, blue = (round(255 * part) for part in styles[option.label]["color"])
            mark = tag("span", "", class_="dot", style=f"background: rgb({red} {green} {blue})")
        head = join([mark, option.label])
        if option.reason:
            rows.append((head, join([option.reason]), "", "", "", ""))
            continue
        per_token = option.estimates["runtime_s"].value - option.prompt_s.value
        rows.append((
            head, bounded(option.estimates["runtime_s"]), f"{number(option.prompt_s.value)} + {number(per_token)}",
            bounded(answer.dollars(option)), bounded(option.estimates.get("energy_joules")), option.origin,
        ))  # fmt: skip
    head = (
        "candidate",
        "seconds",
        "of these prompt + further tokens",
        f"$ {answer.dollars_of}",
        "joules",
        "seconds are",
    )
    return table(head, rows, caption=f"{answer.asked[0].upper()}{answer.asked[1:]}; in brackets the 95 % interval")


def _hint(text) -> widgets.HTML:
    return widgets.HTML(tag("p", text, class_="hint"))


def _running_loop():
    """The loop of a notebook's kernel; None elsewhere, where each change is answered before the next."""
    return None if get_ipython() is None else asyncio.get_running_loop()
