"""Stages that reduce along a row and use the result on the same row: softmax, layer norm, row sums.

One loop over the rows. Each row is walked in as few passes as its reductions allow: all that a pass needs is
computed in registers, and what a later pass needs again stays in the row's cache lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    bind,
    ceildiv,
    children,
    floordiv,
    floormod,
    i64,
    load,
    loop,
    minimum,
    rebuild,
    seq,
    simplify,
    store,
    substitute,
    walk,
)
from assay.compile.schedules.math import Registers, with_registers
from assay.compile.schedules.nest import (
    coalesce,
    expected_product,
    is_heavy,
    outer_loops,
    vector_pieces,
)
from assay.compile.schedules.program import (
    Assign,
    Axis,
    Builder,
    Program,
    Views,
    emit_program,
    flat_offset,
    make_analyzer,
    program_expressions,
    same_expr,
    substitute_program,
)
from assay.compile.schedules.reducer import PartialResults, Reducer
from assay.compile.schedules.rows import RowGroup, RowStage, StageKind

__all__ = ["emit_rows"]

# Partial results of a light reduction, so that its additions overlap.
_SLOTS = 4
# Tasks that share the rows where each needs memory of its own.
_TASKS = 16


def emit_rows(group: RowGroup, producers: Sequence[Block], views: Views, context: ScheduleContext) -> Stmt:
    """The loop over the group's rows."""
    return _Emitter(group, producers, views, context).emit()


@dataclass(frozen=True, kw_only=True)
class _Store:
    """Where a vector stage's values go: a view or scratch memory, and the position in it."""

    buffer: Buffer
    offset: Expr


@dataclass(kw_only=True)
class _Pass:
    """One walk along the row: scalars before it, its program, and what to do with the program's results."""

    scalars: list[tuple[RowStage | None, Buffer, Program]]
    program: Program
    stores: list[_Store]
    reductions: list[tuple[RowStage, Reducer, Buffer]]


class _Emitter:
    def __init__(
        self, group: RowGroup, producers: Sequence[Block], views: Views, context: ScheduleContext
    ) -> None:
        self.group = group
        self.producers = producers
        self.views = views
        self.context = context
        self.analyzer = make_analyzer((*group.rows, *group.columns))
        self.scratch: list[Stmt] = []
        self.row_declarations: list[Stmt] = []
        self.places: list[tuple[Buffer, _Store]] = []
        self.scalars: list[tuple[Buffer, Buffer]] = []

    def emit(self) -> Stmt:
        """The loop over rows, in tasks that own scratch memory where the group needs any."""
        passes = [self._build(time) for time in range(1 + max(s.time for s in self.group.stages))]
        passes, rows, columns = self._merge(passes)
        expressions = [e for p in passes for e in program_expressions(p.program)]
        work = expected_product((*rows, *columns), self.context) * (4 if is_heavy(expressions) else 1)
        serial = self.context.is_small(work * len(passes))

        def row(bound: Mapping[Expr, Expr]) -> Stmt:
            return seq(*self.row_declarations, *(self._pass(one, bound, columns) for one in passes))

        if not self.scratch:
            return outer_loops(rows, row, self.context, serial=serial)
        return self._chunks(rows, row, serial=serial)

    def _chunks(
        self, rows: Sequence[Axis], row: Callable[[Mapping[Expr, Expr]], Stmt], *, serial: bool
    ) -> Stmt:
        """Rows in chunks, each with scratch memory allocated once."""
        total: Expr = i64(1)
        for axis in rows:
            total = total * axis.extent
        total = simplify(total)
        size = 1 if serial else -(-self.context.expected(total) // _TASKS)
        if serial:
            return seq(*self.scratch, outer_loops(rows, row, self.context, serial=True))

        def task(bound: Mapping[Expr, Expr]) -> Stmt:
            start = bound[chunk.var] * size
            count = minimum(total - start, size)

            def one(i: Expr) -> Stmt:
                position = start + i
                index: dict[Expr, Expr] = {}
                statements: list[Stmt] = []
                for axis in reversed(rows[1:]):
                    index[axis.var], more = bind(axis.var.name, floormod(position, axis.extent))
                    position, rest = bind("rest", floordiv(position, axis.extent))
                    statements += [*more, *rest]
                if rows:
                    index[rows[0].var], more = bind(rows[0].var.name, position)
                    statements += more
                return seq(*statements, row(index))

            return seq(*self.scratch, loop(count, one, "row"))

        chunk = Axis(var=tirx.Var("chunk", "int64"), extent=ceildiv(total, size))
        return outer_loops([chunk], task, self.context, serial=False)

    def _build(self, time: int) -> _Pass:
        """The scalars and the program of one pass."""
        scalars: list[tuple[RowStage | None, Buffer, Program]] = []
        stages = [stage for stage in self.group.stages if stage.time == time]
        for stage in (s for s in stages if s.kind is StageKind.SCALAR):
            builder = self._builder()
            program = builder.program(builder.value(stage.block.value, stage.iterators))
            scalars.append((stage, self._scalar(stage.block.output), program))
        builder = self._builder()
        results: list[Expr] = []
        stores: list[_Store] = []
        for stage in (s for s in stages if s.kind is StageKind.VECTOR):
            value = builder.hold(builder.value(stage.block.value, stage.iterators))
            builder.values.insert(0, (stage.block.output, stage.indices, value))
            place = self._place(stage)
            if place is not None:
                results.append(value)
                stores.append(place)
        reductions = []
        for stage in (s for s in stages if s.kind is StageKind.REDUCTION):
            assert stage.reducer is not None
            results.append(builder.value(stage.reducer.operand, stage.iterators))
            reductions.append((stage, stage.reducer, self._scalar(stage.block.output)))
        program, hoisted = self._hoist(builder.program(*results))
        scalars += [(None, buffer, one) for buffer, one in hoisted]
        return _Pass(scalars=scalars, program=program, stores=stores, reductions=reductions)

    def _builder(self) -> Builder:
        builder = Builder(self.analyzer, self.views, self.producers)
        for stage in self.group.stages:
            output = stage.block.output
            for buffer, scalar in self.scalars:
                if buffer.same_as(output):
                    builder.values.append((output, stage.indices, load(scalar, 0)))
            for buffer, place in self.places:
                if buffer.same_as(output):
                    builder.values.append((output, stage.indices, load(place.buffer, place.offset)))
        return builder

    def _scalar(self, output: Buffer) -> Buffer:
        """A register for a value of the whole row."""
        register, declaration = allocate([1], str(output.ty.dtype), f"{output.name}_row", "local")
        self.row_declarations.append(declaration)
        self.scalars.append((output, register))
        return register

    def _place(self, stage: RowStage) -> _Store | None:
        """Where a vector stage's values go; None where they are only used in their own pass."""
        output = stage.block.output
        readers = [s for s in self.group.stages if any(b.same_as(output) for b in s.uses)]
        later = max((s.time for s in readers), default=stage.time)
        host: RowStage | None = None
        if any(output.same_as(buffer) for buffer in self.group.stored):
            host = stage
        elif later == stage.time:
            return None
        else:
            host = self._host(output, later)
        if host is not None:
            position = flat_offset(host.block.output, host.indices, self.analyzer)
            place = _Store(buffer=self.views.of(host.block.output), offset=position)
        else:
            place = self._own_scratch(output)
        self.places.append((output, place))
        return place

    def _host(self, output: Buffer, last_use: int) -> RowStage | None:
        """A stage whose stored output can hold these values until it overwrites them in their last pass."""
        taken = [place.buffer for _, place in self.places]
        for stage in self.group.stages:
            if (
                stage.kind is StageKind.VECTOR
                and stage.time == last_use
                and any(stage.block.output.same_as(buffer) for buffer in self.group.stored)
                and str(stage.block.output.ty.dtype) == str(output.ty.dtype)
                and not any(self.views.of(stage.block.output).same_as(buffer) for buffer in taken)
            ):
                return stage
        return None

    def _own_scratch(self, output: Buffer) -> _Store:
        position: Expr = i64(0)
        size: Expr = i64(1)
        for axis in self.group.columns:
            position = position * axis.extent + axis.var
            size = size * axis.extent
        buffer, declaration = allocate([simplify(size)], str(output.ty.dtype), f"{output.name}_row")
        self.scratch.append(declaration)
        return _Store(buffer=buffer, offset=simplify(position))

    def _hoist(self, program: Program) -> tuple[Program, list[tuple[Buffer, Program]]]:
        """Take what is the same along the row out of a pass; a division by it becomes a multiplication."""
        hoisted: list[tuple[Buffer, Program]] = []
        varying = [axis.var for axis in self.group.columns] + [step.target for step in program.steps]

        def is_fixed(expr: Expr) -> bool:
            return not any(node.same_as(var) for node in walk(expr) for var in varying)

        def register(value: Expr) -> Expr:
            for buffer, known in hoisted:
                if same_expr(known.results[0], value):
                    return load(buffer, 0)
            buffer, declaration = allocate([1], str(value.ty.dtype), "fixed_row", "local")
            self.row_declarations.append(declaration)
            hoisted.append((buffer, Program(steps=(), results=(value,))))
            return load(buffer, 0)

        def visit(expr: Expr) -> Expr:
            if is_fixed(expr):
                worth = str(expr.ty.dtype) == "float32" and is_heavy([expr])
                return register(expr) if worth else expr
            if isinstance(expr, tvm.ir.TensorLoad):
                return expr
            if isinstance(expr, tirx.Div) and str(expr.ty.dtype) == "float32" and is_fixed(expr.b):
                return visit(expr.a) * register(tirx.const(1.0, "float32") / expr.b)
            operands = children(expr)
            return rebuild(expr, tuple(visit(o) for o in operands)) if operands else expr

        steps = tuple(
            Assign(target=step.target, value=visit(step.value)) if isinstance(step, Assign) else step
            for step in program.steps
        )
        return Program(steps=steps, results=tuple(visit(r) for r in program.results)), hoisted

    def _merge(self, passes: Sequence[_Pass]) -> tuple[list[_Pass], list[Axis], list[Axis]]:
        """Rows and columns as few axes as every access allows."""
        expressions = [
            e
            for p in passes
            for program in (p.program, *(one for _, _, one in p.scalars))
            for e in program_expressions(program)
        ]
        offsets = [place.offset for p in passes for place in p.stores]
        offsets += [self._offset(s) for s in self.group.stages if self._is_stored(s)]
        rows, zeros = coalesce(self.group.rows, expressions, offsets, self.analyzer)
        columns, more = coalesce(self.group.columns, expressions, offsets, self.analyzer)
        self.zeros = {**zeros, **more}
        merged = [
            _Pass(
                scalars=[(s, b, substitute_program(e, self.zeros, self.analyzer)) for s, b, e in p.scalars],
                program=substitute_program(p.program, self.zeros, self.analyzer),
                stores=[
                    _Store(buffer=s.buffer, offset=simplify(substitute(s.offset, self.zeros)))
                    for s in p.stores
                ],
                reductions=p.reductions,
            )
            for p in passes
        ]
        return merged, rows, columns

    def _is_stored(self, stage: RowStage) -> bool:
        return any(stage.block.output.same_as(buffer) for buffer in self.group.stored)

    def _offset(self, stage: RowStage) -> Expr:
        return flat_offset(stage.block.output, stage.indices, self.analyzer)

    def _keep(self, stage: RowStage | None, register: Buffer, bound: Mapping[Expr, Expr]) -> list[Stmt]:
        """Store a row's value where it is used outside the group."""
        if stage is None or not self._is_stored(stage):
            return []
        at = substitute(self._offset(stage), {**self.zeros, **bound})
        return [store(self.views.of(stage.block.output), load(register, 0), at)]

    def _pass(self, one: _Pass, bound: Mapping[Expr, Expr], columns: Sequence[Axis]) -> Stmt:
        statements: list[Stmt] = []
        for stage, register, program in one.scalars:

            def scalar(
                _: Expr, registers: Registers, register: Buffer = register, program: Program = program
            ) -> Stmt:
                more, (value,) = emit_program(program, bound, registers)
                return seq(*more, store(register, value, 0))

            statements.append(with_registers(1, scalar))
            statements += self._keep(stage, register, bound)
        if not one.program.results:
            return seq(*statements)
        lanes = self.context.unit.lanes()
        heavy = is_heavy(list(program_expressions(one.program)))
        slots = 1 if heavy else _SLOTS
        partial = [PartialResults(reducer, lanes, slots) for _, reducer, _ in one.reductions]
        outer, inner = columns[:-1], columns[-1]

        def piece(inside: Mapping[Expr, Expr], start: Expr, count: int, slot: int) -> Stmt:
            tails = [p.tail(count) for p in partial]

            def element(lane: Expr, registers: Registers) -> Stmt:
                more, values = emit_program(one.program, {**inside, inner.var: start + lane}, registers)
                for place, value in zip(one.stores, values, strict=False):
                    at = substitute(place.offset, {**inside, inner.var: start + lane})
                    more.append(store(place.buffer, value, at))
                operands = values[len(one.stores) :]
                for p, tail, value in zip(partial, tails, operands, strict=True):
                    more.append(p.accumulate(value, lane, slot, tail))
                return seq(*more)

            body = with_registers(count, element)
            return seq(
                *(t.declaration for t in tails if t is not None),
                body,
                *(s for p, t in zip(partial, tails, strict=True) if t is not None for s in p.fold(t)),
            )

        def nest(level: int, inside: Mapping[Expr, Expr]) -> Stmt:
            if level < len(outer):
                axis = outer[level]
                return loop(axis.extent, lambda i: nest(level + 1, {**inside, axis.var: i}), axis.var.name)
            return vector_pieces(
                inner.extent,
                lanes,
                lambda start, count, slot: piece(inside, start, count, slot),
                unroll=slots,
                heavy=heavy,
            )

        for p in partial:
            statements += p.begin()
        statements.append(nest(0, dict(bound)))
        for (stage, _, register), p in zip(one.reductions, partial, strict=True):
            statements += [*p.end(register), *self._keep(stage, register, bound)]
        return seq(*statements)
