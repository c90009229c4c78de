"""Transforms of stored tensors beside NumPy on their values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from assay.errors import ModelError
from assay.models.decoders.mapping import Transform
from assay.models.decoders.transforms import join_rows, transform
from assay.models.decoders.weights import BlockQuantized, dequantize

from .conftest import quantize


def matrix(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


def permuted(values: Any, head_dim: int) -> Any:
    """Rows as ``LlamaModel.permute`` of llama.cpp's convert_hf_to_gguf.py leaves them."""
    heads = len(values) // head_dim
    return values.reshape(heads, 2, head_dim // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


@pytest.mark.parametrize("heads", [1, 3])
def test_unpermuting_takes_back_what_the_conversion_does(heads: int) -> None:
    values = matrix(16 * heads)
    undone = transform(permuted(values, 16), Transform.UNPERMUTE, head_dim=16, name="q")
    np.testing.assert_array_equal(undone, values)
    bias = values[:, 0]
    undone = transform(permuted(bias, 16), Transform.UNPERMUTE, head_dim=16, name="q")
    np.testing.assert_array_equal(undone, bias)


@pytest.mark.parametrize("zero_points", [False, True])
def test_rows_of_quantized_matrices_move_with_their_scales(zero_points: bool) -> None:
    stored = quantize(matrix(32), 4, zero_points=zero_points)
    moved = transform(stored, Transform.UNPERMUTE, head_dim=16, name="q")
    assert isinstance(moved, BlockQuantized)
    np.testing.assert_array_equal(permuted(dequantize(moved), 16), dequantize(stored))


def test_quantized_matrices_of_one_form_are_joined() -> None:
    parts = [quantize(matrix(rows, rows), 4, zero_points=True) for rows in (32, 16, 8)]
    joined = join_rows(parts)
    assert isinstance(joined, BlockQuantized)
    np.testing.assert_array_equal(dequantize(joined), np.concatenate([dequantize(part) for part in parts]))


@pytest.mark.parametrize(
    "other",
    [
        quantize(matrix(8), 8, zero_points=False),
        quantize(matrix(8), 4, zero_points=True),
        matrix(8),
    ],
    ids=["bits", "zero points", "plain"],
)
def test_matrices_of_different_forms_are_not_joined(other: Any) -> None:
    first = quantize(matrix(8), 4, zero_points=False)
    assert join_rows([first, other]) is None
    assert join_rows([other, first]) is None


def test_plain_matrices_are_joined_when_their_dtypes_agree() -> None:
    parts = [matrix(8), matrix(4, 1)]
    np.testing.assert_array_equal(join_rows(parts), np.concatenate(parts))
    assert join_rows([parts[0], parts[1].astype(np.float16)]) is None
    assert join_rows(parts[:1]) is parts[0]


def test_one_is_added_in_float32() -> None:
    stored = np.array([2**-9, -1.0], ml_dtypes.bfloat16)
    added = transform(stored, Transform.ADD_ONE, head_dim=16, name="norm")
    assert isinstance(added, np.ndarray)
    assert added.dtype == np.float32
    np.testing.assert_array_equal(added, [1 + 2**-9, 0])


@pytest.mark.parametrize("kind", [Transform.TRANSPOSE, Transform.ADD_ONE])
def test_what_would_lose_bits_is_refused(kind: Transform) -> None:
    with pytest.raises(ModelError, match="'w' is block-quantized"):
        transform(quantize(matrix(8), 4, zero_points=False), kind, head_dim=16, name="w")
