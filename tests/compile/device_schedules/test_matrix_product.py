"""Products of float16 by a device's instructions for small matrices, run on the CPU, against NumPy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import relax, tirx

from assay.compile.device_schedules import matrix_product
from assay.compile.device_schedules.matrix_units import matrix_unit
from assay.compile.device_schedules.shared_tiles import MatrixTile, fitted_matrix_tile, matrix_tiles
from assay.compile.targets import gpu_targets
from assay.runtime.device_code import CodeFormat

from .conftest import emulated_call, lowered_call
from .test_conv2d import normal, reference

Array = npt.NDArray[Any]
# One target for each instruction, and one without any.
TARGETS = ("cuda-sm_75", "cuda-sm_80", "rocm-gfx942", "rocm-gfx1100", "rocm-gfx1201", "rocm-gfx1030")
INSTRUCTIONS = {
    "cuda-sm_75": (CodeFormat.PTX, r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.f16"),
    "cuda-sm_90": (CodeFormat.PTX, r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16"),
    "rocm-gfx90a": (CodeFormat.LLVM_ASSEMBLY, r"\bv_mfma_f32_16x16x16f16\b"),
    "rocm-gfx942": (CodeFormat.LLVM_ASSEMBLY, r"\bv_mfma_f32_16x16x16_f16\b"),
    "rocm-gfx1100": (CodeFormat.LLVM_ASSEMBLY, r"\bv_wmma_f32_16x16x16_f16\b"),
    "rocm-gfx1201": (CodeFormat.LLVM_ASSEMBLY, r"\bv_wmma_f32_16x16x16_f16\b"),
}


def half(*shape: int) -> Array:
    return normal(*shape).astype(np.float16)


def product(a: Array, b: Array) -> Array:
    """In float32, whose sums the instructions have too."""
    result: Array = a.astype(np.float32) @ b.astype(np.float32)
    return result


@pytest.mark.parametrize("name", TARGETS)
def test_sizes_that_tiles_do_not_divide(name: str, tmp_path: Path) -> None:
    a, b, bias = half(3, 35, 40), half(3, 40, 27), half(27)

    def compute(x: Any, y: Any, z: Any) -> Any:
        return relax.op.nn.relu(relax.op.add(relax.op.matmul(x, y), z))

    run = emulated_call(name, tmp_path, [a.shape, b.shape, bias.shape], compute, ["float16"] * 3)
    found = run(a, b, bias)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.maximum(product(a, b) + bias, 0), rtol=4e-3, atol=4e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_symbolic_sizes(name: str, tmp_path: Path) -> None:
    n = tirx.Var("n", "int64")
    run = emulated_call(name, tmp_path, [(n, n), (n, n)], relax.op.matmul, ["float16"] * 2)
    for size in (1, 9, 131):
        a, b = half(size, size), half(size, size)
        np.testing.assert_allclose(run(a, b), product(a, b), rtol=4e-3, atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("tile", matrix_tiles(), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_every_tile(name: str, tile: MatrixTile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_product, "fitted_matrix_tile", lambda *_: tile)
    a, b = half(130, 72), half(72, 136)
    run = emulated_call(name, tmp_path, [a.shape, b.shape], relax.op.matmul, ["float16"] * 2)
    np.testing.assert_allclose(run(a, b), product(a, b), rtol=4e-3, atol=2e-2)


@pytest.mark.parametrize("name", ["cuda-sm_80", "rocm-gfx942"])
def test_a_convolution(name: str, tmp_path: Path) -> None:
    x, w = half(1, 5, 9, 7), half(6, 5, 3, 3)

    def compute(a: Any, b: Any) -> Any:
        return relax.op.nn.conv2d(a, b, strides=2, padding=1)

    found = emulated_call(name, tmp_path, [x.shape, w.shape], compute, ["float16"] * 2)(x, w)
    expected = reference(x.astype(np.float32), w.astype(np.float32), 2, 1, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_machine_code_has_the_instruction_and_no_spills(name: str) -> None:
    form, pattern = INSTRUCTIONS[name]
    code = lowered_call(
        gpu_targets()[name], [(512, 512), (512, 512)], relax.op.matmul, ["float16"] * 2
    ).executable
    tile, unit = fitted_matrix_tile(1, 512, 512), matrix_unit(gpu_targets()[name], "float16")
    assert unit is not None
    (kernel,) = code.kernels.values()
    assert kernel.spills == 0
    assert tile.shared_bytes - 64 <= kernel.shared_bytes <= tile.shared_bytes
    found = len(re.findall(pattern, code.content(form).decode()))
    # Each warp has as many as it has small matrices; loops may be unrolled.
    assert found >= tile.rows * tile.columns // (unit.rows * unit.columns * tile.threads // unit.threads)


def test_float32_stays_float32() -> None:
    code = lowered_call(gpu_targets()["cuda-sm_80"], [(128, 128), (128, 128)], relax.op.matmul).executable
    ptx = code.content(CodeFormat.PTX).decode()
    assert "fma.rn.f32" in ptx
    assert "mma.sync" not in ptx
    assert "tf32" not in ptx
