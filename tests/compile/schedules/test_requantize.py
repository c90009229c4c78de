"""Rounding to 8-bit integers beside NumPy, which rounds to the nearest even integer as well."""

from __future__ import annotations

import math

import numpy as np
import pytest

from assay.compile.schedules.requantize import to_integer
from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import te  # noqa: E402


@pytest.mark.parametrize("zero", [0, 3, 128, 255])
@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (0.0, math.inf), (0.5, 6.5), (-1e9, 1e9)])
def test_rounds_ties_to_even_and_saturates(zero: int, low: float, high: float) -> None:
    halves = np.arange(-600, 600, dtype=np.float32) / 2
    extremes = np.array([-9e8, -7e4, 7e4, 9e8], np.float32)
    values = np.concatenate([halves, np.nextafter(halves, np.float32(1e3)), extremes])
    x = te.placeholder(values.shape, "float32", name="x")
    y = te.compute(x.shape, lambda i: to_integer(x[i], zero, "uint8", low, high), name="y")
    built = tvm.compile(te.create_prim_func([x, y]), target="llvm")
    result = tvm.runtime.tensor(np.zeros(values.shape, np.uint8))
    built(tvm.runtime.tensor(values), result)
    bounded = np.clip(values, low, high).astype(np.float64)
    np.testing.assert_array_equal(result.numpy(), np.clip(np.rint(bounded) + zero, 0, 255))
