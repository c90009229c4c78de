"""aarch64-neon: 64-bit ARM with Advanced SIMD, which every such core has (Cortex-A53 and later)."""

from __future__ import annotations

from assay.compile.targets.target import DotProduct, Launcher, Target, VectorUnit

__all__ = ["TARGET"]

# Armv8.0-A: Advanced SIMD with 32 registers of 128 bits, fused multiply-add and conversion of float16
# (Arm Architecture Reference Manual, DDI 0487).
TARGET = Target(
    name="aarch64-neon",
    description="64-bit ARM with NEON",
    triple="aarch64-linux-gnu",
    cpu="generic",
    features=("asimd",),
    vector_unit=VectorUnit(bits=128, registers=32, dot=DotProduct.LONG, l2_bytes=512 * 1024),
    attributes=("+neon",),
    launcher=Launcher.PLAN,
    emulator=("qemu-aarch64", "-cpu", "cortex-a72"),
    aliases=("aarch64", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"),
)
