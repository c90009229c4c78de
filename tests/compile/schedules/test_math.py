"""Accuracy over all of float32, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from assay.compile.tvm_import import import_tvm

import_tvm()

from tvm import relax  # noqa: E402

op = relax.op

# Every exponent and both signs, denormals, the ranges that matter most, and every special value.
SAMPLE = np.concatenate(
    [
        np.arange(0, 2**32, 50021, dtype=np.uint64).astype(np.uint32).view(np.float32),
        np.linspace(-110, 110, 20001, dtype="float32"),
        np.linspace(-1, 1, 10001, dtype="float32"),
        np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 88.7228, 88.73, -87.3, -104], "float32"),
    ]
)
# exp flushes results below this to zero.
SMALLEST = 1.7e-38


def evaluate(kernels, build):
    (got,) = kernels(build, ((SAMPLE.size,), "float32"))(SAMPLE)
    with np.errstate(invalid="ignore"):  # signalling NaNs among the bit patterns
        return got.astype("float64")


def rounded(reference):
    with np.errstate(all="ignore"):
        exact = reference(SAMPLE.astype("float64"))
        return exact, exact.astype("float32")


def units_in_the_last_place(got, exact, result):
    """The error where the result is a normal number, in units of its last place."""
    with np.errstate(all="ignore"):
        normal = np.isfinite(result) & (np.abs(result) >= SMALLEST)
        spacing = np.spacing(np.abs(result[normal])).astype("float64")
        return np.abs(got[normal] - exact[normal]) / spacing


@pytest.mark.parametrize(
    ("build", "reference", "units"),
    [
        (op.exp, np.exp, 1.0),
        (op.log, np.log, 1.0),
        (op.tanh, np.tanh, 5.0),
        (op.sigmoid, special.expit, 2.5),
        (op.erf, special.erf, 6.0),
        (op.sinh, np.sinh, 5.0),
        (op.cosh, np.cosh, 4.0),
        (op.sqrt, np.sqrt, 0.5),
        (op.rsqrt, lambda x: 1 / np.sqrt(x), 1.5),
    ],
    ids=["exp", "log", "tanh", "sigmoid", "erf", "sinh", "cosh", "sqrt", "rsqrt"],
)
def test_accuracy(kernels, build, reference, units):
    got = evaluate(kernels, lambda b, x: build(x))
    exact, result = rounded(reference)
    assert units_in_the_last_place(got, exact, result).max() <= units
    unusual = ~np.isfinite(result) | (result == 0)
    np.testing.assert_array_equal(got[unusual], result[unusual])
    tiny = np.isfinite(result) & (np.abs(result) < SMALLEST)
    assert np.abs(got[tiny]).max(initial=0) <= 2 * SMALLEST


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 0.75, 1.5, 7.0, 1 / 3])
def test_constant_power(kernels, exponent):
    exponent = np.float32(exponent)
    got = evaluate(kernels, lambda b, x: op.power(x, relax.const(exponent)))
    exact, result = rounded(lambda x: np.power(x, exponent.astype("float64")))
    # An exponential of a logarithm loses what the logarithm's last place weighs, up to 88 * 2^-24.
    units = 5.0 if exponent * 4 == int(exponent * 4) else 50.0
    assert units_in_the_last_place(got, exact, result).max() <= units


@pytest.mark.parametrize("exponent", [2.0, 3.0, 7.0])
def test_whole_power_of_negative_base(kernels, exponent):
    x = np.array([-2.0, -0.5, 0.0, 3.0], "float32")
    (got,) = kernels(lambda b, x: op.power(x, relax.const(np.float32(exponent))), ((4,), "float32"))(x)
    np.testing.assert_allclose(got, x**exponent, rtol=1e-6)


def test_softplus(kernels):
    got = evaluate(kernels, lambda b, x: op.nn.softplus(x))
    exact, result = rounded(lambda x: np.logaddexp(0, x))
    usual = np.isfinite(result)
    np.testing.assert_allclose(got[usual], exact[usual], rtol=1e-6, atol=1e-6)


def test_gelu(kernels):
    got = evaluate(kernels, lambda b, x: op.nn.gelu(x))
    exact, result = rounded(lambda x: x * 0.5 * special.erfc(-x / np.sqrt(2)))
    usual = np.isfinite(result)
    np.testing.assert_allclose(got[usual], exact[usual], rtol=1e-6, atol=2e-6)


def test_no_library_call_is_left(kernels):
    source = kernels(
        lambda b, x: op.erf(b.emit(op.log(b.emit(op.tanh(b.emit(op.exp(x))))))), ((64,), "float32")
    ).source("asm")
    for name in ("expf", "tanhf", "logf", "erff"):
        assert name not in source
    assert "vfmadd" in source
