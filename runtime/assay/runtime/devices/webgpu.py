"""WebGPU devices outside of a browser, through wgpu: whatever it drives on this system."""

from __future__ import annotations

from assay.runtime.devices.wgpu_device import wgpu_api

__all__ = ["API"]

API = wgpu_api(
    "webgpu",
    "WebGPU",
    ("Vulkan", "Metal", "DX12"),
    "Install the driver of the GPU; on Linux, Mesa's also runs on the CPU: apt install mesa-vulkan-drivers.",
)
