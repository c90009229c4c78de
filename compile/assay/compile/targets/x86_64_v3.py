"""x86-64-v3: AVX2 and FMA (Haswell, Zen and later)."""

from __future__ import annotations

from assay.compile.targets.target import Target, VectorUnit
from assay.compile.targets.x86_64_v2 import TARGET as X86_64_V2

__all__ = ["TARGET"]

# Feature set of the psABI level: https://gitlab.com/x86-psABIs/x86-64-ABI (x86-64-v3). Linux calls LZCNT abm.
TARGET = Target(
    name="x86-64-v3",
    description="x86-64 with AVX2 and FMA",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v3",
    features=(*X86_64_V2.features, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"),
    vector_unit=VectorUnit(bits=256, registers=16),
    llvm_options=X86_64_V2.llvm_options,
    aliases=(
        "haswell", "broadwell", "skylake", "kabylake", "cometlake", "alderlake", "raptorlake", "meteorlake",
        "arrowlake", "lunarlake", "gracemont", "znver1", "znver2", "znver3",
    ),
)  # fmt: skip
