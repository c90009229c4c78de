"""What NVIDIA's targets share."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["nvidia_target"]


def nvidia_target(architecture: str, generation: str, *, aliases: tuple[str, ...]) -> GpuTarget:
    """The target of one compute capability, ``sm_90`` for one.

    Limits of the CUDA C++ Programming Guide, "Compute Capabilities": every architecture has more shared
    memory than 48 KiB, but gives more only to kernels that ask for it when they are launched.
    """
    return GpuTarget(
        name=f"cuda-{architecture}",
        description=f"CUDA {architecture} ({generation})",
        api=GpuApi.CUDA,
        kind="cuda",
        architecture=architecture,
        warp_size=32,
        max_threads=1024,
        shared_memory_bytes=48 * 1024,
        options=(("arch", architecture),),
        aliases=aliases,
    )
