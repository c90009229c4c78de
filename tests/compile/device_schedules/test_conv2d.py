"""Convolutions with register tiles, on devices that the CPU plays, against NumPy."""

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


def reference(x: Array, w: Array, stride: int, padding: int, dilation: int, groups: int) -> Array:
    """A convolution as the sum over the taps of its filters."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height = (x.shape[2] - dilation * (w.shape[2] - 1) - 1) // stride + 1
    width = (x.shape[3] - dilation * (w.shape[3] - 1) - 1) // stride + 1
    inputs, outputs = w.shape[1], w.shape[0] // groups
    result = np.zeros((x.shape[0], w.shape[0], height, width), np.float32)
    for group in range(groups):
        part = x[:, group * inputs : (group + 1) * inputs]
        own = slice(group * outputs, (group + 1) * outputs)
        for y in range(w.shape[2]):
            for z in range(w.shape[3]):
                rows = slice(y * dilation, y * dilation + stride * (height - 1) + 1, stride)
                columns = slice(z * dilation, z * dilation + stride * (width - 1) + 1, stride)
                taps = part[:, :, rows, columns]
                result[:, own] += np.einsum("nchw,oc->nohw", taps, w[own, :, y, z])
    return result


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((2, 4, 11, 8), (6, 4, 3, 2), 2, 1, 1, 1),
        pytest.param((1, 3, 12, 12), (4, 3, 3, 3), 1, 0, 2, 1, marks=pytest.mark.slow),
        ((1, 3, 7, 7), (9, 3, 1, 1), 1, 0, 1, 1),
        ((2, 6, 8, 8), (6, 1, 3, 3), 2, 1, 1, 6),
        pytest.param((1, 6, 8, 8), (4, 3, 3, 3), 1, 1, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_against_numpy(
    on_device: OnDevice, x: Any, w: Any, stride: int, padding: int, dilation: int, groups: int
) -> None:
    data, weight = normal(*x), normal(*w)

    def compute(a: Any, b: Any) -> Any:
        return relax.op.nn.conv2d(a, b, strides=stride, padding=padding, dilation=dilation, groups=groups)

    found = on_device([x, w], compute)(data, weight)
    expected = reference(data, weight, stride, padding, dilation, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_symbolic_batch_with_what_goes_before_and_after(on_device: OnDevice) -> None:
    x, w, bias, other = normal(3, 4, 6, 6), normal(7, 4, 3, 3), normal(1, 7, 1, 1), normal(3, 7, 6, 6)
    n = tirx.Var("n", "int64")

    def compute(a: Any, b: Any, c: Any, d: Any) -> Any:
        return relax.op.nn.relu(relax.op.add(relax.op.add(relax.op.nn.conv2d(a, b, padding=1), c), d))

    found = on_device([(n, *x.shape[1:]), w.shape, bias.shape, (n, 7, 6, 6)], compute)(x, w, bias, other)
    expected = np.maximum(reference(x, w, 1, 1, 1, 1) + bias + other, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
