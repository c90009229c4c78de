"""x86-64-v4-amx: AVX-512 VNNI, and AMX tiles for products of 8-bit integers (Sapphire Rapids and later)."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.target import DotProduct, Target
from assay.compile.targets.x86_64_v4_vnni import TARGET as X86_64_V4_VNNI

__all__ = ["TARGET"]

TARGET = Target(
    name="x86-64-v4-amx",
    description="x86-64-v4-vnni with AMX tiles for 8-bit integers",
    triple=X86_64_V4_VNNI.triple,
    cpu=X86_64_V4_VNNI.cpu,
    features=(*X86_64_V4_VNNI.features, "amx_int8", "amx_tile"),
    vector_unit=replace(X86_64_V4_VNNI.vector_unit, dot=DotProduct.AMX, l2_bytes=2 * 1024 * 1024),
    attributes=(*X86_64_V4_VNNI.attributes, "+amx-tile", "+amx-int8"),
    llvm_options=X86_64_V4_VNNI.llvm_options,
    aliases=("sapphirerapids", "emeraldrapids", "graniterapids", "diamondrapids"),
)
