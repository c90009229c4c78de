"""From TVM's device functions to the files of an artifact, one API at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from assay.compile.device_code import cuda, metal, opencl, rocm, wgsl
from assay.compile.targets.gpu_target import GpuApi, GpuTarget

if TYPE_CHECKING:
    from assay.compile.device_code.emitted import EmittedCode

__all__ = ["emit_device_code"]

_EMITTERS: Mapping[GpuApi, Callable[[Any, Any, GpuTarget], EmittedCode]] = {
    GpuApi.CUDA: cuda.emit,
    GpuApi.ROCM: rocm.emit,
    GpuApi.METAL: metal.emit,
    GpuApi.OPENCL: opencl.emit,
    GpuApi.VULKAN: wgsl.emit,
    GpuApi.WEBGPU: wgsl.emit,
}


def emit_device_code(functions: Any, tvm_target: Any, target: GpuTarget) -> EmittedCode:
    """The code of ``functions``, an IRModule of lowered device functions, for ``target``.

    ``tvm_target`` is the target that they were lowered for. Nothing of the device is needed. The same
    functions give the same bytes. Raises AssayError, with the compiler's message, where it refuses them, and
    MissingDependencyError where it is not installed.
    """
    return _EMITTERS[target.api](functions, tvm_target, target)
