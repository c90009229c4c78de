"""Targets: one target, one file, one line in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from assay.compile.targets import (
    aarch64_neon,
    aarch64_neon_dotprod,
    aarch64_neon_i8mm,
    cuda_sm_75,
    cuda_sm_80,
    cuda_sm_86,
    cuda_sm_89,
    cuda_sm_90,
    cuda_sm_100,
    cuda_sm_120,
    metal,
    opencl,
    riscv64_rvv,
    rocm_gfx90a,
    rocm_gfx942,
    rocm_gfx1030,
    rocm_gfx1100,
    rocm_gfx1201,
    vulkan,
    wasm32_relaxed_simd,
    wasm32_simd,
    webgpu,
    x86_64_v2,
    x86_64_v3,
    x86_64_v4,
    x86_64_v4_amx,
    x86_64_v4_vnni,
)
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.targets.native import native_target
from assay.compile.targets.target import Target, VectorUnit
from assay.errors import UnknownNameError, UsageError
from assay.registry import Registry

__all__ = [
    "AnyTarget",
    "GpuTarget",
    "Target",
    "VectorUnit",
    "find_target",
    "find_targets",
    "gpu_targets",
    "targets",
]

AnyTarget: TypeAlias = Target | GpuTarget

# From plain to capable: `native` takes the last one that the machine can run.
_MODULES = (
    wasm32_simd,
    wasm32_relaxed_simd,
    x86_64_v2,
    x86_64_v3,
    x86_64_v4,
    x86_64_v4_vnni,
    x86_64_v4_amx,
    aarch64_neon,
    aarch64_neon_dotprod,
    aarch64_neon_i8mm,
    riscv64_rvv,
)

_GPU_MODULES = (
    cuda_sm_75,
    cuda_sm_80,
    cuda_sm_86,
    cuda_sm_89,
    cuda_sm_90,
    cuda_sm_100,
    cuda_sm_120,
    rocm_gfx90a,
    rocm_gfx942,
    rocm_gfx1030,
    rocm_gfx1100,
    rocm_gfx1201,
    metal,
    vulkan,
    opencl,
    webgpu,
)


@cache
def targets() -> Registry[Target]:
    """All CPUs by name and micro-architecture alias, without ``native``."""
    registry: Registry[Target] = Registry("target")
    for module in _MODULES:
        registry.add(module.TARGET.name, module.TARGET, aliases=module.TARGET.aliases)
    return registry


@cache
def gpu_targets() -> Registry[GpuTarget]:
    """All GPUs by name and alias."""
    registry: Registry[GpuTarget] = Registry("target")
    for module in _GPU_MODULES:
        registry.add(module.TARGET.name, module.TARGET, aliases=module.TARGET.aliases)
    return registry


def find_target(name: str) -> Target:
    """The CPU of that name or alias; ``native`` is detected. Raises UnknownNameError, CpuFeatureError.

    Raises UsageError for a GPU.
    """
    if name == "native":
        return native_target(targets().values())
    if name in gpu_targets():
        raise UsageError(f"{name} is a GPU; this is for CPUs.", hint="`assay targets` lists them.")
    return targets()[name]


def find_targets(names: str | Sequence[str]) -> tuple[AnyTarget, ...]:
    """The targets of several names, or of one string with commas, each once: CPUs from plain to capable.

    Raises UsageError where there is no name, UnknownNameError for an unknown one, and CpuFeatureError.
    """
    parts = names.split(",") if isinstance(names, str) else [p for name in names for p in name.split(",")]
    found = {target.name: target for target in (_any_target(part.strip()) for part in parts if part.strip())}
    if not found:
        raise UsageError(
            "No target is named.", hint="`assay targets` lists them; `native` is this machine's."
        )
    order = [*targets(), *gpu_targets()]
    return tuple(sorted(found.values(), key=lambda target: order.index(target.name)))


def _any_target(name: str) -> AnyTarget:
    if name in gpu_targets():
        return gpu_targets()[name]
    if name == "native" or name in targets():
        return find_target(name)
    known = [each for registry in (targets(), gpu_targets()) for each in registry]
    aliases = [
        alias
        for registry in (targets(), gpu_targets())
        for each in registry
        for alias in registry.aliases(each)
    ]
    raise UnknownNameError("target", name, [*known, *aliases])
