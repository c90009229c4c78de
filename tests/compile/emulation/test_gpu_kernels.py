"""Kernels for GPUs, executed on the CPU through headers that stand in for a device's."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.compile.device_code.emit import emit_device_code
from assay.compile.emulation.gpu.kernels import EmulatedKernels, Language
from assay.compile.targets import cuda_sm_90, metal
from assay.errors import EmulatorError
from assay.runtime.device_code import CodeFormat

from ..device_code.lowered import COLUMNS, ROWS, lowered, matrices, threads

CASES = {
    Language.CUDA: (cuda_sm_90.TARGET, CodeFormat.CUDA_C),
    Language.METAL: (metal.TARGET, CodeFormat.MSL),
}
_SUM = """extern "C" __global__ void total(float* a, float* out) {
  float x = a[threadIdx.x];
  for (int delta = 16; delta > 0; delta /= 2) x += __shfl_down_sync(~0u, x, delta);
  if (threadIdx.x == 0) out[0] = x;
}"""
_TURN = """extern "C" __global__ void turn(float* a, int n) {
  __shared__ alignas(64) float tile[64];
  tile[threadIdx.x] = a[threadIdx.x];
  BARRIER
  a[threadIdx.x] = tile[n - 1 - threadIdx.x];
}"""


def pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("reverse", [False, True])
def test_generated_kernels_compute_what_numpy_does(language: Language, reverse: bool, tmp_path: Path) -> None:
    target, form = CASES[language]
    functions, tvm_target, host = lowered(target)
    code = emit_device_code(functions, tvm_target, target)
    kernels = EmulatedKernels(code.content(form).decode(), sorted(code.kernels), language, tmp_path)
    x, w, product, result = matrices()
    block = (threads(host), 1, 1)
    found, soft = (np.full((ROWS, COLUMNS), np.nan, np.float32) for _ in range(2))
    size = ctypes.c_int64(ROWS)
    grid = (ROWS * COLUMNS, 1, 1)  # a block for each sum
    arguments = [pointer(found), pointer(w), pointer(x), size]
    kernels.launch("fused_matmul_relu_kernel", grid, block, arguments, reverse=reverse)
    kernels.launch(
        "softmax_kernel", (ROWS, 1, 1), block, [pointer(soft), pointer(found), size], reverse=reverse
    )
    np.testing.assert_allclose(found, product, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(soft, result, rtol=1e-5, atol=1e-6)


def test_lanes_exchange_values(tmp_path: Path) -> None:
    kernels = EmulatedKernels(_SUM, ["total"], Language.CUDA, tmp_path)
    values, total = np.arange(32, dtype=np.float32), np.zeros(1, np.float32)
    kernels.launch("total", (1, 1, 1), (32, 1, 1), [pointer(values), pointer(total)])
    assert total[0] == values.sum()


def test_a_value_of_a_lane_that_is_not_there_is_poison(tmp_path: Path) -> None:
    kernels = EmulatedKernels(_SUM, ["total"], Language.CUDA, tmp_path)
    values, total = np.arange(32, dtype=np.float32), np.zeros(1, np.float32)
    kernels.launch("total", (1, 1, 1), (20, 1, 1), [pointer(values), pointer(total)])
    assert np.isnan(total[0])


def test_a_missing_barrier_shows(tmp_path: Path) -> None:
    results = {}
    for barrier in ("__syncthreads();", ""):
        kernels = EmulatedKernels(_TURN.replace("BARRIER", barrier), ["turn"], Language.CUDA, tmp_path)
        for reverse in (False, True):
            data = np.arange(64, dtype=np.float32)
            kernels.launch(
                "turn", (1, 1, 1), (64, 1, 1), [pointer(data), ctypes.c_int32(64)], reverse=reverse
            )
            results[barrier, reverse] = data
    turned = np.arange(64, dtype=np.float32)[::-1]
    assert np.array_equal(results["__syncthreads();", False], turned)
    assert np.array_equal(results["__syncthreads();", True], turned)
    assert np.isnan(results["", False]).any()
    assert np.isnan(results["", True]).any()


def test_blocks_and_threads_have_three_dimensions(tmp_path: Path) -> None:
    source = """extern "C" __global__ void count(int* out) {
      int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
      int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
      out[block * 24 + thread] += block * 100 + thread;
    }"""
    kernels = EmulatedKernels(source, ["count"], Language.CUDA, tmp_path)
    out = np.zeros((30, 24), np.int32)
    kernels.launch("count", (5, 3, 2), (4, 3, 2), [pointer(out)])
    assert np.array_equal(out, np.arange(30)[:, None] * 100 + np.arange(24))


_MATRICES = """#include <metal_stdlib>
using namespace metal;
kernel void product(
    device half* a [[ buffer(0) ]], device half* b [[ buffer(1) ]], device float* c [[ buffer(2) ]],
    uint blockIdx [[threadgroup_position_in_grid]], uint threadIdx [[thread_position_in_threadgroup]]) {
  threadgroup float sums[64];
  simdgroup_half8x8 x, y;
  simdgroup_float8x8 z = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
  simdgroup_load(x, a + LEFT, 8);
  simdgroup_load(y, b, 8, 0, true);
  if (CONDITION) simdgroup_multiply_accumulate(z, x, y, z);
  simdgroup_store(z, sums, 8);
  BARRIER
  for (int i = threadIdx; i < 64; i += 32) c[63 - i] = sums[63 - i];
}"""


def matrices_product(
    folder: Path,
    left: str = "0",
    condition: str = "true",
    barrier: str = "simdgroup_barrier(mem_flags::mem_threadgroup);",
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What SIMD-group matrices give, and what they should."""
    source = _MATRICES.replace("LEFT", left).replace("CONDITION", condition).replace("BARRIER", barrier)
    kernels = EmulatedKernels(source, ["product"], Language.METAL, folder)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((size, 8)).astype(np.float16) for size in (16, 8))
    c = np.zeros((8, 8), np.float32)
    kernels.launch("product", (1, 1, 1), (32, 1, 1), [pointer(a), pointer(b), pointer(c)])
    return c, a[:8].astype(np.float32) @ b.T.astype(np.float32) + 1


def test_simdgroup_matrices(tmp_path: Path) -> None:
    found, expected = matrices_product(tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"left": "threadIdx / 16 * 8"}, {"condition": "threadIdx < 24"}, {"barrier": ""}],
    ids=["another address", "not all threads", "no barrier"],
)
def test_wrong_use_of_simdgroup_matrices_shows(wrong: dict[str, str], tmp_path: Path) -> None:
    found, _ = matrices_product(tmp_path, **wrong)
    assert np.isnan(found).any()


def test_functions_of_vectors(tmp_path: Path) -> None:
    source = """kernel void k(device float4* a [[ buffer(0) ]], device int4* b [[ buffer(1) ]]) {
      a[0] = metal::max(metal::min(a[0], float4(2.0f)), a[1]);
      b[0] = metal::clamp(b[0], int4(-1), int4(1));
    }"""
    kernels = EmulatedKernels(source, ["k"], Language.METAL, tmp_path)
    a = np.array([1, 3, -4, 2, 0, 0, -1, 5], np.float32)
    b = np.array([-7, 0, 1, 9], np.int32)
    kernels.launch("k", (1, 1, 1), (1, 1, 1), [pointer(a), pointer(b)])
    assert a[:4].tolist() == [1, 2, -1, 5]
    assert b.tolist() == [-1, 0, 1, 1]


def test_functions_that_metal_lacks_do_not_compile(tmp_path: Path) -> None:
    source = "kernel void k(device float* a [[ buffer(0) ]]) { a[0] = erff(a[0]); }"
    with pytest.raises(EmulatorError, match="erff"):
        EmulatedKernels(source, ["k"], Language.METAL, tmp_path)


def test_blocks_that_no_device_runs_are_refused(tmp_path: Path) -> None:
    kernels = EmulatedKernels(_SUM, ["total"], Language.CUDA, tmp_path)
    data = np.zeros(4096, np.float32)
    with pytest.raises(EmulatorError, match="1024 threads"):
        kernels.launch("total", (1, 1, 1), (2048, 1, 1), [pointer(data), pointer(data)])
