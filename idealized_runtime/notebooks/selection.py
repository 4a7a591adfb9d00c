"""What a notebook's parameters choose of a table: rows of some values, or a sentence that says which there are."""

import pandas as pd
from pandas.api.types import is_list_like


def choose(frame: pd.DataFrame, **chosen) -> pd.DataFrame:
    """Rows in which each column has the value, or one of the values, that is given; None takes all.

    Raises
    ------
    ValueError
        No row has a value; the message has the column and the values there are.
    """
    for column, wanted in chosen.items():
        if wanted is None:
            continue
        there = frame[column].drop_duplicates().sort_values().tolist()
        values = list(wanted) if is_list_like(wanted) else [wanted]
        if not values or any(value not in there for value in values):
            raise ValueError(f"{column} must be of {', '.join(map(str, there))}; got {wanted!r}")
        frame = frame[frame[column].isin(values)]
    return frame
