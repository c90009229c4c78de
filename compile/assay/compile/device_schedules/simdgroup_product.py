"""Products of matrices by Metal's SIMD-group matrices of 8 x 8, added up in float32.

A block's threads bring panels to threadgroup memory as in ``shared_product.py``. Each SIMD-group computes a
part of the block's tile in matrices that it holds from the first step to the last. At the end they go through
threadgroup memory to the threads, which store them. (Apple, "Metal Shading Language Specification", matrices
of a SIMD-group. They are loaded and stored by its functions alone: which thread holds which element is left
open there.)
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
from assay.compile.device_schedules.shared_panel import LANES, Operand
from assay.compile.device_schedules.shared_tiles import (
    SIMDGROUP_MATRIX,
    SYMBOLIC_SIZE,
    SimdgroupTile,
    fitted_simdgroup_tile,
)
from assay.compile.device_schedules.threads import shared
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
    load,
    loop,
    seq,
    simplify,
)
from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["simdgroup_product_kernels"]

# Metal has matrices of these dtypes. Its header multiplies each into matrices of float32, on which kernels of
# llama.cpp rely too (ggml-metal.metal, kernel_mul_mm).
_ELEMENT_BYTES = {"float32": 4, "float16": 2}
_SIZE = SIMDGROUP_MATRIX


def simdgroup_product_kernels(product: SharedProduct, target: GpuTarget) -> list[Stmt] | None:
    """Launches that compute ``product``; None where ``target`` has no such matrices of its dtype."""
    dtype = product.left.dtype
    if target.scheduled_for.api is not GpuApi.METAL or product.right.dtype != dtype:
        return None
    if dtype not in _ELEMENT_BYTES:
        return None
    # Vectors of Metal have up to four elements.
    left, right = (replace(each, lanes=min(each.lanes, LANES)) for each in (product.left, product.right))
    product = replace(product, left=left, right=right)
    columns, count = as_int(product.columns) or SYMBOLIC_SIZE, as_int(product.count) or 1
    element_bytes = _ELEMENT_BYTES[dtype]

    def kernel(tile: SimdgroupTile) -> Stmt:
        return _Kernel(product, tile, element_bytes, target.kind).emit()

    return for_any_rows(product, lambda rows: fitted_simdgroup_tile(count, rows, columns), kernel)


class _Kernel:
    def __init__(self, product: SharedProduct, tile: SimdgroupTile, element_bytes: int, kind: str) -> None:
        self.p, self.t, self.kind = product, tile, kind
        self.steps = tile.steps(element_bytes)
        self.threads = tile.threads
        # Matrices of a SIMD-group.
        self.down, self.across = tile.group_rows // _SIZE, tile.group_columns // _SIZE
        self.left_pitches = self._pitches(product.left, tile.rows, element_bytes)
        self.right_pitches = self._pitches(product.right, tile.columns, element_bytes)
        self.left = self._matrices(self.down, product.left.dtype, "left")
        self.right = self._matrices(self.across, product.left.dtype, "right")
        self.sums = self._matrices(self.down * self.across, "float32", "sums")
        # A row of matrices of each SIMD-group.
        self.results, self.results_declared = shared(tile.results, "float32", "results")

    def _pitches(self, operand: Operand, size: int, element_bytes: int) -> tuple[int, int]:
        """Of a place and of a step in the panel, where elements lie as they do in the operand."""
        if operand.by_step:
            return self.t.pitch(self.steps, element_bytes), 1
        return 1, self.t.pitch(size, element_bytes)

    @staticmethod
    def _matrices(count: int, dtype: str, name: str) -> Buffer:
        return tirx.decl_buffer([i64(count * _SIZE * _SIZE)], dtype, name=name, scope="metal.simdgroup")

    def emit(self) -> Stmt:
        return launch_blocks(self.p, self.t.rows, self.t.columns, self.threads, self._block)

    def _block(self, batch: Sequence[Expr], row: Expr, column: Expr, thread: Expr) -> Stmt:
        tile = self.t
        panels = Panels(
            product=self.p,
            rows=tile.rows,
            columns=tile.columns,
            steps=self.steps,
            threads=self.threads,
            dtype=self.p.left.dtype,
            pitches=(self.left_pitches, self.right_pitches),
            kind=self.kind,
        )
        group, first = bind("group", floordiv(thread, tile.group_threads))
        lane, second = bind("lane", floormod(thread, tile.group_threads))
        down, third = bind("group_row", floordiv(group, tile.groups_across) * tile.group_rows)
        across, fourth = bind("group_column", floormod(group, tile.groups_across) * tile.group_columns)

        def multiply(memories: Sequence[Buffer]) -> Stmt:
            def step(number: Expr) -> Stmt:
                return self._multiply(memories, down, across, number * _SIZE)

            return loop(self.steps // _SIZE, step, "step")

        return seq(
            [tirx.AllocBuffer(each) for each in (self.sums, self.left, self.right)],
            self.results_declared,
            *(first, second, third, fourth),
            [_filled(self.sums, number) for number in range(self.down * self.across)],
            panels.multiplied(batch, row, column, thread, multiply),
            self._end(batch, (simplify(row + down), simplify(column + across)), group, lane),
        )

    def _multiply(self, memories: Sequence[Buffer], down: Expr, across: Expr, step: Expr) -> Stmt:
        """Add the products of as many steps as a matrix has."""
        statements = list[Stmt]()
        for matrices, count, first, memory, pitches, rows_are_places in (
            (self.left, self.down, down, memories[0], self.left_pitches, True),
            (self.right, self.across, across, memories[1], self.right_pitches, False),
        ):
            place_pitch, step_pitch = pitches
            # Rows of the matrix that do not lie behind each other in memory are its columns there.
            turned = (place_pitch == 1) if rows_are_places else (step_pitch == 1)
            for number in range(count):
                at = simplify((first + number * _SIZE) * place_pitch + step * step_pitch)
                statements.append(_loaded(matrices, number, memory, at, max(pitches), turned=turned))
        statements += [
            _multiplied(self.sums, r * self.across + c, self.left, r, self.right, c)
            for r in range(self.down)
            for c in range(self.across)
        ]
        return seq(statements)

    def _end(self, batch: Sequence[Expr], first: tuple[Expr, Expr], group: Expr, lane: Expr) -> list[Stmt]:
        """Store the sums that are inside of the result, one row of matrices after the other."""
        tile, statements = self.t, list[Stmt]()
        start = group * (_SIZE * tile.group_columns)
        for r in range(self.down):
            for c in range(self.across):
                at = simplify(start + c * _SIZE)
                statements.append(
                    _stored(self.sums, r * self.across + c, self.results, at, tile.group_columns)
                )
            statements.append(_barrier())
            for turn in range(_SIZE * tile.group_columns // tile.group_threads):
                number = lane + turn * tile.group_threads
                row, column = floordiv(number, tile.group_columns), floormod(number, tile.group_columns)
                place = (simplify(first[0] + r * _SIZE + row), simplify(first[1] + column))
                value = load(self.results, simplify(start + number))
                statements.append(stored_inside(self.p, (tile.rows, tile.columns), batch, place, value))
            if r + 1 < self.down:
                statements.append(_barrier())
        return statements


def _call(function: str, *arguments: Expr | int | bool) -> Stmt:
    return tirx.Evaluate(tirx.call_intrin("void", f"tirx.{function}", *arguments))


def _barrier() -> Stmt:
    """The threads of a SIMD-group wait for each other, and see what others wrote to threadgroup memory."""
    return tirx.Evaluate(tirx.call_intrin("int32", "tirx.tvm_storage_sync", "warp"))


def _filled(matrices: Buffer, number: int) -> Stmt:
    zero = const_like(0.0, str(matrices.ty.dtype))
    return _call("make_filled_simdgroup_matrix", matrices.data, number, zero, _SIZE, _SIZE)


def _loaded(matrices: Buffer, number: int, memory: Buffer, at: Expr, pitch: int, *, turned: bool) -> Stmt:
    address = tirx.address_of(load(memory, at))
    return _call("simdgroup_load", matrices.data, number, address, pitch, _SIZE, _SIZE, turned)


def _stored(matrices: Buffer, number: int, memory: Buffer, at: Expr, pitch: int) -> Stmt:
    address = tirx.address_of(load(memory, at))
    return _call("simdgroup_store", matrices.data, number, address, pitch, _SIZE, _SIZE, False)


def _multiplied(sums: Buffer, at: int, left: Buffer, i: int, right: Buffer, j: int) -> Stmt:
    """``sums[at] += left[i] @ right[j]``."""
    return _call("simdgroup_multiply_accumulate", sums.data, at, left.data, i, right.data, j, sums.data, at)
