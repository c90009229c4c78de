"""What AMD's targets share."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["amd_target"]


def amd_target(architecture: str, generation: str, *, wave_size: int, aliases: tuple[str, ...]) -> GpuTarget:
    """The target of one AMD architecture, ``gfx942`` for one.

    ``wave_size``: threads of a wave: 64 on CDNA, 32 on RDNA, where LLVM's default is 32 too
    (https://llvm.org/docs/AMDGPUUsage.html). A block has up to 64 KiB of LDS. Blocks of more threads than 256
    would have to be announced to LLVM, and TVM announces 256 where no ROCm is installed.
    """
    return GpuTarget(
        name=f"rocm-{architecture}",
        description=f"ROCm {architecture} (AMD {generation})",
        api=GpuApi.ROCM,
        kind="rocm",
        architecture=architecture,
        warp_size=wave_size,
        max_threads=256,
        shared_memory_bytes=64 * 1024,
        options=(("mcpu", architecture), ("max_threads_per_block", 256)),
        aliases=aliases,
    )
