"""Loops in two forms where sizes are symbolic: shared between threads, or alone where there is little to do.

A model of text takes hundreds of tokens at once, and then one. Waking the threads for that one costs several
times what a norm of it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import Expr, Stmt, as_int, i64, if_then, seq, simplify
from assay.compile.schedules.stages import Stages, emit_stages

__all__ = ["emit_stages_for_any_size"]

# Stages that compute exponentials or walk a row again cost several simple operations an element.
_OPERATIONS = 2


def emit_stages_for_any_size(
    blocks: Sequence[Block], function: FusedFunction, context: ScheduleContext
) -> Stages:
    """``emit_stages``, with a form for one thread beside it where a symbolic size decides at run time."""
    shared = emit_stages(blocks, function, context)
    work = simplify(_elements(blocks) * _OPERATIONS)
    if as_int(work) is not None or not any(_is_shared(each) for each in shared.statements):
        return shared
    alone = emit_stages(blocks, function, replace(context, serial=True))
    choice = if_then(context.is_small_at_run_time(work), seq(alone.statements), seq(shared.statements))
    stored = [*shared.stored, *(b for b in alone.stored if not any(b.same_as(s) for s in shared.stored))]
    return Stages(statements=(choice,), stored=tuple(stored))


def _elements(blocks: Sequence[Block]) -> Expr:
    """Iterations of all blocks together."""
    total = i64(0)
    for block in blocks:
        count = i64(1)
        for extent in (*block.spatial_extents, *block.reduction_extents):
            count = count * i64(extent)
        total = total + count
    return total


def _is_shared(statement: Stmt) -> bool:
    """Whether a statement has a loop that threads share."""
    loops = (each for each in _inside(statement) if isinstance(each, tirx.For))
    return any(each.kind == tirx.ForKind.PARALLEL for each in loops)


def _inside(statement: Stmt) -> Iterator[Stmt]:
    yield statement
    for name in ("seq", "body", "then_case", "else_case"):
        inner = getattr(statement, name, None)
        for part in () if inner is None else inner if name == "seq" else [inner]:
            yield from _inside(part)
