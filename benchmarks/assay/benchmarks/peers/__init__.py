"""Engines that are measured beside each other: one engine, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.benchmarks.peers.assay_runtime import AssayRuntime
from assay.benchmarks.peers.engine import Engine, ModelFiles, Session
from assay.benchmarks.peers.numpy_blas import NumPy
from assay.benchmarks.peers.onnx_runtime import OnnxRuntime
from assay.benchmarks.peers.pytorch import PyTorch, TorchCompile
from assay.registry import Registry

__all__ = ["Engine", "ModelFiles", "Session", "engines"]


@cache
def engines() -> Registry[Engine]:
    """All engines by name; an entry point of the group ``assay.engines`` is an ``Engine`` and adds one."""
    from importlib.metadata import entry_points

    registry: Registry[Engine] = Registry("engine")
    known: tuple[Engine, ...] = (AssayRuntime(), OnnxRuntime(), PyTorch(), TorchCompile(), NumPy())
    for engine in (*known, *(entry.load() for entry in entry_points(group="assay.engines"))):
        registry.add(engine.name, engine)
    return registry
