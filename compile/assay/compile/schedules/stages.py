"""Blocks without a dedicated schedule: elementwise, injective, and reductions, vectorized and in parallel.

A stage is one block. Its innermost loop is vectorized: over the last spatial iterator (elementwise, pooling,
reductions over outer axes), or over the reduction with one partial result a lane (reductions over the last
axis). The outer loops are shared between threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    floordiv,
    floormod,
    i64,
    load,
    loop,
    parallel,
    seq,
    simplify,
    store,
    substitute,
    vectorized,
    walk,
)
from assay.compile.schedules.math import Registers, vector_math, with_registers

__all__ = ["emit_stage"]

# Accumulators of one reduction, so that its multiply-adds or maxima overlap.
_PARTIAL_SUMS = 4


def emit_stage(block: Block, context: ScheduleContext) -> Stmt:
    """One block as a loop nest of its own."""
    if block.is_reduction:
        return _emit_reduction(block, context)
    return _emit_elementwise(block, context)


def _uses(expr: Expr, var: Expr) -> bool:
    return any(node.same_as(var) for node in walk(expr))


def _operations(extents: Sequence[Expr], context: ScheduleContext) -> int:
    size = 1
    for extent in extents:
        size *= max(context.expected(extent), 1)
    return size


def _flattened(block: Block) -> bool:
    """Whether every access is at the iterators themselves, so that the whole block is one long vector."""
    if any(not i.same_as(v) for i, v in zip(block.indices, block.spatial, strict=False)):
        return False
    if len(block.indices) != len(block.spatial):
        return False
    for access in loads_of(block.value):
        if len(access.indices) != len(block.spatial):
            if len(access.indices) == 0 or all(as_int(i) == 0 for i in access.indices):
                continue
            return False
        if any(not i.same_as(v) for i, v in zip(access.indices, block.spatial, strict=True)):
            return False
        shape, mine = list(access.source.ty.shape), list(block.spatial_extents)
        if any(
            not tvm.ir.structural_equal(simplify(s), simplify(m)) for s, m in zip(shape, mine, strict=True)
        ):
            return False
    return not any(
        isinstance(n, tirx.Var) and any(n.same_as(v) for v in block.spatial)
        for n in walk_outside_loads(block.value)
    )


def walk_outside_loads(expr: Expr) -> list[Expr]:
    """Nodes of an expression that are not inside a load's index."""
    from assay.compile.schedules.ir import children

    if isinstance(expr, tvm.ir.TensorLoad):
        return []
    result = [expr]
    for child in children(expr):
        result += walk_outside_loads(child)
    return result


def _outer(
    block: Block,
    extents: Sequence[Expr],
    variables: Sequence[Expr],
    body,
    context: ScheduleContext,
    work: int,
) -> Stmt:
    """A parallel loop over the fused outer iterators; ``body`` takes the map of iterators."""
    total = i64(1)
    for extent in extents:
        total = total * i64(extent)

    def task(t: Expr) -> Stmt:
        statements: list[Stmt] = []
        bound: dict[Expr, Expr] = {}
        rest = t
        for variable, extent in reversed(list(zip(variables, extents, strict=True))[1:]):
            bound[variable], more = bind(variable.name, floormod(rest, extent))
            statements += more
            rest, more = bind("rest", floordiv(rest, extent))
            statements += more
        if variables:
            bound[variables[0]] = rest
        return seq(statements, body(bound))

    return parallel(simplify(total), task, "task", serial=context.is_small(work))


def _emit_elementwise(block: Block, context: ScheduleContext) -> Stmt:
    lanes = context.unit.lanes()
    cost = 1 + sum(isinstance(node, tvm.ir.Call) for node in walk(block.value)) * 4
    work = _operations(block.spatial_extents, context) * cost

    def element(bound: dict[Expr, Expr], registers) -> Stmt:
        steps, value = vector_math(substitute(block.value, bound), registers)
        return seq(steps, store(block.output, value, *(substitute(i, bound) for i in block.indices)))

    def run(bound: dict[Expr, Expr], inner: Expr, start: int | Expr, count: int) -> Stmt:
        return with_registers(count, lambda lane, regs: element({**bound, inner: start + lane}, regs))

    if not block.spatial:
        return with_registers(1, lambda lane, regs: element({}, regs))
    inner, extent = block.spatial[-1], block.spatial_extents[-1]

    def row(bound: dict[Expr, Expr]) -> Stmt:
        parts = []
        blocks, left = floordiv(extent, lanes), floormod(extent, lanes)
        if as_int(blocks) != 0:
            parts.append(loop(blocks, lambda v: run(bound, inner, v * lanes, lanes), "vector"))
        if as_int(left) != 0:
            done = simplify(blocks * lanes)
            parts.append(loop(left, lambda e: run(bound, inner, done + e, 1), "element"))
        return seq(parts)

    return _outer(block, block.spatial_extents[:-1], block.spatial[:-1], row, context, work)


def _emit_reduction(block: Block, context: ScheduleContext) -> Stmt:
    """Vectorized over the last spatial iterator, one accumulator a lane; the reduction loops are inside."""
    lanes = context.unit.lanes()
    work = _operations((*block.spatial_extents, *block.reduction_extents), context)

    def reduce(bound: dict[Expr, Expr], inner: Expr | None, start: int | Expr, count: int) -> Stmt:
        accumulator, declaration = allocate([count], str(block.output.ty.dtype), "accumulator", "local")

        def at(lane: Expr) -> dict[Expr, Expr]:
            return bound if inner is None else {**bound, inner: start + lane}

        def is_output(node: Expr) -> bool:
            return bool(node.source.same_as(block.output))

        def step(bound_reduction: dict[Expr, Expr]) -> Stmt:
            def element(lane: Expr, registers: Registers) -> Stmt:
                value = substitute(
                    block.value,
                    {**at(lane), **bound_reduction},
                    lambda node: load(accumulator, lane) if is_output(node) else None,
                )
                steps, value = vector_math(value, registers)
                return seq(steps, store(accumulator, value, lane))

            return with_registers(count, element)

        def nest(level: int, bound_reduction: dict[Expr, Expr]) -> Stmt:
            if level == len(block.reduction):
                return step(bound_reduction)
            variable = block.reduction[level]
            return loop(
                block.reduction_extents[level],
                lambda r: nest(level + 1, {**bound_reduction, variable: r}),
                str(variable.name),
            )

        start_value = vectorized(
            count, lambda lane: store(accumulator, substitute(block.init, at(lane)), lane)
        )
        result = vectorized(
            count,
            lambda lane: store(
                block.output, load(accumulator, lane), *(substitute(i, at(lane)) for i in block.indices)
            ),
        )
        return seq(declaration, start_value, nest(0, {}), result)

    if not block.spatial:
        return reduce({}, None, 0, 1)
    inner, extent = block.spatial[-1], block.spatial_extents[-1]

    def row(bound: dict[Expr, Expr]) -> Stmt:
        parts = []
        blocks, left = floordiv(extent, lanes), floormod(extent, lanes)
        if as_int(blocks) != 0:
            parts.append(loop(blocks, lambda v: reduce(bound, inner, v * lanes, lanes), "vector"))
        if as_int(left) != 0:
            done = simplify(blocks * lanes)
            parts.append(loop(left, lambda e: reduce(bound, inner, done + e, 1), "element"))
        return seq(parts)

    return _outer(block, block.spatial_extents[:-1], block.spatial[:-1], row, context, work)
