from __future__ import annotations

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax  # noqa: E402

op = relax.op


def test_heads(check):
    check(
        lambda b, x: op.permute_dims(x, [0, 2, 1, 3]),
        lambda x: x.transpose(0, 2, 1, 3),
        ((2, "s", 3, 20), "float32"),
        at=[{"s": 1}, {"s": 5}, {"s": 40}],
    )


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (16, 32), (35, 37), (5, 64), (64, 5), (3, 2)])
def test_matrix(check, rows, cols):
    check(lambda b, x: op.permute_dims(x, [1, 0]), lambda x: x.T, ((rows, cols), "float32"))


def test_symbolic_matrix(check):
    check(
        lambda b, x: op.nn.relu(b.emit(op.permute_dims(x, [0, 2, 1]))),
        lambda x: np.maximum(x.transpose(0, 2, 1), 0),
        ((2, "s", 37), "float32"),
        at=[{"s": 1}, {"s": 8}, {"s": 29}],
    )


def test_to_channels_last_with_arithmetic(check):
    check(
        lambda b, x, y, z: op.add(b.emit(op.multiply(b.emit(op.permute_dims(x, [0, 2, 3, 1])), y)), z),
        lambda x, y, z: x.transpose(0, 2, 3, 1) * y + z,
        ((2, 35, 10, 11), "float32"),
        ((35,), "float32"),
        ((2, 10, 11, 35), "float32"),
    )


def test_few_channels(check):
    check(
        lambda b, x: op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: x.transpose(0, 2, 3, 1),
        ((1, 3, 9, 11), "float32"),
    )


def test_int64(check):
    check(lambda b, x: op.permute_dims(x, [1, 0]), lambda x: x.T, ((19, 33), "int64"))


def test_a_matrix_is_turned_by_shuffles(kernels):
    source = kernels(lambda b, x: op.permute_dims(x, [1, 0]), ((64, 64), "float32")).source("ll")
    assert "shufflevector <8 x float>" in source
