from __future__ import annotations

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax, topi  # noqa: E402

op = relax.op


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


@pytest.mark.parametrize("length", [1, 2, 8, 31, 37, 64, 100])
def test_softmax(check, length):
    check(lambda b, x: op.nn.softmax(x), softmax, ((3, 4, length), "float32"))


def test_softmax_of_symbolic_size(check):
    check(
        lambda b, x: op.nn.softmax(x),
        softmax,
        ((1, 4, "s", "s"), "float32"),
        at=[{"s": s} for s in (1, 5, 16, 37, 130)],
        expected={"s": 130},
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_over_another_axis(check, axis):
    """A square, so that rows and columns cannot be told apart by their extents."""
    check(lambda b, x: op.nn.softmax(x, axis=axis), lambda x: softmax(x, axis), ((9, 9, 20), "float32"))


def test_softmax_with_its_prologue_and_epilogue(check):
    def masked(x, m):
        scores = topi.add(topi.multiply(x, x), m)
        return topi.nn.relu(topi.nn.softmax(scores))

    check(
        lambda b, x, m: b.emit_te(masked, x, m),
        lambda x, m: softmax(x * x + m),
        ((3, 4, 37), "float32"),
        ((3, 1, 37), "float32"),
    )


def test_softmax_of_minus_infinity(kernels):
    x = np.array([[0.0, -np.inf, 1.0, -1e9] * 5, [-1e9] * 20], "float32")
    (got,) = kernels(lambda b, x: op.nn.softmax(x), ((2, 20), "float32"))(x)
    np.testing.assert_allclose(got, softmax(x), rtol=2e-6, atol=1e-7)


def test_log_softmax(check):
    check(
        lambda b, x: op.nn.log_softmax(x),
        lambda x: np.log(softmax(x)),
        ((3, 4, 37), "float32"),
        tolerance=5e-6,
    )


@pytest.mark.parametrize("width", [37, 768])
def test_layer_norm(check, width):
    check(
        lambda b, x, s, t: op.nn.layer_norm(x, s, t, axes=[-1]),
        layer_norm,
        (("m", 5, width), "float32"),
        ((width,), "float32"),
        ((width,), "float32"),
        at=[{"m": 1}, {"m": 3}],
        tolerance=5e-6,
    )


def test_layer_norm_of_a_residual_sum(check):
    check(
        lambda b, x, y, s, t: op.nn.layer_norm(b.emit(op.add(x, y)), s, t, axes=[-1]),
        lambda x, y, s, t: layer_norm(x + y, s, t),
        (("m", 37), "float32"),
        (("m", 37), "float32"),
        ((37,), "float32"),
        ((37,), "float32"),
        at=[{"m": 1}, {"m": 7}],
        tolerance=5e-6,
    )


def test_rms_norm(check):
    check(
        lambda b, x, s: op.nn.rms_norm(x, s, axes=[-1], epsilon=1e-5),
        lambda x, s: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * s,
        (("m", 37), "float32"),
        ((37,), "float32"),
        at=[{"m": 1}, {"m": 7}],
        tolerance=5e-6,
    )


def test_deviation(check):
    check(lambda b, x: op.std(x, axis=[-1]), lambda x: x.std(-1), ((4, 9, 37), "float32"), tolerance=5e-6)


def test_many_rows_are_shared_between_threads(check, scheduled):
    check(lambda b, x: op.nn.softmax(x), softmax, ((500, 130), "float32"))
    script = scheduled(lambda b, x: op.nn.softmax(x), ((500, 130), "float32"))
    assert "T.parallel" in script


def test_softmax_needs_no_workspace(scheduled):
    """The output holds the exponentials until they are divided."""
    script = scheduled(lambda b, x: op.nn.softmax(x), ((500, 130), "float32"))
    sizes = [int(line.split("((")[1].split(",")[0].split("(")[-1].rstrip(")")) for line in
             script.splitlines() if "alloc_buffer" in line]  # fmt: skip
    assert max(sizes) <= 64


def test_softmax_is_vectorized(kernels):
    source = kernels(lambda b, x: op.nn.softmax(x), ((16, 128), "float32")).source("asm")
    for instruction in ("vfmadd", "vmaxps", "vmulps", "vaddps"):
        assert instruction in source
    assert "%ymm" in source
    assert "AllocWorkspace" not in source
