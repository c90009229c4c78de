"""Reference kernels that engines are measured on: one family, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.benchmarks.kernels import attention, matmul, rows
from assay.benchmarks.kernels.spec import KernelSpec, kernel_model
from assay.registry import Registry

__all__ = ["KernelSpec", "choose_kernels", "kernel_model", "kernels"]


@cache
def kernels() -> Registry[KernelSpec]:
    """All reference kernels by name."""
    registry: Registry[KernelSpec] = Registry("reference kernel")
    for family in (matmul, attention, rows):
        for spec in family.KERNELS:
            registry.add(spec.name, spec)
    return registry


def choose_kernels(wanted: tuple[str, ...]) -> list[KernelSpec]:
    """The kernels whose name or family ``wanted`` gives; all of them where it gives none.

    Raises UnknownNameError.
    """
    known = list(kernels().values())
    families = {spec.family for spec in known}
    chosen: dict[str, KernelSpec] = {}
    for name in wanted:
        found = [spec for spec in known if spec.family == name] if name in families else [kernels()[name]]
        chosen.update((spec.name, spec) for spec in found)
    return list(chosen.values()) if wanted else known
