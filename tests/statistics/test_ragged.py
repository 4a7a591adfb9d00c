import numpy as np
import pytest

from idealized_runtime.statistics.ragged import Ragged

ROWS = [[1.0, 5.0], [], [2.0], [3.0, 4.0, 8.0], [7.0, 6.0]]


@pytest.fixture
def ragged():
    return Ragged.of_counts([value for row in ROWS for value in row], [len(row) for row in ROWS])


def test_rows_are_those_that_went_in(ragged):
    assert [row.tolist() for row in ragged] == ROWS
    assert ragged.counts.tolist() == [2, 0, 1, 3, 2]


def test_number_of_each_row_is_that_of_the_row_alone(ragged):
    assert ragged.reduce(np.median).tolist() == pytest.approx([3, np.nan, 2, 4, 6.5], nan_ok=True)
    assert np.isnan(ragged.reduce(np.std, least=2)).tolist() == [False, True, True, False, False]


def test_values_are_mapped_row_by_row_and_stay_where_they_are(ragged):
    shares = ragged.map(lambda rows: rows / rows.max(axis=1, keepdims=True))
    assert shares.tolist() == pytest.approx([0.2, 1, 1, 0.375, 0.5, 1, 1, 6 / 7])


def test_values_left_out_shorten_their_rows_only(ragged):
    assert [row.tolist() for row in ragged.where(ragged.flat != 4)] == [[1, 5], [], [2], [3, 8], [7, 6]]


def test_row_with_a_missing_value_is_no_tuple():
    assert Ragged.of_counts([1.0, 2.0, np.nan, 3.0], [2, 2]).tuples() == [(1.0, 2.0), None]
