from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from assay.compile.schedules.winograd_matrices import filtering, transform_filters  # noqa: E402


@pytest.mark.parametrize("outputs", [2, 4])
def test_identity_holds_exactly(outputs: int) -> None:
    matrices = filtering(outputs)
    g = [Fraction(3), Fraction(-1, 7), Fraction(5)]
    d = [Fraction(k * k - 4, 3) for k in range(matrices.inputs)]
    products = [
        sum(a * b for a, b in zip(row, g, strict=True)) * sum(a * b for a, b in zip(line, d, strict=True))
        for row, line in zip(matrices.filters, matrices.data, strict=True)
    ]
    for k, row in enumerate(matrices.inverse):
        direct = sum(g[r] * d[k + r] for r in range(3))
        assert sum(a * p for a, p in zip(row, products, strict=True)) == direct


def test_size_without_points_is_unknown() -> None:
    with pytest.raises(KeyError):
        filtering(3)


def error(outputs: int, relu_input: Any, filters: Any) -> float:
    """The largest error against float64 where data, products and sums are rounded to float32."""
    matrices = filtering(outputs)
    n, m = matrices.inputs, matrices.outputs
    data, inverse = (np.array(x, np.float32) for x in (matrices.data, matrices.inverse))
    wanted = sum(
        np.einsum(
            "hwi,oi->hwo",
            relu_input[r : r + m, s : s + m].astype(np.float64),
            filters[:, r, s].astype(np.float64),
        )
        for r in range(3)
        for s in range(3)
    )
    half = np.einsum("pr,rsi->psi", data, relu_input[:n, :n]).astype(np.float32)
    v = np.einsum("qs,psi->pqi", data, half).astype(np.float32)
    products = np.einsum("pqi,pqio->pqo", v, transform_filters(filters, outputs)).astype(np.float32)
    half = np.einsum("hp,pqo->hqo", inverse, products).astype(np.float32)
    return float(np.abs(np.einsum("wq,hqo->hwo", inverse, half) - wanted).max())


def test_rounds_little_more_than_a_direct_sum() -> None:
    generator = np.random.default_rng(0)
    x = np.maximum(generator.standard_normal((6, 6, 256)), 0).astype(np.float32)
    filters = (generator.standard_normal((64, 3, 3, 256)) * (2 / 2304) ** 0.5).astype(np.float32)
    assert error(2, x, filters) < 4e-6
    assert error(4, x, filters) < 1e-5
