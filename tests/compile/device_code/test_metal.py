from __future__ import annotations

from dataclasses import replace

import pytest

from assay.compile.device_code import emit_device_code
from assay.compile.device_code.metal import check_source
from assay.compile.targets.metal import TARGET
from assay.errors import AssayError
from assay.runtime.device_code import CodeFormat

from .lowered import lowered

_KERNEL = "kernel void k(device float* a [[ buffer(0) ]]) {{\n  {}\n}}\n"


def test_source_is_one_file_that_says_its_shared_memory() -> None:
    functions, tvm_target, _ = lowered(TARGET)
    code = emit_device_code(functions, tvm_target, TARGET)
    text = code.content(CodeFormat.MSL).decode()
    assert text.count("#include <metal_stdlib>") == text.count("union __TVMArgUnion {") == 1
    assert text.count("kernel void ") == len(code.kernels) == 2
    assert code.kernels["softmax_kernel"].shared_bytes > 0


def test_shared_memory_is_counted() -> None:
    text = _KERNEL.format("threadgroup float4 a[8];\n  threadgroup half b[6];\n  threadgroup int c[1];")
    assert check_source(text, TARGET)["k"].shared_bytes == 128 + 12 + 4


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("double x = a[0];", "float64"),
        ("threadgroup float b[9000];", "threadgroup memory"),
    ],
)
def test_what_no_device_of_the_family_takes_is_refused(body: str, reason: str) -> None:
    with pytest.raises(AssayError, match=reason):
        check_source(_KERNEL.format(body), TARGET)


def test_too_many_buffers_are_refused() -> None:
    parameters = ", ".join(f"device float* a{i} [[ buffer({i}) ]]" for i in range(32))
    with pytest.raises(AssayError, match="32 buffers"):
        check_source(f"kernel void k({parameters}) {{}}", TARGET)


def test_limits_are_the_targets() -> None:
    text = _KERNEL.format("threadgroup float b[256];")
    with pytest.raises(AssayError, match="1024 bytes"):
        check_source(text, replace(TARGET, shared_memory_bytes=512))
