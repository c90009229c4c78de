"""Stages that reduce along a row and use the result on the same row: softmax, layer norm, row sums.

One loop over the rows. Each row is walked in as few passes as its reductions allow: all that a pass needs is
computed in registers, and what a later pass needs again stays in the row's cache lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.fusion import kept_blocks, spatial_axes
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
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
    stride,
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
    make_axes,
    program_expressions,
    same_expr,
    substitute_program,
)
from assay.compile.schedules.reducer import PartialResults, Reducer, reducer_of

__all__ = ["RowGroup", "emit_rows", "row_group"]

# Partial results of a light reduction, so that its additions overlap.
_SLOTS = 4
# Tasks that share the rows where each needs memory of its own.
_TASKS = 16


class _Kind(Enum):
    VECTOR = "one value an element"
    SCALAR = "one value a row"
    REDUCTION = "one value a row, from all of its elements"


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """One block of a group. ``time``: the pass it runs in; a SCALAR runs before the pass of that number."""

    block: Block
    kind: _Kind
    iterators: Mapping[Expr, Expr]
    indices: tuple[Expr, ...]
    time: int
    uses: tuple[Buffer, ...]
    reducer: Reducer | None


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Consecutive stages over the same rows and columns; ``stored``: outputs that are used outside."""

    stages: tuple[_Stage, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    stored: tuple[Buffer, ...]


def row_group(
    blocks: Sequence[Block], producers: Sequence[Block], function: FusedFunction, context: ScheduleContext
) -> RowGroup | None:
    """The longest group at the head of ``blocks``; None where they do not reduce along contiguous rows."""
    head = next((block for block in blocks if block.is_reduction), None)
    if head is None or reducer_of(head) is None or not _is_along_row(head, producers, context):
        return None
    row_axes = make_axes(*_split(spatial_axes(head)))
    column_axes = make_axes(*_split(_reduction_axes(head)))
    if not column_axes:
        return None
    stages: list[_Stage] = []
    for block in blocks:
        stage = _stage(block, stages, row_axes, column_axes, producers)
        if stage is None:
            break
        stages.append(stage)
    if not any(stage.block is head for stage in stages):
        return None
    inside = [stage.block for stage in stages]
    stored = tuple(block.output for block in kept_blocks(inside, producers, function))
    return RowGroup(stages=tuple(stages), rows=row_axes, columns=column_axes, stored=stored)


def _split(pairs: Sequence[tuple[Expr, Expr]]) -> tuple[list[Expr], list[Expr]]:
    return [var for var, _ in pairs], [extent for _, extent in pairs]


def _reduction_axes(block: Block) -> list[tuple[Expr, Expr]]:
    return [
        (var, extent)
        for var, extent in zip(block.reduction, block.reduction_extents, strict=True)
        if as_int(extent) != 1
    ]


def _is_along_row(block: Block, producers: Sequence[Block], context: ScheduleContext) -> bool:
    """Whether a reduction's loads are contiguous along its last iterator rather than the last spatial one."""
    spatial = make_axes(block.spatial, block.spatial_extents)
    reduction = make_axes(block.reduction, block.reduction_extents)
    analyzer = make_analyzer((*spatial, *reduction))
    builder = Builder(analyzer, Views(), producers)
    iterators = dict(
        zip((*block.spatial, *block.reduction), (a.var for a in (*spatial, *reduction)), strict=True)
    )
    reducer = reducer_of(block)
    assert reducer is not None
    program = builder.program(builder.value(reducer.operand, iterators))
    offsets = [node.indices[0] for expr in program_expressions(program) for node in loads_of(expr)]

    def misses(axes: Sequence[Axis]) -> int:
        axes = [axis for axis in axes if as_int(axis.extent) != 1]
        if not axes:
            return len(offsets) + 1
        return sum(as_int(stride(offset, axes[-1].var, analyzer)) not in (0, 1) for offset in offsets)

    across = misses(spatial)
    if across <= len(offsets) and not _has_vector(spatial, context):
        across = len(offsets)
    return misses(reduction) <= across


def _has_vector(axes: Sequence[Axis], context: ScheduleContext) -> bool:
    last = [axis for axis in axes if as_int(axis.extent) != 1][-1]
    return context.expected(last.extent) >= context.unit.lanes()


def _stage(
    block: Block, before: Sequence[_Stage], rows: Sequence[Axis], columns: Sequence[Axis],
    producers: Sequence[Block],
) -> _Stage | None:  # fmt: skip
    """``block`` as a stage of the group; None where it does not fit."""
    own = spatial_axes(block)
    axes = [*rows]
    if block.is_reduction:
        kind, pairs = _Kind.REDUCTION, [*own, *_reduction_axes(block)]
        axes += columns
        if len(own) != len(rows):
            return None
    elif len(own) == len(rows):
        kind, pairs = _Kind.SCALAR, own
    else:
        kind, pairs = _Kind.VECTOR, own
        axes += columns
    if len(pairs) != len(axes):
        return None
    if not all(
        as_int(simplify(i64(extent) - axis.extent)) == 0
        for (_, extent), axis in zip(pairs, axes, strict=True)
    ):
        return None
    reducer = reducer_of(block) if block.is_reduction else None
    if block.is_reduction and reducer is None:
        return None
    iterators: dict[Expr, Expr] = {var: i64(0) for var in (*block.spatial, *block.reduction)}
    iterators.update({var: axis.var for (var, _), axis in zip(pairs, axes, strict=True)})
    builder = Builder(make_analyzer((*rows, *columns)), Views(), producers)
    builder.values = [(s.block.output, s.indices, tirx.Var("held", s.block.output.ty.dtype)) for s in before]
    builder.value(block.value if reducer is None else reducer.operand, iterators)
    if builder.misplaced:
        return None
    used = [stage for stage in before if any(b.same_as(stage.block.output) for b in builder.used)]
    if kind is _Kind.SCALAR and any(stage.kind is _Kind.VECTOR for stage in used):
        return None
    return _Stage(
        block=block,
        kind=kind,
        iterators=iterators,
        indices=tuple(simplify(i64(substitute(index, iterators))) for index in block.indices),
        time=max((s.time + (s.kind is _Kind.REDUCTION) for s in used), default=0),
        uses=tuple(stage.block.output for stage in used),
        reducer=reducer,
    )


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

    scalars: list[tuple[_Stage | None, Buffer, Program]]
    program: Program
    stores: list[_Store]
    reductions: list[tuple[_Stage, Buffer]]


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
        scalars: list[tuple[_Stage | None, Buffer, Program]] = []
        stages = [stage for stage in self.group.stages if stage.time == time]
        for stage in (s for s in stages if s.kind is _Kind.SCALAR):
            builder = self._builder()
            program = builder.program(builder.value(stage.block.value, stage.iterators))
            scalars.append((stage, self._scalar(stage.block.output), program))
        builder = self._builder()
        results: list[Expr] = []
        stores: list[_Store] = []
        for stage in (s for s in stages if s.kind is _Kind.VECTOR):
            value = builder.hold(builder.value(stage.block.value, stage.iterators))
            builder.values.insert(0, (stage.block.output, stage.indices, value))
            place = self._place(stage)
            if place is not None:
                results.append(value)
                stores.append(place)
        reductions = []
        for stage in (s for s in stages if s.kind is _Kind.REDUCTION):
            assert stage.reducer is not None
            results.append(builder.value(stage.reducer.operand, stage.iterators))
            reductions.append((stage, self._scalar(stage.block.output)))
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

    def _place(self, stage: _Stage) -> _Store | None:
        """Where a vector stage's values go; None where they are only used in their own pass."""
        output = stage.block.output
        readers = [s for s in self.group.stages if any(b.same_as(output) for b in s.uses)]
        later = max((s.time for s in readers), default=stage.time)
        host: _Stage | None = None
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

    def _host(self, output: Buffer, last_use: int) -> _Stage | None:
        """A stage whose stored output can hold these values until it overwrites them in their last pass."""
        taken = [place.buffer for _, place in self.places]
        for stage in self.group.stages:
            if (
                stage.kind is _Kind.VECTOR
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
        variables = [axis.var for axis in self.group.columns]

        def is_fixed(expr: Expr) -> bool:
            return not any(
                (
                    isinstance(node, tirx.Var)
                    and (str(node.name) == "t" or any(node.same_as(v) for v in variables))
                )
                for node in walk(expr)
            )

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

    def _is_stored(self, stage: _Stage) -> bool:
        return any(stage.block.output.same_as(buffer) for buffer in self.group.stored)

    def _offset(self, stage: _Stage) -> Expr:
        return flat_offset(stage.block.output, stage.indices, self.analyzer)

    def _keep(self, stage: _Stage | None, register: Buffer, bound: Mapping[Expr, Expr]) -> list[Stmt]:
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
        partial = [PartialResults(stage.reducer, lanes, slots) for stage, _ in one.reductions]
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
        for (stage, register), p in zip(one.reductions, partial, strict=True):
            statements += [*p.end(register), *self._keep(stage, register, bound)]
        return seq(*statements)
