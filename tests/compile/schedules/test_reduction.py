from __future__ import annotations

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax, te, tirx  # noqa: E402

op = relax.op

REDUCTIONS = {"sum": np.sum, "max": np.max, "min": np.min, "mean": np.mean, "prod": np.prod}


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
def test_axes(check, axes):
    check(
        lambda b, x: op.sum(x, axis=list(axes)),
        lambda x: x.sum(axes),
        ((4, 9, 37), "float32"),
        tolerance=2e-5,
    )


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_operations(check, name, axis):
    check(
        lambda b, x: getattr(op, name)(x, axis=[axis]),
        lambda x: REDUCTIONS[name](x, axis=axis).astype("float32"),
        ((4, 9, 37), "float32"),
        tolerance=2e-5,
    )


def test_symbolic_row(check):
    check(
        lambda b, x: op.sum(b.emit(op.exp(x)), axis=[-1]),
        lambda x: np.exp(x).sum(-1),
        (("m", "n"), "float32"),
        at=[{"m": 1, "n": 1}, {"m": 3, "n": 5}, {"m": 3, "n": 77}],
        tolerance=2e-5,
    )


def test_symbolic_column(check):
    check(
        lambda b, x: op.max(x, axis=[0]),
        lambda x: x.max(0),
        (("m", "n"), "float32"),
        at=[{"m": 1, "n": 1}, {"m": 3, "n": 5}, {"m": 3, "n": 177}],
    )


def test_int64(check):
    check(lambda b, x: op.sum(x, axis=[-1]), lambda x: x.sum(-1), ((4, 37), "int64"))


def test_global_average_pool(check):
    check(
        lambda b, x: op.mean(x, axis=[1, 2], keepdims=True),
        lambda x: x.mean((1, 2), keepdims=True),
        ((2, 7, 7, 100), "float32"),
    )


def test_masked_mean(check):
    check(
        lambda b, x, m: op.sum(b.emit(op.multiply(x, b.emit(op.expand_dims(m, -1)))), axis=[1]),
        lambda x, m: (x * m[..., None]).sum(1),
        ((2, "s", 37), "float32"),
        ((2, "s"), "float32"),
        at=[{"s": 1}, {"s": 11}],
        tolerance=2e-5,
    )


def windows(x, size, stride, pad, fill):
    """``[N, OH, OW, C, size * size]`` of an NHWC array."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride].reshape(*view[:, ::stride, ::stride].shape[:4], -1)


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("channels", [3, 20, 72])
def test_max_pool(check, size, stride, pad, channels):
    check(
        lambda b, x: op.nn.max_pool2d(x, (size, size), (stride, stride), (pad,) * 4, layout="NHWC"),
        lambda x: windows(x, size, stride, pad, -np.inf).max(-1),
        ((2, 10, 13, channels), "float32"),
    )


def test_max_pool_of_symbolic_height(check):
    check(
        lambda b, x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), layout="NHWC"),
        lambda x: windows(x, 3, 2, 1, -np.inf).max(-1),
        ((1, "h", 13, 20), "float32"),
        at=[{"h": 1}, {"h": 2}, {"h": 5}, {"h": 12}],
    )


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_pool(check, count_include_pad):
    def reference(x):
        ones = np.pad(np.ones_like(x), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=count_include_pad)
        return windows(x, 3, 2, 1, 0).sum(-1) / windows(ones, 3, 2, 0, 0).sum(-1)

    check(
        lambda b, x: op.nn.avg_pool2d(
            x, (3, 3), (2, 2), (1, 1, 1, 1), layout="NHWC", count_include_pad=count_include_pad
        ),
        reference,
        ((2, 14, 12, 20), "float32"),
    )


@pytest.mark.parametrize("channels", [5, 37, 64, "c"])
def test_window_along_the_contiguous_axis(check, channels):
    """As in local response normalization."""

    def normalize(x):
        count = x.shape[2]
        squares = te.compute(
            (x.shape[0], x.shape[1], count + 4),
            lambda n, w, c: tirx.if_then_else(
                tirx.all(c >= 2, c < count + 2), x[n, w, c - 2] * x[n, w, c - 2], tirx.const(0, "float32")
            ),
        )
        k = te.reduce_axis((0, 5))
        total = te.compute(x.shape, lambda n, w, c: te.sum(squares[n, w, c + k], axis=k))
        return te.compute(x.shape, lambda n, w, c: x[n, w, c] / tirx.sqrt(1.0 + total[n, w, c]))

    def reference(x):
        squares = np.pad(x * x, ((0, 0), (0, 0), (2, 2)))
        return x / np.sqrt(1 + sum(squares[..., i : i + x.shape[2]] for i in range(5)))

    sizes = [{"c": 1}, {"c": 3}, {"c": 21}] if channels == "c" else [{}]
    check(lambda b, x: b.emit_te(normalize, x), reference, ((2, 5, channels), "float32"), at=sizes)


def test_max_pool_with_channels_first(check):
    check(
        lambda b, x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1)),
        lambda x: windows(x.transpose(0, 2, 3, 1), 3, 2, 1, -np.inf).max(-1).transpose(0, 3, 1, 2),
        ((2, 5, 13, 20), "float32"),
    )


def test_pooling_is_vectorized(kernels):
    source = kernels(
        lambda b, x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), layout="NHWC"),
        ((1, 12, 12, 64), "float32"),
    ).source("asm")
    assert "vmaxps" in source
    assert "%ymm" in source
