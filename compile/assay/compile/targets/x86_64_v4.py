"""x86-64-v4: AVX-512 F, BW, CD, DQ and VL (Skylake server)."""

from __future__ import annotations

from assay.compile.targets.target import Target, VectorUnit
from assay.compile.targets.x86_64_v3 import TARGET as X86_64_V3

__all__ = ["TARGET"]

# Feature set of the psABI level: https://gitlab.com/x86-psABIs/x86-64-ABI (x86-64-v4).
TARGET = Target(
    name="x86-64-v4",
    description="x86-64 with AVX-512 F, BW, CD, DQ, VL",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v4",
    features=(*X86_64_V3.features, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
    vector_unit=VectorUnit(bits=512, registers=32, l2_bytes=1024 * 1024),
    # LLVM splits wide loops into 256-bit halves on some AVX-512 cores unless told otherwise.
    attributes=("-prefer-256-bit",),
    llvm_options=X86_64_V3.llvm_options,
    aliases=("skylake-avx512", "cannonlake"),
)
