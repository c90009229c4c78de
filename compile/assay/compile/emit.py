"""From compiled code to one shared library, linked with LLD against nothing; the same bytes every time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.compile.native.platforms import Platform, platform_of
from assay.compile.native.toolchain import SOURCES, naming, zig_environment
from assay.compile.targets.target import Launcher, Target
from assay.compile.tvm_import import import_tvm
from assay.errors import AssayError, MissingDependencyError, StorageError

__all__ = ["emit_kernels", "emit_library", "link_for_system", "link_library", "runtime_library"]

# Several times what the object files and the library of a large model take.
_ROOM_BYTES = 16 << 20
# LLD's name of the emulation, by the first part of the triple.
_EMULATIONS = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux", "riscv64": "elf64lriscv"}


def emit_library(executable: Any, target: Target, folder: Path) -> Path:
    """Write ``model.so`` into ``folder``.

    What it needs (libm, TVM's runtime) is found in the process that loads it, so it depends on no libc
    version. Raises MissingDependencyError where the linker is not installed, StorageError where there is
    no room, and AssayError with the linker's message.
    """

    def link(output: str, objects: list[str], options: Any = None, **_: Any) -> None:
        link_library([Path(each) for each in objects], target, Path(output))

    link.object_format = "o"  # type: ignore[attr-defined]
    library = folder / "model.so"
    with _scratch(folder) as scratch:
        executable.export_library(str(library), fcompile=link, workspace_dir=str(scratch))
    return library


def emit_kernels(module: Any, names: Sequence[str], target: Target, folder: Path) -> Path:
    """Write the kernels of TVM's LLVM ``module`` that a launch plan calls as a library into ``folder``.

    It is ``model.so``, ``model.dylib`` or ``model.dll``; for WebAssembly ``model.wasm``, which exports the
    kernels called ``names``. Raises what ``emit_library`` does, and UnsupportedOperatorError for a function
    that WebAssembly lacks.
    """
    if target.launcher is Launcher.WASM:
        from assay.compile.emit_wasm import emit_wasm

        with _scratch(folder):
            return emit_wasm(module, names, folder / "model.wasm")
    platform = platform_of(target.triple)
    suffix = ".so" if platform is None else platform.library_suffix
    library = folder / f"model{suffix}"
    with _scratch(folder) as scratch:
        module.write_to_file(str(scratch / "kernels.o"), "o")
        if platform is None or platform.system == "linux":
            link_library([scratch / "kernels.o"], target, library)
        else:
            link_for_system([scratch / "kernels.o"], platform, library)
    return library


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for object files; what goes wrong in writing them becomes StorageError."""
    try:
        _ensure_room(folder)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise StorageError(
            f"The library cannot be written to {folder}: {error.strerror or error}."
        ) from error


def _ensure_room(folder: Path) -> None:
    """Raise OSError where there is no room: LLVM ends the process when it cannot write an object file."""
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def link_library(objects: Sequence[Path], target: Target, output: Path) -> None:
    """Link ``objects`` into the shared library ``output``. Raises what ``emit_library`` does."""
    emulation = _EMULATIONS[target.triple.partition("-")[0]]
    command = [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-m", emulation]
    command += ["--build-id=none", "--strip-debug", "-z", "noexecstack", "-o", str(output)]
    command += [str(each) for each in objects]
    _link(command, output, dict(os.environ))


def link_for_system(objects: Sequence[Path], platform: Platform, output: Path) -> None:
    """Link ``objects`` into a library for macOS or Windows, with what the system has of C.

    Raises what ``emit_library`` does.
    """
    command = [sys.executable, "-m", "ziglang", "cc", "-target", platform.library_triple, "-shared", "-s"]
    command += ["-O2", *naming(platform, output.name)]
    command += ["-o", str(output), *map(str, objects), str(SOURCES / "kernels_host.c")]
    _link(command, output, zig_environment())


def _link(command: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "No module named ziglang" in result.stderr:
        raise MissingDependencyError("ziglang", "compile")
    if result.returncode:
        raise _failure(output.name, result)


def _failure(output: str, result: subprocess.CompletedProcess[str]) -> AssayError:
    """What went wrong in the linker: no room for the library, or anything else."""
    reason = result.stderr.strip()[-400:] or f"it ended with status {result.returncode} and no message"
    # LLD maps its output: where the file system has no room, or a limit is reached, it is ended by a signal.
    no_room = result.returncode in (-signal.SIGXFSZ, -signal.SIGBUS) or any(
        os.strerror(number) in reason for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )
    if no_room:
        return StorageError(
            f"The linker cannot write {output}: {reason}.",
            hint="Free some room on the disk, or choose another folder with --cache.",
        )
    return AssayError(f"The linker failed: {reason}")


def runtime_library() -> Path:
    """The libtvm_runtime that the library needs at run time, from the installed apache-tvm."""
    tvm = import_tvm()
    return Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so"
