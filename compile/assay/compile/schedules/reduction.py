"""Reductions over axes that are not the contiguous one: pooling windows, global pooling, sums over rows.

Vectorized over the last spatial axis, the accumulators of several vectors in registers while the reduction
is walked once. Conditions on the reduction's iterators (padding) narrow its loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tvm import tirx

from assay.compile.schedules.blocks import Block, UnreadableFunctionError
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.elementwise import Box, split_condition
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
    as_int,
    broadcast,
    i64,
    lanes_at,
    load,
    loop,
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
    Axis,
    Builder,
    Program,
    Views,
    emit_program,
    make_analyzer,
    make_axes,
    program_expressions,
    same_expr,
    substitute_program,
)
from assay.compile.schedules.reducer import reducer_of

__all__ = ["emit_reduction"]

# Vectors of accumulators of one pass over the reduction.
_VECTORS = 8


def emit_reduction(
    blocks: Sequence[Block], producers: Sequence[Block], stored: Sequence[Block], views: Views,
    context: ScheduleContext,
) -> Stmt:  # fmt: skip
    """A reduction and the elementwise blocks that follow on its results; those in ``stored`` are kept."""
    return _Emitter(blocks, producers, stored, views, context).emit()


class _Emitter:
    def __init__(
        self, blocks: Sequence[Block], producers: Sequence[Block], stored: Sequence[Block], views: Views,
        context: ScheduleContext,
    ) -> None:  # fmt: skip
        self.block, self.after = blocks[0], blocks[1:]
        reducer = reducer_of(self.block)
        if reducer is None:
            raise UnreadableFunctionError(f"reduction {self.block.name} has an unknown operation")
        self.reducer = reducer
        self.producers = producers
        self.stored = stored
        self.views = views
        self.context = context
        self.spatial = make_axes(self.block.spatial, self.block.spatial_extents)
        self.positions: list[Expr] = [axis.var for axis in self.spatial]
        self.reduction = make_axes(self.block.reduction, self.block.reduction_extents)

    def emit(self) -> Stmt:
        """The loops over the spatial axes: apart where conditions hold for each vector's lanes alike."""
        lane = next((i for i, axis in reversed([*enumerate(self.spatial)]) if as_int(axis.extent) != 1), None)
        if lane is None:
            return self._nest()
        whole, start = self.spatial[lane], self.positions[lane]
        statements = []
        points = self._points(whole)
        for low, high in zip([0, *points], [*points, None], strict=True):
            size = simplify(whole.extent - low) if high is None else i64(high - low)
            part = Axis(var=tirx.Var(str(whole.var.name), "int64"), extent=size)
            self.spatial = tuple(part if i == lane else axis for i, axis in enumerate(self.spatial))
            self.positions[lane] = simplify(substitute(start, {whole.var: low + part.var}))
            statements.append(self._nest())
        return seq(*statements)

    def _points(self, axis: Axis) -> list[int]:
        """Where along an axis of known extent a condition starts or ends to hold for the whole reduction."""
        extent = as_int(axis.extent)
        if extent is None:
            return []
        analyzer = make_analyzer((*self.spatial, *self.reduction))
        sample = Builder(analyzer, self.views, self.producers)
        sample.value(self.reducer.operand, self._iterators())
        points: set[int] = set()
        for condition in sample.undecided:
            difference = analyzer.simplify(i64(condition.a) - i64(condition.b))
            step = as_int(stride(difference, axis.var, analyzer))
            if not step or isinstance(condition, tirx.EQ | tirx.NE):
                continue
            rest = analyzer.simplify(difference - step * axis.var)
            bound = analyzer.const_int_bound(rest)
            limit = 1 if isinstance(condition, tirx.LE | tirx.GT) else 0
            # The first position where step * position + rest < limit changes, for either end of the rest.
            points |= {
                -((end - limit) // step) if step > 0 else (end - limit) // -step + 1
                for end in (int(bound.min_value), int(bound.max_value))
            }
        return sorted(point for point in points if 0 < point < extent)

    def _nest(self) -> Stmt:
        """The loops over the spatial axes as they stand."""
        result = tirx.Var("result", self.block.output.ty.dtype)
        epilogue, offsets = self._epilogue(result)
        analyzer = make_analyzer((*self.spatial, *self.reduction))
        sample = Builder(analyzer, self.views, self.producers)
        operand = sample.value(self.reducer.operand, self._iterators())
        program = sample.program(operand)
        expressions = [*program_expressions(program), *program_expressions(epilogue)]
        axes, zeros = coalesce(self.spatial, expressions, offsets, analyzer)
        self.zeros, self.axes = zeros, axes
        epilogue = substitute_program(epilogue, zeros, analyzer)
        offsets = [simplify(substitute(offset, zeros)) for offset in offsets]
        work = expected_product((*axes, *self.reduction), self.context)
        serial = self.context.is_small(work * (4 if is_heavy(expressions) else 1))
        lanes = self.context.unit.lanes()

        def tile(bound: Mapping[Expr, Expr], start: Expr, counts: Sequence[int]) -> Stmt:
            return self._tile(bound, start, counts, result, epilogue, offsets)

        if not axes:
            return self._tile({}, i64(0), [1], result, epilogue, offsets)
        outer, inner = axes[:-1], axes[-1]
        vectors = max(1, min(_VECTORS, self.context.expected(inner.extent) // lanes))
        blocks = simplify(tirx.floordiv(inner.extent, i64(vectors * lanes)))

        def row(bound: Mapping[Expr, Expr]) -> Stmt:
            kind = tirx.ForKind.SERIAL if serial or outer else tirx.ForKind.PARALLEL
            parts = []
            if as_int(blocks) != 0:
                parts.append(
                    loop(
                        blocks,
                        lambda b: tile(bound, b * (vectors * lanes), [lanes] * vectors),
                        "block",
                        kind,
                    )
                )
            done = simplify(blocks * (vectors * lanes))
            left = simplify(inner.extent - done)
            if as_int(left) != 0:
                parts.append(
                    vector_pieces(
                        left, lanes, lambda start, count, _: tile(bound, done + start, [count]), heavy=False
                    )
                )
            return seq(*parts)

        return outer_loops(outer, row, self.context, serial=serial)

    def _iterators(self) -> dict[Expr, Expr]:
        own = {var: axis.var for var, axis in zip(self.block.reduction, self.reduction, strict=True)}
        return {**dict(zip(self.block.spatial, self.positions, strict=True)), **own}

    def _epilogue(self, result: Expr) -> tuple[Program, list[Expr]]:
        """What is computed from each result, and where the values of the stored blocks go."""
        builder = Builder(make_analyzer(self.spatial), self.views, self.producers)
        values, offsets = [], []
        for block in (self.block, *self.after):
            iterators = dict(zip(block.spatial, self.positions, strict=True))
            is_own = block is self.block
            value = result if is_own else builder.hold(builder.value(block.value, iterators))
            indices = tuple(builder.value(index, iterators) for index in block.indices)
            builder.values.append((block.output, indices, value))
            if any(block is kept for kept in self.stored):
                values.append(value)
                offsets.append(builder.offset(block.output, indices))
        return builder.program(*values), offsets

    def _tile(
        self, bound: Mapping[Expr, Expr], start: Expr, counts: Sequence[int], result: Expr,
        epilogue: Program, offsets: Sequence[Expr],
    ) -> Stmt:  # fmt: skip
        """Reduce and finish some vectors of neighbouring outputs."""
        dtype = str(self.block.output.ty.dtype)
        inner = self.axes[-1].var if self.axes else None
        accumulator, declaration = allocate([sum(counts)], dtype, "accumulator", "local")
        places = [sum(counts[:i]) for i in range(len(counts))]

        def at(place: int, lane: Expr) -> dict[Expr, Expr]:
            where = {**self.zeros, **bound}
            return where if inner is None else {**where, inner: start + place + lane}

        init = [
            store(accumulator, broadcast(self.reducer.init, count), lanes_at(place, count))
            for place, count in zip(places, counts, strict=True)
        ]

        def step(program: Program, reduction: Mapping[Expr, Expr]) -> Stmt:
            def element(place: int, lane: Expr, registers: Registers) -> Stmt:
                statements, (value,) = emit_program(program, {**at(place, lane), **reduction}, registers)
                own = load(accumulator, place + lane)
                statements.append(store(accumulator, self.reducer.combine(own, value), place + lane))
                return seq(*statements)

            return seq(
                *(
                    with_registers(count, partial(element, place))
                    for place, count in zip(places, counts, strict=True)
                )
            )

        def finish(place: int, lane: Expr, registers: Registers) -> Stmt:
            variables = {**at(place, lane), result: load(accumulator, place + lane)}
            statements, values = emit_program(epilogue, variables, registers)
            for block, value, offset in zip(self._kept(), values, offsets, strict=True):
                where = substitute(offset, variables)
                statements.append(store(self.views.of(block.output), value, where))
            return seq(*statements)

        ends = [
            with_registers(count, partial(finish, place)) for place, count in zip(places, counts, strict=True)
        ]
        box = Box(axes=self.reduction, around=self.spatial, iterators=self._iterators())
        return seq(declaration, *init, *self._walk(box, bound, step), *ends)

    def _kept(self) -> list[Block]:
        return [b for b in (self.block, *self.after) if any(b is kept for kept in self.stored)]

    def _walk(
        self, box: Box, bound: Mapping[Expr, Expr], step: Callable[[Program, Mapping[Expr, Expr]], Stmt]
    ) -> list[Stmt]:
        """The reduction's loops, narrowed to where the operand is not the identity."""
        builder = Builder(box.analyzer(), self.views, self.producers, facts=box.facts)
        value = builder.value(self.reducer.operand, box.iterators)
        if same_expr(value, self.reducer.identity()):
            return []
        lane = self.axes[-1].var if self.axes else None
        splits = [
            (split, condition)
            for condition in builder.undecided
            if (split := split_condition(condition, box)) is not None
            and not any(lane is not None and node.same_as(lane) for node in walk(split[1]))
        ]
        if not splits:
            program = builder.program(value)
            return [self._loops(box.axes, bound, lambda inside: step(program, inside))]
        (position, point, before), condition = min(splits, key=lambda s: s[0][0])
        outer, axis, inner = box.axes[:position], box.axes[position], box.axes[position + 1 :]

        def parts(inside: Mapping[Expr, Expr]) -> Stmt:
            at = simplify(tirx.max(i64(0), tirx.min(point, axis.extent)))
            statements = []
            for low, size, truth in ((i64(0), at, before), (at, simplify(axis.extent - at), not before)):
                moved = Axis(var=tirx.Var(str(axis.var.name), "int64"), extent=size)
                change = {axis.var: low + moved.var}
                part = Box(
                    axes=(moved, *inner),
                    iterators={k: substitute(v, change) for k, v in box.iterators.items()},
                    facts=tuple((substitute(c, change), t) for c, t in (*box.facts, (condition, truth))),
                    around=(*box.around, *outer),
                )
                statements += self._walk(part, inside, step)
            return seq(*statements) if statements else tirx.Evaluate(i64(0))

        return [self._loops(outer, bound, parts)]

    def _loops(
        self, axes: Sequence[Axis], bound: Mapping[Expr, Expr], body: Callable[[Mapping[Expr, Expr]], Stmt]
    ) -> Stmt:
        if not axes:
            return body(bound)
        axis, rest = axes[0], axes[1:]
        extent = simplify(substitute(axis.extent, {**self.zeros, **bound}))
        return loop(extent, lambda i: self._loops(rest, {**bound, axis.var: i}, body), str(axis.var.name))
