"""Vulkan: kernels in WGSL, which wgpu translates to SPIR-V when they are loaded."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.gpu_target import GpuApi
from assay.compile.targets.webgpu import TARGET as WEBGPU

__all__ = ["TARGET"]

TARGET = replace(WEBGPU, name="vulkan", description="Vulkan (WGSL through wgpu)", api=GpuApi.VULKAN)
