"""Stages whose loads and stores are contiguous along different axes: square tiles turned in registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    floordiv,
    i64,
    lanes_at,
    load,
    loop,
    rewrite,
    seq,
    simplify,
    store,
    substitute,
)
from assay.compile.schedules.math import Registers, with_registers
from assay.compile.schedules.nest import load_offsets, outer_loops, stride, vector_pieces
from assay.compile.schedules.program import (
    Assign,
    Axis,
    Branch,
    Program,
    make_analyzer,
    program_expressions,
    same_expr,
)

__all__ = ["Element", "emit_transposed", "transposed_axis", "turn"]

# Stores one element's values: the axes' positions, the program to compute them with, the registers.
Element = Callable[[Mapping[Expr, Expr], Program, Registers], Stmt]

# A shuffle works on vectors of a power of two of these elements, four to each 128 bits.
_QUAD = 4


@dataclass(frozen=True, kw_only=True)
class _Turned:
    """A load whose values come from a tile turned in registers, and the variable that stands for it."""

    placeholder: Expr
    buffer: Buffer
    offset: Expr


def transposed_axis(axes: Sequence[Axis], program: Program, context: ScheduleContext) -> int | None:
    """The position of the axis that loads are contiguous along, where the innermost is not it; else None."""
    lanes = context.unit.lanes()
    if lanes % _QUAD or any(isinstance(step, Branch) for step in program.steps):
        return None
    if len(axes) < 2 or context.expected(axes[-1].extent) < lanes:
        return None
    analyzer = make_analyzer(axes)
    for expr in program_expressions(program):
        for offset in load_offsets(expr):
            if as_int(stride(offset, axes[-1].var, analyzer)) in (0, 1):
                continue
            for position, axis in enumerate(axes[:-1]):
                along = as_int(stride(offset, axis.var, analyzer)) == 1
                if along and context.expected(axis.extent) >= lanes:
                    return position
    return None


def emit_transposed(
    axes: Sequence[Axis], other: int, program: Program, element: Element, context: ScheduleContext, *,
    serial: bool,
) -> Stmt:  # fmt: skip
    """Loops over square tiles of the innermost axis and the one at position ``other``."""
    return _Emitter(axes, other, program, element, context).emit(serial=serial)


class _Emitter:
    def __init__(
        self, axes: Sequence[Axis], other: int, program: Program, element: Element, context: ScheduleContext
    ) -> None:
        self.lanes = context.unit.lanes()
        self.outer = [axis for position, axis in enumerate(axes[:-1]) if position != other]
        self.across, self.along = axes[other], axes[-1]
        self.plain = program
        self.element = element
        self.context = context
        self.analyzer = make_analyzer(axes)
        self.turned: list[_Turned] = []
        self.tiled = Program(
            steps=tuple(
                Assign(target=step.target, value=self._mark(step.value))
                for step in program.steps
                if isinstance(step, Assign)
            ),
            results=tuple(self._mark(result) for result in program.results),
        )

    def _mark(self, expr: Expr) -> Expr:
        """``expr`` with the loads to turn replaced by variables."""

        def replace(node: Expr) -> Expr | None:
            if not isinstance(node, tvm.ir.TensorLoad) or str(node.ty.dtype) not in ("float32", "int32"):
                return None
            offset = node.indices[0]
            if as_int(stride(offset, self.along.var, self.analyzer)) in (0, 1):
                return None
            if as_int(stride(offset, self.across.var, self.analyzer)) != 1:
                return None
            for known in self.turned:
                if known.buffer.same_as(node.source) and same_expr(known.offset, offset):
                    return known.placeholder
            placeholder = tirx.Var("turned", node.ty.dtype)
            self.turned.append(_Turned(placeholder=placeholder, buffer=node.source, offset=offset))
            return placeholder

        return rewrite(expr, replace)

    def emit(self, *, serial: bool) -> Stmt:
        """Tiles in the outer loops' bodies, then the rows that fill no tile."""
        tiles = floordiv(self.across.extent, self.lanes)
        done = simplify(tiles * self.lanes)
        left = simplify(self.across.extent - done)
        statements = []
        if as_int(tiles) != 0:
            tile = Axis(var=tirx.Var("tile", "int64"), extent=tiles)
            statements.append(
                outer_loops(
                    [*self.outer, tile],
                    lambda bound: self._tiles(bound, bound[tile.var] * self.lanes),
                    self.context,
                    serial=serial,
                )
            )
        if as_int(left) != 0:
            rest = Axis(var=tirx.Var("row", "int64"), extent=left)
            statements.append(
                outer_loops(
                    [*self.outer, rest],
                    lambda bound: self._row({**bound, self.across.var: done + bound[rest.var]}, i64(0)),
                    self.context,
                    serial=serial,
                )
            )
        return seq(*statements)

    def _row(self, bound: Mapping[Expr, Expr], start: Expr) -> Stmt:
        """The elements from ``start`` on of one row, gathered one by one."""

        def piece(at: Expr, count: int, _: int) -> Stmt:
            return with_registers(
                count,
                lambda lane, registers: self.element(
                    {**bound, self.along.var: start + at + lane}, self.plain, registers
                ),
            )

        return vector_pieces(simplify(self.along.extent - start), self.lanes, piece)

    def _tiles(self, bound: Mapping[Expr, Expr], first: Expr) -> Stmt:
        """The tiles along the innermost axis, and the elements after the last whole one."""
        whole = floordiv(self.along.extent, self.lanes)
        done = simplify(whole * self.lanes)
        statements = []
        if as_int(whole) != 0:
            statements.append(loop(whole, lambda t: self._tile(bound, first, t * self.lanes), "along"))
        if as_int(simplify(self.along.extent - done)) != 0:
            statements.append(
                loop(
                    self.lanes,
                    lambda r: self._row({**bound, self.across.var: first + r}, done),
                    "row",
                )
            )
        return seq(*statements)

    def _tile(self, bound: Mapping[Expr, Expr], first: Expr, start: Expr) -> Stmt:
        statements: list[Stmt] = []
        tiles: list[Buffer] = []
        for turned in self.turned:
            dtype = str(turned.placeholder.ty.dtype)
            rows = []
            for lane in range(self.lanes):
                at = substitute(
                    turned.offset, {**bound, self.across.var: first, self.along.var: start + lane}
                )
                rows.append(
                    _vector(load(turned.buffer, lanes_at(at, self.lanes)), dtype, self.lanes, statements)
                )
            columns = turn(rows, dtype, self.lanes, statements)
            kept = []
            for column in columns:
                buffer, declaration = allocate([self.lanes], dtype, "column", "local")
                statements += [declaration, store(buffer, column, lanes_at(0, self.lanes))]
                kept.append(buffer)
            tiles.append(kept)
        for row in range(self.lanes):

            def element(lane: Expr, registers: Registers, row: int = row) -> Stmt:
                variables = {**bound, self.across.var: first + row, self.along.var: start + lane}
                for turned, kept in zip(self.turned, tiles, strict=True):
                    variables[turned.placeholder] = load(kept[row], lane)
                return self.element(variables, self.tiled, registers)

            statements.append(with_registers(self.lanes, element))
        return seq(*statements)


def _vector(value: Expr, dtype: str, lanes: int, statements: list[Stmt]) -> Expr:
    variable = tirx.Var("vector", f"{dtype}x{lanes}")
    statements.append(tirx.Bind(variable, value))
    return variable


def turn(rows: Sequence[Expr], dtype: str, lanes: int, statements: list[Stmt]) -> list[Expr]:
    """The columns of a square of vectors (variables, ``lanes`` of them): variables that ``statements`` bind.

    4 x 4 inside each 128 bits first, then the 128-bit groups.
    """

    def shuffle(a: Expr, b: Expr, indices: Sequence[int]) -> Expr:
        return _vector(
            tirx.Shuffle([a, b], [tirx.IntImm("int32", i) for i in indices]), dtype, lanes, statements
        )

    def within(a: Expr, b: Expr, picks: Sequence[int]) -> Expr:
        """The same picks in each quad; those from four on are b's."""
        return shuffle(
            a,
            b,
            [g + p if p < _QUAD else lanes + g + p - _QUAD for g in range(0, lanes, _QUAD) for p in picks],
        )

    groups = lanes // _QUAD
    quads = []
    for first in range(0, lanes, _QUAD):
        a, b, c, d = rows[first : first + _QUAD]
        low, high = within(a, b, (0, 4, 1, 5)), within(a, b, (2, 6, 3, 7))
        more_low, more_high = within(c, d, (0, 4, 1, 5)), within(c, d, (2, 6, 3, 7))
        halves = ((low, more_low), (high, more_high))
        quads.append([within(x, y, picks) for x, y in halves for picks in ((0, 1, 4, 5), (2, 3, 6, 7))])

    def exchange(a: Expr, b: Expr, step: int, *, upper: bool) -> Expr:
        indices: list[int] = []
        for group in range(groups):
            own = bool(group & step) == upper
            source = group + (0 if own else (step if upper else -step))
            start = source * _QUAD + (0 if (own != upper) else lanes)
            indices += range(start, start + _QUAD)
        return shuffle(a, b, indices)

    for column in range(_QUAD):
        step = 1
        while step < groups:
            for k in range(groups):
                if not k & step:
                    a, b = quads[k][column], quads[k + step][column]
                    quads[k][column] = exchange(a, b, step, upper=False)
                    quads[k + step][column] = exchange(a, b, step, upper=True)
            step *= 2
    return [quads[group][column] for group in range(groups) for column in range(_QUAD)]
