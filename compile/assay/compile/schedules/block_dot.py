"""Integer products of block-quantized weights and int8 activations: one form for each kind of CPU.

A vector has four consecutive K (a quad) for each of its columns, the weights as unsigned bytes, the
activations as the same four signed bytes in every lane. The sums of a span of at most 32 K are exact in
every form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from assay.compile.schedules.ir import Expr, broadcast, const_like
from assay.compile.schedules.multiply_add import _DPBUSD, _MADDUBSW, _MADDWD
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = ["BlockDot", "block_dot"]

_SIGN = {128: "llvm.x86.ssse3.psign.b.128", 256: "llvm.x86.avx2.psign.b"}


class BlockDot(Protocol):
    """A form of the product."""

    @property
    def bias(self) -> int:
        """What the form takes off every code."""
        ...

    @property
    def total(self) -> str:
        """The dtype of the sums of a span while they grow."""
        ...

    @property
    def total_lanes(self) -> int:
        """How many of them a vector of columns has."""
        ...

    def prepare(self, codes: Expr) -> Sequence[Expr]:
        """What of a vector of codes (uint8) serves all rows."""
        ...

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """``total`` (None: zero) plus the products with ``x``: int32 lanes, four activations each."""
        ...

    def sums(self, total: Expr) -> Expr:
        """int32 lanes of the sums of a span."""
        ...


def _plus(total: Expr | None, more: Expr) -> Expr:
    return more if total is None else total + more


@dataclass(frozen=True, kw_only=True)
class _Form:
    lanes: int
    bias: int = 0
    total: str = "int32"

    @property
    def _bits(self) -> int:
        return 32 * self.lanes

    @property
    def total_lanes(self) -> int:
        """Those of one register."""
        return self.lanes * (2 if self.total == "int16" else 1)

    def _typed(self, dtype: str) -> str:
        return f"{dtype}x{self._bits // int(''.join(c for c in dtype if c.isdigit()))}"

    def _as(self, value: Expr, dtype: str) -> Expr:
        return tirx.reinterpret(self._typed(dtype), value)

    def _every(self, value: int, dtype: str) -> Expr:
        return broadcast(
            const_like(value, dtype), self._bits // int("".join(c for c in dtype if c.isdigit()))
        )

    def _call(self, name: str, dtype: str, *arguments: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin(self._typed(dtype), name, *arguments)

    def _pairs(self, unsigned: Expr, signed: Expr) -> Expr:
        return self._call(_MADDUBSW[self._bits], "int16", unsigned, signed)

    def _widened(self, pairs: Expr) -> Expr:
        return self._call(_MADDWD[self._bits], "int32", pairs, self._every(1, "int16"))

    def prepare(self, codes: Expr) -> Sequence[Expr]:
        """The codes."""
        return (codes,)

    def sums(self, total: Expr) -> Expr:
        """The sums as they are."""
        return total


@dataclass(frozen=True, kw_only=True)
class Nibbles(_Form):
    """Codes of 4 bits: ``pmaddubsw``, sums of a span in 16 bits."""

    total: str = "int16"

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """total + pmaddubsw(weights, x), 16 bits."""
        return _plus(total, self._pairs(weights[0], self._as(x, "int8")))

    def sums(self, total: Expr) -> Expr:
        """pmaddwd(total, 1)."""
        return self._widened(total)


@dataclass(frozen=True, kw_only=True)
class Signs(_Form):
    """Codes of 8 bits less 128: ``pmaddubsw`` of magnitudes, the weights' signs given to the activations.

    Two products are at most 2 * 128 * 127, which is 32512.
    """

    bias: int = 128

    def prepare(self, codes: Expr) -> Sequence[Expr]:
        """The weights, and their magnitudes."""
        signed = self._as(codes ^ self._every(128, "uint8"), "int8")
        # LLVM knows this as the magnitude; TVM takes long to simplify a selection.
        magnitudes = tirx.max(signed, self._every(0, "int8") - signed)
        return signed, self._as(magnitudes, "uint8")

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """total + pmaddwd(pmaddubsw(|w|, sign(w) * x), 1)."""
        signed, magnitudes = weights
        wide = self._as(x, "int8")
        if self._bits in _SIGN:
            turned = self._call(_SIGN[self._bits], "int8", wide, signed)
        else:
            negative = signed >> self._every(7, "int8")
            turned = (wide ^ negative) - negative
        return _plus(total, self._widened(self._pairs(magnitudes, turned)))


@dataclass(frozen=True, kw_only=True)
class Quads(_Form):
    """``vpdpbusd`` (AVX-512 VNNI), for codes of 4 and of 8 bits."""

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """vpdpbusd(total, weights, x)."""
        start = self._every(0, "int32") if total is None else total
        return self._call(_DPBUSD[self._bits], "int32", start, weights[0], self._as(x, "int8"))


@dataclass(frozen=True, kw_only=True)
class SignedQuads(_Form):
    """``sdot`` (Armv8.4): codes of 4 bits as they are, those of 8 bits less 128."""

    def prepare(self, codes: Expr) -> Sequence[Expr]:
        """The codes as signed bytes."""
        return (self._as(codes ^ self._every(128, "uint8") if self.bias else codes, "int8"),)

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """sdot(total, weights, x)."""
        start = self._every(0, "int32") if total is None else total
        return self._call("llvm.aarch64.neon.sdot", "int32", start, weights[0], self._as(x, "int8"))


@dataclass(frozen=True, kw_only=True)
class Widened(_Form):
    """Plain arithmetic, for any CPU."""

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """Each quarter of the lanes' bytes widened, multiplied and added."""
        words, top = self._as(weights[0], "int32"), self._every(24, "int32")
        for position in range(4):
            shift, above = self._every(8 * position, "int32"), self._every(24 - 8 * position, "int32")
            product = ((words >> shift) & self._every(255, "int32")) * ((x << above) >> top)
            total = _plus(total, product)
        return total


@dataclass(frozen=True, kw_only=True)
class Pairs(_Form):
    """WebAssembly's ``i32x4.dot_i16x8_s`` of codes widened to 16 bits: two sums for each of four columns."""

    @property
    def total_lanes(self) -> int:
        """Two registers: those of the low columns and those of the high ones."""
        return 2 * self.lanes

    def prepare(self, codes: Expr) -> Sequence[Expr]:
        """The codes of the low and of the high columns in 16 bits."""
        quarter = 2 * self.lanes
        return tuple(
            tirx.Cast(f"int16x{quarter}", tirx.Shuffle([codes], [half * quarter + i for i in range(quarter)]))
            for half in range(2)
        )

    def add(self, total: Expr | None, weights: Sequence[Expr], x: Expr) -> Expr:
        """total + (dot_i16x8(low, x), dot_i16x8(high, x))."""
        lanes = 2 * self.lanes
        bytes_of_two = tirx.Shuffle([self._as(x, "int8")], list(range(lanes)))
        wide = tirx.Cast(f"int16x{lanes}", bytes_of_two)
        products = [self._call("llvm.wasm.dot", "int32", part, wide) for part in weights]
        return _plus(total, tirx.Shuffle(products, list(range(lanes))))

    def sums(self, total: Expr) -> Expr:
        """The even elements plus the odd ones."""
        even, odd = (tirx.Shuffle([total], list(range(first, 2 * self.lanes, 2))) for first in range(2))
        return even + odd


def block_dot(unit: VectorUnit, bits: int, lanes: int) -> BlockDot:
    """The form for codes of ``bits`` bits in vectors of ``lanes`` columns."""
    if unit.dot is DotProduct.PAIRS:
        return Pairs(lanes=lanes)
    if unit.dot in (DotProduct.SDOT, DotProduct.USDOT):
        return SignedQuads(lanes=lanes, bias=0 if bits == 4 else 128)
    if unit.dot in (DotProduct.WIDENED, DotProduct.LONG, DotProduct.TILES):
        return Widened(lanes=lanes)
    if unit.dot in (DotProduct.VNNI, DotProduct.AMX):
        return Quads(lanes=lanes)
    return Nibbles(lanes=lanes) if bits == 4 else Signs(lanes=lanes)
