"""Elements of float16 and int8 as float32 and back, in vectors."""

from __future__ import annotations

from tvm import tirx

from assay.compile.schedules import half
from assay.compile.schedules.ir import Buffer, Expr, constant, lanes_at, load, vector_dtype
from assay.compile.schedules.requantize import round_to_even
from assay.compile.targets.target import VectorUnit

__all__ = ["LARGEST_FLOAT16", "LARGEST_INT8", "narrowed", "widened"]

LARGEST_FLOAT16 = 65504.0
LARGEST_INT8 = 127.0

# Adding this to a magnitude below the least normal float16 leaves the rounded denormal in the low bits.
_DENORMAL = 0.5
_LEAST_NORMAL = 2.0**-14


def widened(buffer: Buffer, at: Expr, lanes: int, unit: VectorUnit) -> Expr:
    """``lanes`` consecutive elements of a flat buffer of float32, float16 or int8, as float32."""
    value = load(buffer, lanes_at(at, lanes))
    dtype = str(buffer.ty.dtype)
    if dtype == "float32":
        return value
    if dtype == "float16" and not unit.f16c:
        return half.widened(tirx.reinterpret(vector_dtype("uint16", lanes), value), dtype, lanes, f16c=False)
    return tirx.Cast(vector_dtype("float32", lanes), value)


def narrowed(value: Expr, dtype: str, lanes: int, unit: VectorUnit) -> Expr:
    """float32 as ``dtype``, rounded to the nearest, ties to even.

    What float16 cannot hold becomes its largest number. int8 is of a value that is within its limits.
    """
    if dtype == "float32":
        return value
    if dtype == "int8":
        return tirx.Cast(vector_dtype("int8", lanes), _rounded(value, lanes))
    limit = constant(LARGEST_FLOAT16, "float32", lanes)
    bounded = tirx.max(tirx.min(value, limit), constant(-LARGEST_FLOAT16, "float32", lanes))
    if unit.f16c:
        return tirx.Cast(vector_dtype("float16", lanes), bounded)
    return _narrow_bits(bounded, lanes)


def _rounded(value: Expr, lanes: int) -> Expr:
    if lanes == 1:
        return round_to_even(value)
    magic = 12582912.0
    bits = tirx.reinterpret(vector_dtype("int32", lanes), value + constant(magic, "float32", lanes))
    return bits - constant(0x4B400000, "int32", lanes)


def _narrow_bits(value: Expr, lanes: int) -> Expr:
    """A float32 within the limits of float16 as that, in integer arithmetic."""

    def const(number: int) -> Expr:
        return constant(number, "int32", lanes)

    bits = tirx.reinterpret(vector_dtype("int32", lanes), value)
    magnitude = bits & const(0x7FFFFFFF)
    sign = (bits >> const(16)) & const(0x8000)
    number = tirx.reinterpret(vector_dtype("float32", lanes), magnitude)
    # Half of the last place that stays, less one where the result is even already.
    odd = (magnitude >> const(13)) & const(1)
    normal = (magnitude + const(0x0FFF - (112 << 23)) + odd) >> const(13)
    shifted = number + constant(_DENORMAL, "float32", lanes)
    denormal = tirx.reinterpret(vector_dtype("int32", lanes), shifted) - const(0x3F000000)
    chosen = tirx.Select(number < constant(_LEAST_NORMAL, "float32", lanes), denormal, normal)
    return tirx.reinterpret(
        vector_dtype("float16", lanes), tirx.Cast(vector_dtype("uint16", lanes), chosen | sign)
    )
