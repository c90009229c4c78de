"""WebGPU: kernels in WGSL, for browsers and for devices of every maker through wgpu."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["TARGET", "WITHOUT"]

# Host-shareable types of WGSL: https://www.w3.org/TR/WGSL/#host-shareable-types
WITHOUT = ("int64", "uint64", "int8", "uint8", "int16", "uint16", "bool", "float64", "bfloat16")

# Limits that every implementation has: https://www.w3.org/TR/webgpu/#limits
TARGET = GpuTarget(
    name="webgpu",
    description="WebGPU (WGSL)",
    api=GpuApi.WEBGPU,
    kind="webgpu",
    warp_size=1,
    max_threads=256,
    shared_memory_bytes=16384,
    without=WITHOUT,
    most_buffers=8,
    largest_buffer=128 << 20,
)
