"""Rows of different lengths, in one array."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Rows that become Python's numbers at a time.
_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Ragged(Sequence):
    """Rows of numbers: row ``i`` is ``flat[ends[i - 1]:ends[i]]``.

    Parameters
    ----------
    flat : array, shape (n,)
    ends : int array, one a row
        Ascending; the last is n.
    """

    flat: np.ndarray
    ends: np.ndarray

    @classmethod
    def of_counts(cls, flat, counts) -> "Ragged":
        """Rows of these lengths."""
        return cls(np.asarray(flat), np.cumsum(counts, dtype=np.int64))

    @property
    def counts(self) -> np.ndarray:
        """Length of each row."""
        return np.diff(self.ends, prepend=0)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.ends[row - 1] if row else 0 : self.ends[row]]

    def of_length(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are of this length, and they in a matrix."""
        rows = np.flatnonzero(self.counts == length)
        if len(rows) == len(self):
            return rows, self.flat.reshape(-1, length)
        return rows, self.flat[(self.ends[rows] - length)[:, None] + np.arange(length)]

    def by_length(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """:meth:`of_length` for each length there is, but none."""
        return (self.of_length(length) for length in np.unique(self.counts) if length)

    def reduce(self, function: Callable, *, least: int = 1) -> np.ndarray:
        """One number a row, by a function of a matrix with an ``axis``; NaN for rows of fewer than ``least`` values."""
        reduced = np.full(len(self), np.nan)
        for rows, matrix in self.by_length():
            if matrix.shape[1] >= least:
                reduced[rows] = function(matrix, axis=1)
        return reduced

    def map(self, function: Callable) -> np.ndarray:
        """A value for each of ``flat``, by a function of a matrix of rows; False in rows of none."""
        mapped = None
        for rows, matrix in self.by_length():
            found = function(matrix)
            mapped = np.zeros(len(self.flat), dtype=found.dtype) if mapped is None else mapped
            mapped[(self.ends[rows] - matrix.shape[1])[:, None] + np.arange(matrix.shape[1])] = found
        return np.zeros(0, dtype=bool) if mapped is None else mapped

    def tuples(self) -> list[tuple | None]:
        """Each row as a tuple; None for rows with a NaN."""
        is_known, found = ~np.isnan(self.reduce(np.sum)), []
        for first in range(0, len(self), _BLOCK_ROWS):
            ends = self.ends[first : first + _BLOCK_ROWS]
            start = int(self.ends[first - 1]) if first else 0
            values, ends = self.flat[start : ends[-1]].tolist(), (ends - start).tolist()
            pieces = zip([0, *ends], ends, is_known[first : first + _BLOCK_ROWS].tolist(), strict=False)
            found += [tuple(values[start:end]) if known else None for start, end, known in pieces]
        return found

    def where(self, is_kept: np.ndarray) -> "Ragged":
        """The same rows, of those of their values that are kept."""
        if is_kept.all():
            return self
        kept = np.concatenate([[0], np.cumsum(is_kept)])
        return Ragged(self.flat[is_kept], kept[self.ends])
