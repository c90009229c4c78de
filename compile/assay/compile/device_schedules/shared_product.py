"""Sums of products on a device whose blocks of threads share memory: panels there, tiles in registers.

A block computes a tile of the result. In turns its threads bring as many steps of the rows of the one
operand and of the columns of the other to shared memory as fit, and multiply what is there. (NVIDIA, "CUDA
C++ Programming Guide", shared memory; registers and the order of reads: Volkov and Demmel, "Benchmarking GPUs
to tune dense linear algebra", 2008.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.device_schedules.shared_panel import LANES, Operand, Panel, lane_of
from assay.compile.device_schedules.shared_tiles import SYMBOLIC_SIZE, SharedTile, fitted_tile
from assay.compile.device_schedules.threads import barrier, launch_grid, shared
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    ceildiv,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    seq,
    simplify,
    store,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["SharedProduct", "shared_product_kernel"]


@dataclass(frozen=True, kw_only=True)
class SharedProduct:
    """``result[batch, row, column] = sum over step of left[batch, row, step] * right[batch, column, step]``.

    ``finish(batch, row, column, value)`` stores one element.
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


def shared_product_kernel(product: SharedProduct, target: GpuTarget) -> Stmt | None:
    """One launch that computes ``product``; None where ``target`` has no tiles."""
    sizes = (as_int(size) or SYMBOLIC_SIZE for size in (product.rows, product.columns))
    tile = fitted_tile(target, as_int(product.count) or 1, *sizes)
    return None if tile is None else _Kernel(product, tile, target.warp_size).emit()


class _Kernel:
    def __init__(self, product: SharedProduct, tile: SharedTile, warp_size: int) -> None:
        self.p, self.t, self.warp_size = product, tile, warp_size
        self.steps = i64(product.steps)
        self.row_lanes = min(LANES, tile.thread_rows)
        self.column_lanes = min(LANES, tile.thread_columns)
        panels = ((product.left, tile.rows, "left"), (product.right, tile.columns, "right"))
        self.registers = [
            Panel.declare(operand, size, tile.steps, tile.threads, f"{name}_next")
            for operand, size, name in panels
        ]
        self.sums = tirx.decl_buffer(
            [i64(tile.thread_rows * tile.thread_columns)], "float32", name="sums", scope="local"
        )

    def emit(self) -> Stmt:
        tile = self.t
        down, across = ceildiv(self.p.rows, tile.rows), ceildiv(self.p.columns, tile.columns)
        # TVM's simplifier divides by a number of tiles that it takes for 0 where the rows are symbolic.
        divisor = down if as_int(down) is not None else tirx.max(down, i64(1))

        def thread(group: Sequence[Expr], lane: Expr) -> Stmt:
            one = as_int(self.p.count) == 1
            row, bound = bind("first_row", (group[0] if one else floormod(group[0], divisor)) * tile.rows)
            column, more = bind("first_column", group[1] * tile.columns)
            batch: list[Expr] = []
            left = i64(0) if one else floordiv(group[0], divisor)
            for extent in reversed(self.p.batch):
                place, another = bind("place", floormod(left, extent))
                batch.insert(0, place)
                more += another
                left = floordiv(left, extent)
            return seq(bound, more, self._block(batch, row, column, lane))

        return launch_grid([simplify(down * self.p.count), across], tile.threads, thread)

    def _thread_place(self, lane: Expr) -> tuple[Expr, Expr]:
        """The row and the column of this thread in the block's grid of threads.

        Threads that run together form a rectangle, so that they read few different elements.
        """
        across = self.t.columns // self.t.thread_columns
        down = self.t.rows // self.t.thread_rows
        wide, tall = 8, self.warp_size // 8
        if across % wide or down % tall or not tall:
            return floordiv(lane, across), floormod(lane, across)
        warp, inside = floordiv(lane, self.warp_size), floormod(lane, self.warp_size)
        row = floordiv(warp, across // wide) * tall + floordiv(inside, wide)
        return row, floormod(warp, across // wide) * wide + floormod(inside, wide)

    def _block(self, batch: Sequence[Expr], row: Expr, column: Expr, lane: Expr) -> Stmt:
        tile = self.t
        memories, declared = [], []
        for name, pitch in (("left_panel", tile.left_pitch), ("right_panel", tile.right_pitch)):
            memory, declaration = shared(tile.steps * pitch, "float32", name)
            memories.append(memory)
            declared.append(declaration)
        declared += [tirx.AllocBuffer(each) for each in (*self.registers, self.sums)]
        panels = self._panels(lane, memories)
        left_places, first = panels[0].locate(row)
        right_places, second = panels[1].locate(column)

        def fetch(step: Expr) -> list[Stmt]:
            return [
                *panels[0].fetch(batch, left_places, step),
                *panels[1].fetch(batch, right_places, step),
            ]

        stash = [*panels[0].stash(), *panels[1].stash()]
        down, across = self._thread_place(lane)
        down, third = bind("thread_row", down * self.row_lanes)
        across, fourth = bind("thread_column", across * self.column_lanes)
        turns = ceildiv(self.steps, tile.steps)

        def turn(number: Expr) -> Stmt:
            more = number + 1 < turns
            return seq(
                if_then(more, seq(fetch((number + 1) * tile.steps))),
                loop(tile.steps, lambda step: self._multiply(memories, down, across, step), "step"),
                barrier(),
                if_then(more, seq(stash)),
                barrier(),
            )

        cleared = [
            store(self.sums, const_like(0.0, "float32"), n)
            for n in range(tile.thread_rows * tile.thread_columns)
        ]
        start = [*fetch(i64(0)), *stash, barrier()]
        end = self._end(batch, simplify(row + down), simplify(column + across))
        return seq(declared, first, second, third, fourth, cleared, start, loop(turns, turn, "turn"), end)

    def _panels(self, lane: Expr, memories: Sequence[Buffer]) -> tuple[Panel, Panel]:
        tile, product = self.t, self.p

        def panel(number: int, operand: Operand, size: int, pitch: int, places: Expr) -> Panel:
            return Panel(
                operand=operand,
                size=size,
                steps=tile.steps,
                pitch=pitch,
                places=places,
                extent=self.steps,
                thread=lane,
                threads=tile.threads,
                memory=memories[number],
                registers=self.registers[number],
            )

        return (
            panel(0, product.left, tile.rows, tile.left_pitch, product.rows),
            panel(1, product.right, tile.columns, tile.right_pitch, product.columns),
        )

    def _multiply(self, memories: Sequence[Buffer], down: Expr, across: Expr, step: Expr) -> Stmt:
        """Add the products of one step to the sums."""
        tile = self.t
        statements: list[Stmt] = []

        def line(memory: Buffer, pitch: int, first: Expr, count: int, lanes: int, size: int) -> list[Expr]:
            elements = []
            for group in range(count // lanes):
                at = simplify(step * pitch + first + group * (size * lanes // count))
                vector, bound = bind("line", tirx.BufferLoad(memory, [lanes_at(at, lanes)]))
                statements.extend(bound)
                elements += [lane_of(vector, lane, lanes) for lane in range(lanes)]
            return elements

        left = line(memories[0], tile.left_pitch, down, tile.thread_rows, self.row_lanes, tile.rows)
        right = line(
            memories[1], tile.right_pitch, across, tile.thread_columns, self.column_lanes, tile.columns
        )
        for r, a in enumerate(left):
            for c, b in enumerate(right):
                number = r * tile.thread_columns + c
                statements.append(store(self.sums, load(self.sums, number) + a * b, number))
        return seq(statements)

    def _offset(self, number: int, count: int, lanes: int, size: int) -> int:
        """Where the ``number``-th row or column of a thread is, from its first one."""
        return number // lanes * (size * lanes // count) + number % lanes

    def _end(self, batch: Sequence[Expr], row: Expr, column: Expr) -> list[Stmt]:
        """Store the sums that are inside of the result."""
        tile, statements = self.t, []
        for r in range(tile.thread_rows):
            at = simplify(row + self._offset(r, tile.thread_rows, self.row_lanes, tile.rows))
            done = seq([self._element(batch, at, column, r, c) for c in range(tile.thread_columns)])
            whole = (as_int(self.p.rows) or 1) % tile.rows == 0
            statements.append(done if whole else if_then(at < self.p.rows, done))
        return statements

    def _element(self, batch: Sequence[Expr], row: Expr, column: Expr, r: int, c: int) -> Stmt:
        tile = self.t
        at = column + self._offset(c, tile.thread_columns, self.column_lanes, tile.columns)
        at, bound = bind("at", at)
        done = self.p.finish(batch, row, at, load(self.sums, r * tile.thread_columns + c))
        whole = (as_int(self.p.columns) or 1) % tile.columns == 0
        return seq(bound, done if whole else if_then(at < self.p.columns, done))
