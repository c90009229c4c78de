"""What kernels read of weights in panels (``quantized_weights.py``): codes of 4 and 8 bits, numbers of 16."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.device_schedules.device_stages import element_kernel
from assay.compile.device_schedules.few_rows import Weights
from assay.compile.device_schedules.half_weights import HALVES, widened_half
from assay.compile.device_schedules.quantized_weights import PANEL
from assay.compile.device_schedules.row_tile import RowTile
from assay.compile.schedules.blocks import Block, loads_of
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    seq,
    simplify,
    store,
    vector_dtype,
)

__all__ = ["CodeWeights", "HalfWeights", "Numbers", "PanelWeights", "dequantized_numbers", "panel_weights"]


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers that a weight is: ``read(step, output, lanes)`` gives those of consecutive outputs.

    ``kernels`` come before, and write to ``own``.
    """

    read: Callable[[Expr, Expr, int], Expr]
    kernels: Sequence[Stmt] = ()
    own: Sequence[Buffer] = ()


@dataclass(frozen=True, kw_only=True)
class PanelWeights(Weights):
    """A weight whose words lie in panels: ``words`` int32 [panels, words of a row, PANEL]."""

    words: Buffer

    def word(self, number: Expr, output: Expr, lanes: int) -> Expr:
        """A word of consecutive outputs."""
        return in_panel(self.words, number, output, lanes)

    @abstractmethod
    def terms(self, block: Expr, output: Expr, lanes: int) -> tuple[tuple[Expr, ...], list[Stmt]]:
        """What ``number`` takes of a block, and the statements that read it."""

    @abstractmethod
    def number(self, word: Expr, position: int, terms: Sequence[Expr], lanes: int) -> Expr:
        """The number at a position of words."""

    def in_place(self) -> Numbers | None:
        """The numbers as they are read from the words; None where that takes more than a few operations."""
        return None


@dataclass(frozen=True, kw_only=True)
class CodeWeights(PanelWeights):
    """Codes of 4 or 8 ``bits``, with a scale and a zero point a block. ``zeros``: None for the middle."""

    bits: int
    scales: Buffer
    zeros: Buffer | None

    def code(self, word: Expr, position: int, lanes: int) -> Expr:
        """The number at a position of words, as float32, times ``unit(position)``."""
        mask = ((1 << self.bits) - 1) << (position * self.bits)
        last = position == self.codes - 1
        signed = const_like(mask - (1 << 32) if last else mask, "int32")
        value = tirx.Cast(vector_dtype("float32", lanes), tirx.bitwise_and(word, broadcast(signed, lanes)))
        return value + broadcast(const_like(2.0**31, "float32"), lanes) if last else value

    def unit(self, position: int) -> float:
        """A power of two."""
        return 2.0 ** (position * self.bits)

    def scaled(self, total: Expr, left: Expr, block: Expr, output: Expr, lanes: int) -> Expr:
        """What the sum of products over a block is worth; ``left``: the sum of the left operand there."""
        return (total - broadcast(left, lanes) * self._zero(block, output, lanes)) * self._scale(
            block, output, lanes
        )

    def terms(self, block: Expr, output: Expr, lanes: int) -> tuple[tuple[Expr, ...], list[Stmt]]:
        """The scale and the zero point."""
        scale, one = bind("scale", self._scale(block, output, lanes))
        zero, two = bind("zero", self._zero(block, output, lanes))
        return (scale, zero), [*one, *two]

    def number(self, word: Expr, position: int, terms: Sequence[Expr], lanes: int) -> Expr:
        """The number at a position of words."""
        scale, zero = terms
        unit = broadcast(const_like(1 / self.unit(position), "float32"), lanes)
        return (self.code(word, position, lanes) * unit - zero) * scale

    def _scale(self, block: Expr, output: Expr, lanes: int) -> Expr:
        """Scales of a block for consecutive outputs."""
        return in_panel(self.scales, block, output, lanes)

    def _zero(self, block: Expr, output: Expr, lanes: int) -> Expr:
        """Zero points of a block for consecutive outputs."""
        if self.zeros is None:
            return broadcast(const_like(float(1 << (self.bits - 1)), "float32"), lanes)
        return in_panel(self.zeros, block, output, lanes)


@dataclass(frozen=True, kw_only=True)
class HalfWeights(PanelWeights):
    """Numbers of 16 bits, float16 or bfloat16 as ``kind`` says; a block is just some of them."""

    kind: str

    def code(self, word: Expr, position: int, lanes: int) -> Expr:
        """The number at a position of words, as float32, times ``unit(position)``."""
        return widened_half(self.kind, word, position, lanes)

    def unit(self, position: int) -> float:
        """A power of two."""
        return 1.0

    def scaled(self, total: Expr, left: Expr, block: Expr, output: Expr, lanes: int) -> Expr:
        """What the sum of products over a block is worth; ``left``: the sum of the left operand there."""
        return total

    def terms(self, block: Expr, output: Expr, lanes: int) -> tuple[tuple[Expr, ...], list[Stmt]]:
        """Nothing."""
        return (), []

    def number(self, word: Expr, position: int, terms: Sequence[Expr], lanes: int) -> Expr:
        """The number at a position of words."""
        return self.code(word, position, lanes)

    def in_place(self) -> Numbers:
        """The numbers as words are read, each for both of its numbers; a cache has it the second time."""

        def read(step: Expr, output: Expr, lanes: int) -> Expr:
            word = self.word(floordiv(step, HALVES), output, lanes)
            return widened_half(self.kind, word, floormod(step, HALVES), lanes)

        return Numbers(read=read)


def in_panel(buffer: Buffer, step: Expr, output: Expr, lanes: int) -> Expr:
    """Consecutive outputs of a step of a buffer [panels, steps, PANEL]."""
    return load(buffer, floordiv(output, PANEL), step, lanes_at(floormod(output, PANEL), lanes))


def panel_weights(anchor: Block, dequantized: Block) -> PanelWeights:
    """The weight that ``anchor`` multiplies by, from what ``dequantized`` reads."""
    loads = list(loads_of(dequantized.value))
    words = next(each.source for each in loads if str(each.ty.dtype) == "int32")
    outputs, steps = (as_int(extent) for extent in dequantized.spatial_extents)
    assert outputs is not None
    assert steps is not None
    bits, block = (int(str(anchor.annotations[key])) for key in ("assay.bits", "assay.block"))
    kind = str(anchor.annotations["assay.dtype"])
    if kind:
        return HalfWeights(
            block=block, outputs=outputs, steps=steps, codes=HALVES, dtype="int32", grain=PANEL,
            words=words, kind=kind,
        )  # fmt: skip
    *zeros, scales = (each.source for each in loads if not each.source.same_as(words))
    return CodeWeights(
        block=block, outputs=outputs, steps=steps, codes=32 // bits, dtype="int32", grain=PANEL,
        words=words, bits=bits, scales=scales, zeros=zeros[0] if zeros else None,
    )  # fmt: skip


def dequantized_numbers(weights: PanelWeights, tile: RowTile) -> Numbers:
    """The numbers as float32 in memory of the call, [panels, steps, PANEL].

    A thread writes those of each word of as many outputs as a vector has.
    """
    lanes, panels, count = tile.lanes, -(-weights.outputs // PANEL), -(-weights.steps // weights.codes)
    real = tirx.decl_buffer([i64(panels), i64(weights.steps), i64(PANEL)], "float32", name="real")

    def element(index: Sequence[Expr]) -> Stmt:
        panel, number, place = index[0], index[1], simplify(index[2] * lanes)
        column = simplify(panel * PANEL + place)
        block = floordiv(number, weights.block // weights.codes)
        dtype = vector_dtype(weights.dtype, lanes)
        word = tirx.decl_buffer([i64(1)], dtype, name="word", scope="local")
        terms, bound = weights.terms(block, column, lanes)
        read = store(word, weights.word(number, column, lanes), 0)
        statements = [tirx.AllocBuffer(word), read, *bound]
        for i in range(weights.codes):
            step = simplify(number * weights.codes + i)
            value = weights.number(load(word, 0), i, terms, lanes)
            put = store(real, value, panel, step, lanes_at(place, lanes))
            inside = weights.steps % weights.codes == 0
            statements.append(put if inside else if_then(step < weights.steps, put))
        return seq(statements)

    kernel = element_kernel([i64(panels), i64(count), i64(PANEL // lanes)], element)

    def get(step: Expr, output: Expr, lanes: int) -> Expr:
        return in_panel(real, step, output, lanes)

    return Numbers(read=get, kernels=[kernel], own=[real])
