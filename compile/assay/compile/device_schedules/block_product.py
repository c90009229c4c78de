"""What products through shared memory have in common: blocks of threads, and panels of operands in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tvm import tirx

from assay.compile.device_schedules.shared_panel import Operand, Panel
from assay.compile.device_schedules.shared_tiles import FEW_ROWS, SYMBOLIC_SIZE
from assay.compile.device_schedules.threads import barrier, launch_grid, launched_if, shared
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    ceildiv,
    floordiv,
    floormod,
    i64,
    if_then,
    loop,
    seq,
    simplify,
)

__all__ = ["Panels", "SharedProduct", "for_any_rows", "launch_blocks", "stored_inside"]


_Tile = TypeVar("_Tile")


@dataclass(frozen=True, kw_only=True)
class SharedProduct:
    """``result[batch, row, column] = sum over step of left[batch, row, step] * right[batch, step, column]``.

    ``finish(batch, row, column, value)`` stores one element, of a sum in float32.
    """

    batch: tuple[Expr, ...]
    rows: Expr
    columns: Expr
    steps: Expr
    left: Operand
    right: Operand
    finish: Callable[[Sequence[Expr], Expr, Expr, Expr], Stmt]

    @property
    def count(self) -> Expr:
        """Products of the batch."""
        total = i64(1)
        for extent in self.batch:
            total = simplify(total * i64(extent))
        return total


def launch_blocks(
    product: SharedProduct,
    rows: int,
    columns: int,
    threads: int,
    body: Callable[[Sequence[Expr], Expr, Expr, Expr], Stmt],
) -> Stmt:
    """``body(batch, row, column, thread)`` by blocks that compute ``rows`` by ``columns`` from there on."""
    down, across = ceildiv(product.rows, rows), ceildiv(product.columns, columns)
    # TVM's simplifier divides by a number of tiles that it takes for 0 where the rows are symbolic.
    divisor = down if as_int(down) is not None else tirx.max(down, i64(1))

    def thread(group: Sequence[Expr], lane: Expr) -> Stmt:
        one = as_int(product.count) == 1
        row, bound = bind("first_row", (group[0] if one else floormod(group[0], divisor)) * rows)
        column, more = bind("first_column", group[1] * columns)
        batch: list[Expr] = []
        left = i64(0) if one else floordiv(group[0], divisor)
        for extent in reversed(product.batch):
            place, another = bind("place", floormod(left, extent))
            batch.insert(0, place)
            more += another
            left = floordiv(left, extent)
        return seq(bound, more, body(batch, row, column, lane))

    return launch_grid([simplify(down * product.count), across], threads, thread)


def for_any_rows(
    product: SharedProduct, tile_for: Callable[[int], _Tile], kernel: Callable[[_Tile], Stmt]
) -> list[Stmt]:
    """``kernel(tile)`` with the tile for the rows of ``product``.

    Where these are symbolic and the tiles differ, there is one for few rows and one for many, of which one is
    launched each time: a step of a language model has one row, its prompt hundreds.
    """
    rows = as_int(product.rows)
    many = tile_for(SYMBOLIC_SIZE if rows is None else rows)
    few = tile_for(FEW_ROWS)
    if rows is not None or few == many:
        return [kernel(many)]
    return [
        launched_if(product.rows <= FEW_ROWS, kernel(few)),
        launched_if(product.rows > FEW_ROWS, kernel(many)),
    ]


@dataclass(frozen=True, kw_only=True)
class Panels:
    """The panels of both operands: ``rows`` and ``columns`` times ``steps``, of ``dtype`` in shared memory.

    An element is at ``place * place_pitch + step * step_pitch``, with the pitches of its operand. ``kind``:
    TVM's kind of target.
    """

    product: SharedProduct
    rows: int
    columns: int
    steps: int
    threads: int
    dtype: str
    pitches: tuple[tuple[int, int], tuple[int, int]]
    kind: str

    def _turns(self) -> Expr:
        """How often panels are brought, as a number that LLVM for AMD does not know.

        It would unroll the loop, and read what later turns need first, into more registers than there are.
        """
        turns = ceildiv(i64(self.product.steps), self.steps)
        if self.kind != "rocm" or as_int(turns) is None:
            return turns
        shared_bytes = tirx.call_llvm_pure_intrin("int32", "llvm.amdgcn.groupstaticsize")
        return turns + i64(tirx.shift_right(shared_bytes, tirx.const(31, "int32")))

    def multiplied(
        self,
        batch: Sequence[Expr],
        row: Expr,
        column: Expr,
        lane: Expr,
        multiply: Callable[[Sequence[Buffer]], Stmt],
    ) -> Stmt:
        """Bring all panels, one after the other; ``multiply(memories)`` while the next are on their way."""
        product, statements = self.product, list[Stmt]()
        panels, memories = [], []
        sizes = (self.rows, self.columns)
        for number, name in enumerate(("left", "right")):
            place_pitch, step_pitch = self.pitches[number]
            length = max(sizes[number] * place_pitch, self.steps * step_pitch)
            memory, declaration = shared(length, self.dtype, f"{name}_panel")
            operand = (product.left, product.right)[number]
            registers = Panel.declare(operand, sizes[number], self.steps, self.threads, f"{name}_next")
            memories.append(memory)
            statements += [declaration, tirx.AllocBuffer(registers)]
            panel = Panel(
                operand=operand,
                size=sizes[number],
                steps=self.steps,
                place_pitch=place_pitch,
                step_pitch=step_pitch,
                places=(product.rows, product.columns)[number],
                extent=i64(product.steps),
                thread=lane,
                threads=self.threads,
                memory=memory,
                registers=registers,
            )
            places, bound = panel.locate((row, column)[number])
            statements += bound
            panels.append((panel, places))

        def fetch(step: Expr) -> list[Stmt]:
            return [each for panel, places in panels for each in panel.fetch(batch, places, step)]

        stash = [each for panel, _ in panels for each in panel.stash()]
        turns = self._turns()

        def turn(number: Expr) -> Stmt:
            more = number + 1 < turns
            return seq(
                if_then(more, seq(fetch((number + 1) * self.steps))),
                multiply(memories),
                barrier(),
                if_then(more, seq(stash)),
                barrier(),
            )

        return seq(statements, fetch(i64(0)), stash, barrier(), loop(turns, turn, "turn"))


def stored_inside(
    product: SharedProduct, size: tuple[int, int], batch: Sequence[Expr], at: tuple[Expr, Expr], value: Expr
) -> Stmt:
    """Store a sum, where it is not behind the last row or column. ``size``: rows and columns of a block."""
    row, column = at
    column, bound = bind("at", column)
    done = product.finish(batch, row, column, value)
    inside: list[Expr] = []
    if (as_int(product.rows) or 1) % size[0]:
        inside.append(row < product.rows)
    if (as_int(product.columns) or 1) % size[1]:
        inside.append(column < product.columns)
    for condition in reversed(inside):
        done = if_then(condition, done)
    return seq(bound, done)
