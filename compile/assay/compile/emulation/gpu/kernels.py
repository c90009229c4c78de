"""Kernels in CUDA C++ or the Metal Shading Language as a library for the CPU.

Loops, indices, barriers and exchanges between lanes are those of the source; what a device's own compiler
makes of it is not seen. `include/fibers.hpp` says how a block runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

from assay.errors import EmulatorError, MissingDependencyError

__all__ = ["EmulatedKernels", "KernelArgument", "Language"]

_INCLUDE: Final = Path(__file__).parent / "include"
_MAXIMUM_OUTPUT = 1500
# Shared memory is static: one block runs at a time.
_METAL_SHARED = re.compile(
    r"^(\s*(?:alignas\(\d+\) )?)threadgroup (?=[\w:<>, ]+ \w+\[[^\]]*\];)", re.MULTILINE
)
_METAL_HALF = re.compile(r"\b(\d+\.\d+e[+-]\d+)h\b")  # C++ has no such suffix
_CUDA_SHARED = re.compile(r"(?<!extern )__shared__ (alignas\(\d+\) )?")
_CUDA_DYNAMIC = re.compile(r"extern __shared__ (?:(?:alignas|__align__)\(\d+\) )?(\w+) (\w+)\[\];")
_FAILURES = {1: "a block has more than 1024 threads", 2: "there is no memory for the threads' stacks"}
KernelArgument: TypeAlias = (
    ctypes.c_void_p | ctypes.c_int32 | ctypes.c_uint32 | ctypes.c_int64 | ctypes.Array[Any]
)
"""A pointer to a buffer, a scalar, or (Metal) the bytes of a structure of scalars."""
_lock = threading.Lock()


class Language(StrEnum):
    """What kernels are written in."""

    CUDA = "cuda"
    METAL = "metal"


class EmulatedKernels:
    """The kernels of one source, compiled for this CPU.

    ``warp_size``: lanes that exchange values. Raises EmulatorError, with the compiler's message, where the
    source uses what the headers lack, and MissingDependencyError without a C++ compiler (ziglang).
    """

    def __init__(
        self, source: str, kernels: Sequence[str], language: Language, folder: Path, *, warp_size: int = 32
    ) -> None:
        text = _translated(source, kernels, language)
        name = hashlib.sha256(f"{warp_size}\n{text}\n{_headers_digest()}".encode()).hexdigest()[:32]
        self.path = folder / f"{name}.so"
        if not self.path.is_file():
            _compile(text, language, warp_size, self.path)
        self._library = ctypes.CDLL(str(self.path))
        self.names = tuple(kernels)

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[KernelArgument],
        *,
        reverse: bool = False,
    ) -> None:
        """Run ``kernel``; ``reverse``: resume threads in the opposite order.

        Raises EmulatorError where it cannot run.
        """
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        function = self._library[f"assay_launch_{kernel}"]
        function.restype = ctypes.c_int
        triple = ctypes.c_uint * 3
        with _lock:
            status = function(addresses, triple(*grid), triple(*block), int(reverse))
        if status:
            raise EmulatorError(f"The kernel {kernel} cannot run: {_FAILURES[status]}.")


def _translated(source: str, kernels: Sequence[str], language: Language) -> str:
    """C++ for the CPU: shared memory made static, and a function for each kernel that launches it."""
    if language is Language.METAL:
        source = _METAL_SHARED.sub(r"\1static ASSAY_SHARED ", source)
        source = _METAL_HALF.sub(r"half(\1f)", source)
    else:
        source = _CUDA_DYNAMIC.sub(r"\1* const \2 = reinterpret_cast<\1*>(assay::dynamic_shared);", source)
        source = _CUDA_SHARED.sub(lambda match: f"{match[1] or ''}static ASSAY_SHARED ", source)
    launchers = [
        f'extern "C" int assay_launch_{name}(void** arguments, const unsigned* grid, const unsigned* block,'
        f" int reverse) {{ return assay::run_grid(assay::run<&{name}>, arguments, grid, block, reverse); }}"
        for name in kernels
    ]
    return "\n".join((f'#include "{language}.hpp"', source, *launchers, ""))


def _headers_digest() -> str:
    files = sorted(path for path in _INCLUDE.rglob("*") if path.is_file())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _compile(text: str, language: Language, warp_size: int, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    source = library.with_suffix(".cpp")
    source.write_text(text)
    scratch = library.with_suffix(".part")
    command = [
        *(sys.executable, "-m", "ziglang", "cc", "-x", "c++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC"),
        # Generated kernels exchange variables that only some lanes have set: they get a value, a NaN, where
        # the compiler could otherwise take it that such lanes do not exist.
        "-ftrivial-auto-var-init=pattern",
        *("-fno-exceptions", "-fno-rtti", "-fno-sanitize=all", "-U_FORTIFY_SOURCE", "-ffp-contract=on"),
        *(f"-DASSAY_WARP_SIZE={warp_size}", f"-I{_INCLUDE}", f"-I{_INCLUDE / f'{language}_headers'}"),
        *("-o", str(scratch), str(source), "-lm"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named ziglang" in result.stderr:
        raise MissingDependencyError("ziglang", "compile")
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error:" in line] or [result.stderr]
        raise EmulatorError(
            f"The kernels cannot be compiled for the CPU: {' '.join(errors)[:_MAXIMUM_OUTPUT].strip()}"
        )
    scratch.replace(library)
