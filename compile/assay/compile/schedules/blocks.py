"""A fused TIR function read as a list of loop nests (blocks) over buffers, in execution order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import tvm
from tvm import s_tir, tirx

from assay.compile.schedules.ir import Buffer, Expr, Stmt, walk

__all__ = ["Block", "FusedFunction", "UnreadableFunctionError", "loads_of", "read_function"]


class UnreadableFunctionError(Exception):
    """A function whose body is not a sequence of plain loop nests (a sort, say); it keeps TVM's own code."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One loop nest: ``output[indices] = value`` over spatial iterators, reduced over the others.

    ``reduction`` is empty for an elementwise or injective block; else ``value`` contains a load of
    ``output[indices]`` itself and ``init`` is the start value.
    """

    name: str
    spatial: tuple[Expr, ...]
    spatial_extents: tuple[Expr, ...]
    reduction: tuple[Expr, ...]
    reduction_extents: tuple[Expr, ...]
    output: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    init: Expr | None
    annotations: dict[str, object]

    @property
    def is_reduction(self) -> bool:
        """Whether the block reduces over any iterator."""
        return bool(self.reduction)


@dataclass(frozen=True, kw_only=True)
class FusedFunction:
    """A PrimFunc: its parameters, its blocks in order, and the buffers that live only inside it.

    ``declarations`` are statements for its head, of buffers that are parts of parameters.
    """

    function: Expr
    params: tuple[Buffer, ...]
    blocks: tuple[Block, ...]
    intermediates: tuple[Buffer, ...] = field(default=())
    declarations: tuple[Stmt, ...] = field(default=())

    def is_param(self, buffer: Buffer) -> bool:
        """Whether the caller owns this buffer."""
        return any(buffer.same_as(param) for param in self.params)

    def anchor(self) -> Block | None:
        """The block that a dedicated schedule handles: the one that its maker annotated."""
        marked = [block for block in self.blocks if "assay.schedule" in block.annotations]
        return marked[0] if len(marked) == 1 else None


def loads_of(expr: Expr) -> Iterator[Expr]:
    """Every buffer load in an expression."""
    return (node for node in walk(expr) if isinstance(node, tvm.ir.TensorLoad))


def _statements(body: Stmt) -> list[Stmt]:
    return list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def _read_nest(nest: Stmt) -> Block:
    loops = {}
    while isinstance(nest, tirx.For):
        if nest.kind != tirx.ForKind.SERIAL:
            raise UnreadableFunctionError("a loop that is already scheduled")
        loops[nest.loop_var] = nest.extent
        nest = nest.body
    if not isinstance(nest, s_tir.SBlockRealize):
        raise UnreadableFunctionError(f"a {type(nest).__name__} outside a block")
    block = nest.block
    if not isinstance(block.body, tirx.BufferStore) or len(block.match_buffers) or len(block.alloc_buffers):
        raise UnreadableFunctionError(f"block {block.name_hint} is not one store")
    spatial, reduction = [], []
    for iterator in block.iter_vars:
        kind = iterator.iter_type
        if kind == tirx.IterVar.DataPar:
            spatial.append(iterator)
        elif kind == tirx.IterVar.CommReduce:
            reduction.append(iterator)
        else:
            raise UnreadableFunctionError(f"block {block.name_hint} has an opaque iterator")
    if reduction and not isinstance(block.init, tirx.BufferStore):
        raise UnreadableFunctionError(f"reduction {block.name_hint} has no start value")
    return Block(
        name=block.name_hint,
        spatial=tuple(i.var for i in spatial),
        spatial_extents=tuple(i.dom.extent for i in spatial),
        reduction=tuple(i.var for i in reduction),
        reduction_extents=tuple(i.dom.extent for i in reduction),
        output=block.body.buffer,
        indices=tuple(block.body.indices),
        value=block.body.value,
        init=block.init.value if reduction else None,
        annotations={str(key): value for key, value in block.annotations.items()},
    )


def read_function(function: Expr) -> FusedFunction:
    """Read a PrimFunc made of blocks; raises UnreadableFunctionError where it is anything else."""
    root = function.body
    if not isinstance(root, s_tir.SBlockRealize):
        raise UnreadableFunctionError("no root block")
    return FusedFunction(
        function=function,
        params=tuple(function.params),
        blocks=tuple(_read_nest(nest) for nest in _statements(root.block.body)),
        intermediates=tuple(root.block.alloc_buffers),
    )
