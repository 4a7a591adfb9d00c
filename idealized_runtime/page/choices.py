"""Widgets of what is chosen: each change makes another state, and each state shows itself in them."""

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import ipywidgets as widgets

from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.hardware.prices import device_power, device_price
from idealized_runtime.page.files import DroppedFiles
from idealized_runtime.page.machines import Machine, ServingMachine, read_machine, read_model
from idealized_runtime.page.markup import tag
from idealized_runtime.page.queries import read_table, unread_of
from idealized_runtime.page.served import demand_of
from idealized_runtime.page.state import LEAST_QUERIES_PER_S, MOST_QUERIES_PER_S, MOST_TOKENS, OWN_SIZES, PRESETS, State
from idealized_runtime.page.words import count, plain
from idealized_runtime.serving.objectives import WORKLOADS, Objective
from idealized_runtime.serving.simulation import METRICS

_STATISTICS = ("mean", "p50", "p90", "p95", "p99")
_OWN_OBJECTIVES = "own objectives"
_ONE, _SERVED = "one at a time", "many at once"
# A menu has no entry of None.
_FEWEST = ("as few as hold it", 0)
_NUMBERS = (1, 2, 4, 8, 16)
# Of logarithmic sliders: the least and the most exponent of 2.
_MOST_EXPONENT = int(math.log2(MOST_TOKENS))


def section(title: str, *children, **options) -> widgets.VBox:
    """Widgets below a heading."""
    box = widgets.VBox([widgets.HTML(tag("h2", title)), *children], **options)
    box.add_class("section")
    return box


class Choices:
    """The left side of the page.

    Parameters
    ----------
    state : State
        What they show at first.
    machines : sequence of str
        All that can be chosen.
    files : DroppedFiles
    changed : function of a State
        Called with each other state.
    """

    def __init__(self, state: State, machines: Sequence[str], files: DroppedFiles, changed: Callable[[State], None]):
        self.state, self._files, self._changed, self._is_showing = state, files, changed, False
        self.notice = widgets.HTML()
        self.notice.add_class("notice")
        self._machines = {name: read_machine(name) for name in machines}
        parts = [self._model(), self._hardware(), self._demand(), self._served(), self._rates()]
        self.box = widgets.VBox([*parts[:1], self.notice, *parts[1:]])
        self.box.add_class("choices")
        self.show(state)

    def show(self, state: State):
        """Make the widgets say this state, without another change."""
        self.state, self._is_showing = state, True
        try:
            self._show()
        finally:
            self._is_showing = False

    def say(self, *sentences: str):
        """Say what was not taken; nothing where there is nothing to say."""
        self.notice.value = "".join(tag("p", sentence, role="alert") for sentence in sentences)

    def _model(self):
        names = list(ARCHITECTURES)
        self.model = widgets.Combobox(
            description="Model", options=names, continuous_update=False, placeholder="type a part of its name"
        )
        self.other = widgets.Combobox(
            description="Beside it", options=names, continuous_update=False, placeholder="a second model, if you like"
        )
        self.config = widgets.FileUpload(
            description="config.json", accept=".json", tooltip="Choose or drop the config.json of a Hugging Face model"
        )
        for name in ("model", "other"):
            getattr(self, name).observe(lambda change, name=name: self._take_model(name, change["new"]), "value")
        self.config.observe(lambda change: self._take_file("model", change["new"], self.config), "value")
        said = widgets.HTML(
            tag(
                "p",
                "Or a model of your own: choose its config.json, or drop it here. It stays on this machine.",
                class_="hint",
            )
        )
        return _dropped_on(section("Model", self.model, self.other, self.config, said))

    def _hardware(self):
        self.machine = {
            name: widgets.Checkbox(description=f"{machine.title} · {machine.software}", indent=False)
            for name, machine in self._machines.items()
        }
        for box in self.machine.values():
            box.observe(
                lambda change: self._change(machines=tuple(name for name, it in self.machine.items() if it.value)),
                "value",
            )
        self.number = widgets.Dropdown(
            description="Accelerators", options=[_FEWEST, *((str(number), number) for number in _NUMBERS)]
        )
        self.number.observe(lambda change: self._change(num_accelerators=change["new"] or None), "value")
        return section("Machines", *self.machine.values(), self.number)

    def _demand(self):
        self.mode = widgets.ToggleButtons(options=[_ONE, _SERVED])
        self.mode.observe(lambda change: self._take_mode(change["new"] == _SERVED), "value")
        self.preset = widgets.Dropdown(description="Sizes", options=[*PRESETS, OWN_SIZES])
        self.preset.observe(lambda change: self.take(self.state.with_workload(change["new"])), "value")
        self.prompt = _Number("Prompt tokens", 1, MOST_TOKENS, lambda value: self._change(num_prompt_tokens=value))
        self.output = _Number("Output tokens", 1, MOST_TOKENS, lambda value: self._change(num_output_tokens=value))
        rates = LEAST_QUERIES_PER_S, MOST_QUERIES_PER_S
        self.rate = _Number("Queries a second", *rates, lambda value: self._change(rate_per_s=value), is_whole=False)
        self.extrapolate = widgets.Checkbox(description="Also prompts longer than those that were timed", indent=False)
        self.extrapolate.observe(lambda change: self._change(extrapolate=change["new"]), "value")
        self.table = widgets.FileUpload(
            description="queries.csv",
            accept=".csv,.json,.jsonl,.parquet",
            tooltip="Choose or drop a table of queries, or a trace with arrival_s",
        )
        self.table.observe(lambda change: self._take_file("queries", change["new"], self.table), "value")
        self.forget = widgets.Button(description="Without this file")
        self.forget.on_click(lambda _: self._change(queries=""))
        self.file = widgets.HTML()
        return _dropped_on(
            section("Demand", self.mode, self.preset, self.prompt.box, self.output.box, self.rate.box, self.extrapolate,
                    self.table, self.file, self.forget)
        )  # fmt: skip

    def _served(self):
        self.goals = widgets.Dropdown(description="Of", options=[*WORKLOADS, _OWN_OBJECTIVES])
        self.goals.observe(lambda change: self._take_goals(change["new"]), "value")
        self.objective, rows = {}, []
        for metric, name in METRICS.items():
            statistic = widgets.Dropdown(description=f"{name}", options=_STATISTICS, value="p95")
            seconds = widgets.Text(description="at most, s", continuous_update=False, placeholder="none")
            self.objective[metric] = (statistic, seconds)
            for widget in (statistic, seconds):
                widget.observe(lambda _: self._take_objectives(), "value")
            row = widgets.HBox([statistic, seconds])
            row.add_class("objective")
            rows.append(row)
        self.objectives = section("Objectives", self.goals, *rows)
        return self.objectives

    def _rates(self):
        self.rates, rows = {}, []
        for name, machine in self._machines.items():
            price = widgets.Text(description="$ an hour", continuous_update=False)
            watts = widgets.Text(description="watts", continuous_update=False)
            self.rates[name] = (price, watts)
            for widget, rate in ((price, "price_usd_per_hour"), (watts, "power_watts")):
                widget.observe(lambda change, name=name, rate=rate: self._take_rate(name, rate, change["new"]), "value")
            row = widgets.VBox([widgets.HTML(_rates_in_words(machine)), widgets.HBox([price, watts])])
            row.add_class("rates")
            rows.append(row)
        self._rate_rows = dict(zip(self._machines, rows, strict=True))
        return section("Price and power of an accelerator", *rows)

    def _show(self):
        state = self.state
        self.model.value, self.other.value = _shown(state.model), _shown(state.other)
        for name, box in self.machine.items():
            box.value = name in state.machines
        number = state.num_accelerators or 0
        if number not in dict(self.number.options).values():
            self.number.options = [*self.number.options, (str(number), number)]
        self.number.value = number
        self.mode.value = _SERVED if state.is_served else _ONE
        self.preset.value = state.workload
        self.prompt.show(state.num_prompt_tokens)
        self.output.show(state.num_output_tokens)
        self.rate.show(state.rate_per_s)
        self.extrapolate.value = state.extrapolate
        is_trace = bool(state.queries) and "arrival_s" in read_table(state.queries)
        _display(self.preset, not state.queries)
        for pair in (self.prompt, self.output):
            _display(pair.box, not state.queries)
        _display(self.rate.box, state.is_served and not is_trace)
        _display(self.extrapolate, not state.is_served)
        _display(self.objectives, state.is_served)
        _display(self.forget, bool(state.queries))
        self.file.value = tag("p", _file_in_words(state, is_trace), class_="hint")
        self._show_objectives(state)
        for name, (price, watts) in self.rates.items():
            for widget, rates in ((price, state.price_usd_per_hour), (watts, state.power_watts)):
                widget.value = plain(rates[name]) if name in rates else ""
            machine = self._machines[name]
            for widget, rate in zip((price, watts), _default_rates(machine), strict=True):
                absent = "as predicted" if isinstance(machine, ServingMachine) else "unknown"
                widget.placeholder = absent if rate is None else f"{rate.value:.4g}"
            _display(self._rate_rows[name], name in state.machines)

    def _show_objectives(self, state):
        known = {name: tuple(map(str, workload.objectives)) for name, workload in WORKLOADS.items()}
        named = next((name for name, objectives in known.items() if objectives == state.objectives), _OWN_OBJECTIVES)
        # Several workloads may have the same ones: the one that is shown stays.
        if known.get(self.goals.value) != state.objectives:
            self.goals.value = named
        asked = {it.metric: it for it in map(Objective.parse, state.objectives)}
        for metric, (statistic, seconds) in self.objective.items():
            objective = asked.get(metric)
            if objective is not None:
                if objective.statistic not in statistic.options:
                    statistic.options = (*statistic.options, objective.statistic)
                statistic.value = objective.statistic
            seconds.value = "" if objective is None else plain(objective.seconds)

    def _take_model(self, name, text):
        if self._is_showing or text == _shown(getattr(self.state, name)):
            return
        self._change(**{name: text.strip()}, check=lambda: text.strip() and read_model(text.strip()))

    def _take_file(self, name, uploads, widget):
        if self._is_showing or not uploads:
            return
        (upload, *_) = uploads
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                path = str(self._files.keep(upload["name"], bytes(upload["content"])))
                read_model(path) if name == "model" else demand_of(replace(self.state, queries=path))
            except (ValueError, OSError) as error:
                # Its name as it was, not where it is kept.
                self.say(_without_folder(f"{upload['name']} is refused: {error}", self._files))
            else:
                self._change(**{name: path})
                self.say(*dict.fromkeys(_without_folder(str(it.message), self._files) for it in caught))
        self._is_showing = True
        widget.value = ()
        self._is_showing = False

    def _take_mode(self, is_served):
        view = "plan" if is_served else "time" if self.state.view == "plan" else self.state.view
        self._change(is_served=is_served, view=view)

    def _take_goals(self, name):
        if name in WORKLOADS:
            self._change(objectives=tuple(map(str, WORKLOADS[name].objectives)))

    def _take_objectives(self):
        if self._is_showing:
            return
        try:
            found = [
                str(Objective.parse(f"{metric.removesuffix('_s')}:{statistic.value}={seconds.value}"))
                for metric, (statistic, seconds) in self.objective.items()
                if seconds.value.strip()
            ]
        except ValueError as error:
            self.say(str(error))
        else:
            self._change(objectives=tuple(found))

    def _take_rate(self, name, rate, text):
        if self._is_showing:
            return
        rates = {machine: value for machine, value in getattr(self.state, rate).items() if machine != name}
        if text.strip():
            try:
                rates[name] = float(text)
            except ValueError:
                its = f"{self._machines[name].title}'s own"
                self.say(f"{rate} must be a positive number, or empty for {its}; got {text!r:.40}")
                return
        self._change(**{rate: rates})

    def _change(self, *, check=None, **changes):
        """Take other values, unless one is refused, which is said."""
        if self._is_showing:
            return
        try:
            if check is not None:
                check()
            changed = replace(self.state, **changes)
        except ValueError as error:
            self.say(_without_folder(str(error), self._files))
        else:
            self.take(changed)

    def take(self, changed: State):
        """Show another state, and answer it."""
        if self._is_showing:
            return
        self.say()
        if changed != self.state:
            self.show(changed)
            self._changed(changed)


class _Number:
    """A number box beside a slider of its logarithm."""

    def __init__(self, description, least, most, taken, *, is_whole=True):
        self._taken, self._is_showing, self._step = taken, False, 0
        kind = widgets.BoundedIntText if is_whole else widgets.BoundedFloatText
        self._is_whole = is_whole
        self.exact = kind(description=description, min=least, max=most, value=max(1, least))
        self.slider = widgets.FloatLogSlider(
            base=2,
            min=math.floor(math.log2(least)),
            max=math.ceil(math.log2(min(most, 16_384))),
            step=0.25,
            readout=False,
        )
        self.exact.observe(lambda change: self._take(change["new"]), "value")
        self.slider.observe(lambda change: self._take_step(change["new"]), "value")
        self.box = widgets.VBox([self.exact, self.slider])
        self.box.add_class("pair")

    def show(self, value):
        self._is_showing = True
        self.exact.value = value
        # A slider only stands at its steps: put it elsewhere, and it moves there by itself, as if it were dragged.
        least, most = (round(exponent / self.slider.step) for exponent in (self.slider.min, self.slider.max))
        self._step = min(max(self._step_of(value), least), most)
        self.slider.value = 2 ** (self._step * self.slider.step)
        self._is_showing = False

    def _step_of(self, value) -> int:
        return round(math.log2(value) / self.slider.step)

    def _take_step(self, value):
        """Take the plain number that another step of the slider stands for."""
        if self._is_showing or (step := self._step_of(value)) == self._step:
            return
        exponent = step * self.slider.step
        plain = 2**exponent if exponent == int(exponent) else float(f"{2**exponent:.2g}")
        self._taken(max(1, round(plain)) if self._is_whole else plain)

    def _take(self, value):
        if not self._is_showing:
            self._taken(value)


def _display(widget, is_shown):
    widget.layout.display = None if is_shown else "none"


def _dropped_on(box):
    box.add_class("drop")
    return box


def _shown(name_or_path: str) -> str:
    """What a box shows of a model: the name of a file, not where it is kept."""
    return name_or_path.replace("\\", "/").rpartition("/")[2]


def _without_folder(text, files):
    """A message without the folder that a dropped file is kept in."""
    with contextlib.suppress(ValueError):
        start = text.index(str(files.folder))
        path = text[start:].split(":")[0]
        return text.replace(path, _shown(path))
    return text


def _file_in_words(state, is_trace) -> str:
    if not state.queries:
        return (
            "Or many queries: choose a table with num_prompt_tokens and num_output_tokens, or drop it here. "
            "It stays on this machine."
        )
    table, name = read_table(state.queries), _shown(state.queries)
    come = ", which come as they came" if is_trace and state.is_served else ""
    what = f"{count(len(table), 'query', 'queries')} of {name}{come}"
    return "; ".join([what, *unread_of(state.queries)]) + "."


def _default_rates(machine: Machine | ServingMachine) -> tuple:
    """What an accelerator of a machine costs an hour and draws, where its user does not say."""
    price, measured = device_price(None, machine.accelerator), [one.mean_power_watts for one in machine.models]
    # What a server draws goes by its load.
    return price, None if isinstance(machine, ServingMachine) else device_power(None, measured, machine.accelerator)


def _rates_in_words(machine) -> str:
    price, watts = _default_rates(machine)
    said = [
        f"{rate.value:.4g} {unit}, {rate.source}" for rate, unit in ((price, "$/h"), (watts, "W")) if rate is not None
    ]
    return tag(
        "p", tag("strong", machine.title), f": {'; '.join(said) or 'no price and no watts are known'}", class_="hint"
    )
