"""What rows are computed from, element by element, on their way to 8-bit integers.

A norm or a gate before a product costs a kernel, and a pass through memory, of its own; computed where the
product's operand is quantized, its result stays in registers and the nearest cache lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    broadcast,
    const_like,
    i64,
    lanes_at,
    load,
    seq,
    store,
)
from assay.compile.schedules.math import Registers, vector_math, with_registers
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.register_tile import fold_lanes

__all__ = ["GatedRows", "NormedRows", "RowSource"]

# Sums of squares that are added up side by side: an addition takes several cycles.
_SLOTS = 4


class RowSource(Protocol):
    """How elements of rows ``[..., depth]`` come from other tensors."""

    @property
    def cost(self) -> int:
        """Scalar operations that a vector of elements takes about as long as."""
        ...

    def shapes(self, leading: Sequence[Expr], depth: int) -> list[list[Expr]]:
        """Shapes of the float32 tensors that it reads, where rows have the extents ``leading``."""
        ...

    def begin(self, tensors: Sequence[Buffer], row: Expr, depth: int, lanes: int) -> tuple[Stmt, Buffer]:
        """What is computed once for a row, and where it is kept; ``tensors`` are flat."""
        ...

    def fill(
        self, tensors: Sequence[Buffer], known: Buffer, row: Expr, depth: int, first: Expr, count: int,
        lanes: int, values: Buffer,
    ) -> Stmt:  # fmt: skip
        """Elements ``first`` to ``first + count - 1`` of a row into ``values``."""
        ...


@dataclass(frozen=True, kw_only=True)
class NormedRows:
    """RMS norm (Zhang and Sennrich, 2019) of ``x [..., depth]``, times ``weight [depth]``."""

    epsilon: float
    cost: int = 2

    def shapes(self, leading: Sequence[Expr], depth: int) -> list[list[Expr]]:
        """``x`` and ``weight``."""
        return [[*leading, i64(depth)], [i64(depth)]]

    def begin(self, tensors: Sequence[Buffer], row: Expr, depth: int, lanes: int) -> tuple[Stmt, Buffer]:
        """The inverse of the root of the mean square."""
        x, start = tensors[0], row * i64(depth)
        sums, one = allocate([_SLOTS * lanes], "float32", "squares", "local")
        inverse, two = allocate([1], "float32", "inverse_root", "local")
        width = _SLOTS * lanes
        zero = broadcast(const_like(0.0, "float32"), lanes)
        clear = [store(sums, zero, lanes_at(at, lanes)) for at in range(0, width, lanes)]

        def add(at: Expr, count: int, slot: int) -> Stmt:
            value, place = load(x, lanes_at(start + at, count)), lanes_at(slot * lanes, count)
            return store(sums, load(sums, place) + value * value, place)

        squares = vector_pieces(i64(depth), lanes, add, unroll=_SLOTS)
        total = fold_lanes(sums, width, lambda a, b: a + b)
        mean = load(sums, 0) * const_like(1.0 / depth, "float32") + const_like(self.epsilon, "float32")
        result = store(inverse, const_like(1.0, "float32") / tirx.sqrt(mean), 0)
        return seq(one, two, clear, squares, total, result), inverse

    def fill(
        self, tensors: Sequence[Buffer], known: Buffer, row: Expr, depth: int, first: Expr, count: int,
        lanes: int, values: Buffer,
    ) -> Stmt:  # fmt: skip
        """``x`` times the inverse and the weight."""
        x, weight = tensors

        def piece(at: Expr, n: int, _: int) -> Stmt:
            value = load(x, lanes_at(row * i64(depth) + first + at, n)) * broadcast(load(known, 0), n)
            return store(values, value * load(weight, lanes_at(first + at, n)), lanes_at(at, n))

        return vector_pieces(i64(count), lanes, piece)


@dataclass(frozen=True, kw_only=True)
class GatedRows:
    """SiLU of the first half of ``x [..., 2 * depth]`` times the second half (Shazeer, 2020)."""

    cost: int = 16

    def shapes(self, leading: Sequence[Expr], depth: int) -> list[list[Expr]]:
        """``x``."""
        return [[*leading, i64(2 * depth)]]

    def begin(self, tensors: Sequence[Buffer], row: Expr, depth: int, lanes: int) -> tuple[Stmt, Buffer]:
        """Nothing."""
        return seq(), tensors[0]

    def fill(
        self, tensors: Sequence[Buffer], known: Buffer, row: Expr, depth: int, first: Expr, count: int,
        lanes: int, values: Buffer,
    ) -> Stmt:  # fmt: skip
        """Gate by gate."""
        x, start = tensors[0], row * i64(2 * depth) + first

        def piece(at: Expr, n: int, _: int) -> Stmt:
            def element(lane: Expr, registers: Registers) -> Stmt:
                gate = load(x, start + at + lane)
                statements, sigmoid = vector_math(tirx.sigmoid(gate), registers)
                return seq(
                    statements, store(values, gate * sigmoid * load(x, start + depth + at + lane), at + lane)
                )

            return with_registers(n, element)

        return vector_pieces(i64(count), lanes, piece)
