"""cuda-sm_80: NVIDIA GPUs of compute capability 8.0 (Ampere, data centre: A100)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.nvidia import nvidia_target

__all__ = ["TARGET"]

TARGET: GpuTarget = nvidia_target("sm_80", "NVIDIA Ampere, data centre", aliases=("sm_80", "ampere", "a100"))
