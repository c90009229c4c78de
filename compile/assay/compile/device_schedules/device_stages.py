"""What goes before and after a product on a device: elementwise kernels, and blocks kept in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from assay.compile.device_schedules.threads import launch
from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.epilogue import Epilogue, iterators_at
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    bind,
    ceildiv,
    i64,
    if_then,
    seq,
    simplify,
    store,
    substitute,
)

__all__ = ["element_kernel", "elementwise_kernel", "finished", "scheduled_as", "workspaces"]

_THREADS = 64


def elementwise_kernel(block: Block) -> Stmt:
    """A block without a reduction: a thread for each element."""

    def element(index: Sequence[Expr]) -> Stmt:
        variables = dict(zip(block.spatial, index, strict=True))
        where = [substitute(i, variables) for i in block.indices]
        return store(block.output, substitute(block.value, variables), *where)

    return element_kernel(block.spatial_extents, element)


def element_kernel(extents: Sequence[Expr], element: Callable[[Sequence[Expr]], Stmt]) -> Stmt:
    """``element(index)`` by a thread for each index below ``extents``."""
    count = i64(1)
    for extent in extents:
        count = simplify(count * i64(extent))

    def thread(group: Expr, lane: Expr) -> Stmt:
        number, first = bind("number", group * _THREADS + lane)
        index: list[Expr] = []
        left = number
        for extent in reversed(extents):
            index.insert(0, simplify(tirx.floormod(left, i64(extent))))
            left = tirx.floordiv(left, i64(extent))
        return seq(first, if_then(number < count, element(index)))

    return launch(ceildiv(count, _THREADS), _THREADS, thread)


def finished(epilogue: Epilogue, index: Sequence[Expr], accumulator: Expr) -> Stmt:
    """Compute the blocks of ``epilogue`` for one element, and store what the caller wants of it."""
    statements: list[Stmt] = []
    if epilogue.stores(epilogue.anchor_output):
        statements.append(store(epilogue.anchor_output, accumulator, *index))
    values: list[tuple[Buffer, Expr]] = [(epilogue.anchor_output, accumulator)]

    def replace(node: Expr) -> Expr | None:
        return next((value for buffer, value in values if node.source.same_as(buffer)), None)

    for block in epilogue.blocks:
        variables = iterators_at(block, [buffer for buffer, _ in values], index)
        assert variables is not None
        value, bound = bind("value", substitute(block.value, variables, replace))
        statements += bound
        values.append((block.output, value))
        if epilogue.function.is_param(block.output):
            where = [substitute(i, variables) for i in block.indices]
            statements.append(store(block.output, value, *where))
    return seq(statements)


def workspaces(function: FusedFunction, used: Sequence[Buffer]) -> list[Stmt]:
    """Declare those of ``used`` that are not the caller's."""
    return [tirx.AllocBuffer(buffer) for buffer in used if not function.is_param(buffer)]


def scheduled_as(function: FusedFunction, body: Sequence[Stmt]) -> Expr:
    """The function with another body, which is scheduled."""
    made = tirx.PrimFunc(list(function.params), seq(body))
    for key, value in {**dict(function.function.attrs or {}), "tirx.is_scheduled": True}.items():
        made = made.with_attr(key, value)
    return made
