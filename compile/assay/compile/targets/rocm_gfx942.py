"""rocm-gfx942: AMD GPUs of CDNA 3: MI300A, MI300X, MI325X."""

from __future__ import annotations

from assay.compile.targets.amd import amd_target
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["TARGET"]

TARGET: GpuTarget = amd_target(
    "gfx942", "CDNA 3: MI300A, MI300X, MI325X", wave_size=64, aliases=("gfx942", "mi300a", "mi300x", "mi325x")
)
