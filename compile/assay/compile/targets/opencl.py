"""OpenCL: kernels in OpenCL C, for GPUs of every maker, and for CPUs through PoCL."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["TARGET"]

# What a device of the full profile has at least: OpenCL 1.2, table 4.3. Threads of a group are 1 there at
# least; every GPU of today has 256. Subgroups are an extension, so that no kernel counts on them.
TARGET = GpuTarget(
    name="opencl",
    description="OpenCL 1.2",
    api=GpuApi.OPENCL,
    kind="opencl",
    warp_size=1,
    max_threads=256,
    shared_memory_bytes=32768,
)
