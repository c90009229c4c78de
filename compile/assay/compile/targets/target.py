"""What is compiled for: a target and the vector unit that its schedules count with. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DotProduct", "Launcher", "Target", "VectorUnit"]


class Launcher(StrEnum):
    """What calls the kernels; named as the drivers of the runtime are."""

    VIRTUAL_MACHINE = "tvm-vm"  # TVM's, compiled into the library
    PLAN = "plan-cpu"  # a launch plan beside the library: nothing of TVM's but a few functions
    WASM = "wasm"  # a launch plan beside a WebAssembly module


class DotProduct(StrEnum):
    """How a core multiplies 8-bit integers and adds the products to 32-bit sums."""

    MULTIPLY_ADD = "pmadd"  # pmaddubsw where its 16-bit sums provably do not saturate, else pmaddwd
    VNNI = "vpdpbusd"  # four products and the sum at once, exact
    WIDENED = "widened"  # plain 32-bit arithmetic on the panels of vpdpbusd: any CPU
    AMX = "tdpbusd"  # tiles of sums for products of enough rows; else as with VNNI
    PAIRS = "dot_i16x8"  # WebAssembly's i32x4.dot_i16x8_s: two products of 16 bits and their sum, exact
    LONG = "smlal"  # one product of 16 bits, widened as it is added: NEON, and RISC-V's vectors
    SDOT = "sdot"  # four products of signed bytes and their sum, exact
    USDOT = "usdot"  # four products of unsigned and signed bytes and their sum, exact
    TILES = "tiles"  # plain loops in the place of the instructions of AMX: any CPU


@dataclass(frozen=True, kw_only=True)
class VectorUnit:
    """What a schedule must know of a core: register width and number, and cache sizes.

    ``bits``: width of a vector register. ``registers``: how many there are. ``fma``: whether it has a fused
    multiply-add; without, a product needs a register of its own. ``f16c``: whether it converts vectors of
    float16. ``dot``: its multiply-add of 8-bit integers.
    ``l1_bytes``, ``l2_bytes``: data cache of one core.
    """

    bits: int
    registers: int
    fma: bool = True
    f16c: bool = True
    dot: DotProduct = DotProduct.MULTIPLY_ADD
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024

    def lanes(self, dtype: str = "float32") -> int:
        """Elements of ``dtype`` in one register."""
        digits = "".join(c for c in dtype if c.isdigit())
        return self.bits // int(digits or 8)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target: LLVM's triple and CPU, the CPU features that its code needs, its vector unit.

    ``features`` are named as in Linux's /proc/cpuinfo; an artifact is refused on a CPU that lacks one.
    ``llvm_options`` are switches of LLVM's code generator. ``abi``: LLVM's name of the calling
    convention, where the machine has several. ``launcher``: what calls the kernels.
    ``emulator``: the command that runs a program for this target on another machine, with a CPU that has the
    target's features and no later ones.
    """

    name: str
    description: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_unit: VectorUnit
    attributes: tuple[str, ...] = ()
    llvm_options: tuple[str, ...] = ()
    abi: str | None = None
    launcher: Launcher = Launcher.VIRTUAL_MACHINE
    emulator: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
