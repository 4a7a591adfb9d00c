"""Products of a few rows with a matrix on a CPU, each made the way that is quickest on this machine."""

from collections.abc import Collection, Iterable
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812

# Rows beyond which torch's product is left as it is; below, those between two of them are taken for the larger.
ROW_COUNTS = (1, 2, 4, 8, 16)
_PARTS_PER_THREAD = (1, 4, 16, 48)
_LEAST_ROWS_OF_PART = 8
# Reading a smaller matrix takes less than the calls around it.
_LEAST_BYTES = 2**18
# Of the matrices of one shape, as many are timed: more than stays in the caches of a core.
_TIMED_BYTES = 2**26
_NUM_ROUNDS = 5
# Parts are taken where they save more than timings err.
_WORTHWHILE = 0.95


class Products:
    """Linear layers whose matrices are read in parts where that is quicker.

    By CPU and BLAS, torch's product of few rows with a matrix leaves threads idle, or runs kernels that are made for
    many rows. Of the same matrix seen as parts, one below the other, a batched product gives each thread parts of its
    own, so small that they stay in its cache while all rows meet them. It is a view: nothing is copied.
    """

    def __init__(self):
        # By number of rows, of ROW_COUNTS, and shape of the matrix; those that are missing are left as they are.
        self._num_parts: dict[tuple[int, int, int], int] = {}

    def num_parts(self, inputs: torch.Tensor, weight: torch.Tensor) -> int:
        """Parts that the matrix is read in for these rows."""
        if not self._num_parts or (num_rows := len(inputs)) > ROW_COUNTS[-1]:
            return 1
        return self._num_parts.get((_row_count(num_rows), *weight.shape), 1)

    def linear(self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear`` of inputs of shape (rows, width)."""
        num_parts = self.num_parts(inputs, weight)
        return F.linear(inputs, weight, bias) if num_parts == 1 else _linear_in_parts(inputs, weight, bias, num_parts)

    def tune(self, weights: Iterable[torch.Tensor], all_num_rows: Collection[int], known: dict | None = None) -> dict:
        """Time products of so many rows with each shape of the matrices, in whole and in parts; keep the quickest.

        Parameters
        ----------
        weights : iterable of tensors on a CPU
        all_num_rows : collection of int
            Those above ``ROW_COUNTS`` are left out.
        known : dict, optional
            What an earlier run has found: is taken as it is, so that all trials of a log are made alike.

        Returns
        -------
        dict
            ``num_parts`` by ``"1 row, 2304 x 768"``.
        """
        found, by_shape = dict(known or {}), {}
        for weight in weights:
            if weight.nbytes >= _LEAST_BYTES:
                by_shape.setdefault(tuple(weight.shape), []).append(weight)
        for num_rows in sorted({_row_count(number) for number in all_num_rows if number <= ROW_COUNTS[-1]}):
            for shape, same in by_shape.items():
                name = f"{num_rows} {'row' if num_rows == 1 else 'rows'}, {shape[0]} x {shape[1]}"
                if name not in found:
                    found[name] = _quickest_num_parts(num_rows, same[: -(-_TIMED_BYTES // same[0].nbytes)])
                self._num_parts[num_rows, *shape] = found[name]
        return found


def _row_count(num_rows) -> int:
    return next(count for count in ROW_COUNTS if count >= num_rows)


def _linear_in_parts(inputs, weight, bias, num_parts):
    size = len(weight) // num_parts
    num_whole = size * num_parts
    rows = inputs.expand(num_parts, *inputs.shape)
    parts = weight[:num_whole].view(num_parts, size, -1).mT
    if bias is None:
        outputs = torch.bmm(rows, parts)
    else:
        outputs = torch.baddbmm(bias[:num_whole].view(num_parts, 1, size), rows, parts)
    outputs = outputs.transpose(0, 1).reshape(len(inputs), num_whole)
    if num_whole == len(weight):
        return outputs
    rest = F.linear(inputs, weight[num_whole:], None if bias is None else bias[num_whole:])
    return torch.cat((outputs, rest), dim=1)


@torch.inference_mode()
def _quickest_num_parts(num_rows, weights) -> int:
    """Of 1 and those that divide the work among the threads: the one with the quickest of interleaved passes."""
    num_threads, (height, width) = torch.get_num_threads(), weights[0].shape
    numbers = {1} | {num_threads * n for n in _PARTS_PER_THREAD if height // (num_threads * n) >= _LEAST_ROWS_OF_PART}
    inputs = torch.ones(num_rows, width, dtype=weights[0].dtype)
    times_s = {number: [] for number in sorted(numbers)}
    for _ in range(1 + _NUM_ROUNDS):
        for number, taken_s in times_s.items():
            start_s = perf_counter()
            for weight in weights:
                F.linear(inputs, weight) if number == 1 else _linear_in_parts(inputs, weight, None, number)
            taken_s.append(perf_counter() - start_s)
    # The first round warms up.
    least_s = {number: min(taken_s[1:]) for number, taken_s in times_s.items()}
    best = min(least_s, key=least_s.get)
    return best if least_s[best] < _WORTHWHILE * least_s[1] else 1
