"""Instructions that multiply small matrices whose elements lie in the registers of the threads of a warp.

Where each element lies: NVIDIA, "PTX ISA", Matrix Fragments for mma.m16n8k16 and mma.m16n8k8; AMD, "CDNA3
Instruction Set Architecture", MFMA, and "AMD Instinct MI200", the same for 16x16x16; "RDNA3 Instruction Set
Architecture" and "RDNA4 Instruction Set Architecture", WMMA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.ir import Buffer, Expr, Stmt, floordiv, floormod, load, store
from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["MatrixUnit", "matrix_unit"]


@dataclass(frozen=True, kw_only=True)
class MatrixUnit:
    """``sums[rows, columns] += left[rows, steps] * right[steps, columns]`` of ``dtype``, added up in float32.

    ``threads`` hold them. A thread has ``left_runs`` runs of ``run`` consecutive steps of one row,
    ``right_runs`` of one column, and ``sums`` of the result. ``left_at(lane, number)`` is row and first step
    of a run, ``right_at`` column and step, ``sum_at`` row and column of a sum.

    ``intrinsic`` is LLVM's, with as many constants behind its operands as ``modifiers``; None for CUDA C++.
    ``function`` is its name there: device_code/cuda_matrix.py has it, and stand-ins for the CPU.
    """

    dtype: str
    function: str
    intrinsic: str | None = None
    modifiers: int = 0
    rows: int
    columns: int
    steps: int
    threads: int
    run: int
    left_runs: int
    right_runs: int
    sums: int
    left_at: Callable[[Expr, int], tuple[Expr, Expr]]
    right_at: Callable[[Expr, int], tuple[Expr, Expr]]
    sum_at: Callable[[Expr, int], tuple[Expr, Expr]]

    def multiply(self, sums: Buffer, at: int, operands: tuple[tuple[Buffer, int], ...], kind: str) -> Stmt:
        """Add to the ``at``-th tile of ``sums``. An operand is registers and the number of its first run."""
        (left, i), (right, j) = operands
        if kind == "rocm":
            total = load(sums, at)
            constants = [tirx.const(0, "int32")] * self.modifiers
            call = tirx.call_llvm_pure_intrin(
                f"float32x{self.sums}", self.intrinsic, load(left, i), load(right, j), total, *constants
            )
            return store(sums, call, at)
        addresses = (load(sums, at * self.sums), load(left, i), load(right, j))
        return tirx.Evaluate(
            tirx.call_extern("int32", self.function, *(tirx.address_of(each) for each in addresses))
        )


def _quad(lane: Expr) -> tuple[Expr, Expr]:
    return floordiv(lane, 4), floormod(lane, 4) * 2


def _cuda(dtype: str, function: str, steps: int) -> MatrixUnit:
    """16 x 8 x ``steps``."""

    def left_at(lane: Expr, number: int) -> tuple[Expr, Expr]:
        row, step = _quad(lane)
        return row + number % 2 * 8, step + number // 2 * 8

    def right_at(lane: Expr, number: int) -> tuple[Expr, Expr]:
        column, step = _quad(lane)
        return column, step + number * 8

    def sum_at(lane: Expr, number: int) -> tuple[Expr, Expr]:
        row, column = _quad(lane)
        return row + number // 2 * 8, column + number % 2

    return MatrixUnit(
        dtype=dtype,
        function=function,
        rows=16,
        columns=8,
        steps=steps,
        threads=32,
        run=2,
        left_runs=steps // 4,
        right_runs=steps // 8,
        sums=4,
        left_at=left_at,
        right_at=right_at,
        sum_at=sum_at,
    )


def _amd(
    dtype: str,
    function: str,
    intrinsic: str,
    modifiers: int,
    threads: int,
    run: int,
    sums: int,
    rows_apart: int,
) -> MatrixUnit:
    """16 x 16 x 16: row or column ``lane % 16``; ``rows_apart``: from one sum of a thread to its next."""

    def operand_at(lane: Expr, number: int) -> tuple[Expr, Expr]:
        group = floordiv(lane, 16)
        # With all 16 steps in a run, the threads behind the first 16 have the same elements.
        return floormod(lane, 16), group * run if run < 16 else group * 0

    def sum_at(lane: Expr, number: int) -> tuple[Expr, Expr]:
        first = floordiv(lane, 16) * (sums if rows_apart == 1 else 1)
        return first + number * rows_apart, floormod(lane, 16)

    return MatrixUnit(
        dtype=dtype,
        function=function,
        intrinsic=intrinsic,
        modifiers=modifiers,
        rows=16,
        columns=16,
        steps=16,
        threads=threads,
        run=run,
        left_runs=1,
        right_runs=1,
        sums=sums,
        left_at=operand_at,
        right_at=operand_at,
        sum_at=sum_at,
    )


# Of each architecture, one for each dtype of operands.
_TURING = (_cuda("float16", "assay_mma_m16n8k8", 8),)
_AMPERE = (_cuda("float16", "assay_mma_m16n8k16", 16),)
_CDNA = (_amd("float16", "assay_mfma_16x16x16", "llvm.amdgcn.mfma.f32.16x16x16f16", 3, 64, 4, 4, 1),)
_WMMA = "llvm.amdgcn.wmma.f32.16x16x16.f16"
_RDNA3 = (_amd("float16", "assay_wmma_gfx11", _WMMA, 0, 32, 16, 8, 2),)
_RDNA4 = (_amd("float16", "assay_wmma_gfx12", _WMMA, 0, 32, 8, 8, 1),)
# By the architecture of a target; CUDA's others have what sm_80 has.
_UNITS: Mapping[str, tuple[MatrixUnit, ...]] = {
    "sm_75": _TURING,
    "gfx90a": _CDNA,
    "gfx942": _CDNA,
    "gfx1100": _RDNA3,
    "gfx1201": _RDNA4,
}


def matrix_unit(target: GpuTarget, dtype: str) -> MatrixUnit | None:
    """The instruction of ``target`` for operands of ``dtype``, or None."""
    scheduled = target.scheduled_for
    others = _AMPERE if scheduled.api is GpuApi.CUDA else ()
    units = _UNITS.get(scheduled.architecture or "", others)
    return next((unit for unit in units if unit.dtype == dtype), None)
