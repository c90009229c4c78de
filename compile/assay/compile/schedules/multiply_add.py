"""One step of a contraction: how a few K of A and B become products added to an accumulator.

The micro-kernel is the same for all of them. A form says how many consecutive K one step takes, what the
accumulators hold, and how B is packed for it: panels ``[ceil(K / depth), NR, depth]``, zeros beyond K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tvm import tirx

from assay.compile.schedules.half import widened
from assay.compile.schedules.ir import Buffer, Expr, broadcast, const_like, lanes_at, load
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = [
    "FLOAT32",
    "Float32",
    "Integers",
    "MultiplyAdd",
    "PairsOf16",
    "PairsOf16Simd128",
    "PairsOf16Widened",
    "QuadsOf8",
    "QuadsOf8Saturating",
    "QuadsOf8Widened",
    "element_bytes",
    "form_name",
    "form_named",
    "integer_form",
    "intrinsic",
    "same_bits",
    "stored_form",
    "unit_for",
    "vector_type",
]


def element_bytes(buffer: Buffer) -> int:
    """Bytes of one element of a buffer."""
    return int("".join(c for c in str(buffer.ty.dtype) if c.isdigit()) or 8) // 8


class MultiplyAdd(Protocol):
    """A form of the step."""

    @property
    def depth(self) -> int:
        """Consecutive K of one vector."""
        ...

    @property
    def accumulator(self) -> str:
        """The dtype of a sum."""
        ...

    @property
    def registers(self) -> int:
        """Registers that it needs beside the accumulators, a row of B and an element of A."""
        ...

    def left(self, a: Buffer, offset: Expr, lanes: int, count: int) -> Expr:
        """``count`` elements of A (at most ``depth``) from ``offset``, for each of ``lanes`` columns."""
        ...

    def right(self, b: Buffer, offset: Expr, lanes: int) -> Expr:
        """``depth`` elements of B for each of ``lanes`` columns, packed from ``offset``."""
        ...

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """``total`` plus the products of each pair of vectors."""
        ...


@dataclass(frozen=True, kw_only=True)
class Float32:
    """Fused multiply-add of float32."""

    depth: int = 1
    accumulator: str = "float32"
    registers: int = 0

    def left(self, a: Buffer, offset: Expr, lanes: int, count: int) -> Expr:
        """One element in every lane."""
        return broadcast(load(a, offset), lanes)

    def right(self, b: Buffer, offset: Expr, lanes: int) -> Expr:
        """One row of the panel."""
        return load(b, lanes_at(offset, lanes))

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """total + sum of left * right."""
        for a, b in zip(left, right, strict=True):
            total = total + a * b
        return total


FLOAT32 = Float32()


@dataclass(frozen=True, kw_only=True)
class _Stored(Float32):
    """Float32 arithmetic on panels of 16 bits, which lie in memory as uint16."""

    dtype: str
    f16c: bool = False
    # The rows of B, which are no longer memory operands.
    registers: int = 1

    def right(self, b: Buffer, offset: Expr, lanes: int) -> Expr:
        """One row of the panel, widened."""
        return widened(load(b, lanes_at(offset, lanes)), self.dtype, lanes, f16c=self.f16c)


@dataclass(frozen=True, kw_only=True)
class StoredFloat16(_Stored):
    """float16, which the CPU converts."""

    dtype: str = "float16"
    f16c: bool = True


@dataclass(frozen=True, kw_only=True)
class StoredFloat16Widened(_Stored):
    """float16 in integer arithmetic."""

    dtype: str = "float16"


@dataclass(frozen=True, kw_only=True)
class StoredBFloat16(_Stored):
    """bfloat16."""

    dtype: str = "bfloat16"


def stored_form(unit: VectorUnit, dtype: str) -> MultiplyAdd:
    """The form for B that is stored as ``dtype``, float16 or bfloat16."""
    if dtype == "bfloat16":
        return StoredBFloat16()
    return StoredFloat16() if unit.f16c else StoredFloat16Widened()


def same_bits(values: Expr, dtype: str) -> Expr:
    """The same bits as another type."""
    return tirx.reinterpret(dtype, values)


def _packed_left(a: Buffer, offset: Expr, count: int, depth: int) -> Expr:
    """``count`` neighbours of A as one int32, zeros above: what lies behind them may not be A's to read."""
    bits = 8 * element_bytes(a)
    if count == depth:
        return same_bits(load(a, lanes_at(offset, depth)), "int32")
    total: Expr = None
    for position in range(count):
        element = tirx.Cast("int32", same_bits(load(a, offset + position), f"uint{bits}"))
        if position:
            element = element << const_like(bits * position, "int32")
        total = element if total is None else total | element
    return total


def vector_type(dtype: str, lanes: int) -> str:
    """TVM's name of a vector."""
    return f"{dtype}x{lanes}"


def intrinsic(name: str, dtype: str, *arguments: Expr) -> Expr:
    """An instruction by LLVM's name of it."""
    return tirx.call_llvm_pure_intrin(dtype, name, *arguments)


# LLVM's names of the instructions by the bits of a vector.
_MADDWD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
_MADDUBSW = {
    128: "llvm.x86.ssse3.pmadd.ub.sw.128",
    256: "llvm.x86.avx2.pmadd.ub.sw",
    512: "llvm.x86.avx512.pmaddubs.w.512",
}
_DPBUSD = {
    128: "llvm.x86.avx512.vpdpbusd.128",
    256: "llvm.x86.avx512.vpdpbusd.256",
    512: "llvm.x86.avx512.vpdpbusd.512",
}


@dataclass(frozen=True, kw_only=True)
class Integers:
    """What the integer forms share: A's neighbours travel as one int32.

    ``shift``: what the form takes off every element of A; the caller corrects the sums for it.
    """

    depth: int
    accumulator: str = "int32"
    registers: int = 1
    shift: int = 0

    def left(self, a: Buffer, offset: Expr, lanes: int, count: int) -> Expr:
        """``count`` neighbours of A in the bits of each int32 lane."""
        return broadcast(_packed_left(a, offset, count, self.depth), lanes)

    def right(self, b: Buffer, offset: Expr, lanes: int) -> Expr:
        """The packed columns of B, as they lie in the panel."""
        return load(b, lanes_at(offset, lanes * self.depth))


@dataclass(frozen=True, kw_only=True)
class PairsOf16(Integers):
    """int16 x int16, two K a step (``pmaddwd``): exact for every operand but -32768 in all four places."""

    depth: int = 2

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """total + pmaddwd of each pair."""
        for a, b in zip(left, right, strict=True):
            wide = same_bits(a, vector_type("int16", 2 * lanes))
            total = total + intrinsic(_MADDWD[32 * lanes], vector_type("int32", lanes), wide, b)
        return total


@dataclass(frozen=True, kw_only=True)
class QuadsOf8Saturating(Integers):
    """uint8 x int8, four K a vector (``pmaddubsw``), whose 16-bit sums of two products saturate.

    Several vectors are added in 16 bits before they are widened. The caller proves that no such sum leaves
    16 bits, whatever A is.
    """

    depth: int = 4
    # The ones, two more rows of B and a sum under way.
    registers: int = 5

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """total + pmaddwd(sum of pmaddubsw, 1)."""
        half = vector_type("int16", 2 * lanes)
        sums = [
            intrinsic(_MADDUBSW[32 * lanes], half, same_bits(a, vector_type("uint8", 4 * lanes)), b)
            for a, b in zip(left, right, strict=True)
        ]
        ones = broadcast(const_like(1, "int16"), 2 * lanes)
        together = reduce(lambda x, y: x + y, sums)
        return total + intrinsic(_MADDWD[32 * lanes], vector_type("int32", lanes), together, ones)


@dataclass(frozen=True, kw_only=True)
class QuadsOf8(Integers):
    """uint8 x int8, four K a step, with 32-bit sums (AVX-512 VNNI ``vpdpbusd``): always exact."""

    depth: int = 4

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """vpdpbusd(total, left, right)."""
        for a, b in zip(left, right, strict=True):
            quads = same_bits(a, vector_type("uint8", 4 * lanes))
            total = intrinsic(_DPBUSD[32 * lanes], vector_type("int32", lanes), total, quads, b)
        return total


@dataclass(frozen=True, kw_only=True)
class QuadsOf8Widened(Integers):
    """``QuadsOf8`` in plain arithmetic, for a machine without the instruction: same panels, same results."""

    depth: int = 4

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """Each quarter of the lanes' bytes widened, multiplied and added."""
        wide = vector_type("int32", lanes)
        low = broadcast(const_like(255, "int32"), lanes)
        for a, b in zip(left, right, strict=True):
            words = same_bits(b, wide)
            for position in range(self.depth):
                shift = broadcast(const_like(8 * position, "int32"), lanes)
                above = broadcast(const_like(24 - 8 * position, "int32"), lanes)
                top = broadcast(const_like(24, "int32"), lanes)
                total = total + ((a >> shift) & low) * ((words << above) >> top)
        return total


@dataclass(frozen=True, kw_only=True)
class PairsOf16Widened(PairsOf16):
    """``PairsOf16`` in plain arithmetic, for a machine without the instruction: same panels, same results."""

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """Each half of the lanes widened, multiplied and added."""
        half = broadcast(const_like(16, "int32"), lanes)
        for a, b in zip(left, right, strict=True):
            words = same_bits(b, vector_type("int32", lanes))
            total = total + ((a << half) >> half) * ((words << half) >> half) + (a >> half) * (words >> half)
        return total


@dataclass(frozen=True, kw_only=True)
class PairsOf16Simd128(PairsOf16):
    """``PairsOf16`` by WebAssembly's ``i32x4.dot_i16x8_s``."""

    def add(self, total: Expr, left: Sequence[Expr], right: Sequence[Expr], lanes: int) -> Expr:
        """total + dot_i16x8 of each pair."""
        for a, b in zip(left, right, strict=True):
            wide = same_bits(a, vector_type("int16", 2 * lanes))
            total = total + intrinsic("llvm.wasm.dot", vector_type("int32", lanes), wide, b)
        return total


@cache
def _forms() -> Mapping[str, MultiplyAdd]:
    from assay.compile.schedules.multiply_add_arm import Long16, QuadsOf8Mixed, QuadsOf8Signed

    forms: tuple[MultiplyAdd, ...] = (
        FLOAT32, PairsOf16(), PairsOf16Simd128(), PairsOf16Widened(), Long16(), QuadsOf8Saturating(),
        QuadsOf8(), QuadsOf8Mixed(), QuadsOf8Signed(), QuadsOf8Widened(), StoredFloat16(),
        StoredFloat16Widened(), StoredBFloat16(),
    )  # fmt: skip
    return {form_name(form): form for form in forms}


def form_name(form: MultiplyAdd) -> str:
    """What stands for a form in the annotations of a block."""
    return form.__class__.__name__


def form_named(name: object) -> MultiplyAdd:
    """The form of an annotation; float32 where there is none."""
    return FLOAT32 if name is None else _forms()[str(name)]


def unit_for(form: MultiplyAdd, unit: VectorUnit) -> VectorUnit:
    """The unit with the registers that the form leaves for a tile."""
    return replace(unit, registers=unit.registers - form.registers)


def integer_form(unit: VectorUnit, weights: npt.NDArray[Any]) -> MultiplyAdd:
    """The form for B ``[..., K]`` (K in the order in which it is walked), any uint8 A, and this machine.

    Weights that are not int8, or that could saturate, are multiplied in 16 bits.
    """
    if unit.dot in (DotProduct.LONG, DotProduct.SDOT, DotProduct.USDOT):
        return _arm_form(unit, weights)
    if unit.dot is DotProduct.PAIRS:
        return PairsOf16Simd128()
    widened = unit.dot in (DotProduct.WIDENED, DotProduct.TILES)
    if weights.dtype != np.int8:
        return PairsOf16Widened() if widened else PairsOf16()
    if unit.dot in (DotProduct.VNNI, DotProduct.AMX):
        return QuadsOf8()
    if widened:
        return QuadsOf8Widened()
    return QuadsOf8Saturating() if _pairs_fit(weights) else PairsOf16()


def _arm_form(unit: VectorUnit, weights: npt.NDArray[Any]) -> MultiplyAdd:
    from assay.compile.schedules.multiply_add_arm import Long16, QuadsOf8Mixed, QuadsOf8Signed

    if weights.dtype != np.int8 or unit.dot is DotProduct.LONG:
        return Long16()
    return QuadsOf8Mixed() if unit.dot is DotProduct.USDOT else QuadsOf8Signed()


def _pairs_fit(weights: npt.NDArray[Any]) -> bool:
    """Whether 255 times the weights of any two neighbouring K, of one sign, stays within 16 bits.

    Where a run starts is up to the caller: both ways to pair neighbours are tested.
    """
    positive, negative = np.maximum(weights, 0).astype(np.int32), np.minimum(weights, 0).astype(np.int32)
    sums = [part[..., :-1] + part[..., 1:] for part in (positive, negative)]
    largest = max(int(part.max(initial=0)) for part in (positive, sums[0]))
    smallest = min(int(part.min(initial=0)) for part in (negative, sums[1]))
    return 255 * largest <= 32767 and 255 * smallest >= -32768
