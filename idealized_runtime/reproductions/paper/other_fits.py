"""What another fit moves in Figures 9 and 10: values, who is on the frontiers, and ranks."""

from collections.abc import Iterable

import pandas as pd

from idealized_runtime.reproductions.paper.tradeoffs import mark_frontiers, rank_table

_PANEL = ["metric", "task"]
# Values of equal fits differ by rounding at most.
_EQUAL_PERCENT = 1e-7


def moved_frontiers(points: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """How far values are from those of another fit, or from the print, and what that does to the frontiers.

    Parameters
    ----------
    points, before : DataFrame, one row a metric, task and model
        ``metric, task, model, value``; ``points`` also ``accuracy``. Those that only one of them has are left out.

    Returns
    -------
    DataFrame, one row a metric and task of which a value moves
        ``model`` whose value moves most and by how many ``percent``; models that the frontier ``gains`` and ``loses``.
    """
    both = points.merge(before[[*_PANEL, "model", "value"]], on=[*_PANEL, "model"], suffixes=("", "_before"))
    both["percent"] = 100 * (both["value"] / both["value_before"] - 1)
    is_on, was_on = mark_frontiers(both), mark_frontiers(both.assign(value=both["value_before"]))
    changes = {"gains": both["model"].where(is_on & ~was_on), "loses": both["model"].where(was_on & ~is_on)}
    panels = both.assign(size=both["percent"].abs(), **changes).groupby(_PANEL, sort=False)
    most = both.loc[panels["size"].idxmax(), [*_PANEL, "model", "percent"]].set_index(_PANEL)
    names = panels[["gains", "loses"]].agg(lambda models: ", ".join(models.dropna()))
    return most.join(names)[most["percent"].abs() > _EQUAL_PERCENT]


def moved_ranks(points: pd.DataFrame, before: pd.DataFrame, objectives: Iterable[str]) -> pd.DataFrame:
    """Ranks that are not those by another fit, or by the print.

    Parameters
    ----------
    points, before : DataFrame, one row a task and model, of one metric
        ``task, model, value, accuracy``, of the same tasks and models.
    objectives : iterable of str
        As in :func:`idealized_runtime.comparisons.frontier.rank`.

    Returns
    -------
    DataFrame of str, by model and task, a column an objective
        ``"3 to 5"``, and empty where the rank stays; without rows in which all do.
    """
    columns = {}
    for objective in objectives:
        now, earlier = (
            rank_table(frame, objective)
            .melt(ignore_index=False, var_name="task")
            .set_index("task", append=True)["value"]
            for frame in (points, before)
        )
        earlier = earlier.reindex(now.index)
        columns[objective] = (earlier.astype(str) + " to " + now.astype(str)).where(now != earlier, "")
    moved = pd.DataFrame(columns)
    return moved[(moved != "").any(axis=1)]
