"""rocm-gfx1030: AMD GPUs of RDNA 2: RX 6800, RX 6900."""

from __future__ import annotations

from assay.compile.targets.amd import amd_target
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["TARGET"]

TARGET: GpuTarget = amd_target(
    "gfx1030", "RDNA 2: RX 6800, RX 6900", wave_size=32, aliases=("gfx1030", "rx-6800", "rx-6900")
)
