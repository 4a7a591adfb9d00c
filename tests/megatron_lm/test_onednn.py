import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from megatron_lm.engines import onednn
from megatron_lm.engines.onednn import PackedRows, can_be_looked_up, pack


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    """A data type whose packed rows are looked up on this CPU."""
    if not can_be_looked_up(torch.randn(128, 64).to(request.param)):
        pytest.skip(f"oneDNN keeps {request.param} in another layout on this CPU, or does not multiply it")
    return request.param


@pytest.mark.parametrize("shape", [(128, 64), (5000, 256), (77, 33), (30, 16), (1021, 100)])
def test_rows_of_a_packed_matrix_are_those_of_the_matrix(dtype, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed = pack(weight)
    assert can_be_looked_up(weight)
    look_up = PackedRows(packed)
    del packed
    for rows in (torch.arange(shape[0]), torch.tensor([[shape[0] - 1, 0], [5, 5]]), torch.tensor(3)):
        found = look_up(rows)
        assert found.dtype == dtype
        assert found.is_contiguous()
        assert torch.equal(found, F.embedding(rows, weight))
        # What is looked up is a copy.
        found.fill_(0.0)
    assert torch.equal(look_up(torch.arange(shape[0])), weight)


@pytest.mark.parametrize("num_rows", [30, 128, 130])
@pytest.mark.parametrize("order", ["row by row", "last row first"])
def test_another_layout_is_not_looked_up(dtype, num_rows, order, monkeypatch):
    weight = torch.randn(num_rows, 64).to(dtype)
    packed = weight.to_mkldnn() if order == "row by row" else pack(weight.flip(0))
    monkeypatch.setattr(onednn, "pack", lambda weight: packed)
    assert not can_be_looked_up(weight)


def test_every_row_is_compared(dtype, monkeypatch):
    weight = torch.randn(200, 64).to(dtype)
    other = weight.clone()
    other[-1, -1] += 1
    monkeypatch.setattr(onednn, "_COMPARED_ROWS", 64)
    monkeypatch.setattr(onednn, "pack", lambda weight: pack(other))
    assert not can_be_looked_up(weight)
    assert can_be_looked_up(other)


def test_what_onednn_does_not_multiply_is_not_looked_up():
    assert not can_be_looked_up(torch.ones(128, 64, dtype=torch.float64))
