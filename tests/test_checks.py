import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import (
    check_columns,
    check_not_negative,
    check_positive,
    check_positive_or_missing,
    check_share,
    check_utilization,
    is_number,
    numeric_columns,
    parse_json,
)


@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf, [1, 2, 0], pd.Series([1.0, np.nan])])
def test_what_is_not_positive_is_named(value):
    with pytest.raises(ValueError, match=r"price must be a positive finite number; got (0|-1.5|nan|inf)$"):
        check_positive(price=value)


@pytest.mark.parametrize("value", [1, 1e-30, [1, np.nan], pd.Series([1, pd.NA], dtype="Int64"), []])
def test_missing_elements_pass_where_they_may(value):
    check_positive_or_missing(price=value)


@pytest.mark.parametrize("value", [0, np.nan, np.inf, [np.nan, 0.0], pd.Series([-1, pd.NA], dtype="Int64")])
def test_missing_number_is_refused_even_where_elements_may_be_missing(value):
    with pytest.raises(ValueError, match="price must be a positive finite number; got"):
        check_positive_or_missing(price=value)


@pytest.mark.parametrize("check", [check_positive, check_positive_or_missing, check_not_negative, check_share])
def test_number_that_is_not_known_asks_for_it(check):
    with pytest.raises(ValueError, match=r"price is not known \(None\): give it"):
        check(price=None)


@pytest.mark.parametrize("value", ["x", [1, "x"], {}])
def test_what_is_no_number_is_refused_by_name(value):
    with pytest.raises(TypeError, match="price must be a number, or an array or column of them; got"):
        check_positive(price=value)


@pytest.mark.parametrize(("check", "allowed"), [(check_utilization, "a share of the peak rate"), (check_share, "")])
@pytest.mark.parametrize("value", [0, 1.01, np.nan])
def test_shares_lie_above_zero_and_at_most_at_one(check, allowed, value):
    check(mfu=1.0)
    with pytest.raises(ValueError, match=rf"mfu must be in \(0, 1\].*{allowed}; got {value:g}"):
        check(mfu=value)


def test_columns_that_are_absent_are_named_with_those_needed():
    frame = pd.DataFrame({"a": [1]})
    check_columns(frame, ["a"])
    with pytest.raises(ValueError, match="timings: no column b, c; needed: a, b, c; there are: a"):
        check_columns(frame, ["a", "b", "c"])


def test_numeric_columns_become_floats_in_the_order_asked_for():
    frame = pd.DataFrame({"a": [1, 2], "b": [1, pd.NA], "c": [1, None]}, dtype=object).astype({"b": "Int64"})
    columns = numeric_columns(frame, ["b", "c", "a"])
    np.testing.assert_array_equal(columns, [[1, np.nan], [1, np.nan], [1, 2]])
    assert {column.dtype for column in columns} == {np.dtype(float)}


@pytest.mark.parametrize(("values", "kind"), [(["1", "2"], "string"), ([True, False], "boolean"), ([1, "x"], "mixed")])
def test_column_of_no_numbers_is_named(values, kind):
    with pytest.raises(ValueError, match=f"queries: column a must hold numbers; it holds {kind}"):
        numeric_columns(pd.DataFrame({"a": values}), ["a"], name="queries")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
        (b'"\xff"', "utf-8"),
        ("9" * 5000, "digits"),
    ],
)
def test_what_json_leaves_open_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.parametrize("value", [10**400, True, "1", float("nan"), float("inf"), None])
def test_what_is_no_finite_number_of_a_file_is_none(value):
    assert not is_number(value)
