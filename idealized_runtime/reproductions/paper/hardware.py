"""Section 5.3 and Figure 8: claims about the V100 against the A100."""

from functools import partial

import numpy as np

from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.paper.tradeoffs import PRINTED_PRICES_USD, TASKS, cost_cents
from idealized_runtime.reproductions.verdicts import Claim, Evidence

_SECTION = "Figure 8"
# Points were read back from the drawing to about 1e-6.
DRAWING_ERROR = 2e-6


def claims() -> list[Claim]:
    """V100 slower, dearer, and with twice the devices; the cost identity."""
    return [
        Claim(_SECTION, "V100 is slower: drawn points", "all", partial(_drawn_higher, "runtime_{}_s")),
        Claim(_SECTION, "V100 is more expensive: drawn points", "all", partial(_drawn_higher, "cost_{}_cents")),
        Claim(_SECTION, "V100 is slower: fits to the logs", "all", partial(_fitted_higher, "runtime_{}_s")),
        Claim(_SECTION, "V100 is more expensive: fits to the logs", "all", partial(_fitted_higher, "cost_{}_cents")),
        Claim("5.3", "V100 is cheaper for an hour (dollars a device, V100 and A100)", "cheaper", _cheaper_hour),
        Claim("5.3", "often twice the devices hold a model on V100", "often", _twice_the_devices),
        Claim("4.2", "dollar cost is runtime x devices x price", "all points", _cost_identity),
    ]


def _drawn_higher(column, data) -> Evidence:
    return _count_higher(data.points("figure8_points"), column, "")


def _fitted_higher(column, data) -> Evidence:
    drawn = data.points("figure8_points")[["task", "model"]]
    return _count_higher(
        drawn.merge(data.estimates, on=["task", "model"]), column, "At the queries behind Figure 9's idealized points."
    )


def _count_higher(points, column, source) -> Evidence:
    is_higher = points[column.format("v100")] > points[column.format("a100")]
    exceptions = ", ".join(f"{row.model} on {_short(row.task)}" for row in points[~is_higher].itertuples())
    note = f"Not so for {exceptions}. {source}" if exceptions else source
    text = f"{int(is_higher.sum())} of {len(points)} points"
    return Evidence(text, holds=bool(is_higher.all()), note=note.strip())


def _short(task) -> str:
    return TASKS[task].split(" (")[0]


def _cheaper_hour(data) -> Evidence:
    v100, a100 = (PRINTED_PRICES_USD[name] for name in ("v100", "a100"))
    return Evidence(f"{v100:.2f} and {a100:.2f}", holds=v100 < a100)


def _twice_the_devices(data) -> Evidence:
    drawn = data.points("figure8_points")["model"].unique()
    num_double = sum(PAPER_MODELS[name].num_v100 >= 2 * PAPER_MODELS[name].num_a100 for name in drawn)
    return Evidence(f"{num_double} of {len(drawn)} models", holds=num_double > len(drawn) / 2)


def _cost_identity(data) -> Evidence:
    points = data.points("figure8_points")
    errors = [
        points[f"cost_{name}_cents"] / cost_cents(points["model"], points[f"runtime_{name}_s"], name) - 1
        for name in ("a100", "v100")
    ]
    largest = float(np.abs(errors).max())
    return Evidence(f"equal to {largest:.0e} for {2 * len(points)} costs", holds=largest < DRAWING_ERROR)
