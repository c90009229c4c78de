from __future__ import annotations

import pytest

from assay.compile.device_code import emit_device_code
from assay.compile.device_code.cuda import compile_cuda
from assay.compile.targets import (
    cuda_sm_75,
    cuda_sm_80,
    cuda_sm_86,
    cuda_sm_89,
    cuda_sm_90,
    cuda_sm_100,
    cuda_sm_120,
)
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import AssayError
from assay.runtime.device_code import CodeFormat

from .lowered import lowered, threads

TARGETS = [
    module.TARGET
    for module in (cuda_sm_75, cuda_sm_80, cuda_sm_86, cuda_sm_89, cuda_sm_90, cuda_sm_100, cuda_sm_120)
]
_HALF = """#include <cuda_fp16.h>
extern "C" __global__ void __launch_bounds__(64) widen(float* __restrict__ a, const half* b) {
  a[threadIdx.x] = __half2float(b[threadIdx.x]);
}"""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_machine_code_is_made_for_each_architecture_without_a_gpu(target: GpuTarget) -> None:
    functions, tvm_target, host = lowered(target)
    code = emit_device_code(functions, tvm_target, target)
    assert code.content(CodeFormat.CUBIN).startswith(b"\x7fELF")
    assert f".target {target.architecture}".encode() in code.content(CodeFormat.PTX)
    assert set(code.kernels) == {"fused_matmul_relu_kernel", "softmax_kernel"}
    for kernel in code.kernels.values():
        assert kernel.registers is not None
        assert 0 < kernel.registers <= 255
        assert kernel.spills == 0
        assert kernel.maximum_threads == threads(host)
        assert kernel.shared_bytes > 0  # where the threads of a block add their sums


def test_the_same_kernels_give_the_same_bytes() -> None:
    functions, tvm_target, _ = lowered(TARGETS[0])
    first, second = (emit_device_code(functions, tvm_target, TARGETS[0]) for _ in range(2))
    assert first == second


def test_float16_compiles() -> None:
    cubin, ptx, log, _ = compile_cuda(_HALF, "sm_80")
    assert cubin.startswith(b"\x7fELF")
    assert b"cvt.f32.f16" in ptx
    assert "widen" in log


def test_what_the_compiler_refuses_is_said_in_its_words() -> None:
    with pytest.raises(AssayError, match="nowhere"):
        compile_cuda('extern "C" __global__ void k(float* a) { a[nowhere] = 1; }', "sm_90")
    with pytest.raises(AssayError, match="sm_10"):
        compile_cuda(_HALF, "sm_10")
