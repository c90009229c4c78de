"""A reduction as an operation on two operands, and its partial results in vector registers."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import tirx

from assay.compile.schedules.blocks import Block
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    broadcast,
    lanes_at,
    load,
    store,
    walk,
)
from assay.compile.schedules.program import same_expr

__all__ = ["PartialResults", "Reducer", "Tail", "reducer_of"]


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """``output = combine(output, operand)``, a commutative operation with a start value."""

    kind: type
    operand: Expr
    init: Expr

    def combine(self, a: Expr, b: Expr) -> Expr:
        """The operation on two partial results."""
        return self.kind(a, b)

    def identity(self) -> Expr:
        """A value that changes nothing, for partial results."""
        dtype = str(self.init.ty.dtype)
        if self.kind is tirx.Add:
            return tirx.const(0, dtype)
        if self.kind is tirx.Mul:
            return tirx.const(1, dtype)
        return self.init


def reducer_of(block: Block) -> Reducer | None:
    """The block's reduction as an operation on two operands; None where it is another form."""
    value = block.value
    if not isinstance(value, tirx.Add | tirx.Mul | tirx.Max | tirx.Min | tirx.And | tirx.Or):
        return None
    for own, operand in ((value.a, value.b), (value.b, value.a)):
        if (
            isinstance(own, tvm.ir.TensorLoad)
            and own.source.same_as(block.output)
            and all(same_expr(a, b) for a, b in zip(own.indices, block.indices, strict=True))
            and not any(
                isinstance(node, tvm.ir.TensorLoad) and node.source.same_as(block.output)
                for node in walk(operand)
            )
        ):
            return Reducer(kind=type(value), operand=operand, init=block.init)
    return None


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The operands of fewer elements than a vector has, before they are folded."""

    operands: Buffer
    count: int
    declaration: Stmt


class PartialResults:
    """One reduction along a row: ``slots`` vectors of partial results, and a scalar for the rest."""

    def __init__(self, reducer: Reducer, lanes: int, slots: int) -> None:
        self.reducer = reducer
        self.lanes = lanes
        self.slots = slots
        self.dtype = str(reducer.init.ty.dtype)
        self.vectors, declaration = allocate([lanes * slots], self.dtype, "partial", "local")
        self.rest, more = allocate([1], self.dtype, "partial_rest", "local")
        self._declarations = [declaration, more]

    def begin(self) -> list[Stmt]:
        """Declare the partial results, and give them their start values."""
        identity = self.reducer.identity()
        starts = [
            store(self.vectors, broadcast(identity, self.lanes), lanes_at(slot * self.lanes, self.lanes))
            for slot in range(self.slots)
        ]
        return [*self._declarations, *starts, store(self.rest, self.reducer.init, 0)]

    def tail(self, count: int) -> Tail | None:
        """Registers for the operands of ``count`` elements; None for a whole vector, which needs none."""
        if count == self.lanes:
            return None
        operands, declaration = allocate([count], self.dtype, "tail", "local")
        return Tail(operands=operands, count=count, declaration=declaration)

    def accumulate(self, operand: Expr, lane: Expr, slot: int, tail: Tail | None) -> Stmt:
        """Take in one operand a lane (inside a loop over the lanes)."""
        if tail is not None:
            return store(tail.operands, operand, lane)
        at = slot * self.lanes + lane
        return store(self.vectors, self.reducer.combine(load(self.vectors, at), operand), at)

    def fold(self, tail: Tail) -> list[Stmt]:
        """Add a tail's operands to the scalar."""
        return [*self._halve(tail.operands, tail.count), self._add(tail.operands)]

    def end(self, result: Buffer) -> list[Stmt]:
        """Reduce the partial results to one value, stored in ``result[0]``."""
        statements = []
        first = lanes_at(0, self.lanes)
        for slot in range(1, self.slots):
            other = load(self.vectors, lanes_at(slot * self.lanes, self.lanes))
            statements.append(
                store(self.vectors, self.reducer.combine(load(self.vectors, first), other), first)
            )
        statements += [*self._halve(self.vectors, self.lanes), self._add(self.vectors)]
        return [*statements, store(result, load(self.rest, 0), 0)]

    def _add(self, operands: Buffer) -> Stmt:
        return store(self.rest, self.reducer.combine(load(self.rest, 0), load(operands, 0)), 0)

    def _halve(self, operands: Buffer, count: int) -> list[Stmt]:
        """Combine the upper half with the lower until one element is left."""
        statements = []
        while count > 1:
            count //= 2
            low = load(operands, lanes_at(0, count))
            high = load(operands, lanes_at(count, count))
            statements.append(store(operands, self.reducer.combine(low, high), lanes_at(0, count)))
        return statements
