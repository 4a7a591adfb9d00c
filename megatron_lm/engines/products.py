"""Products of rows with a matrix on a CPU, each made the way that is quickest on this machine."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from math import prod
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812

from megatron_lm.engines.onednn import can_be_looked_up, linear_by_onednn, onednn_takes, pack

# Rows between two of them are taken for the larger, more than the last for the last.
ROW_COUNTS = (1, 2, 4, 8, 16, 128)
# Beyond them arithmetic takes longer than reading the matrix: one of each shape is timed, and not in parts.
_FEW_ROWS = 16
_PARTS_PER_THREAD = (1, 4, 16, 48, 192)
_LEAST_ROWS_OF_PART = 8
# Reading a smaller matrix takes less than the calls around it.
_LEAST_BYTES = 2**18
# Of the matrices of one shape, as many are timed: more than stays in the caches of a core.
_TIMED_BYTES = 2**25
_NUM_ROUNDS = 5
# Another way than torch's is taken where it saves more than timings err.
_WORTHWHILE = 0.95


class Products:
    """Linear layers, each made the way that is quickest for its matrix and the number of its rows.

    By CPU and BLAS, torch's product leaves threads or vector units idle, or runs kernels for few rows that are made for
    many. The other ways:

    - ``"N parts"``: the matrix is seen as parts, one below the other; a batched product gives each thread parts of its
      own, so small that they stay in its cache while all rows meet them.
    - ``"transposed"``: the matrix times the rows, which a kernel for many rows then reads as it stands. In bfloat16
      the other order makes it bring the matrix into another layout first, at every call.
    - ``"onednn"``: by oneDNN, to which torch gives bfloat16 alone; of float32 rows, its kernels use what vector units
      the CPU has where those of the BLAS go by its maker.
    - ``"packed"``: by oneDNN, from a layout of its own, which takes the place of the matrix for all numbers of rows.
    """

    def __init__(self):
        # By number of rows and shape of the matrix; what is missing is made as torch makes it.
        self._ways: dict[tuple[int, int, int], Callable] = {}
        self._packed_shapes: set[tuple[int, int]] = set()

    def linear(self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear`` of inputs of shape (rows, width); its strides may be those of another layout."""
        return self._way_of(inputs, weight)(inputs, weight, bias)

    def are_made_by_torch(self, inputs: torch.Tensor, weight: torch.Tensor) -> bool:
        """Whether :meth:`linear` of these is ``F.linear``."""
        return self._way_of(inputs, weight) is F.linear

    def _way_of(self, inputs, weight) -> Callable:
        if weight.is_mkldnn:
            return linear_by_onednn
        return self._ways.get((min(inputs.size(0), ROW_COUNTS[-1]), *weight.shape), F.linear)

    def tune(
        self,
        weights: Iterable[torch.Tensor],
        all_num_rows: Collection[int],
        known: dict | None = None,
        packable: Iterable[torch.Tensor] = (),
        looked_up: Collection[torch.Tensor] = (),
    ) -> dict:
        """Time products of so many rows with each shape of the matrices, in every way; keep the quickest.

        Parameters
        ----------
        weights : iterable of tensors on a CPU
        all_num_rows : collection of int
        known : dict, optional
            What an earlier run has found: is taken as it is, so that all trials of a log are made alike.
        packable : iterable of tensors
            Those of the weights that may be replaced by what :meth:`packed` makes of them.
        looked_up : collection of tensors
            Those of the packable whose rows are looked up as well, by :class:`PackedRows` once they are packed.

        Returns
        -------
        dict
            The name of a way by ``"1 row, 2304 x 768"``; ``"whole"`` is torch's. ``"packed"`` holds for the packable:
            another matrix of that shape is multiplied by torch.

        Raises
        ------
        ValueError
            Matrices that are packed by ``known`` cannot be here.
        """
        found, by_shape = dict(known or {}), {}
        for weight in weights:
            if weight.nbytes >= _LEAST_BYTES:
                by_shape.setdefault(tuple(weight.shape), []).append(weight)
        row_counts = sorted({_row_count(number) for number in all_num_rows})
        told = {shape: {found.get(_name(count, shape)) for count in ROW_COUNTS} - {None} for shape in by_shape}
        self._packed_shapes = {shape for shape, ways in told.items() if _PACKED in ways}
        can_be_packed = {}
        for weight in packable:
            shape = tuple(weight.shape)
            if shape in by_shape and (not told[shape] or shape in self._packed_shapes):
                is_looked_up = any(weight is other for other in looked_up)
                can = can_be_looked_up(weight) if is_looked_up else onednn_takes(weight)
                can_be_packed[shape] = can and can_be_packed.get(shape, True)
        if lost := sorted(shape for shape in self._packed_shapes if not can_be_packed.get(shape, True)):
            raise ValueError(
                "the log was begun with matrices in oneDNN's layout, which does not serve those of "
                f"{', '.join(f'{n} x {k}' for n, k in lost)} here: continue it with the build of torch and the CPU "
                "that began it, or begin another log"
            )
        packed = {shape: [pack(weight) for weight in _timed(by_shape[shape])] for shape, can in can_be_packed.items()
                  if can and shape not in self._packed_shapes}  # fmt: skip
        least_s = {}
        for num_rows in row_counts:
            untimed = {shape: same for shape, same in by_shape.items()
                       if shape not in self._packed_shapes and _name(num_rows, shape) not in found}  # fmt: skip
            least_s |= {(num_rows, shape): by_way for shape, by_way in _least_s(num_rows, untimed, packed).items()}
        self._packed_shapes |= {
            shape for shape in packed if _is_worth_packing([least_s[num_rows, shape] for num_rows in row_counts])
        }
        for num_rows in row_counts:
            numbers = [number for number in range(1, num_rows + 1) if _row_count(number) == num_rows]
            for shape in by_shape:
                name = _name(num_rows, shape)
                if shape in self._packed_shapes:
                    found[name] = _PACKED
                    continue
                if name not in found:
                    found[name] = _quickest(least_s[num_rows, shape])
                if found[name] != _WHOLE:
                    self._ways |= {(number, *shape): _way(found[name]) for number in numbers}
        return found

    def packed(self, weight: torch.Tensor) -> torch.Tensor:
        """What takes the place of a packable weight: itself, or oneDNN's layout of it, which :meth:`linear` reads."""
        return pack(weight) if tuple(weight.shape) in self._packed_shapes and not weight.is_mkldnn else weight


def _name(num_rows, shape) -> str:
    return f"{num_rows} {'row' if num_rows == 1 else 'rows'}, {shape[0]} x {shape[1]}"


def _row_count(num_rows) -> int:
    return next((count for count in ROW_COUNTS if count >= num_rows), ROW_COUNTS[-1])


def _way(name) -> Callable:
    if name in _WAYS:
        return _WAYS[name]
    return partial(_linear_in_parts, num_parts=int(name.removesuffix(_PARTS)))


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


def _linear_transposed(inputs, weight, bias):
    if inputs.size(0) == 1:
        row = inputs[0]
        return (torch.mv(weight, row) if bias is None else torch.addmv(bias, weight, row)).unsqueeze(0)
    columns = inputs.t()
    outputs = torch.mm(weight, columns) if bias is None else torch.addmm(bias.unsqueeze(1), weight, columns)
    return outputs.t()


_WHOLE, _TRANSPOSED, _ONEDNN, _PACKED, _PARTS = "whole", "transposed", "onednn", "packed", " parts"
_WAYS = {_WHOLE: F.linear, _TRANSPOSED: _linear_transposed, _ONEDNN: linear_by_onednn, _PACKED: linear_by_onednn}


def _timed(same) -> list[torch.Tensor]:
    return same[: -(-_TIMED_BYTES // same[0].nbytes)]


@torch.inference_mode()
def _least_s(num_rows, by_shape, packed) -> dict:
    """By shape of matrices the seconds of every way, the least of interleaved passes.

    A pass goes through matrices of all shapes: what it reads has left the caches since, as when a token is generated.
    """
    times_s = {}
    for shape, same in by_shape.items():
        times_s[shape] = {name: [] for name in _ways_of(num_rows, same[0], shape in packed)}
    turns = [(turn, shape, name) for shape in by_shape for turn, name in enumerate(times_s[shape])]
    for _ in range(1 + _NUM_ROUNDS):
        for _, shape, name in sorted(turns, key=lambda turn: turn[0]):
            way, same = _way(name), packed[shape] if name == _PACKED else _timed(by_shape[shape])
            inputs = torch.ones(num_rows, shape[1], dtype=same[0].dtype)
            start_s = perf_counter()
            for weight in same if num_rows <= _FEW_ROWS else same[:1]:
                way(inputs, weight, None)
            times_s[shape][name].append(perf_counter() - start_s)
    # The first round warms up.
    return {shape: {name: min(s[1:]) for name, s in by_way.items()} for shape, by_way in times_s.items()}


def _ways_of(num_rows, weight, can_be_packed) -> list[str]:
    """Names of the ways to multiply a matrix; parts divide the work among the threads."""
    names = [_WHOLE, _TRANSPOSED]
    if weight.dtype == torch.float32 and onednn_takes(weight):
        names.append(_ONEDNN)
    if can_be_packed:
        names.append(_PACKED)
    if num_rows > _FEW_ROWS:
        return names
    numbers = [torch.get_num_threads() * n for n in _PARTS_PER_THREAD]
    return [*names, *(f"{n}{_PARTS}" for n in numbers if n > 1 and len(weight) // n >= _LEAST_ROWS_OF_PART)]


def _is_worth_packing(least_s: list[dict]) -> bool:
    """Whether one layout for all numbers of rows saves more of their time, each weighing the same, than it errs."""
    ratios = [by_way[_PACKED] / by_way[_quickest(by_way)] for by_way in least_s]
    return prod(ratios) < _WORTHWHILE ** len(ratios)


def _quickest(by_way: dict) -> str:
    """Of the ways that leave a matrix as it stands."""
    best = min(by_way.keys() - {_PACKED}, key=by_way.get)
    return best if by_way[best] < _WORTHWHILE * by_way[_WHOLE] else _WHOLE
