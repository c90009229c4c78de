"""Block-quantized matrices and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.models.decoders.weights import BlockQuantized, dequantize


def test_values_are_scaled_distances_from_the_zero_point() -> None:
    codes = np.arange(64, dtype=np.uint8).reshape(2, 32) % 16
    scales = np.array([[0.5, 2.0], [1.0, 0.25]], np.float32)
    zeros = np.array([[0.0, 1.5], [-1.0, 8.0]], np.float32)
    matrix = BlockQuantized(bits=4, block_size=16, codes=codes, scales=scales, zero_points=zeros)
    assert matrix.shape == (2, 32)
    values = dequantize(matrix)
    for row in range(2):
        for column in range(32):
            block = column // 16
            expected = scales[row, block] * (codes[row, column] - zeros[row, block])
            assert values[row, column] == np.float32(expected)


@pytest.mark.parametrize(("bits", "zero"), [(4, 8), (8, 128)])
def test_without_zero_points_the_middle_is_zero(bits: int, zero: int) -> None:
    codes = np.full((1, 16), zero + 3, np.uint8)
    matrix = BlockQuantized(bits=bits, block_size=16, codes=codes, scales=np.full((1, 1), 0.5, np.float32))
    np.testing.assert_array_equal(dequantize(matrix), np.full((1, 16), 1.5, np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "bits must be 4 or 8"),
        ({"block_size": 8}, "a power of two from 16 on"),
        ({"block_size": 48}, "a power of two from 16 on"),
        ({"block_size": 64}, "no multiple of the block size"),
        ({"scales": np.ones((2, 1), np.float32)}, r"scales have shape \(2, 1\)"),
        ({"zero_points": np.ones((1, 2), np.float32)}, r"zero_points have shape \(1, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "bits": 4,
        "block_size": 16,
        "codes": np.zeros((2, 32), np.uint8),
        "scales": np.ones((2, 2), np.float32),
    }
    with pytest.raises(ValueError, match=message):
        BlockQuantized(**{**values, **changes})
