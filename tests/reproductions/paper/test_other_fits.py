import pandas as pd

from idealized_runtime.reproductions.paper.other_fits import moved_frontiers, moved_ranks

DAVINCI, GPT_J, TNLG = "OpenAI/davinci", "EleutherAI/GPT-J", "Microsoft+NV/TNLG v2"


def make_points(*values_s, task="imdb", accuracies=(0.5, 0.6, 0.7)):
    return pd.DataFrame(
        {"metric": "idealized_runtime", "task": task, "model": [DAVINCI, GPT_J, TNLG], "value": values_s,
         "accuracy": accuracies}
    )  # fmt: skip


def test_largest_move_of_a_panel_is_named_and_whom_its_frontier_gains_and_loses():
    moved = moved_frontiers(make_points(1.0, 1.2, 0.9), make_points(1.0, 1.2, 1.8))
    assert moved.loc[("idealized_runtime", "imdb"), ["model", "percent"]].tolist() == [TNLG, -50]
    assert moved["gains"].tolist() == [""]
    assert moved["loses"].tolist() == [f"{DAVINCI}, {GPT_J}"]
    back = moved_frontiers(make_points(1.0, 1.2, 1.8), make_points(1.0, 1.2, 0.9))
    assert (back["gains"].item(), back["loses"].item()) == (f"{DAVINCI}, {GPT_J}", "")


def test_panels_in_which_nothing_moves_are_left_out():
    points = pd.concat([make_points(1, 2, 3, task=task) for task in ("imdb", "boolq")], ignore_index=True)
    # Rounding is no move.
    assert moved_frontiers(points, points.assign(value=points["value"] * (1 + 1e-15))).empty
    before = points.assign(value=points["value"].where(points["task"] == "imdb", 2 * points["value"]))
    assert moved_frontiers(points, before).index.tolist() == [("idealized_runtime", "boolq")]


def test_ranks_that_move_are_told_for_each_objective():
    # A quarter more runtime weighs more than 20 % more accuracy, but not through the logarithm.
    before, points = make_points(1.0, 1.1, 3.0), make_points(1.0, 1.25, 3.0)
    assert moved_ranks(points, points, ["ratio"]).empty
    moved = moved_ranks(points, before, ["ratio", "ratio_log1p"])
    assert moved["ratio"].to_dict() == {(DAVINCI, "imdb"): "2 to 1", (GPT_J, "imdb"): "1 to 2"}
    assert moved["ratio_log1p"].tolist() == ["", ""]
