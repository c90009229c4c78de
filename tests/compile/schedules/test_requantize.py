"""Rounding to 8-bit integers beside NumPy, which rounds to the nearest even integer as well."""

from __future__ import annotations

import math

import numpy as np
import pytest

from assay.compile.schedules.requantize import rescale, to_integer
from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from tvm import te  # noqa: E402


@pytest.mark.parametrize("zero", [0, 3, 128, 255])
@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (0.0, math.inf), (0.5, 6.5), (-1e9, 1e9)])
@pytest.mark.parametrize("fits", [False, True])
def test_rounds_ties_to_even_and_saturates(zero: int, low: float, high: float, fits: bool) -> None:
    halves = np.arange(-600, 600, dtype=np.float32) / 2
    extremes = np.array([-9e8, -7e4, 7e4, 9e8], np.float32)
    values = np.concatenate([halves, np.nextafter(halves, np.float32(1e3)), extremes])
    x = te.placeholder(values.shape, "float32", name="x")
    y = te.compute(x.shape, lambda i: to_integer(x[i], zero, "uint8", low, high, fits=fits), name="y")
    built = tvm.compile(te.create_prim_func([x, y]), target="llvm")
    result = tvm.runtime.tensor(np.zeros(values.shape, np.uint8))
    built(tvm.runtime.tensor(values), result)
    bounded = np.clip(values, low, high).astype(np.float64)
    np.testing.assert_array_equal(result.numpy(), np.clip(np.rint(bounded) + zero, 0, 255))


@pytest.mark.parametrize("fits", [False, True])
def test_a_product_is_rounded_before_it_is_an_integer(needs_avx2: None, fits: bool) -> None:
    """One operation for the product and the sum that rounds it would differ from NumPy at some of these."""
    totals = np.arange(-200_000, 200_000, dtype=np.int32)
    factor = np.array([0.0008333333, 0.0011111111], np.float32)
    total = te.placeholder((len(totals) // 2, 2), "int32", name="total")
    scale = te.placeholder((2,), "float32", name="scale")
    y = rescale(total, scale, zero=100, low=-math.inf, high=math.inf, fits=fits)
    target = {"kind": "llvm", "mcpu": "x86-64-v3"}
    built = tvm.compile(te.create_prim_func([total, scale, y]), target=target)
    result = tvm.runtime.tensor(np.zeros((len(totals) // 2, 2), np.uint8))
    pairs = totals.reshape(-1, 2)
    built(tvm.runtime.tensor(pairs), tvm.runtime.tensor(factor), result)
    expected = np.clip(np.rint(pairs.astype(np.float32) * factor) + 100, 0, 255)
    np.testing.assert_array_equal(result.numpy(), expected)
