"""Figures of an answer: panels that stand side by side where there is room, and the file a reader takes away."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from idealized_runtime.page.queries import LEVEL, QueryAnswer
from idealized_runtime.page.served import ServedAnswer
from idealized_runtime.page.words import Estimate
from idealized_runtime.plots.planner import plot_estimates, plot_runtime_curves, plot_runtime_parts, ring_models
from idealized_runtime.plots.planning import plot_plan, plot_usd_against_objective
from idealized_runtime.plots.stacks import capability_legend, plot_capability_frontier
from idealized_runtime.serving.simulation import METRICS

_PANEL_IN = (4.3, 3.2)
_DPI = 160
# Half of what can be pressed of a point.
_REACH_IN = 0.11
# What scores are held against: one query at a time, and many at once.
FRONTIER_LABELS = {
    "cost_usd_per_1000_queries": "Dollars a thousand queries",
    "usd_per_million_output_tokens": "Dollars a million output tokens, served within the objectives",
}
# What would differ between two files that show the same.
_METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes: what it shows in words, what draws it, and what in it can be pressed.

    Parameters
    ----------
    words : str
    draw : function of Axes
    size_in : pair of float
    points : mapping of label to (x, y)
        In the units of the axes; an x of None is the whole row.
    """

    words: str
    draw: Callable[[Axes], object]
    size_in: tuple[float, float] = _PANEL_IN
    points: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)

    def png(self) -> tuple[bytes, dict[str, tuple[float, float, float, float]]]:
        """The panel by itself, for a page; and left, top, width and height of its points, in shares of the picture."""
        # What its colours mean stands in the table below it.
        data, (ax,) = _draw([self], "png", _DPI, has_legend=False)
        width, height = ax.figure.bbox.size
        spots = {}
        for label, (x, y) in self.points.items():
            if x is None:
                (left, right), ends = ax.bbox.intervalx, ax.transData.transform([(0, y - 0.42), (0, y + 0.42)])[:, 1]
            else:
                (across, up), reach = ax.transData.transform((x, y)), _REACH_IN * ax.figure.dpi
                (left, right), ends = (across - reach, across + reach), (up - reach, up + reach)
            low, high = sorted(ends)
            spots[label] = left / width, 1 - high / height, (right - left) / width, (high - low) / height
        return data, spots


def save_panels(panels: Sequence[Panel], suffix: str) -> bytes:
    """A file of the panels side by side; equal panels give equal bytes.

    Parameters
    ----------
    panels : sequence of Panel
    suffix : {"pdf", "png"}
    """
    return _draw(panels, suffix, 200, has_legend=True)[0]


def _draw(panels, suffix, dpi, *, has_legend):
    width = sum(panel.size_in[0] for panel in panels)
    figure = Figure(figsize=(width, max(panel.size_in[1] for panel in panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=[panel.size_in[0] for panel in panels])
    for panel, ax in zip(panels, axes.flat, strict=True):
        panel.draw(ax)
    if has_legend:
        for ax in axes.flat:
            if ax.get_legend() is None and ax.get_legend_handles_labels()[0]:
                ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    file = io.BytesIO()
    figure.savefig(file, format=suffix, dpi=dpi, metadata=_METADATA[suffix])
    return file.getvalue(), list(axes.flat)


def time_panels(answer: QueryAnswer) -> list[Panel]:
    """Seconds in prompt and tokens, and against both sizes."""
    options = answer.answered
    if not options:
        return []
    rows = {
        option.label: {
            "prompt_encoding_time_s": option.prompt_s.value,
            **dict(
                zip(("runtime_s", "runtime_s_lower", "runtime_s_upper"), option.estimates["runtime_s"], strict=True)
            ),
        }
        for option in options
    }
    parts = pd.DataFrame.from_dict(rows, orient="index")
    panels = [
        Panel(
            "Seconds of each candidate, in prompt and further tokens",
            lambda ax: plot_runtime_parts(parts, level=LEVEL, ax=ax),
            points=_rows(parts.index),
        )
    ]
    p, o = answer.sizes
    for varied, asked, word in (("num_output_tokens", o, "output"), ("num_prompt_tokens", p, "prompt")):
        curves, measured = answer.curves(varied), answer.measured(varied)
        panels.append(
            Panel(
                f"Seconds against {word} tokens of a query, with their intervals{_points_in_words(measured, varied)}",
                lambda ax, given=(curves, measured, varied, asked): plot_runtime_curves(
                    *given[:2], varied=given[2], asked=given[3], level=LEVEL, ax=ax
                ),
            )
        )
    return panels


def _points_in_words(measured, varied) -> str:
    """What the points of a panel are."""
    if not measured:
        return ""
    fixed, word = ("num_output_tokens", "output") if varied == "num_prompt_tokens" else ("num_prompt_tokens", "prompt")
    sizes = sorted({int(points[fixed].iloc[0]) for points in measured.values()})
    said = f"; points are measured, at {' and '.join(f'{size:,}' for size in sizes)} {word} tokens"
    return said + (", dotted is the fit there" if any("fitted_s" in points for points in measured.values()) else "")


def cost_panels(answer: QueryAnswer) -> list[Panel]:
    """Dollars and joules of each candidate."""
    panels = []
    for words, label, estimate_of in (
        ("Dollars", f"Dollars {answer.dollars_of}", answer.dollars),
        (
            "Joules",
            "Joules in all" if answer.state.queries else "Joules a query",
            lambda option: option.estimates.get("energy_joules"),
        ),
    ):
        known = {option.label: estimate_of(option) for option in answer.answered}
        known = {name: Estimate(*one)._asdict() for name, one in known.items() if one is not None}
        if known:
            frame = pd.DataFrame.from_dict(known, orient="index")
            panels.append(
                Panel(
                    f"{words} of each candidate with its interval",
                    lambda ax, frame=frame, label=label: plot_estimates(frame, label=label, level=LEVEL, ax=ax),
                    points=_rows(frame.index),
                )
            )
    return panels


def frontier_panels(points: pd.DataFrame, frontier: pd.DataFrame, value: str, models: Sequence[str]) -> list[Panel]:
    """Score against dollars, with the frontier; rings around the models that are chosen.

    ``value`` is one of ``FRONTIER_LABELS``.
    """

    def draw(ax):
        plot_capability_frontier(points, frontier, value=value, ax=ax)
        ring_models(points, models, value=value, quality="mmlu_percent", ax=ax)
        ax.set_xlabel(FRONTIER_LABELS[value])
        ax.legend(
            handles=capability_legend(points, level=LEVEL), loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7
        )

    label = FRONTIER_LABELS[value]
    words = f"Right answers of MMLU against {label[0].lower()}{label[1:]}, with the Pareto frontier"
    shown = points.loc[points.index.isin(frontier.index), [value, "mmlu_percent"]]
    places = dict(zip(shown.index, shown.itertuples(index=False, name=None), strict=True))
    return [Panel(words, draw, (7.2, 4.4), places)]


def _rows(labels) -> dict:
    return {label: (None, row) for row, label in enumerate(labels)}


def plan_panels(served: ServedAnswer) -> list[Panel]:
    """Dollars an hour of each candidate, and what other limits of the objective cost."""
    panels = []
    priced = [answer.candidate for answer in served.plan.answers if answer.usd_per_hour is not None]
    if priced:
        panels.append(
            Panel(
                "Dollars an hour of each candidate, with its replicas",
                lambda ax: plot_plan(served.plan, ax=ax),
                (5.2, 1.4 + 0.4 * len(served.plan.answers)),
                _rows(f"{it.model} on {it.devices}" for it in priced[::-1]),
            )
        )
    curve = served.tighter
    if curve is not None and len(curve) and curve["usd_per_hour"].notna().all():
        binding = served.best.binding
        label = f"Limit of {METRICS[binding.metric]} {binding.statistic} (s)"
        panels.append(
            Panel(
                "Dollars an hour against the limit of the objective that is missed first",
                lambda ax: plot_usd_against_objective(curve, label, ax=ax),
            )
        )
    return panels
