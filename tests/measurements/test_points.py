import pandas as pd
import pytest

from idealized_runtime.measurements.points import RULES, count_flags, flag, usable_points

POINTS = pd.DataFrame(
    {"concurrency": [1, 2, 3, 4], "flags": ["", "few-rounds", "queued few-rounds", "host-bound queued"]}
)


def test_flags_name_all_rules_that_hold_of_a_row():
    assert flag({"queued": [True, False], "few-rounds": pd.Series([True, False])}).tolist() == ["queued few-rounds", ""]


def test_cautions_leave_a_row_in_and_other_rules_take_it_out():
    assert usable_points(POINTS)["concurrency"].tolist() == [1, 2]


def test_counts_tell_what_a_rule_flags_and_what_no_other_one_excludes():
    counts = count_flags(POINTS)
    assert counts["num_rows"].to_dict() == {"host-bound": 1, "queued": 2, "few-rounds": 2}
    assert counts["num_alone"].to_dict() == {"host-bound": 0, "queued": 1, "few-rounds": 1}


def test_no_two_rules_have_one_name():
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_table_without_flags_is_refused():
    with pytest.raises(ValueError, match="flags"):
        usable_points(pd.DataFrame({"concurrency": [1]}))
