"""Which blocks of a fused function are computed where they are used, and which are stages of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import Buffer, Expr, as_int, children
from assay.compile.schedules.program import call_name, same_expr

__all__ = ["Plan", "kept_blocks", "plan_stages", "spatial_axes"]

# Calls that cost several instructions, beside the transcendental ones.
_CHEAP_CALLS = frozenset(
    [
        "if_then_else",
        "likely",
        "reinterpret",
        "fabs",
        "floor",
        "ceil",
        "round",
        "trunc",
        "nearbyint",
        "shift_right",
        "shift_left",
        "bitwise_and",
        "bitwise_or",
    ]
)
# A block up to these is computed again at each use rather than stored.
_LIGHT_OPERATIONS = 16
_LIGHT_LOADS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages in execution order, and the blocks computed inside them."""

    stages: tuple[Block, ...]
    producers: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class _Cost:
    heavy: int
    operations: int
    loads: int

    @property
    def is_light(self) -> bool:
        return not self.heavy and self.operations <= _LIGHT_OPERATIONS and self.loads <= _LIGHT_LOADS


def spatial_axes(block: Block) -> list[tuple[Expr, Expr]]:
    """The block's spatial iterators and extents, but those of one iteration."""
    return [
        (var, extent)
        for var, extent in zip(block.spatial, block.spatial_extents, strict=True)
        if as_int(extent) != 1
    ]


def _is_invertible(block: Block) -> bool:
    """Whether each element of the output belongs to one iteration that its index tells."""
    if block.is_reduction:
        return False
    seen: list[Expr] = []
    for index in block.indices:
        if isinstance(index, tirx.Var):
            if any(index.same_as(other) for other in seen):
                return False
            seen.append(index)
        elif as_int(index) is None:
            return False
    return all(any(var.same_as(other) for other in seen) for var, _ in spatial_axes(block))


def _own_cost(block: Block) -> _Cost:
    heavy = operations = 0
    stack: list[Expr] = [block.value]
    while stack:
        node = stack.pop()
        if isinstance(node, tvm.ir.TensorLoad):
            continue
        stack.extend(children(node))
        name = call_name(node)
        if (name and name not in _CHEAP_CALLS) or isinstance(node, tirx.Div):
            heavy += 1
        if children(node):
            operations += 1
    return _Cost(heavy=heavy, operations=operations, loads=sum(1 for _ in loads_of(block.value)))


def _iterations(block: Block, context: ScheduleContext) -> int:
    size = 1
    for extent in (*block.spatial_extents, *block.reduction_extents):
        size *= max(context.expected(extent), 1)
    return size


def _loads(block: Block, buffer: Buffer) -> list[tuple[Expr, ...]]:
    """The distinct indices at which a block loads a buffer."""
    found: list[tuple[Expr, ...]] = []
    for access in loads_of(block.value):
        at = tuple(access.indices)
        if access.source.same_as(buffer) and not any(
            all(same_expr(a, b) for a, b in zip(at, other, strict=True)) for other in found
        ):
            found.append(at)
    return found


def plan_stages(blocks: Sequence[Block], function: FusedFunction, context: ScheduleContext) -> Plan:
    """Split ``blocks``, consecutive ones of ``function``, into stages and blocks computed in place.

    A block is computed in place where that repeats no expensive work: all its uses end in one stage with no
    more iterations than it has elements, or it is a few instructions. A block nobody uses is dropped.
    """
    elsewhere = [block for block in function.blocks if not any(block is own for own in blocks)]
    costs = _total_costs(blocks)
    sinks: dict[int, set[int]] = {}
    stages: list[int] = []
    for position in reversed(range(len(blocks))):
        block = blocks[position]
        users = [i for i in range(position + 1, len(blocks)) if _loads(blocks[i], block.output)]
        needed = function.is_param(block.output) or any(_loads(b, block.output) for b in elsewhere)
        if not users and not needed:
            sinks[position] = set()
            continue
        reached = set().union(*(sinks[i] for i in users)) if users else set()
        if needed or not _is_invertible(block):
            is_stage = True
        elif costs[position].is_light:
            is_stage = False
        else:
            size = _iterations(block, context)
            is_stage = (
                len(reached) > 1
                or any(_iterations(blocks[i], context) > size for i in {*reached, *users})
                or any(len(_loads(blocks[i], block.output)) > 1 for i in users)
            )
        if is_stage:
            stages.append(position)
            reached = {position}
        sinks[position] = reached
    kept = set(stages)
    return Plan(
        stages=tuple(block for i, block in enumerate(blocks) if i in kept),
        producers=tuple(block for i, block in enumerate(blocks) if i not in kept and sinks[i]),
    )


def _total_costs(blocks: Sequence[Block]) -> list[_Cost]:
    """Each block's cost with the blocks that it loads computed in place."""
    costs: list[_Cost] = []
    for position, block in enumerate(blocks):
        own = _own_cost(block)
        inner = [
            costs[i] for i in range(position) for _ in _loads(block, blocks[i].output)
            if not blocks[i].is_reduction
        ]  # fmt: skip
        costs.append(
            _Cost(
                heavy=own.heavy + sum(c.heavy for c in inner),
                operations=own.operations + sum(c.operations for c in inner),
                loads=own.loads + sum(c.loads - 1 for c in inner),
            )
        )
    return costs


def kept_blocks(group: Sequence[Block], producers: Sequence[Block], function: FusedFunction) -> list[Block]:
    """Blocks of a group whose output must be in memory after it: parameters, and what is loaded elsewhere."""
    return [
        block
        for block in group
        if function.is_param(block.output) or _is_used_outside(block, group, producers, function)
    ]


def _is_used_outside(
    block: Block, inside: Sequence[Block], producers: Sequence[Block], function: FusedFunction
) -> bool:
    """Whether any block outside the group loads this one's output, itself or through a producer."""
    carriers: list[Buffer] = [block.output]
    for other in function.blocks:
        if any(other is own for own in inside):
            continue
        if any(access.source.same_as(c) for access in loads_of(other.value) for c in carriers):
            if not any(other is producer for producer in producers):
                return True
            carriers.append(other.output)
    return False
