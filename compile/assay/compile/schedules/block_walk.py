"""Blocks of a product with 4-bit codes on AVX2, instruction by instruction.

Zen's four vector pipes take two multiplications and two additions a cycle, but an addition may take a
multiplication's pipe; in pairs, as in ``integer_step``, they do so seldom. The 16-bit sums of a block start
as its first products and never leave their registers, which leaves the float32 sums in memory. LLVM keeps
some of either in registers, and spills what has no place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from assay.compile.schedules.assembly import LlvmFunction
from assay.compile.schedules.block_dot import BlockDot, Nibbles
from assay.compile.schedules.block_format import SPAN, BlockFormat, Offset
from assay.compile.schedules.block_panel import Spread
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = ["block_walk"]

_REGISTERS = 16
_BYTES = 32
# What the function's arguments are, in this order.
_ARGUMENTS = ("count", "sums", "activations", "numbers", "weights")
_CLOBBERS = ["~{memory}", "~{dirflag}", "~{fpsr}", "~{flags}"]


def block_walk(
    unit: VectorUnit, dot: BlockDot, form: BlockFormat, *, rows: int, vectors: int, far: bool
) -> LlvmFunction | None:
    """A function that adds the products of some blocks to ``rows`` x ``vectors`` registers of float32.

    Its arguments: how many blocks, at least one (int64); addresses of the float32 sums, row by row, and of
    what the first of the blocks has: the first row's codes and its scale, the other rows following, and the
    weights: a block's codes, one a byte, then float32 scales, then float32 offsets where ``form`` has any.
    ``far``: it asks for the codes of the next ``rows`` rows.
    None where the unit is another than AVX2, the form another, a block longer than a span of K, or where the
    registers do not suffice.
    """
    if unit.bits != 8 * _BYTES or unit.dot is not DotProduct.MULTIPLY_ADD or not unit.fma:
        return None
    if not isinstance(dot, Nibbles) or 32 * form.lanes != unit.bits or form.block > SPAN:
        return None
    walk = _Walk(rows=rows, vectors=vectors, form=form, far=far)
    return _write(walk) if walk.registers + 2 <= _REGISTERS else None


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """The instructions; ``$0``, ``$1`` ... are registers of vectors, then the arguments, then constants."""

    rows: int
    vectors: int
    form: BlockFormat
    far: bool

    @property
    def registers(self) -> int:
        """Sums, a step's activations or codes, one of the others, and two products."""
        return self.rows * self.vectors + min(self.rows, self.vectors) + 3

    @property
    def name(self) -> str:
        """The same for the same instructions."""
        form = self.form
        offset = f"{form.offset}{form.zero_point}" if form.offset is Offset.CONSTANT else str(form.offset)
        size = f"{self.rows}x{self.vectors}x{form.block}_{form.activations.row_bytes}"
        return f"assay_nibbles_{size}_{offset}{'_far' if self.far else ''}"

    def _total(self, row: int, vector: int) -> str:
        return f"${row * self.vectors + vector}"

    def _scratch(self, number: int) -> str:
        return f"${self.rows * self.vectors + number}"

    def _argument(self, name: str) -> str:
        return f"${self.registers + _ARGUMENTS.index(name)}"

    def _constant(self, number: int) -> str:
        # Behind the registers and arguments as outputs come the arguments as inputs.
        return f"${self.registers + 2 * len(_ARGUMENTS) + number}"

    def instructions(self) -> Iterator[str]:
        """The loop."""
        form = self.form
        weights = Spread.bytes_of_block(form, self.vectors)
        steps = {"activations": form.block, "numbers": 4, "weights": weights}
        yield ".p2align 5"
        yield "1:"
        yield from self._products()
        yield from self._scaled()
        for name, step in steps.items():
            yield f"addq $${step}, {self._argument(name)}"
        yield f"decq {self._argument('count')}"
        yield "jnz 1b"

    def _products(self) -> Iterator[str]:
        """The sums of a block's products in 16 bits."""
        rows, stride = self.rows, self.form.activations.row_bytes
        activations, codes = self._argument("activations"), self._argument("weights")
        by_row = self.vectors < rows
        outer, inner = (rows, self.vectors) if by_row else (self.vectors, rows)
        one, *products = (self._scratch(inner + n) for n in range(3))
        for q in range(self.form.block // 4):
            places = [f"vpbroadcastd {i * stride + 4 * q}({activations})" for i in range(rows)]
            vectors = [f"vmovdqu {(q * self.vectors + v) * _BYTES}({codes})" for v in range(self.vectors)]
            kept, others = (vectors, places) if by_row else (places, vectors)
            yield from (f"{load}, {self._scratch(n)}" for n, load in enumerate(kept))
            for o in range(outer):
                yield f"{others[o]}, {one}"
                for start in range(0, inner, 2):
                    pair = range(start, min(start + 2, inner))
                    totals = [self._total(o, n) if by_row else self._total(n, o) for n in pair]
                    for n, target in zip(pair, products if q else totals, strict=False):
                        x, w = (one, self._scratch(n)) if by_row else (self._scratch(n), one)
                        yield f"vpmaddubsw {x}, {w}, {target}"
                    if q:
                        for product, total in zip(products, totals, strict=False):
                            yield f"vpaddw {product}, {total}, {total}"
        if self.far:
            for i in range(rows):
                yield f"prefetcht0 {(rows + i) * stride}({activations})"

    def _scaled(self) -> Iterator[str]:
        """The sums times the scales, and what the offsets are for, added to the float32 sums."""
        form, stride = self.form, self.form.activations.row_bytes
        scale, second, product = (self._scratch(n) for n in range(3))
        kind = form.offset
        numbers, weights = self._argument("numbers"), self._argument("weights")
        first = self.vectors * form.lanes * form.block
        less = kind is Offset.ZERO_POINT or (kind is Offset.CONSTANT and form.zero_point != 0)
        for i in range(self.rows):
            at = i * stride
            yield f"vbroadcastss {at}({numbers}), {scale}"
            if kind is Offset.MINIMUM:
                yield f"vbroadcastss {at + 4 * form.blocks}({numbers}), {second}"
            elif less:
                yield f"vpbroadcastd {at + 8 * form.blocks}({numbers}), {second}"
                yield f"vcvtdq2ps {second}, {second}"
            for v in range(self.vectors):
                total, place = self._total(i, v), first + v * _BYTES
                offsets = f"{place + self.vectors * _BYTES}({weights})"
                sums = f"{(i * self.vectors + v) * _BYTES}({self._argument('sums')})"
                yield f"vpmaddwd {self._constant(0)}, {total}, {total}"
                yield f"vmulps {place}({weights}), {scale}, {product}"
                yield f"vcvtdq2ps {total}, {total}"
                if less:
                    # Whole numbers below 2^24, which float32 holds.
                    zero = offsets if kind is Offset.ZERO_POINT else self._constant(1)
                    yield f"vfnmadd231ps {zero}, {second}, {total}"
                yield f"vfmadd213ps {sums}, {product}, {total}"
                if kind is Offset.MINIMUM:
                    yield f"vfmadd231ps {offsets}, {second}, {total}"
                yield f"vmovups {total}, {sums}"


@cache
def _write(walk: _Walk) -> LlvmFunction:
    kinds = ["i64", *("ptr" for _ in _ARGUMENTS[1:])]
    parameters = [f"{kind} %{name}" for kind, name in zip(kinds, _ARGUMENTS, strict=True)]
    constants = ["<16 x i16> splat (i16 1)", f"<8 x float> splat (float {float(walk.form.zero_point):e})"]
    found = ["=&x"] * walk.registers + ["=&r"] * len(_ARGUMENTS)
    found += [str(walk.registers + n) for n in range(len(_ARGUMENTS))] + ["x"] * len(constants)
    constraints = ",".join([*found, *_CLOBBERS])
    operands = ", ".join([*parameters, *constants])
    text = "\\0A".join(walk.instructions())
    result = "{" + ", ".join(["<8 x float>"] * walk.registers + kinds) + "}"
    definition = f"""
define i32 @{walk.name}({", ".join(parameters)}) {{
  call {result} asm sideeffect "{text}", "{constraints}"({operands})
  ret i32 0
}}
"""
    return LlvmFunction(name=walk.name, definition=definition)
