"""Elements of float16 and int8 as float32 and back, in vectors."""

from __future__ import annotations

from tvm import tirx

from assay.compile.schedules import half
from assay.compile.schedules.ir import Buffer, Expr, broadcast, const_like, lanes_at, load
from assay.compile.schedules.requantize import round_to_even
from assay.compile.targets.target import VectorUnit

__all__ = ["LARGEST_FLOAT16", "LARGEST_INT8", "narrowed", "widened"]

LARGEST_FLOAT16 = 65504.0
LARGEST_INT8 = 127.0

# Adding this to a magnitude below the least normal float16 leaves the rounded denormal in the low bits.
_DENORMAL = 0.5
_LEAST_NORMAL = 2.0**-14


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _all(value: float, dtype: str, lanes: int) -> Expr:
    return broadcast(const_like(value, dtype), lanes)


def widened(buffer: Buffer, at: Expr, lanes: int, unit: VectorUnit) -> Expr:
    """``lanes`` consecutive elements of a flat buffer of float32, float16 or int8, as float32."""
    value = load(buffer, lanes_at(at, lanes))
    dtype = str(buffer.ty.dtype)
    if dtype == "float32":
        return value
    if dtype == "float16" and not unit.f16c:
        return half.widened(tirx.reinterpret(_typed("uint16", lanes), value), dtype, lanes, f16c=False)
    return tirx.Cast(_typed("float32", lanes), value)


def narrowed(value: Expr, dtype: str, lanes: int, unit: VectorUnit) -> Expr:
    """float32 as ``dtype``, rounded to the nearest, ties to even.

    What float16 cannot hold becomes its largest number. int8 is of a value that is within its limits.
    """
    if dtype == "float32":
        return value
    if dtype == "int8":
        return tirx.Cast(_typed("int8", lanes), _rounded(value, lanes))
    limit = _all(LARGEST_FLOAT16, "float32", lanes)
    bounded = tirx.max(tirx.min(value, limit), _all(-LARGEST_FLOAT16, "float32", lanes))
    if unit.f16c:
        return tirx.Cast(_typed("float16", lanes), bounded)
    return _narrow_bits(bounded, lanes)


def _rounded(value: Expr, lanes: int) -> Expr:
    if lanes == 1:
        return round_to_even(value)
    magic = 12582912.0
    bits = tirx.reinterpret(_typed("int32", lanes), value + _all(magic, "float32", lanes))
    return bits - _all(0x4B400000, "int32", lanes)


def _narrow_bits(value: Expr, lanes: int) -> Expr:
    """A float32 within the limits of float16 as that, in integer arithmetic."""

    def const(number: int) -> Expr:
        return _all(number, "int32", lanes)

    bits = tirx.reinterpret(_typed("int32", lanes), value)
    magnitude = bits & const(0x7FFFFFFF)
    sign = (bits >> const(16)) & const(0x8000)
    number = tirx.reinterpret(_typed("float32", lanes), magnitude)
    # Half of the last place that stays, less one where the result is even already.
    odd = (magnitude >> const(13)) & const(1)
    normal = (magnitude + const(0x0FFF - (112 << 23)) + odd) >> const(13)
    shifted = number + _all(_DENORMAL, "float32", lanes)
    denormal = tirx.reinterpret(_typed("int32", lanes), shifted) - const(0x3F000000)
    chosen = tirx.Select(number < _all(_LEAST_NORMAL, "float32", lanes), denormal, normal)
    return tirx.reinterpret(_typed("float16", lanes), tirx.Cast(_typed("uint16", lanes), chosen | sign))
