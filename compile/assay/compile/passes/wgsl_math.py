"""What WGSL computes otherwise than C, or not at all, in operators that it has; and its sources, mended.

Accuracy and domains of WGSL's functions: https://www.w3.org/TR/WGSL/#floating-point-accuracy
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from assay.compile.passes.tir_rewrite import FunctionRewriter
from assay.compile.schedules.ir import Buffer, Expr, rewrite

__all__ = ["finish_wgsl", "legalize_wgsl", "legalized"]

_LARGEST_PRODUCT = 8  # the largest exponent that becomes a product
_LARGEST = 3.402823e38  # of float32, as TVM writes it
_NOT_FINITE = 0x7F800000  # the bits of infinity; those of NaN are above
_HELPERS = """\
fn positive_infinity() -> f32 { var bits = 0x7f800000u; return bitcast<f32>(bits); }
fn not_a_number() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }
"""


def finish_wgsl(source: str) -> str:
    """TVM's WGSL with infinity and NaN, of which WGSL has no literals, as functions that it cannot fold."""
    mended = re.sub(r"\binff\b", "positive_infinity()", source)
    mended = re.sub(r"\bnanf\b", "not_a_number()", mended)
    if mended == source:
        return source
    # Directives, such as `enable f16;`, stand before everything else.
    directives = re.findall(r"^(?:enable|requires|diagnostic)\b.*?;\n", mended, flags=re.MULTILINE)
    for each in directives:
        mended = mended.replace(each, "", 1)
    return "".join(directives) + _HELPERS + mended


def legalize_wgsl(module: Any) -> Any:
    """``module`` whose kernels use only functions that WGSL has, in their domains."""
    fresh = {
        variable: function
        if isinstance(function, relax.Function)
        else _Math().rewrite(function, _renamed(function))
        for variable, function in module.functions_items()
    }
    return tvm.IRModule(fresh, attrs=module.attrs)


def _renamed(function: Any) -> dict[Buffer, Buffer]:
    """Parameters whose names, the model's own, are none of WGSL, under others."""
    return {
        parameter: tirx.decl_buffer(
            list(parameter.ty.shape),
            str(parameter.ty.dtype),
            name=re.sub(r"\W", "_", parameter.name, flags=re.ASCII),
        )
        for parameter in function.params
        if hasattr(parameter.ty, "shape") and re.search(r"\W", parameter.name, flags=re.ASCII)
    }


class _Math(FunctionRewriter):
    """Rewrites the values of one function, and its loads from buffers of other names."""

    def value(self, expr: Expr) -> Expr:
        return rewrite(expr, self._replaced)

    def index(self, expr: Expr) -> Expr:
        return self.value(expr)

    def _replaced(self, expr: Expr) -> Expr | None:
        if isinstance(expr, tvm.ir.TensorLoad) and expr.source in self.buffers:
            return tirx.BufferLoad(self.buffers[expr.source], list(expr.indices))
        return legalized(expr)


def legalized(expr: Expr) -> Expr | None:
    """What stands for ``expr`` in WGSL, its operands done; None where it may stay."""
    if isinstance(expr, tirx.FloatImm):
        return _literal(expr)
    if isinstance(expr, tirx.Mod) and _is_float(expr.a):
        return _fmod(expr.a, expr.b)
    if isinstance(expr, tvm.ir.Call):
        build = _FUNCTIONS.get(getattr(expr.op, "name", ""))
        return None if build is None else build(*expr.args)
    return None


def _literal(expr: Expr) -> Expr | None:
    """A number whose seven digits, which TVM writes, are not enough, by its bits."""
    value, dtype = float(expr.value), str(expr.ty.dtype)
    if dtype == "float16" and not math.isfinite(value):
        return tirx.Cast("float16", tirx.FloatImm("float32", value))
    if dtype != "float32" or not math.isfinite(value):
        return None
    # The largest numbers are where reductions start, which TVM knows by them; seven digits do for that.
    if abs(value) >= _LARGEST:
        return None
    bits = struct.pack("<f", value)
    if struct.pack("<f", float(f"{value:.6e}")) == bits:
        return None
    return tirx.reinterpret("float32", tirx.const(int.from_bytes(bits, "little"), "uint32"))


def _is_float(expr: Expr) -> bool:
    return str(expr.ty.dtype).startswith("float")


def _number(value: float, like: Expr) -> Expr:
    return tirx.const(value, str(like.ty.dtype))


def _magnitude(x: Expr) -> Expr:
    """The bits of a float32 but its sign: drivers may assume that no number is NaN or infinite."""
    single = x if str(x.ty.dtype) == "float32" else tirx.Cast("float32", x)
    return tirx.bitwise_and(tirx.reinterpret("int32", single), tirx.const(0x7FFFFFFF, "int32"))


def _is_nan(x: Expr) -> Expr:
    return tirx.GT(_magnitude(x), tirx.const(_NOT_FINITE, "int32"))


def _is_inf(x: Expr) -> Expr:
    return tirx.EQ(_magnitude(x), tirx.const(_NOT_FINITE, "int32"))


def _is_finite(x: Expr) -> Expr:
    return tirx.LT(_magnitude(x), tirx.const(_NOT_FINITE, "int32"))


def _log1p(x: Expr) -> Expr:
    """log(1 + x): near 0, where the sum loses digits of x, by the series of 2 artanh(x / (2 + x))."""
    one = _number(1.0, x)
    s = x / (x + _number(2.0, x))
    series = _number(1.0 / 11.0, x)
    for divisor in (9.0, 7.0, 5.0, 3.0, 1.0):
        series = _number(1.0 / divisor, x) + s * s * series
    near = tirx.LT(tirx.abs(x), _number(0.25, x))
    return tirx.Select(near, _number(2.0, x) * s * series, tirx.log(x + one))


def _power(x: Expr, y: Expr) -> Expr | None:
    """``x ** y``, which WGSL leaves open for negative ``x``."""
    if not _is_float(x):
        return None
    if isinstance(y, tirx.FloatImm):
        exponent = float(y.value)
        if exponent.is_integer() and 0 < abs(exponent) <= _LARGEST_PRODUCT:
            product = _product(x, int(abs(exponent)))
            return product if exponent > 0 else _number(1.0, x) / product
        if exponent == 0.5:
            return tirx.sqrt(x)
    one, zero, half = _number(1.0, x), _number(0.0, x), _number(0.5, x)
    size = tvm.ir.Call(tvm.ir.Op.get("tirx.pow"), [tirx.abs(x), y], ret_ty=x.ty)
    odd = tirx.NE(tirx.floor(y * half) * _number(2.0, x), y)
    signed = tirx.Select(odd, zero - size, size)
    whole = tirx.EQ(tirx.floor(y), y)
    negative = tirx.Select(whole, signed, _number(float("nan"), x))
    return tirx.Select(tirx.EQ(y, zero), one, tirx.Select(tirx.LT(x, zero), negative, size))


def _product(x: Expr, count: int) -> Expr:
    if count == 1:
        return x
    half = _product(x, count // 2)
    return half * half * x if count % 2 else half * half


def _fmod(x: Expr, y: Expr) -> Expr:
    return x - y * tirx.trunc(x / y)


def _atanh(x: Expr) -> Expr:
    return _number(0.5, x) * (_log1p(x) - _log1p(_number(0.0, x) - x))


_FUNCTIONS: Mapping[str, Callable[..., Expr | None]] = {
    "tirx.isnan": _is_nan,
    "tirx.isinf": _is_inf,
    "tirx.isfinite": _is_finite,
    "tirx.pow": _power,
    "tirx.log1p": _log1p,
    "tirx.log10": lambda x: tirx.log2(x) * _number(math.log10(2.0), x),
    "tirx.exp10": lambda x: tirx.exp2(x * _number(math.log2(10.0), x)),
    "tirx.atanh": _atanh,
    "tirx.fmod": _fmod,
}
