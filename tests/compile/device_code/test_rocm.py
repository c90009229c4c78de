from __future__ import annotations

import pytest

from assay.compile.device_code import emit_device_code, rocm
from assay.compile.targets import rocm_gfx90a, rocm_gfx942, rocm_gfx1030, rocm_gfx1100, rocm_gfx1201
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import AssayError
from assay.runtime.device_code import CodeFormat

from .lowered import lowered, threads

TARGETS = [module.TARGET for module in (rocm_gfx90a, rocm_gfx942, rocm_gfx1030, rocm_gfx1100, rocm_gfx1201)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_code_object_says_what_its_kernels_take(target: GpuTarget) -> None:
    functions, tvm_target, host = lowered(target)
    code = emit_device_code(functions, tvm_target, target)
    data = code.content(CodeFormat.CODE_OBJECT)
    assert rocm.metadata(data)["amdhsa.target"] == f"amdgcn-amd-amdhsa--{target.architecture}"
    assert set(code.kernels) == {"fused_matmul_relu_kernel", "softmax_kernel"}
    for kernel in code.kernels.values():
        assert kernel.wave_size == target.warp_size
        assert kernel.registers is not None
        assert 0 < kernel.registers <= 256
        assert kernel.scalar_registers
        assert kernel.spills == 0
        assert kernel.maximum_threads is not None
        assert kernel.maximum_threads >= threads(host)
    assert code.kernels["softmax_kernel"].shared_bytes > 0
    assert b".amdhsa_kernel softmax_kernel" in code.content(CodeFormat.LLVM_ASSEMBLY)


def test_the_same_kernels_give_the_same_bytes() -> None:
    functions, tvm_target, _ = lowered(TARGETS[0])
    first, second = (emit_device_code(functions, tvm_target, TARGETS[0]) for _ in range(2))
    assert first == second


def test_all_but_the_name_of_the_target_stays() -> None:
    functions, tvm_target, _ = lowered(TARGETS[1])
    data = emit_device_code(functions, tvm_target, TARGETS[1]).content(CodeFormat.CODE_OBJECT)
    for name in ("amdgcn-amd-amdhsa--gfx90", "amdgcn-amd-amdhsa--g", "a"):
        changed = rocm.with_target_id(data, name)
        assert len(changed) == len(data)
        assert rocm.metadata(changed) == {**rocm.metadata(data), "amdhsa.target": name}
    with pytest.raises(AssayError, match="do not fit"):
        rocm.with_target_id(data, "x" * 100)


def test_waves_of_another_size_are_refused() -> None:
    # gfx942 has waves of 64 threads: kernels for it cannot be those of a target with waves of 32.
    functions, tvm_target, _ = lowered(TARGETS[1])
    with pytest.raises(AssayError, match="waves"):
        emit_device_code(functions, tvm_target, TARGETS[2])


def test_what_is_no_code_object_is_refused() -> None:
    for data in (b"", b"\x7fELF", b"no object at all"):
        with pytest.raises(AssayError):
            rocm.metadata(data)
    with pytest.raises(AssayError, match="linker"):
        rocm.link_code_object(b"no object")
