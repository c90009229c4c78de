"""x86-64-v2: SSE4.2 and POPCNT (Nehalem and later), for CPUs without AVX2."""

from __future__ import annotations

from assay.compile.targets.target import Target, VectorUnit

__all__ = ["LLVM_OPTIONS", "TARGET"]

# It would sum steps of an integer contraction apart, which takes registers that the tile has not left.
LLVM_OPTIONS = ("-x86-machine-combiner:bool=0",)

# Feature set of the psABI level: https://gitlab.com/x86-psABIs/x86-64-ABI (x86-64-v2).
TARGET = Target(
    name="x86-64-v2",
    description="x86-64 with SSE4.2",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v2",
    features=("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    vector_unit=VectorUnit(bits=128, registers=16, fma=False, f16c=False, l2_bytes=256 * 1024),
    llvm_options=LLVM_OPTIONS,
    aliases=(
        "nehalem", "westmere", "sandybridge", "ivybridge", "silvermont", "goldmont", "tremont", "btver2",
        "bdver2",
    ),
)  # fmt: skip
