"""cuda-sm_100: NVIDIA GPUs of compute capability 10.0 (Blackwell, data centre: B100, B200)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target(
    "sm_100", "NVIDIA Blackwell, data centre", aliases=("sm_100", "b100", "b200")
)
