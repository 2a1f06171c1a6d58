"""Products with one matrix: right, and for each row the same bits in any company."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.inference.numpy_runtime.sentence_head import sums_of_products
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.models import ENCODER, TINY
from embedkit.native.dispatch import why_not_here
from embedkit.native.products import RowProduct
from embedkit.types import WantedPrecision

needs_kernels = pytest.mark.skipif(why_not_here("fp32") is not None, reason="no kernels are compiled here")


@needs_kernels
@pytest.mark.parametrize(("columns", "size"), [(64, 64), (384, 384), (70, 33), (1, 1)])
@pytest.mark.parametrize("rows", [0, 1, 7, 192, 193])
def test_products_equal_those_in_float64_and_rows_do_not_depend_on_company(
    rows: int, columns: int, size: int
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(columns, size)).astype(np.float32)
    x = rng.normal(size=(rows, size)).astype(np.float32)
    product = RowProduct(weight)
    found = product(x)
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight.astype(np.float64).T, atol=1e-4)
    for row in range(0, rows, 5):
        assert np.array_equal(product(x[row : row + 1])[0], found[row])
        assert np.array_equal(product(x[row : row + 3])[0], found[row])


@needs_kernels
@pytest.mark.parametrize("name", [ENCODER, TINY])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_vectors_of_the_models_in_the_box_do_not_depend_on_company(
    name: str, precision: WantedPrecision
) -> None:
    """A dense layer stands behind the kernels, for which BLAS gave a lone text's vector other last bits."""
    encoder = Encoder.load(name, device="cpu", backend="native", precision=precision)
    assert len(encoder.folder.modules.sentence.dense) == 1
    texts = list(SAMPLE_TEXTS[:12])
    whole = encoder.encode(texts)
    assert all(np.array_equal(encoder.encode([text])[0], whole[row]) for row, text in enumerate(texts))


def test_without_kernels_numpy_sums_a_row_in_one_order_too() -> None:
    rng = np.random.default_rng(0)
    weight, rows = (rng.normal(size=size).astype(np.float32) for size in ((384, 384), (33, 384)))
    found = sums_of_products(weight, rows)
    np.testing.assert_allclose(found, rows @ weight.T, atol=1e-4)
    assert all(
        np.array_equal(sums_of_products(weight, rows[row : row + 1])[0], found[row]) for row in range(33)
    )
