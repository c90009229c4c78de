"""cuda-sm_89: NVIDIA GPUs of compute capability 8.9 (Ada: L4, L40S, RTX 40)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target("sm_89", "NVIDIA Ada", aliases=("sm_89", "ada", "rtx-4090", "l4", "l40s"))
