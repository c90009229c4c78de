"""WGSL: kernels one after the other in one file, each a module of its own, which the driver compiles."""

from __future__ import annotations

import re
from typing import Any

from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module, kernel_names
from assay.compile.passes.wgsl_math import finish_wgsl
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import AssayError, UnsupportedOperatorError
from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources
from assay.runtime.devices.wgsl import SPREAD, split_wgsl

__all__ = ["check_kernel", "emit", "join_wgsl"]

_MISSING = re.compile(r"\b(?:array<)?(i8|u8|i16|u16|i64|u64|f64|bf16)\b")
_STORAGE = re.compile(r"var<storage\b")
_SHARED = re.compile(r"var<workgroup> \w+ : array<(?:vec(\d)<)?(\w+?)>?, (\d+)>")
_BYTES = {"f16": 2, "f32": 4, "i32": 4, "u32": 4, "bool": 4}


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """WGSL, checked against the limits that every implementation has.

    Raises UnsupportedOperatorError for a kernel beyond them.
    """
    generated = split_wgsl(generated_module(functions, tvm_target).inspect_source(""))
    kernels = {name: _own_axes(finish_wgsl(generated[name])) for name in sorted(generated)}
    missing = set(kernel_names(functions)) - set(kernels)
    if missing:
        raise AssayError(f"The source lacks kernels: {', '.join(sorted(missing))}.")
    return EmittedCode(
        files={"kernels.wgsl": join_wgsl(kernels).encode()},
        description=DeviceCode(
            api=target.api,
            architecture=None,
            compiler="none: compiled when it is loaded",
            files={CodeFormat.WGSL: "kernels.wgsl"},
            kernels={name: check_kernel(name, text, target) for name, text in kernels.items()},
            checks=("buffers, workgroup memory and types are within the limits that WebGPU promises",),
        ),
    )


def join_wgsl(kernels: dict[str, str]) -> str:
    """A file that ``split_wgsl`` takes apart."""
    return "\n".join(f"// Function: {name}\n{_bare(text)}\n" for name, text in kernels.items())


def _bare(text: str) -> str:
    """A kernel without the rules that TVM draws around its name."""
    return re.sub(r"^//-+\n", "", text, flags=re.MULTILINE).strip()


def _own_axes(text: str) -> str:
    """A kernel that uses the z of its grid: x must not go on there."""
    return text.replace(SPREAD, "blockIdx.x") if "i32(blockIdx.z)" in text else text


def check_kernel(name: str, text: str, target: GpuTarget) -> KernelResources:
    """What a kernel takes. Raises UnsupportedOperatorError for what not every implementation has."""
    missing = _MISSING.search(text)
    if missing is not None:
        raise UnsupportedOperatorError(f"The kernel {name} needs values of {missing[1]}, which WGSL lacks.")
    buffers = len(_STORAGE.findall(text))
    if target.most_buffers is not None and buffers > target.most_buffers:
        raise UnsupportedOperatorError(
            f"The kernel {name} takes {buffers} buffers; WebGPU promises {target.most_buffers}.",
            hint="An operator of many operands does it: split it in the model.",
        )
    shared = sum(
        int(lanes or 1) * _BYTES.get(kind, 4) * int(count) for lanes, kind, count in _SHARED.findall(text)
    )
    if shared > target.shared_memory_bytes:
        raise UnsupportedOperatorError(
            f"The kernel {name} takes {shared} bytes of workgroup memory; "
            f"WebGPU promises {target.shared_memory_bytes}."
        )
    return KernelResources(shared_bytes=shared)
