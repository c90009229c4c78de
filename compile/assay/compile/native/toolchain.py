"""Compile the native runtime with the clang of PyPI's ``ziglang``, which has a libc for every platform."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from assay.compile.cache import BuildCache, installed_versions, key_of
from assay.compile.native.platforms import Platform
from assay.errors import AssayError, MissingDependencyError

__all__ = ["SOURCES", "build_library", "build_program", "naming", "zig_environment"]

SOURCES = Path(__file__).parent
_PROGRAM_ONLY = frozenset({"run.cc", "npy.cc"})
_FLAGS = (
    "-x", "c++", "-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti", "-nostdinc++", "-nostdlib++",
    "-fno-threadsafe-statics", "-Wall", "-Wextra", "-Werror", "-s",
)  # fmt: skip


def naming(platform: Platform, name: str) -> tuple[str, ...]:
    """Options that put ``name`` into a shared library for those who link against it.

    For macOS that is a path, which would be that of the build.
    """
    return (f"-Wl,-install_name,@rpath/{name}",) if platform.system == "macos" else ()


def zig_environment() -> dict[str, str]:
    """The environment of a call of zig.

    zig keeps the libc that it compiled, which takes minutes: in the user's build cache, where it can be found
    and removed.
    """
    folder = str(BuildCache().folder / "zig")
    return os.environ | {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}


def build_program(platform: Platform, *, cache: Path | None = None) -> Path:
    """The program ``assay-run`` for ``platform``, from the build cache where it was compiled before.

    The first one for a platform takes a minute: zig compiles the libc too. Raises MissingDependencyError
    without ziglang, and AssayError with the compiler's message.
    """
    static = ("-static",) if platform.system == "linux" else ()
    names = sorted(path.name for path in SOURCES.glob("*.cc"))
    return _built(platform.program_name, platform.program_triple, names, static, cache)


def build_library(platform: Platform, *, cache: Path | None = None) -> Path:
    """The shared library with the functions of ``assay.h``; raises what ``build_program`` does."""
    names = sorted(path.name for path in SOURCES.glob("*.cc") if path.name not in _PROGRAM_ONLY)
    options: tuple[str, ...] = ("-shared", "-fPIC", "-fvisibility=hidden", "-DASSAY_LIBRARY")
    options += naming(platform, platform.library_name)
    return _built(platform.library_name, platform.library_triple, names, options, cache)


def _built(
    name: str, triple: str, sources: Sequence[str], options: Sequence[str], cache: Path | None
) -> Path:
    store = BuildCache(cache)
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(SOURCES.iterdir())
        if path.suffix in (".cc", ".h")
    }
    key = key_of(
        [name, triple, list(sources), list(options), _FLAGS, digests, installed_versions(("ziglang",))]
    )
    with store.locked("native", key) as entry:
        made = entry / name
        if not made.is_file():
            entry.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=entry) as scratch:
                paths = [SOURCES / source for source in sources]
                _compile(paths, triple, options, Path(scratch) / name)
                # For Windows there is an import library too, which zig names after a source.
                for each in Path(scratch).glob("*.lib"):
                    each.replace(made.with_suffix(".lib"))
                (Path(scratch) / name).replace(made)
        return made


def _compile(sources: Sequence[Path], triple: str, options: Sequence[str], output: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, *_FLAGS, *options]
    command += ["-o", str(output), *map(str, sources)]
    environment = zig_environment()
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "No module named ziglang" in result.stderr:
        raise MissingDependencyError("ziglang", "compile")
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        errors = [line for line in lines if "error:" in line] or lines[-3:]
        reason = " ".join(errors)[-400:] or f"status {result.returncode} and no message"
        raise AssayError(f"The native runtime cannot be compiled for {triple}: {reason}")
