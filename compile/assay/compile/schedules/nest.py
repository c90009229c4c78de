"""Loop nests that the stages share: merged axes, outer loops over threads, an inner loop over vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import tvm
from tvm import tirx
from tvm.sym import Analyzer

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    as_int,
    bind,
    children,
    floordiv,
    floormod,
    i64,
    if_then,
    loop,
    parallel,
    seq,
    simplify,
    substitute,
    walk,
)
from assay.compile.schedules.program import Axis

__all__ = [
    "coalesce",
    "expected_product",
    "is_heavy",
    "load_offsets",
    "outer_loops",
    "stride",
    "vector_pieces",
]

# Tasks that a parallel loop should have at least, so that the threads end together.
_MIN_TASKS = 32


def load_offsets(expr: Expr) -> Iterator[Expr]:
    """Every flat offset that an expression loads from, the loads inside offsets included."""
    for node in walk(expr):
        if isinstance(node, tvm.ir.TensorLoad):
            yield node.indices[0]


def _outside_loads(expr: Expr) -> Iterator[Expr]:
    if isinstance(expr, tvm.ir.TensorLoad):
        return
    yield expr
    for child in children(expr):
        yield from _outside_loads(child)


def stride(offset: Expr, var: Expr, analyzer: Analyzer) -> Expr:
    """How far ``offset`` moves for one step of ``var``; not constant where it is not affine."""
    return analyzer.simplify(substitute(offset, {var: var + 1}) - offset)


def _is_free(expr: Expr, variables: Sequence[Expr]) -> bool:
    return not any(
        isinstance(node, tvm.ir.TensorLoad) or any(node.same_as(var) for var in variables)
        for node in walk(expr)
    )


def coalesce(
    axes: Sequence[Axis], expressions: Sequence[Expr], offsets: Sequence[Expr], analyzer: Analyzer
) -> tuple[list[Axis], dict[Expr, Expr]]:
    """Merge neighbouring axes that every access walks as one, and drop those of one iteration.

    ``expressions`` are the values computed, ``offsets`` the positions stored to. Gives the axes left, and the
    replacement (zero) of each variable that is gone: the merged axis keeps the inner one's variable.
    """
    zeros = {axis.var: i64(0) for axis in axes if as_int(axis.extent) == 1}
    remaining = [axis for axis in axes if axis.var not in zeros]
    variables = [axis.var for axis in remaining]
    accesses = [*offsets, *(offset for e in expressions for offset in load_offsets(e))]
    accesses = [substitute(offset, zeros) for offset in accesses]
    fixed = [
        node
        for e in expressions
        for node in _outside_loads(substitute(e, zeros))
        if isinstance(node, tirx.Var)
    ]
    steps = {axis.var: [stride(offset, axis.var, analyzer) for offset in accesses] for axis in remaining}

    def movable(var: Expr) -> bool:
        return all(_is_free(s, variables) for s in steps[var]) and not any(n.same_as(var) for n in fixed)

    merged: list[Axis] = []
    for axis in reversed(remaining):
        inner = merged[0] if merged else None
        if (
            inner is not None
            and _is_free(inner.extent, variables)
            and movable(axis.var)
            and movable(inner.var)
            and all(
                as_int(analyzer.simplify(a - b * inner.extent)) == 0
                for a, b in zip(steps[axis.var], steps[inner.var], strict=True)
            )
        ):
            merged[0] = Axis(var=inner.var, extent=simplify(inner.extent * axis.extent))
            zeros[axis.var] = i64(0)
        else:
            merged.insert(0, axis)
    return merged, zeros


def expected_product(axes: Sequence[Axis], context: ScheduleContext) -> int:
    """The iterations of ``axes`` at the expected sizes."""
    size = 1
    for axis in axes:
        size *= max(context.expected(axis.extent), 1)
    return size


def is_heavy(expressions: Sequence[Expr]) -> bool:
    """Whether a value costs so much that scalar iterations at the end of a row would show."""
    calls = sum(isinstance(node, tvm.ir.Call | tirx.Div) for e in expressions for node in walk(e))
    return calls > 0


def outer_loops(
    axes: Sequence[Axis],
    body: Callable[[Mapping[Expr, Expr]], Stmt],
    context: ScheduleContext,
    *,
    serial: bool,
) -> Stmt:
    """Loops over ``axes``; the outermost ones are shared between threads unless ``serial``."""
    fused = 0
    if not serial:
        while fused < len(axes) and (fused == 0 or expected_product(axes[:fused], context) < _MIN_TASKS):
            fused += 1

    def nest(level: int, bound: Mapping[Expr, Expr]) -> Stmt:
        if level == len(axes):
            return body(bound)
        axis = axes[level]
        extent = substitute(axis.extent, bound)
        return loop(extent, lambda i: nest(level + 1, {**bound, axis.var: i}), axis.var.name)

    if fused == 0:
        return nest(0, {})
    total: Expr = i64(1)
    for axis in axes[:fused]:
        total = total * axis.extent

    def task(t: Expr) -> Stmt:
        statements: list[Stmt] = []
        bound: dict[Expr, Expr] = {}
        for axis in reversed(axes[1:fused]):
            bound[axis.var], more = bind(axis.var.name, floormod(t, axis.extent))
            t, rest = bind("rest", floordiv(t, axis.extent))
            statements += [*more, *rest]
        bound[axes[0].var] = t
        return seq(statements, nest(fused, bound))

    return parallel(simplify(total), task, "task")


def vector_pieces(
    extent: Expr,
    lanes: int,
    body: Callable[[Expr, int, int], Stmt],
    *,
    unroll: int = 1,
    heavy: bool = False,
    kind: tirx.ForKind = tirx.ForKind.SERIAL,
) -> Stmt:
    """Cover ``extent`` elements: ``body(start, count, slot)`` for whole vectors, then for what is left.

    ``slot`` numbers the vectors of one iteration, below ``unroll``.

    The rest takes shorter vectors of halving length where the extent is known or the work is heavy, else one
    element at a time.
    """
    statements: list[Stmt] = []
    done: Expr = i64(0)
    known = as_int(extent)
    for factor in (unroll, 1) if unroll > 1 else (1,):
        step = lanes * factor
        blocks = floordiv(extent - done, step)
        if as_int(blocks) == 0:
            continue
        base = done

        def block(v: Expr, base: Expr = base, factor: int = factor, step: int = step) -> Stmt:
            return seq(*(body(base + v * step + u * lanes, lanes, u) for u in range(factor)))

        whole = kind if factor == unroll else tirx.ForKind.SERIAL
        statements.append(loop(blocks, block, "vector", whole))
        done = simplify(done + blocks * step)
    if known is not None:
        left = known - (as_int(done) or 0)
        count = lanes
        while count > 1:
            count //= 2
            if left >= count:
                statements.append(body(done, count, 0))
                done, left = simplify(done + count), left - count
        return seq(*statements)
    left = simplify(extent - done)
    if not heavy:
        statements.append(loop(left, lambda e: body(done + e, 1, 0), "element"))
        return seq(*statements)
    start, more = bind("start", done)
    remaining, rest = bind("left", left)
    statements += [*more, *rest]
    count = lanes
    while count > 1:
        count //= 2
        # What is left modulo 2 * count has been covered by the longer pieces before this one.
        at = start + floordiv(remaining, 2 * count) * (2 * count)
        present = floormod(floordiv(remaining, count), 2)
        statements.append(if_then(tirx.EQ(present, i64(1)), body(at, count, 0)))
    return seq(*statements)
