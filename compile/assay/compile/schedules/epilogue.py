"""Elementwise blocks computed on an anchor's tile while it is still in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    flat_view,
    i64,
    load,
    prefetch_run,
    rewrite,
    same_shape,
    store,
    substitute,
)
from assay.compile.schedules.math import Registers, vector_math

__all__ = ["Epilogue", "iterators_at", "split_epilogue"]


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """Blocks that follow an anchor elementwise. Without blocks, the anchor's own buffer is stored."""

    anchor_output: Buffer
    blocks: tuple[Block, ...]
    function: FusedFunction
    views: list[tuple[Buffer, Buffer]] = field(default_factory=list)

    def declare_views(self) -> list[Stmt]:
        """Declare one-dimensional views of the buffers that share the anchor's shape; once, before ``emit``.

        An element's position in them is known without dividing the row into batch, height and width again.
        """
        buffers = [self.anchor_output, *(block.output for block in self.blocks)]
        buffers += [access.source for block in self.blocks for access in loads_of(block.value)]
        statements = []
        for buffer in buffers:
            if self._view(buffer) is None and self.stores(buffer) and self._same_shape(buffer):
                view, declaration = flat_view(buffer)
                self.views.append((buffer, view))
                statements.append(declaration)
        return statements

    def stores(self, buffer: Buffer) -> bool:
        """Whether the buffer exists in memory: the caller owns it, or no block of the chain makes it."""
        made_here = [self.anchor_output, *(block.output for block in self.blocks)]
        in_chain = any(buffer.same_as(made) for made in made_here)
        return self.function.is_param(buffer) or not in_chain or not self.blocks

    def _view(self, buffer: Buffer) -> Buffer | None:
        return next((view for known, view in self.views if known.same_as(buffer)), None)

    def _same_shape(self, buffer: Buffer) -> bool:
        """Whether a position in the anchor's output is the same in the buffer."""
        same = same_shape(list(self.anchor_output.ty.shape), list(buffer.ty.shape))
        # One with strides is a part of a wider array.
        return same and not len(buffer.ty.strides)

    def _at(self, buffer: Buffer, indices: Sequence[Expr], index: Sequence[Expr], flat: Expr) -> Any:
        """The buffer and indices to use: its view at ``flat`` where it is accessed like the anchor."""
        view = self._view(buffer)
        if view is not None and all(a.same_as(b) for a, b in zip(indices, index, strict=True)):
            return view, [flat]
        return buffer, indices

    def fetch(self, flat: Expr, count: int) -> list[Stmt]:
        """Ask for ``count`` elements from ``flat`` on of all buffers that are read or stored there."""
        return [each for _, view in self.views for each in prefetch_run(view, flat, count)]

    def emit(self, index: Sequence[Expr], flat: Expr, accumulator: Expr, registers: Registers) -> list[Stmt]:
        """Statements for one element (inside a loop over the lanes) at ``index`` of the anchor's output.

        ``flat`` is the same element's position in row-major order.
        """
        statements: list[Stmt] = []
        if self.stores(self.anchor_output):
            buffer, where = self._at(self.anchor_output, index, index, flat)
            statements.append(store(buffer, accumulator, *where))
        values: list[tuple[Buffer, Expr]] = [(self.anchor_output, accumulator)]

        def replace(node: Expr) -> Expr | None:
            value = next((value for buffer, value in values if node.source.same_as(buffer)), None)
            if value is None and self._view(node.source) is not None:
                buffer, where = self._at(node.source, list(node.indices), index, flat)
                return load(buffer, *where)
            return value

        for block in self.blocks:
            variables = iterators_at(block, [buffer for buffer, _ in values], index)
            assert variables is not None
            wide = [value.value for _, value in values if isinstance(value, tirx.Cast)]
            fresh = _without_narrowing(substitute(block.value, variables, replace), wide)
            steps, value = vector_math(fresh, registers)
            statements += steps
            value = _kept(value, registers, statements)
            values.append((block.output, value))
            if self.function.is_param(block.output):
                indices = [substitute(i, variables) for i in block.indices]
                buffer, where = self._at(block.output, indices, index, flat)
                statements.append(store(buffer, value, *where))
        return statements


def _kept(value: Expr, registers: Registers, statements: list[Stmt]) -> Expr:
    """``value`` in a register; one of 8 bits that is bounded before it is narrowed stays wide there."""
    if isinstance(value, tirx.Cast) and _fits(value.value, str(value.ty.dtype)):
        return tirx.Cast(value.ty.dtype, registers.keep(value.value, statements))
    return registers.keep(value, statements)


def _fits(wide: Expr, dtype: str) -> bool:
    """Whether an int32 is one of 8 bits, by the bounds that it was just given."""
    if str(wide.ty.dtype) != "int32" or not isinstance(wide, tirx.Min) or not isinstance(wide.a, tirx.Max):
        return False
    low, high = as_int(wide.a.b), as_int(wide.b)
    if low is None or high is None or dtype not in ("uint8", "int8"):
        return False
    smallest, largest = (0, 255) if dtype == "uint8" else (-128, 127)
    return smallest <= low <= high <= largest


def _without_narrowing(value: Expr, wide: Sequence[Expr]) -> Expr:
    """``value`` without the casts to 8 bits and back of the registers ``wide``: LLVM would carry them out."""

    def replace(node: Expr) -> Expr | None:
        if not isinstance(node, tirx.Cast) or not isinstance(node.value, tirx.Cast):
            return None
        inner = node.value.value
        same = str(node.ty.dtype) == "int32" and any(inner.same_as(register) for register in wide)
        return inner if same else None

    return rewrite(value, replace)


def iterators_at(block: Block, chain: Sequence[Buffer], index: Sequence[Expr]) -> dict[Expr, Expr] | None:
    """The block's iterators for which it loads the chain at ``index``; None where it is not elementwise."""
    variables: dict[Expr, Expr] = {}
    for access in loads_of(block.value):
        if not any(access.source.same_as(buffer) for buffer in chain):
            continue
        if len(access.indices) != len(index):
            return None
        for where, at in zip(access.indices, index, strict=True):
            if isinstance(where, tirx.Var):
                if where in variables and not variables[where].same_as(at):
                    return None
                variables[where] = at
            elif as_int(where) != 0:
                return None
    for iterator, extent in zip(block.spatial, block.spatial_extents, strict=True):
        if iterator not in variables:
            if as_int(extent) != 1:
                return None
            variables[iterator] = i64(0)
    return variables


def split_epilogue(function: FusedFunction, anchor: Block) -> tuple[Epilogue, list[Block]]:
    """The blocks after ``anchor`` that can run on its tile, and those left to run on its stored output.

    An empty epilogue with blocks left means that the anchor's output has to be stored in a workspace.
    """
    following = list(function.blocks[function.blocks.index(anchor) + 1 :])
    probe = [tirx.Var(f"probe{i}", "int64") for i in range(len(anchor.indices))]
    chain: list[Buffer] = [anchor.output]
    for block in following:
        plain = not block.is_reduction and all(
            isinstance(i, tirx.Var) or as_int(i) == 0 for i in block.indices
        )
        uses_chain = any(any(a.source.same_as(b) for b in chain) for a in loads_of(block.value))
        if (
            not plain
            or not uses_chain
            or iterators_at(block, chain, probe) is None
            or not _same_size(block, anchor)
        ):
            return Epilogue(anchor_output=anchor.output, blocks=(), function=function), following
        chain.append(block.output)
    return Epilogue(anchor_output=anchor.output, blocks=tuple(following), function=function), []


def _same_size(block: Block, anchor: Block) -> bool:
    """Whether the block has an element for each of the anchor's: a broadcast to a larger shape has more."""
    ours = [e for e in block.spatial_extents if as_int(e) != 1]
    theirs = [e for e in anchor.spatial_extents if as_int(e) != 1]
    return len(ours) == len(theirs)
