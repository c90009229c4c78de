"""What is compiled for on a GPU: an API, an architecture, and the limits of kernels. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["GpuApi", "GpuTarget"]


class GpuApi(StrEnum):
    """How kernels reach a device; named as the device drivers of the runtime are."""

    CUDA = "cuda"
    ROCM = "rocm"
    METAL = "metal"
    VULKAN = "vulkan"
    OPENCL = "opencl"
    WEBGPU = "webgpu"


@dataclass(frozen=True, kw_only=True)
class GpuTarget:
    """One GPU target: an API, an architecture where code is made for one, and limits.

    ``kind``: TVM's kind of target. ``architecture``: such as ``sm_90``, ``gfx942`` or ``apple7``; None where
    the driver of the device compiles. ``warp_size``: threads that exchange registers; 1 where kernels must
    not. ``max_threads`` and ``shared_memory_bytes`` are those of one block. ``without``: dtypes that buffers
    cannot have. ``most_buffers``: that a kernel may take, and ``largest_buffer``: bytes of
    one; None where there is no limit that matters.
    ``options``: other options of TVM's target, as pairs. ``stands_for``: the target whose schedules
    kernels have, where this one is made to run them.
    """

    name: str
    description: str
    api: GpuApi
    kind: str
    architecture: str | None = None
    warp_size: int
    max_threads: int
    shared_memory_bytes: int
    without: tuple[str, ...] = ()
    most_buffers: int | None = None
    largest_buffer: int | None = None
    options: tuple[tuple[str, str | int | bool], ...] = ()
    aliases: tuple[str, ...] = ()
    stands_for: GpuTarget | None = None

    @property
    def scheduled_for(self) -> GpuTarget:
        """The target whose schedules kernels have."""
        return self.stands_for or self

    def tvm_config(self) -> dict[str, str | int | bool]:
        """The target as TVM takes it, without the host."""
        return {
            "kind": self.kind,
            "thread_warp_size": self.warp_size,
            "max_num_threads": self.max_threads,
            "max_shared_memory_per_block": self.shared_memory_bytes,
            **dict(self.options),
        }
