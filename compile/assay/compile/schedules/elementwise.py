"""Stages without a reduction: arithmetic, copies, broadcasts, transposes, concatenation, padding, gather.

Conditions on the iterators (padding, concatenation, triangular masks) split the iteration space into boxes,
each of which is a plain loop nest; a box's inner loop is vectorized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.sym import Analyzer

from assay.compile.schedules.blocks import Block
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    as_int,
    i64,
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
from assay.compile.schedules.transpose import emit_transposed, transposed_axis

__all__ = ["Box", "emit_elementwise", "same_space", "split_condition"]

# Whole-vector iterations of one inner block of a long flat loop.
_UNROLL = 4
# Outer iterations that make it worth to share them between threads rather than the boxes inside.
_MIN_OUTER = 8


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of an iteration space: axes with ranges, the iterators in terms of them, and what is known.

    ``around``: loops that this box is inside of, as far as their variables have a known range.
    """

    axes: tuple[Axis, ...]
    iterators: Mapping[Expr, Expr]
    facts: tuple[tuple[Expr, bool], ...] = ()
    around: tuple[Axis, ...] = ()

    def analyzer(self) -> Analyzer:
        """An analyzer that knows the axes and the loops around."""
        return make_analyzer((*self.around, *self.axes))


def emit_elementwise(
    blocks: Sequence[Block], producers: Sequence[Block], views: Views, context: ScheduleContext
) -> Stmt:
    """Blocks over the same iteration space, each element of which is computed once."""
    return _Emitter(blocks, producers, views, context).emit(_whole(blocks), serial=False)


def same_space(blocks: Sequence[Block], producers: Sequence[Block]) -> int:
    """How many of the first blocks run over the same space, using each other's elements in place only."""
    first = blocks[0]
    count = 1
    for block in blocks[1:]:
        if block.is_reduction or len(block.spatial) != len(first.spatial):
            break
        if not all(
            same_expr(a, b) for a, b in zip(block.spatial_extents, first.spatial_extents, strict=True)
        ):
            break
        box = _whole(blocks[: count + 1])
        builder = Builder(box.analyzer(), Views(), producers)
        for other in blocks[: count + 1]:
            value = tirx.Var("held", other.output.ty.dtype)
            if not other.is_reduction:
                value = builder.hold(builder.value(other.value, box.iterators))
            indices = tuple(builder.value(index, box.iterators) for index in other.indices)
            builder.values.append((other.output, indices, value))
        if builder.misplaced:
            break
        count += 1
    return count


def _whole(blocks: Sequence[Block]) -> Box:
    """The iteration space that the blocks share."""
    first = blocks[0]
    axes = make_axes(first.spatial, first.spatial_extents)
    iterators = {var: axis.var for block in blocks for var, axis in zip(block.spatial, axes, strict=True)}
    return Box(axes=axes, iterators=iterators)


def split_condition(condition: Expr, box: Box) -> tuple[int, Expr, bool] | None:
    """Where a comparison changes along one axis: the axis' position, the split point, and its truth before.

    None for a comparison that is not affine with a constant factor in any axis.
    """
    a, b = condition.a, condition.b
    analyzer = box.analyzer()
    for position in reversed(range(len(box.axes))):
        var = box.axes[position].var
        difference = analyzer.simplify(i64(a) - i64(b))
        if not any(node.same_as(var) for node in walk(difference)):
            continue
        step = as_int(analyzer.simplify(substitute(difference, {var: var + 1}) - difference))
        if not step:
            return None
        rest = analyzer.simplify(difference - step * var)
        if any(node.same_as(var) for node in walk(rest)):
            return None
        if isinstance(condition, tirx.EQ | tirx.NE):
            return None
        # a < b is difference < 0; a <= b is difference < 1; the others are their negations.
        limit = 1 if isinstance(condition, tirx.LE | tirx.GT) else 0
        truth = isinstance(condition, tirx.LT | tirx.LE)
        if step > 0:
            point = tirx.floordiv(i64(limit) - rest + (step - 1), i64(step))
        else:
            # -s * v + rest < limit  <=>  v > (rest - limit) / s.
            point = tirx.floordiv(rest - limit, i64(-step)) + 1
            truth = not truth
        return position, analyzer.simplify(point), truth
    return None


def _is_closed(extent: Expr, variables: Sequence[Expr]) -> bool:
    return not any(node.same_as(var) for node in walk(extent) for var in variables)


class _Emitter:
    def __init__(
        self,
        blocks: Sequence[Block],
        producers: Sequence[Block],
        views: Views,
        context: ScheduleContext,
    ) -> None:
        self.blocks = blocks
        self.producers = producers
        self.views = views
        self.context = context

    def emit(self, box: Box, *, serial: bool) -> Stmt:
        """The loops over one box."""
        program, offsets, undecided = self._build(box)
        splits = [(split, c) for c in undecided if (split := split_condition(c, box)) is not None]
        if splits:
            split, condition = min(splits, key=lambda s: s[0][0])
            return self._split(box, condition, *split, serial=serial)
        return self._nest(box, program, offsets, serial=serial)

    def _build(self, box: Box) -> tuple[Program, list[Expr], list[Expr]]:
        builder = Builder(box.analyzer(), self.views, self.producers, facts=box.facts)
        results, offsets = [], []
        for block in self.blocks:
            value = builder.value(block.value, box.iterators)
            indices = tuple(builder.value(index, box.iterators) for index in block.indices)
            if len(self.blocks) > 1:
                value = builder.hold(value)
                builder.values.append((block.output, indices, value))
            results.append(value)
            offsets.append(builder.offset(block.output, indices))
        return builder.program(*results), offsets, builder.undecided

    def _split(
        self, box: Box, condition: Expr, position: int, point: Expr, before: bool, *, serial: bool
    ) -> Stmt:
        """Emit the box in two parts, on either side of ``point`` along one axis."""
        outer, axis, inner = box.axes[:position], box.axes[position], box.axes[position + 1 :]
        own = [a.var for a in outer]
        depends = any(any(node.same_as(var) for var in own) for node in walk(point))
        share_outer = bool(outer) and (
            depends or (not serial and expected_product(outer, self.context) >= _MIN_OUTER)
        )
        if serial and outer:
            share_outer = True

        def parts(bound: Mapping[Expr, Expr], *, inner_serial: bool) -> Stmt:
            at = substitute(point, bound)
            extent = substitute(axis.extent, bound)
            at = simplify(tirx.max(i64(0), tirx.min(at, extent)))
            kept = () if share_outer else outer
            around = [
                Axis(var=bound[a.var], extent=a.extent)
                for a in outer
                if a.var in bound and isinstance(bound[a.var], tirx.Var) and _is_closed(a.extent, own)
            ]
            statements = []
            for low, size, truth in ((i64(0), at, before), (at, simplify(extent - at), not before)):
                if as_int(size) == 0:
                    continue
                moved = Axis(var=tirx.Var(str(axis.var.name), "int64"), extent=size)
                change = {**bound, axis.var: simplify(low + moved.var)}
                part = Box(
                    axes=(
                        *kept,
                        moved,
                        *(replace(a, extent=substitute(a.extent, change)) for a in inner),
                    ),
                    around=(*box.around, *around),
                    iterators={k: substitute(v, change) for k, v in box.iterators.items()},
                    facts=tuple((substitute(c, change), t) for c, t in (*box.facts, (condition, truth))),
                )
                statements.append(self.emit(part, serial=inner_serial))
            return seq(*statements)

        if not share_outer:
            return parts({}, inner_serial=serial)
        small = self.context.is_small(expected_product(box.axes, self.context))
        return outer_loops(
            outer, lambda bound: parts(bound, inner_serial=True), self.context, serial=serial or small
        )

    def _nest(self, box: Box, program: Program, offsets: Sequence[Expr], *, serial: bool) -> Stmt:
        analyzer = box.analyzer()
        axes, zeros = coalesce(box.axes, list(program_expressions(program)), offsets, analyzer)
        program = substitute_program(program, zeros, analyzer)
        offsets = [simplify(substitute(offset, zeros)) for offset in offsets]
        heavy = is_heavy(list(program_expressions(program)))
        work = expected_product(axes, self.context) * (4 if heavy else 1)
        serial = serial or self.context.is_small(work)

        def element(bound: Mapping[Expr, Expr], program: Program, registers: Registers) -> Stmt:
            statements, values = emit_program(program, bound, registers)
            for block, value, offset in zip(self.blocks, values, offsets, strict=True):
                at = substitute(offset, bound)
                statements.append(store(self.views.of(block.output), value, at))
            return seq(*statements)

        if not axes:
            return with_registers(1, lambda lane, registers: element({}, program, registers))
        other = transposed_axis(axes, program, self.context)
        if other is not None:
            return emit_transposed(axes, other, program, element, self.context, serial=serial)
        lanes = self.context.unit.lanes()
        outer, inner = axes[:-1], axes[-1]
        flat = not serial and self.context.expected(inner.extent) >= 64 * lanes * _UNROLL
        shared = outer and not (flat and expected_product(outer, self.context) < _MIN_OUTER)
        kind = tirx.ForKind.PARALLEL if flat and not shared else tirx.ForKind.SERIAL

        def row(bound: Mapping[Expr, Expr]) -> Stmt:
            return vector_pieces(
                substitute(inner.extent, bound),
                lanes,
                lambda start, count, _: with_registers(
                    count,
                    lambda lane, registers: element({**bound, inner.var: start + lane}, program, registers),
                ),
                unroll=1 if heavy else _UNROLL,
                heavy=heavy,
                kind=kind,
            )

        return outer_loops(outer, row, self.context, serial=serial or not shared)
