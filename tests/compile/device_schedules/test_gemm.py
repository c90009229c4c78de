"""Products of matrices with register tiles, on devices that the CPU plays, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, tirx

Array = npt.NDArray[Any]
OnDevice = Callable[..., Callable[..., Array]]


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(("rows", "columns"), [(37, 61), (5, 7)])
def test_sizes_that_tiles_do_not_divide(on_device: OnDevice, rows: int, columns: int) -> None:
    a, b = normal(rows, 20), normal(20, columns)
    found = on_device([a.shape, b.shape], relax.op.matmul)(a, b)
    np.testing.assert_allclose(found, a @ b, rtol=1e-5, atol=1e-5)


def test_a_batch_of_symbolic_rows_and_columns(on_device: OnDevice) -> None:
    n = tirx.Var("n", "int64")
    run = on_device([(2, n, 9), (2, 9, n)], relax.op.matmul)
    for size in (1, 6, 29):
        a, b = normal(2, size, 9), normal(2, 9, size)
        np.testing.assert_allclose(run(a, b), a @ b, rtol=1e-5, atol=1e-5)


def test_what_goes_before_and_after(on_device: OnDevice) -> None:
    a, b, bias, other = normal(3, 10, 12), normal(3, 21, 12), normal(21), normal(3, 10, 21)

    def compute(x: Any, y: Any, z: Any, w: Any) -> Any:
        product = relax.op.matmul(x, relax.op.permute_dims(y, [0, 2, 1]))
        return relax.op.add(relax.op.nn.relu(relax.op.add(product, z)), w)

    found = on_device([a.shape, b.shape, bias.shape, other.shape], compute)(a, b, bias, other)
    expected = np.maximum(a @ b.swapaxes(1, 2) + bias, 0) + other
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
