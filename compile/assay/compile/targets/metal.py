"""metal: Apple GPUs of the family Apple7 and later (M1, A14)."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuApi, GpuTarget

__all__ = ["TARGET"]

# Limits of the Metal Feature Set Tables, family Apple7. Metal has no float64.
TARGET = GpuTarget(
    name="metal",
    description="Metal, Apple7 and later (M1, A14)",
    api=GpuApi.METAL,
    kind="metal",
    architecture="apple7",
    warp_size=32,
    max_threads=1024,
    shared_memory_bytes=32 * 1024,
    without=("float64",),
    options=(("max_threads_per_block", 1024),),
    aliases=("apple7", "apple-m1-gpu"),
)
