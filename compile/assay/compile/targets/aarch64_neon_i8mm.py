"""aarch64-neon-i8mm: NEON with dot products of mixed signs (Neoverse V1 and V2, Apple M2 and later)."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.aarch64_neon_dotprod import TARGET as AARCH64_NEON_DOTPROD
from assay.compile.targets.target import DotProduct

__all__ = ["TARGET"]

# FEAT_I8MM of the Arm Architecture Reference Manual (DDI 0487). QEMU has no model of such a core; `max` is
# all that it knows.
TARGET = replace(
    AARCH64_NEON_DOTPROD,
    name="aarch64-neon-i8mm",
    description="64-bit ARM with NEON and I8MM",
    features=(*AARCH64_NEON_DOTPROD.features, "i8mm"),
    vector_unit=replace(AARCH64_NEON_DOTPROD.vector_unit, dot=DotProduct.USDOT, l2_bytes=1024 * 1024),
    attributes=(*AARCH64_NEON_DOTPROD.attributes, "+i8mm"),
    emulator=("qemu-aarch64", "-cpu", "max"),
    aliases=(
        "cortex-a510", "cortex-a710", "cortex-x2", "neoverse-n2", "neoverse-v1", "neoverse-v2", "apple-m2",
        "apple-m3", "apple-m4",
    ),
)  # fmt: skip
