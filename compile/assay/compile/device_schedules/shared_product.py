"""Sums of products on a device whose blocks of threads share memory: panels there, tiles in registers.

A block computes a tile of the result. In turns its threads bring as many steps of the rows of the one
operand and of the columns of the other to shared memory as fit, and multiply what is there. (NVIDIA, "CUDA
C++ Programming Guide", shared memory; registers and the order of reads: Volkov and Demmel, "Benchmarking GPUs
to tune dense linear algebra", 2008.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvm import tirx

from assay.compile.device_schedules.block_product import (
    Panels,
    SharedProduct,
    for_any_rows,
    launch_blocks,
    stored_inside,
)
from assay.compile.device_schedules.matrix_product import matrix_product_kernels
from assay.compile.device_schedules.shared_panel import LANES, lane_of, widened
from assay.compile.device_schedules.shared_tiles import (
    SYMBOLIC_SIZE,
    SharedTile,
    fitted_tile,
    shared_tiles,
)
from assay.compile.device_schedules.simdgroup_product import simdgroup_product_kernels
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    const_like,
    floordiv,
    floormod,
    i64,
    lanes_at,
    load,
    loop,
    seq,
    simplify,
    store,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["shared_product_kernels"]


def shared_product_kernels(product: SharedProduct, target: GpuTarget) -> list[Stmt] | None:
    """Launches that compute ``product``; None where ``target`` has no tiles."""
    made = matrix_product_kernels(product, target) or simdgroup_product_kernels(product, target)
    if made is not None:
        return made
    product = replace(product, left=widened(product.left), right=widened(product.right))
    columns, count = as_int(product.columns) or SYMBOLIC_SIZE, as_int(product.count) or 1
    if not shared_tiles(target):
        return None

    def kernel(tile: SharedTile) -> Stmt:
        return _Kernel(product, tile, target).emit()

    return for_any_rows(product, lambda rows: fitted_tile(target, count, rows, columns), kernel)


class _Kernel:
    def __init__(self, product: SharedProduct, tile: SharedTile, target: GpuTarget) -> None:
        self.p, self.t, self.target = product, tile, target
        self.row_lanes = min(LANES, tile.thread_rows)
        self.column_lanes = min(LANES, tile.thread_columns)
        self.count = tile.thread_rows * tile.thread_columns
        self.sums = tirx.decl_buffer([i64(self.count)], "float32", name="sums", scope="local")

    def emit(self) -> Stmt:
        return launch_blocks(self.p, self.t.rows, self.t.columns, self.t.threads, self._block)

    def _thread_place(self, lane: Expr) -> tuple[Expr, Expr]:
        """The row and the column of this thread in the block's grid of threads.

        Threads that run together form a rectangle, so that they read few different elements.
        """
        across = self.t.columns // self.t.thread_columns
        down = self.t.rows // self.t.thread_rows
        wide, tall = 8, self.target.warp_size // 8
        if across % wide or down % tall or not tall:
            return floordiv(lane, across), floormod(lane, across)
        warp, inside = floordiv(lane, self.target.warp_size), floormod(lane, self.target.warp_size)
        row = floordiv(warp, across // wide) * tall + floordiv(inside, wide)
        return row, floormod(warp, across // wide) * wide + floormod(inside, wide)

    def _block(self, batch: Sequence[Expr], row: Expr, column: Expr, lane: Expr) -> Stmt:
        tile = self.t
        panels = Panels(
            product=self.p,
            rows=tile.rows,
            columns=tile.columns,
            steps=tile.steps,
            threads=tile.threads,
            dtype="float32",
            pitches=((1, tile.left_pitch), (1, tile.right_pitch)),
            kind=self.target.kind,
        )
        down, across = self._thread_place(lane)
        down, first = bind("thread_row", down * self.row_lanes)
        across, second = bind("thread_column", across * self.column_lanes)

        def multiply(memories: Sequence[Buffer]) -> Stmt:
            return loop(tile.steps, lambda step: self._multiply(memories, down, across, step), "step")

        cleared = [store(self.sums, const_like(0.0, "float32"), n) for n in range(self.count)]
        return seq(
            tirx.AllocBuffer(self.sums),
            first,
            second,
            cleared,
            panels.multiplied(batch, row, column, lane, multiply),
            self._end(batch, simplify(row + down), simplify(column + across)),
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

    def _end(self, batch: Sequence[Expr], row: Expr, column: Expr) -> list[Stmt]:
        """Store the sums that are inside of the result."""
        tile, statements = self.t, []

        def at(first: Expr, number: int, count: int, lanes: int, size: int) -> Expr:
            return simplify(first + number // lanes * (size * lanes // count) + number % lanes)

        for r in range(tile.thread_rows):
            for c in range(tile.thread_columns):
                place = (
                    at(row, r, tile.thread_rows, self.row_lanes, tile.rows),
                    at(column, c, tile.thread_columns, self.column_lanes, tile.columns),
                )
                value = load(self.sums, r * tile.thread_columns + c)
                statements.append(stored_inside(self.p, (tile.rows, tile.columns), batch, place, value))
        return statements
