"""OpenCL: the source of all kernels in one file, which the driver of the device compiles."""

from __future__ import annotations

from typing import Any

from assay.compile.device_code.emitted import EmittedCode
from assay.compile.device_code.source import generated_module
from assay.compile.targets.gpu_target import GpuTarget
from assay.runtime.device_code import CodeFormat, DeviceCode

__all__ = ["emit"]


def emit(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """OpenCL C. Nothing here compiles it."""
    source = str(generated_module(functions, tvm_target).inspect_source(""))
    return EmittedCode(
        files={"kernels.cl": source.encode()},
        description=DeviceCode(
            api=target.api,
            architecture=None,
            compiler="none: compiled when it is loaded",
            files={CodeFormat.OPENCL_C: "kernels.cl"},
            kernels={},
        ),
    )
