"""rocm-gfx90a: AMD GPUs of CDNA 2: MI210, MI250."""

from __future__ import annotations

from assay.compile.targets.amd import amd_target
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["TARGET"]

TARGET: GpuTarget = amd_target(
    "gfx90a", "CDNA 2: MI210, MI250", wave_size=64, aliases=("gfx90a", "mi210", "mi250", "mi250x")
)
