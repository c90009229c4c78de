"""Steps of integer contractions for ARM and RISC-V: see ``multiply_add.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.ir import Buffer, Expr, broadcast, const_like, load
from assay.compile.schedules.multiply_add import Integers, PairsOf16, intrinsic, same_bits, vector_type

__all__ = ["Long16", "QuadsOf8Mixed", "QuadsOf8Signed"]


@dataclass(frozen=True, kw_only=True)
class Long16(PairsOf16):
    """int16 x int16, one K a step, with 32-bit sums (``smlal``, RISC-V's ``vwmacc``): always exact."""

    depth: int = 1

    def left(self, a: Buffer, offset: Expr, lanes: int, count: int) -> Expr:
        """One element in every lane, widened."""
        return tirx.Cast(vector_type("int32", lanes), broadcast(load(a, offset), lanes))

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """total + sum of left * right."""
        for a, b in zip(left, right, strict=True):
            total = total + a * tirx.Cast(vector_type("int32", lanes), b)
        return total


@dataclass(frozen=True, kw_only=True)
class QuadsOf8Mixed(Integers):
    """uint8 x int8, four K a step, with 32-bit sums (Armv8.6 I8MM ``usdot``): always exact."""

    depth: int = 4

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """usdot(total, left, right)."""
        for a, b in zip(left, right, strict=True):
            quads = same_bits(a, vector_type("uint8", 4 * lanes))
            total = intrinsic("llvm.aarch64.neon.usdot", vector_type("int32", lanes), total, quads, b)
        return total


@dataclass(frozen=True, kw_only=True)
class QuadsOf8Signed(Integers):
    """int8 x int8, four K a step, with 32-bit sums (Armv8.4 ``sdot``), of A less 128.

    The caller adds 128 times the sums of B.
    """

    depth: int = 4
    shift: int = 128

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """sdot(total, left - 128, right): a byte's top bit the other way is the byte less 128."""
        # 0x80 in every byte, as a signed number.
        turned = broadcast(const_like(0x80808080 - (1 << 32), "int32"), lanes)
        for a, b in zip(left, right, strict=True):
            quads = same_bits(a ^ turned, vector_type("int8", 4 * lanes))
            total = intrinsic("llvm.aarch64.neon.sdot", vector_type("int32", lanes), total, quads, b)
        return total
