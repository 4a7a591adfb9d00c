"""oneDNN on a CPU: products of rows with a matrix, and the layout in which it reads one."""

from ctypes import c_byte

import torch
import torch.nn.functional as F  # noqa: N812

# The number of inputs that a layout is made for: those for 2 to 128 are as quick, that for 1 slows the others.
_PACKED_FOR_ROWS = 8
_ROWS_OF_BLOCK = 64
_BYTES_OF_UNIT = 4
# Rows that are compared at once.
_COMPARED_ROWS = 4096


def linear_by_onednn(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``F.linear`` on a CPU, where :func:`onednn_takes` the matrix."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def onednn_takes(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies matrices of this data type on this CPU, in this build of torch."""
    if weight.is_cuda or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@torch.inference_mode()
def pack(weight: torch.Tensor) -> torch.Tensor:
    """The matrix in the layout that oneDNN reads quickest; :func:`linear_by_onednn` takes it like the other."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_FOR_ROWS)


class PackedRows:
    """Rows of a packed matrix, looked up as ``F.embedding`` looks them up in one that is not.

    The layout has blocks of 64 rows. In a block stand the first 4 bytes of all its rows, then the next 4 of all, and
    so on, filled up with zeros: a row is what a window sees that opens on 4 of every 256 bytes. oneDNN promises none of
    this: :func:`can_be_looked_up` compares.

    Parameters
    ----------
    packed : tensor of shape (rows, width)
        Of :func:`pack`.

    Raises
    ------
    ValueError
        The matrix takes fewer bytes than in this layout.
    """

    def __init__(self, packed: torch.Tensor):
        # Owns the memory.
        self._packed = packed
        num_rows, self._width = packed.shape
        num_bytes, num_blocks = torch.ops.mkldnn._nbytes(packed), -(-num_rows // _ROWS_OF_BLOCK)
        units_of_row = -(-self._width * packed.dtype.itemsize // _BYTES_OF_UNIT)
        self._units_of_block = num_bytes // _BYTES_OF_UNIT // num_blocks
        if self._units_of_block < units_of_row * _ROWS_OF_BLOCK:
            raise ValueError(f"{num_bytes} bytes are not {num_blocks} blocks of {_ROWS_OF_BLOCK} rows of {self._width}")
        memory = (c_byte * num_bytes).from_address(torch.ops.mkldnn.data_ptr(packed))
        units = torch.frombuffer(memory, dtype=torch.int32, count=num_bytes // _BYTES_OF_UNIT)
        num_windows = len(units) - (units_of_row - 1) * _ROWS_OF_BLOCK
        self._windows = units.as_strided((num_windows, units_of_row), (1, _ROWS_OF_BLOCK))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of these numbers, int64 and in range: (...) -> (..., width), contiguous."""
        windows = rows // _ROWS_OF_BLOCK * self._units_of_block + rows % _ROWS_OF_BLOCK
        return F.embedding(windows, self._windows).view(self._packed.dtype)[..., : self._width].contiguous()


@torch.inference_mode()
def can_be_looked_up(weight: torch.Tensor) -> bool:
    """Whether :class:`PackedRows` gives every row of this matrix, once it is packed, to the last bit."""
    if not onednn_takes(weight):
        return False
    try:
        look_up = PackedRows(pack(weight))
    except ValueError:
        return False
    every_row = torch.arange(len(weight)).split(_COMPARED_ROWS)
    return all(torch.equal(look_up(rows), weight[rows[0] : rows[-1] + 1]) for rows in every_row)
