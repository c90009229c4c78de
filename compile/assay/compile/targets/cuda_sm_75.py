"""cuda-sm_75: NVIDIA GPUs of compute capability 7.5 (Turing: T4, RTX 20)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target("sm_75", "NVIDIA Turing", aliases=("sm_75", "turing", "rtx-2080", "t4"))
