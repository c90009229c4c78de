"""Products of matrices by a device's instructions for small matrices; sums are float32.

A block's threads bring panels to shared memory as in ``shared_product.py``. Each warp computes a part of the
block's tile, as small matrices that stay in the registers of its threads from the first step to the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from assay.compile.device_schedules.block_product import (
    Panels,
    SharedProduct,
    for_any_rows,
    launch_blocks,
    stored_inside,
)
from assay.compile.device_schedules.matrix_units import MatrixUnit, matrix_unit
from assay.compile.device_schedules.shared_tiles import SYMBOLIC_SIZE, MatrixTile, fitted_matrix_tile
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
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
    vector_dtype,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["matrix_product_kernels"]


def matrix_product_kernels(product: SharedProduct, target: GpuTarget) -> list[Stmt] | None:
    """Launches that compute ``product``; None where ``target`` has no instruction for its dtype."""
    unit = matrix_unit(target, product.left.dtype)
    if unit is None or product.right.dtype != unit.dtype:
        return None
    columns, count = as_int(product.columns) or SYMBOLIC_SIZE, as_int(product.count) or 1

    def kernel(tile: MatrixTile) -> Stmt:
        return _Kernel(product, tile, unit, target.kind).emit()

    return for_any_rows(product, lambda rows: fitted_matrix_tile(count, rows, columns), kernel)


class _Kernel:
    def __init__(self, product: SharedProduct, tile: MatrixTile, unit: MatrixUnit, kind: str) -> None:
        self.p, self.t, self.unit, self.kind = product, tile, unit, kind
        warps = tile.threads // unit.threads
        self.warps_across = warps // tile.warps_down
        # Small matrices of a warp.
        self.down = tile.rows // tile.warps_down // unit.rows
        self.across = tile.columns // self.warps_across // unit.columns
        # CUDA C++ passes registers by address and has vectors of two; LLVM takes them as one value.
        by_value = kind == "rocm"
        self.width = unit.run if by_value else 2
        self.sum_lanes = unit.sums if by_value else 1
        self.left = self._registers(self.down * unit.left_runs * unit.run, unit.dtype, self.width, "left")
        self.right = self._registers(
            self.across * unit.right_runs * unit.run, unit.dtype, self.width, "right"
        )
        count = self.down * self.across * unit.sums
        self.sums = self._registers(count, "float32", self.sum_lanes, "sums")

    @staticmethod
    def _registers(count: int, dtype: str, lanes: int, name: str) -> Buffer:
        return tirx.decl_buffer([i64(count // lanes)], vector_dtype(dtype, lanes), name=name, scope="local")

    def emit(self) -> Stmt:
        return launch_blocks(self.p, self.t.rows, self.t.columns, self.t.threads, self._block)

    def _block(self, batch: Sequence[Expr], row: Expr, column: Expr, thread: Expr) -> Stmt:
        tile, unit = self.t, self.unit
        panels = Panels(
            product=self.p,
            rows=tile.rows,
            columns=tile.columns,
            steps=tile.steps,
            threads=tile.threads,
            dtype=unit.dtype,
            pitches=((tile.pitch, 1), (tile.pitch, 1)),
            kind=self.kind,
        )
        warp, first = bind("warp", floordiv(thread, unit.threads))
        lane, second = bind("lane", floormod(thread, unit.threads))
        down, third = bind("warp_row", floordiv(warp, self.warps_across) * (self.down * unit.rows))
        across, fourth = bind("warp_column", floormod(warp, self.warps_across) * (self.across * unit.columns))

        def multiply(memories: Sequence[Buffer]) -> Stmt:
            def step(number: Expr) -> Stmt:
                return self._multiply(memories, (down, across), lane, number * unit.steps)

            return loop(tile.steps // unit.steps, step, "step")

        zero = broadcast(const_like(0.0, "float32"), self.sum_lanes)
        count = self.down * self.across * unit.sums // self.sum_lanes
        return seq(
            [tirx.AllocBuffer(each) for each in (self.sums, self.left, self.right)],
            *(first, second, third, fourth),
            [store(self.sums, zero, n) for n in range(count)],
            panels.multiplied(batch, row, column, thread, multiply),
            self._end(batch, (simplify(row + down), simplify(column + across)), lane),
        )

    def _multiply(self, memories: Sequence[Buffer], first: tuple[Expr, Expr], lane: Expr, step: Expr) -> Stmt:
        """Add the products of as many steps as the instruction takes."""
        unit, statements = self.unit, list[Stmt]()
        per_run = unit.run // self.width
        for number, (count, size, runs, place_of, registers) in enumerate(
            (
                (self.down, unit.rows, unit.left_runs, unit.left_at, self.left),
                (self.across, unit.columns, unit.right_runs, unit.right_at, self.right),
            )
        ):
            for each in range(count):
                for run in range(runs):
                    place, inner = place_of(lane, run)
                    at = (first[number] + place + each * size) * self.t.pitch + step + inner
                    for part in range(per_run):
                        where = lanes_at(simplify(at + part * self.width), self.width)
                        value = tirx.BufferLoad(memories[number], [where])
                        statements.append(store(registers, value, (each * runs + run) * per_run + part))
        for r in range(self.down):
            for c in range(self.across):
                operands = (
                    (self.left, r * unit.left_runs * per_run),
                    (self.right, c * unit.right_runs * per_run),
                )
                statements.append(unit.multiply(self.sums, r * self.across + c, operands, self.kind))
        return seq(statements)

    def _end(self, batch: Sequence[Expr], first: tuple[Expr, Expr], lane: Expr) -> list[Stmt]:
        """Store the sums that are inside of the result."""
        unit, statements = self.unit, []
        for r in range(self.down):
            for c in range(self.across):
                for number in range(unit.sums):
                    row, column = unit.sum_at(lane, number)
                    place = (
                        simplify(first[0] + r * unit.rows + row),
                        simplify(first[1] + c * unit.columns + column),
                    )
                    matrix = r * self.across + c
                    value = (
                        load(self.sums, matrix * unit.sums + number)
                        if self.sum_lanes == 1
                        else tirx.Shuffle([load(self.sums, matrix)], [number])
                    )
                    size = (self.t.rows, self.t.columns)
                    statements.append(stored_inside(self.p, size, batch, place, value))
        return statements
