import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from megatron_lm.engines import products as products_module
from megatron_lm.engines.products import ROW_COUNTS, Products

FLOAT32_ERROR = 1e-6


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) / 16 for shape in ((1021, 256), (768, 256))]


def let_win(way, monkeypatch):
    """Timings in which one way is twice as quick as the others."""
    by_way = {"whole": 2.0, "packed": 2.0, way: 1.0}
    monkeypatch.setattr(products_module, "_least_s", lambda num_rows, by_shape, packed: dict.fromkeys(by_shape, by_way))


def tuned(weights, monkeypatch, way, all_num_rows=ROW_COUNTS):
    let_win(way, monkeypatch)
    products = Products()
    products.tune(weights, all_num_rows, packable=weights)
    return products


@pytest.mark.parametrize("way", ["2 parts", "7 parts", "32 parts", "transposed", "onednn"])
@pytest.mark.parametrize("num_rows", [1, 3, 16, 200])
@pytest.mark.parametrize("has_bias", [False, True])
def test_product_is_the_same_in_every_way(weights, monkeypatch, way, num_rows, has_bias):
    products = tuned(weights, monkeypatch, way)
    for weight in weights:
        inputs, bias = torch.randn(num_rows, 256), torch.randn(len(weight)) if has_bias else None
        assert not products.are_made_by_torch(inputs, weight)
        expected = F.linear(inputs.double(), weight.double(), bias if bias is None else bias.double()).float()
        outputs = products.linear(inputs, weight, bias)
        torch.testing.assert_close(outputs, expected, atol=FLOAT32_ERROR * 16, rtol=FLOAT32_ERROR)


@pytest.mark.parametrize("way", ["2 parts", "transposed"])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_product_of_bfloat16_is_rounded_once(weights, monkeypatch, way, num_rows):
    weights = [weight.bfloat16() for weight in weights]
    products = tuned(weights, monkeypatch, way)
    inputs, bias = torch.randn(num_rows, 256).bfloat16(), torch.randn(768).bfloat16()
    expected = F.linear(inputs.double(), weights[1].double(), bias.double())
    error = (products.linear(inputs, weights[1], bias).double() - expected).abs()
    assert (error <= expected.abs() * torch.finfo(torch.bfloat16).eps / 2 + 1e-4).all()


def test_nothing_is_copied(weights, monkeypatch):
    products, weight = tuned(weights, monkeypatch, "2 parts"), weights[1]
    inputs = torch.randn(1, 256)
    before = products.linear(inputs, weight)
    weight.mul_(2)
    torch.testing.assert_close(products.linear(inputs, weight), 2 * before)


def test_rows_and_shapes_that_were_not_timed_are_left_as_they_are(weights, monkeypatch):
    products = tuned(weights, monkeypatch, "2 parts", [1])
    assert not products.are_made_by_torch(torch.ones(1, 256), weights[0])
    assert products.are_made_by_torch(torch.ones(17, 256), weights[0])
    assert products.are_made_by_torch(torch.ones(ROW_COUNTS[-1] + 1, 256), weights[0])
    assert products.are_made_by_torch(torch.ones(1, 128), torch.ones(1021, 128))
    assert products.are_made_by_torch(torch.ones(2, 256), weights[0])


def test_what_is_quickest_is_timed_for_every_shape_and_number_of_rows(weights):
    found = Products().tune(weights, [1, 3, 100, 1000])
    assert set(found) == {
        f"{rows}, {shape}" for rows in ("1 row", "4 rows", "128 rows") for shape in ("1021 x 256", "768 x 256")
    }
    threads = torch.get_num_threads()
    for name, way in found.items():
        if name.startswith("128 rows"):
            assert way in {"whole", "transposed", "onednn"}
        else:
            assert way in {"whole", "transposed", "onednn"} or int(way.removesuffix(" parts")) % threads == 0


@pytest.mark.parametrize("num_rows", [1, 40])
def test_strides_of_another_layout_are_read(weights, monkeypatch, num_rows):
    products = tuned(weights, monkeypatch, "onednn")
    wide = torch.randn(512, num_rows).t()
    torch.testing.assert_close(products.linear(wide[:, ::2], weights[1]), F.linear(wide[:, ::2], weights[1]))


def test_small_matrices_are_not_timed():
    assert Products().tune([torch.ones(64, 64)], [1]) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 3, 16, 200])
@pytest.mark.parametrize("has_bias", [False, True])
def test_packed_matrix_gives_the_same_product(weights, monkeypatch, dtype, num_rows, has_bias):
    weights = [weight.to(dtype) for weight in weights]
    products = tuned(weights, monkeypatch, "packed")
    for weight in weights:
        packed, inputs = products.packed(weight), torch.randn(num_rows, 256).to(dtype)
        assert packed.is_mkldnn
        assert not products.are_made_by_torch(inputs, packed)
        bias = torch.randn(len(weight)).to(dtype) if has_bias else None
        expected = F.linear(inputs.double(), weight.double(), bias if bias is None else bias.double())
        outputs = products.linear(inputs, packed, bias)
        assert outputs.dtype == dtype
        error = 2 * FLOAT32_ERROR * 16 if dtype == torch.float32 else expected.abs() * 2**-8 + 1e-4
        assert ((outputs.double() - expected).abs() <= error).all()


def test_only_what_is_packable_and_worth_it_is_packed(weights, monkeypatch):
    let_win("packed", monkeypatch)
    products = Products()
    found = products.tune(weights, [1, 8], packable=weights[:1])
    assert found == {"1 row, 1021 x 256": "packed", "8 rows, 1021 x 256": "packed",
                     "1 row, 768 x 256": "whole", "8 rows, 768 x 256": "whole"}  # fmt: skip
    assert products.packed(weights[0]).is_mkldnn
    assert products.packed(weights[1]) is weights[1]
    assert tuned(weights, monkeypatch, "2 parts").packed(weights[0]) is weights[0]


def test_one_layout_for_all_numbers_of_rows_is_weighed_over_all(weights, monkeypatch):
    times_s = {1: {"whole": 1.0, "packed": 1.2}, 8: {"whole": 1.0, "packed": 0.5}}
    monkeypatch.setattr(
        products_module, "_least_s", lambda num_rows, by_shape, packed: dict.fromkeys(by_shape, times_s[num_rows])
    )
    assert set(Products().tune(weights, [1, 8], packable=weights).values()) == {"packed"}
    assert set(Products().tune(weights, [1], packable=weights).values()) == {"whole"}


def test_what_a_log_says_is_packed_is_packed_for_other_numbers_of_rows_too(weights, monkeypatch):
    let_win("2 parts", monkeypatch)
    known = {"1 row, 1021 x 256": "packed", "1 row, 768 x 256": "2 parts"}
    products = Products()
    found = products.tune(weights, [1, 8], known, weights)
    assert found == {**known, "8 rows, 1021 x 256": "packed", "8 rows, 768 x 256": "2 parts"}
    assert products.packed(weights[0]).is_mkldnn
    let_win("packed", monkeypatch)
    assert Products().tune(weights, [8], {"1 row, 768 x 256": "2 parts"}, weights)["8 rows, 768 x 256"] == "whole"


def test_what_a_log_says_is_taken(weights, monkeypatch):
    def refuse():
        raise AssertionError("timed again")

    monkeypatch.setattr(products_module, "perf_counter", refuse)
    known = {"1 row, 1021 x 256": "4 parts", "1 row, 768 x 256": "whole"}
    products = Products()
    assert products.tune(weights, [1], known) == known
    assert not products.are_made_by_torch(torch.ones(1, 256), weights[0])
    assert products.are_made_by_torch(torch.ones(1, 256), weights[1])


@pytest.mark.parametrize("lost", ["onednn_takes", "can_be_looked_up"])
def test_log_that_was_begun_with_packed_matrices_is_not_continued_where_they_cannot_be(weights, monkeypatch, lost):
    monkeypatch.setattr(products_module, lost, lambda weight: False)
    known = {"1 row, 1021 x 256": "packed", "1 row, 768 x 256": "whole"}
    with pytest.raises(ValueError, match="does not serve those of 1021 x 256 here: continue it with"):
        Products().tune(weights, [1], known, weights, looked_up=weights[:1] if lost == "can_be_looked_up" else ())


def test_only_what_may_be_packed_is_tried_for_its_rows(weights, monkeypatch):
    def refuse(weight):
        raise AssertionError("tried")

    monkeypatch.setattr(products_module, "can_be_looked_up", refuse)
    small, known = torch.ones(64, 64), {"1 row, 1021 x 256": "whole"}
    Products().tune([weights[0], small], [1], known, [weights[0], small], looked_up=[weights[0], small])
