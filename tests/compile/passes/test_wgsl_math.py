"""What stands for C's functions in WGSL: evaluated on the CPU, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm
from tvm import te, tirx

from assay.compile.passes.wgsl_math import finish_wgsl, legalize_wgsl

Values = npt.NDArray[np.float32]
SAMPLES = np.array(
    [-90.0, -3.5, -2.5, -1.0, -0.5, -1e-3, 0.0, 1e-6, 1e-3, 0.2, 0.3, 0.5, 1.0, 1.5, 3.0, 17.0], np.float32
)
SPECIAL = np.array([np.inf, -np.inf, np.nan, 3.4028235e38, 1e-40, -0.0, 1.0, 2.0], np.float32)
# Operators that must be gone: WGSL has no function for them, or one with another domain.
GONE = ("isnan", "isinf", "isfinite", "log1p", "log10", "exp10", "atanh", "fmod")


def evaluated(function: Callable[[Any], Any], x: Values, dtype: str = "float32") -> npt.NDArray[Any]:
    """``function`` of each of ``x``, as WGSL would compute it, compiled for this machine."""
    source = te.placeholder(x.shape, "float32", "x")
    target = te.compute(x.shape, lambda i: function(source[i]), "y")
    module = tvm.IRModule({"main": te.create_prim_func([source, target]).with_attr("global_symbol", "main")})
    module = legalize_wgsl(module)
    assert not [name for name in GONE if f"{name}(" in str(module)]
    result = tvm.runtime.tensor(np.zeros(x.shape, dtype))
    tvm.tirx.build(module, target="llvm")["main"](tvm.runtime.tensor(x), result)
    found: npt.NDArray[Any] = result.numpy()
    return found


def power(exponent: float) -> Callable[[Any], Any]:
    return lambda x: tirx.power(x, tirx.const(exponent, "float32"))


@pytest.mark.parametrize("exponent", [2.0, -2.0, 0.5, 1.3, 7.0, 13.0, -3.0, 0.0])
def test_powers_of_negative_numbers(exponent: float) -> None:
    with np.errstate(all="ignore"):
        expected = np.power(SAMPLES.astype(np.float64), exponent).astype(np.float32)
    np.testing.assert_allclose(evaluated(power(exponent), SAMPLES), expected, rtol=2e-6)


def test_a_power_of_two_numbers() -> None:
    expected = np.power(SAMPLES.astype(np.float64), np.floor(SAMPLES)).astype(np.float32)
    with np.errstate(all="ignore"):
        found = evaluated(lambda x: tirx.power(x, tirx.floor(x)), SAMPLES)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("function", "reference", "low"),
    [
        (tirx.log1p, np.log1p, -0.9),
        (tirx.log10, np.log10, 1e-6),
        (tirx.atanh, np.arctanh, -0.9),
        (tirx.exp10, lambda x: 10.0**x, -30.0),
        (lambda x: tirx.fmod(x, tirx.const(0.7, "float32")), lambda x: np.fmod(x, np.float32(0.7)), -9.0),
    ],
)
def test_functions_that_wgsl_lacks(function: Any, reference: Any, low: float) -> None:
    x = SAMPLES[(low <= SAMPLES) & (SAMPLES < 0.9)]
    expected = reference(x.astype(np.float64))
    np.testing.assert_allclose(evaluated(function, x), expected, rtol=3e-6, atol=1e-6 if low == -9.0 else 0)


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite"])
def test_numbers_that_are_not_finite_are_told_by_their_bits(name: str) -> None:
    found = evaluated(lambda x: tirx.Cast("int32", getattr(tirx, name)(x)), SPECIAL, "int32")
    np.testing.assert_array_equal(found.astype(bool), getattr(np, name)(SPECIAL))


def test_constants_of_more_than_seven_digits_keep_them() -> None:
    value = np.float32(16777217.0 / 3)
    function = te.compute((4,), lambda i: tirx.const(float(value), "float32") + i, "y")
    module = legalize_wgsl(tvm.IRModule({"main": te.create_prim_func([function])}))
    assert f"{value.view(np.uint32)}" in str(module)


def test_where_a_reduction_starts_stays_what_tvm_knows() -> None:
    x = te.placeholder((4, 9), "float32", "x")
    k = te.reduce_axis((0, 9), "k")
    largest = te.compute((4,), lambda i: te.max(x[i, k], k), "largest")
    assert "reinterpret" not in str(legalize_wgsl(tvm.IRModule({"main": te.create_prim_func([x, largest])})))


def test_parameters_have_names_of_wgsl() -> None:
    x = te.placeholder((4,), "float32", "gpu_0/data.ä")
    y = te.compute((4,), lambda i: x[i] + x[3 - i], "y")
    module = legalize_wgsl(tvm.IRModule({"main": te.create_prim_func([x, y])}))
    assert [p.name for p in module["main"].params] == ["gpu_0_data__", "y"]
    assert "gpu_0/" not in str(module)
    x = SAMPLES[:4]
    result = tvm.runtime.tensor(np.zeros(4, np.float32))
    named = module["main"].with_attr("global_symbol", "main")
    compiled = tvm.tirx.build(tvm.IRModule({"main": named}), target="llvm")
    compiled["main"](tvm.runtime.tensor(x), result)
    np.testing.assert_array_equal(result.numpy(), x + x[::-1])


def test_a_short_constant_stays_a_number() -> None:
    function = te.compute((4,), lambda i: tirx.const(0.1, "float32") + i, "y")
    assert "reinterpret" not in str(legalize_wgsl(tvm.IRModule({"main": te.create_prim_func([function])})))


def test_infinity_has_a_function_behind_the_directives() -> None:
    source = "enable f16;\nfn main() { x[0i] = select(nanf, -inff, x[1i] < inff); }\n"
    mended = finish_wgsl(source)
    assert mended.startswith("enable f16;\nfn positive_infinity()")
    assert "select(not_a_number(), -positive_infinity(), x[1i] < positive_infinity())" in mended


def test_a_source_without_infinity_stays() -> None:
    source = "fn info() -> f32 { return 1.0f; }"
    assert finish_wgsl(source) is source
