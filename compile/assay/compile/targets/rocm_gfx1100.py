"""rocm-gfx1100: AMD GPUs of RDNA 3: RX 7900."""

from __future__ import annotations

from assay.compile.targets.amd import amd_target
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["TARGET"]

TARGET: GpuTarget = amd_target(
    "gfx1100", "RDNA 3: RX 7900", wave_size=32, aliases=("gfx1100", "rx-7900", "w7900")
)
