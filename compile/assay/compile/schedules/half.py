"""float16 and bfloat16 in memory as float32 in registers."""

from __future__ import annotations

from tvm import tirx

from assay.compile.schedules.ir import Expr, broadcast, const_like
from assay.compile.targets.target import VectorUnit

__all__ = ["has_half", "widened"]

# 2^112: what the exponent of a float16 lacks in that of a float32 with the same bits.
_REBIAS = 2.0**112


def has_half(unit: VectorUnit) -> bool:
    """Whether the CPU converts float16 (F16C, which every CPU with AVX2 has)."""
    return unit.f16c


def widened(bits: Expr, dtype: str, lanes: int, unit: VectorUnit) -> Expr:
    """``lanes`` uint16 that are the bits of ``dtype`` (float16 or bfloat16) as float32, exactly.

    Where there is no instruction for it, infinities and NaN of float16 become finite numbers of 65536 and more.
    """

    def every(value: float, kind: str) -> Expr:
        return broadcast(const_like(value, kind), lanes)

    def typed(kind: str) -> str:
        return kind if lanes == 1 else f"{kind}x{lanes}"

    if dtype == "float16" and has_half(unit):
        return tirx.Cast(typed("float32"), tirx.reinterpret(typed("float16"), bits))
    wide = tirx.Cast(typed("uint32"), bits)
    if dtype == "bfloat16":
        return tirx.reinterpret(typed("float32"), wide << every(16, "uint32"))
    magnitude = (wide & every(0x7FFF, "uint32")) << every(13, "uint32")
    sign = (wide & every(0x8000, "uint32")) << every(16, "uint32")
    scaled = tirx.reinterpret(typed("float32"), magnitude) * every(_REBIAS, "float32")
    return tirx.reinterpret(typed("float32"), tirx.reinterpret(typed("uint32"), scaled) | sign)
