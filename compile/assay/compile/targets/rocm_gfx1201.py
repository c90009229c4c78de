"""rocm-gfx1201: AMD GPUs of RDNA 4: RX 9070."""

from __future__ import annotations

from assay.compile.targets.amd import amd_target
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["TARGET"]

TARGET: GpuTarget = amd_target("gfx1201", "RDNA 4: RX 9070", wave_size=32, aliases=("gfx1201", "rx-9070"))
