"""aarch64-neon-dotprod: NEON with dot products of bytes (Cortex-A76, Neoverse N1, Apple M1)."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.aarch64_neon import TARGET as AARCH64_NEON
from assay.compile.targets.target import DotProduct

__all__ = ["TARGET"]

# FEAT_DotProd of the Arm Architecture Reference Manual (DDI 0487); Linux calls it asimddp. Large cores have
# 512 KiB to 1 MiB of L2.
TARGET = replace(
    AARCH64_NEON,
    name="aarch64-neon-dotprod",
    description="64-bit ARM with NEON and 8-bit dot products",
    features=(*AARCH64_NEON.features, "asimddp"),
    vector_unit=replace(AARCH64_NEON.vector_unit, dot=DotProduct.SDOT, l1_bytes=64 * 1024),
    attributes=(*AARCH64_NEON.attributes, "+dotprod"),
    emulator=("qemu-aarch64", "-cpu", "neoverse-n1"),
    aliases=("cortex-a55", "cortex-a75", "cortex-a76", "cortex-a78", "neoverse-n1", "apple-m1"),
)
