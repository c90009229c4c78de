"""cuda-sm_86: NVIDIA GPUs of compute capability 8.6 (Ampere, graphics: A10, RTX 30)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target("sm_86", "NVIDIA Ampere, graphics", aliases=("sm_86", "rtx-3090", "a10"))
