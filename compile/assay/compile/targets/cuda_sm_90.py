"""cuda-sm_90: NVIDIA GPUs of compute capability 9.0 (Hopper: H100, H200)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target("sm_90", "NVIDIA Hopper", aliases=("sm_90", "hopper", "h100", "h200"))
