"""cuda-sm_120: NVIDIA GPUs of compute capability 12.0 (Blackwell, graphics: RTX 50)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target(
    "sm_120", "NVIDIA Blackwell, graphics", aliases=("sm_120", "blackwell", "rtx-5090")
)
