"""x86-64-v4-vnni: AVX-512 with 8-bit dot products (Cascade Lake, Ice Lake, Zen 4 and later)."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.target import DotProduct, Target
from assay.compile.targets.x86_64_v4 import TARGET as X86_64_V4

__all__ = ["TARGET"]

TARGET = Target(
    name="x86-64-v4-vnni",
    description="x86-64-v4 with AVX-512 VNNI",
    triple=X86_64_V4.triple,
    cpu=X86_64_V4.cpu,
    features=(*X86_64_V4.features, "avx512_vnni"),
    vector_unit=replace(X86_64_V4.vector_unit, dot=DotProduct.VNNI),
    attributes=(*X86_64_V4.attributes, "+avx512vnni"),
    llvm_options=X86_64_V4.llvm_options,
    aliases=(
        "cascadelake", "cooperlake", "icelake", "icelake-client", "icelake-server", "tigerlake", "rocketlake",
        "znver4", "znver5",
    ),
)  # fmt: skip
