"""riscv64-rvv: 64-bit RISC-V with the vector extension 1.0."""

from __future__ import annotations

from assay.compile.targets.target import DotProduct, Launcher, Target, VectorUnit

__all__ = ["TARGET"]

# The profile RVA22 with V (https://github.com/riscv/riscv-profiles). V means registers of at least 128 bits
# (Zvl128b): code counts with those, and runs where they are longer. 32 registers, fused multiply-add. Without
# Zvfhmin float16 is converted in integer arithmetic. LLVM is told the parts of V: where it has that as a
# whole, TVM makes vectors of a length that is not known, which do not mix with those of our schedules.
TARGET = Target(
    name="riscv64-rvv",
    description="64-bit RISC-V with vectors",
    triple="riscv64-linux-gnu",
    cpu="generic-rv64",
    features=("i", "m", "a", "f", "d", "c", "v"),
    vector_unit=VectorUnit(bits=128, registers=32, f16c=False, dot=DotProduct.LONG),
    attributes=("+m", "+a", "+f", "+d", "+c", "+zve64d", "+zvl128b"),
    abi="lp64d",
    launcher=Launcher.PLAN,
    emulator=("qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0,vlen=128"),
    aliases=("riscv64", "rv64gcv"),
)
