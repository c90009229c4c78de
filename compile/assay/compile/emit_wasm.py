"""From kernels to one WebAssembly module, linked with LLD against nothing; the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from assay.errors import AssayError, MissingDependencyError, UnsupportedOperatorError
from assay.runtime.drivers.wasm_module import IMPORTED, PREFIX

__all__ = ["emit_wasm", "link_wasm"]

# Kernels keep their accumulators in locals; what they spill is far less than this.
_STACK_BYTES = 1 << 20


def emit_wasm(library: Any, kernels: Iterable[str], path: Path) -> Path:
    """Write TVM's LLVM module ``library`` to ``path`` as a WebAssembly module that exports ``kernels``.

    It exports its memory, the table of its functions and ``__heap_base`` too. Raises what ``link_wasm`` does.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        compiled = Path(scratch) / "kernels.o"
        library.write_to_file(str(compiled), "o")
        return link_wasm([compiled], [f"{PREFIX}{name}" for name in kernels], path)


def link_wasm(objects: Sequence[Path], exports: Sequence[str], path: Path) -> Path:
    """Link ``objects`` into ``path``.

    Raises MissingDependencyError where the linker is not installed, UnsupportedOperatorError for a function
    that no host has, and AssayError with the linker's message.
    """
    known = path.with_suffix(".imports")
    known.write_text("\n".join(IMPORTED))
    command = [sys.executable, "-m", "ziglang", "wasm-ld", "--no-entry", "--strip-all", "--stack-first"]
    command += ["-z", f"stack-size={_STACK_BYTES}", f"--allow-undefined-file={known}", "--export-table"]
    # Where it is exported, the linker does not have every export run the constructors.
    command += [
        "--export=__wasm_call_ctors",
        "--export=__heap_base",
        *(f"--export={name}" for name in exports),
    ]
    command += ["-o", str(path), *map(str, objects)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        known.unlink()
    if "No module named ziglang" in result.stderr:
        raise MissingDependencyError("ziglang", "compile")
    if result.returncode:
        raise _failure(result)
    return path


def _failure(result: subprocess.CompletedProcess[str]) -> AssayError:
    missing = sorted(set(re.findall(r"undefined symbol: (\S+)", result.stderr)))
    if missing:
        return UnsupportedOperatorError(
            f"WebAssembly has no {', '.join(missing)}, which a kernel of this model calls.",
            hint="Build the model for another target.",
        )
    reason = result.stderr.strip()[-400:] or f"it ended with status {result.returncode} and no message"
    return AssayError(f"The linker failed: {reason}")
