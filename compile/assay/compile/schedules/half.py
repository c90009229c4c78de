"""float16 and bfloat16 in memory as float32 in registers."""

from __future__ import annotations

from tvm import tirx

from assay.compile.schedules.ir import Expr, constant, vector_dtype

__all__ = ["widened", "widened_bits"]

# 2^112: what the exponent of a float16 lacks in that of a float32 with the same bits.
_REBIAS = 2.0**112


def widened(bits: Expr, dtype: str, lanes: int, *, f16c: bool) -> Expr:
    """``lanes`` uint16 that are the bits of ``dtype`` (float16 or bfloat16) as float32, exactly.

    ``f16c``: whether the CPU converts float16. If not, its infinities and NaN become finite numbers, of 65536
    and more.
    """
    if dtype == "float16" and f16c:
        half = tirx.reinterpret(vector_dtype("float16", lanes), bits)
        return tirx.Cast(vector_dtype("float32", lanes), half)
    return _widened(bits, dtype, lanes)


def widened_bits(value: Expr, dtype: str) -> Expr:
    """One float16 or bfloat16 as float32 in integer arithmetic and one multiplication, for any CPU."""
    return _widened(tirx.reinterpret("uint16", value), dtype, 1)


def _widened(bits: Expr, dtype: str, lanes: int) -> Expr:
    def every(value: float, kind: str) -> Expr:
        return constant(value, kind, lanes)

    def typed(kind: str) -> str:
        return vector_dtype(kind, lanes)

    wide = tirx.Cast(typed("uint32"), bits)
    if dtype == "bfloat16":
        return tirx.reinterpret(typed("float32"), wide << every(16, "uint32"))
    magnitude = (wide & every(0x7FFF, "uint32")) << every(13, "uint32")
    sign = (wide & every(0x8000, "uint32")) << every(16, "uint32")
    scaled = tirx.reinterpret(typed("float32"), magnitude) * every(_REBIAS, "float32")
    return tirx.reinterpret(typed("float32"), tirx.reinterpret(typed("uint32"), scaled) | sign)
