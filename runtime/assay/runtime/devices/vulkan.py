"""Vulkan devices, through wgpu, which makes SPIR-V of WGSL when kernels are loaded."""

from __future__ import annotations

from assay.runtime.devices.wgpu_device import wgpu_api

__all__ = ["API"]

API = wgpu_api(
    "vulkan",
    "Vulkan",
    ("Vulkan",),
    "Install the driver of the GPU, or Mesa's for the CPU: apt install mesa-vulkan-drivers.",
)
