"""Section 5.4 and Figure 10: claims about ranks by accuracy and idealized runtime."""

import pandas as pd

from idealized_runtime.reproductions.paper.models import short_name
from idealized_runtime.reproductions.paper.tradeoffs import TASKS, rank_table
from idealized_runtime.reproductions.verdicts import Claims, Evidence, tally

# Figure 10 was drawn from these points.
VINTAGE = "2022-10"
OBJECTIVES = {"ratio": "accuracy / runtime", "ratio_log": "accuracy / ln(runtime)"}
_TNLG = "Microsoft+NV/TNLG v2"

CLAIMS = Claims()


def _drawn_ranks(data, objective) -> pd.DataFrame:
    points = data.drawn(vintage=VINTAGE)
    return rank_table(points[points["metric"] == "idealized_runtime"], objective)


def _spread(ranks) -> pd.Series:
    """Highest less lowest rank of each model."""
    return ranks.max(axis=1) - ranks.min(axis=1)


@CLAIMS.add("5.4", "ranks by accuracy / runtime are similar across tasks", "similar")
def _similar_ranks(data) -> Evidence:
    spread = _spread(_drawn_ranks(data, "ratio"))
    text = f"spread over {spread.mean():.1f} places on average, {spread.max()} at most ({short_name(spread.idxmax())})"
    # A third of the places: shuffled ranks would spread over more than two thirds.
    return Evidence(text, holds=spread.mean() < len(spread) / 3)


@CLAIMS.add("5.4", "accuracy / ln(runtime) makes ranks vary more across tasks", "increases")
def _more_variation(data) -> Evidence:
    plain, logarithmic = (_spread(_drawn_ranks(data, objective)).mean() for objective in OBJECTIVES)
    return Evidence(f"mean spread {logarithmic:.1f} instead of {plain:.1f} places", holds=logarithmic > plain)


@CLAIMS.add("5.4", "accuracy / ln(runtime) changes the order of models", "impacts")
def _other_order(data) -> Evidence:
    plain, logarithmic = (_drawn_ranks(data, name).mean(axis=1).rank(method="min") for name in OBJECTIVES)
    return tally(plain != logarithmic.reindex(plain.index), "{} of {} models change places", holds=any)


@CLAIMS.add("5.4", f"{_TNLG}: average rank improves with accuracy / ln(runtime)", "significantly")
def _tnlg_improves(data) -> Evidence:
    plain, logarithmic = (_drawn_ranks(data, objective).loc[_TNLG].mean() for objective in OBJECTIVES)
    note = "ln(runtime) changes sign at 1 s: it ranks first what takes little more than a second."
    return Evidence(f"from {plain:.2f} to {logarithmic:.2f}", holds=plain - logarithmic > 1, note=note)


@CLAIMS.add("5.4", "no model dominates across tasks and objectives", "none")
def _none_dominates(data) -> Evidence:
    is_first = pd.concat([_drawn_ranks(data, objective) == 1 for objective in OBJECTIVES], axis=1).sum(axis=1)
    num_panels = len(TASKS) * len(OBJECTIVES)
    text = f"{is_first.idxmax()} is first most often, in {is_first.max()} of {num_panels}"
    return Evidence(text, holds=bool(is_first.max() < num_panels))


@CLAIMS.add_each(
    ("Figure 10", f"{title}: ranks by {label}", "drawn order", task, objective)
    for objective, label in OBJECTIVES.items()
    for task, title in TASKS.items()
)
def _ranks(data, task, objective) -> Evidence:
    """The drawn ranks against those of the runtimes that our fits of the A100 logs give."""
    drawn = _drawn_ranks(data, objective)[task]
    accuracies = data.drawn(vintage=VINTAGE).drop_duplicates(["task", "model"])[["task", "model", "accuracy"]]
    fitted = data.estimates.query("hardware == 'a100'").merge(accuracies, on=["task", "model"])
    ours = rank_table(fitted.assign(value=fitted["runtime_s"]), objective)[task].reindex(drawn.index)
    note = "A100 estimates at the query sizes of the 2023-05 points; those of 2022-10 are not published."
    if moved := [f"{short_name(name)} from {drawn[name]} to {ours[name]}" for name in drawn.index[drawn != ours]]:
        note += f" They move {', '.join(moved)}."
    return Evidence(_order(ours), holds=not moved, is_other_data=True, note=note, printed=_order(drawn))


def _order(ranks) -> str:
    """Names from the best rank on."""
    return ", ".join(short_name(name) for name in ranks.sort_values(kind="stable").index)
