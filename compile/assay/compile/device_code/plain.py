"""Code that the driver of the device compiles: OpenCL C, and WGSL for WebGPU and Vulkan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module, kernel_names
from assay.compile.targets.gpu_target import GpuTarget
from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources

__all__ = ["emit"]

_FILES: Mapping[str, tuple[CodeFormat, str]] = {
    "opencl": (CodeFormat.OPENCL_C, "kernels.cl"),
    "webgpu": (CodeFormat.WGSL, "kernels.wgsl"),
}


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """The source that TVM generates, as it is."""
    form, name = _FILES[target.kind]
    source = generated_module(functions, tvm_target).inspect_source("")
    return EmittedCode(
        files={name: source.encode()},
        description=DeviceCode(
            api=target.api,
            architecture=target.architecture,
            compiler="none: compiled when it is loaded",
            files={form: name},
            kernels={kernel: KernelResources() for kernel in kernel_names(functions)},
        ),
    )
